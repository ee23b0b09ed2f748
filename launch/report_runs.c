// All runs beside one another: what they are, how they learnt, what alarms were raised.
#include "launch/progress.h"
#include "launch/report_parts.h"
#include "launch/report_plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ALARMS_MAX = 32 };
static const char alarm_prefix[] = "alarm/";

static void put_rewards(report_text *out, const run_config *config) {
    int count = 0;
    for (int i = 0; config != NULL && i < config->train.rewards.count; i++) {
        if (config->train.rewards.entries[i].weight == 0)
            continue; // logged, not learnt from
        report_text_put(out, "%s", count++ > 0 ? ", " : "");
        report_put_words(out, config->train.rewards.entries[i].name);
    }
    if (count == 0)
        report_text_put(out, "&ndash;");
}

static void put_run_row(report_text *out, const report_run *run) {
    const report_metrics *m = &run->metrics;
    const report_series *kl = report_metrics_find(m, "kl_ref");
    const double selected = report_json_number(run->selected, "step");
    char took[64];
    progress_format_duration(took, sizeof took, report_metrics_seconds(m));
    report_text_put(out, "<tr><td><b>");
    report_text_put_escaped(out, report_model_name(run->name));
    report_text_put(out, "</b></td><td class=\"words\">");
    put_rewards(out, run->config);
    report_text_put(out, "</td>");
    report_put_cell(out, run->config == NULL ? NAN : run->config->train.alpha);
    report_put_cell(out, report_metrics_last_step(m));
    report_put_cell(out, selected);
    report_put_cell(out, report_series_at(kl, 1.0, NAN));
    report_put_cell(out, isnan(selected) ? report_series_last(kl) : report_series_at(kl, selected, NAN));
    report_put_cell(out, report_series_greatest(report_metrics_find(m, "logprob_gap_max")));
    report_put_cell(out, report_series_greatest(report_metrics_find(m, "skipped_updates")));
    report_text_put(out, "<td>%s</td></tr>", took);
}

static void put_table(report_text *out, const report_input *in) {
    report_text_put(out, "<div class=\"scroll\"><table><thead><tr><th>run</th><th class=\"words\">learns from"
                         "</th><th>alpha</th><th>steps</th><th>step that serves</th><th>KL, first step</th>"
                         "<th>KL, step that serves</th><th>largest gap of log-probs</th><th>skipped updates"
                         "</th><th>time</th></tr></thead><tbody>");
    for (int r = 0; r < in->run_count; r++)
        put_run_row(out, in->runs[r]);
    report_text_put(out, "</tbody></table></div>\n");
    const char *rule = NULL;
    for (int r = 0; r < in->run_count && rule == NULL; r++)
        rule = report_json_text(in->runs[r]->selected, "rule");
    if (rule != NULL) {
        report_text_put(out, "<p>The step that serves: ");
        report_text_put_escaped(out, rule);
        report_text_put(out, "</p>\n");
    }
}

static status put_metric(report_text *out, const report_input *in, const char *name, const char *title,
                         const char *unit) {
    report_plot plot = {0};
    for (int r = 0; r < in->run_count; r++)
        report_plot_add_smooth(&plot, report_model_name(in->runs[r]->name),
                               report_model_color(in->runs[r]->name),
                               report_metrics_find(&in->runs[r]->metrics, name));
    return report_plot_finish(out, &plot, title, "step", unit);
}

static status put_diversity(report_text *out, const report_input *in) {
    report_plot plot = {0};
    double start = NAN;
    for (int r = 0; r < in->run_count; r++) {
        const report_series *series = report_metrics_find(&in->runs[r]->metrics, "eval/diversity");
        report_plot_add_series(&plot, report_model_name(in->runs[r]->name),
                               report_model_color(in->runs[r]->name), REPORT_STROKE_LINE, series);
        if (isnan(start) && series->count > 0)
            start = series->value[0];
    }
    if (!isnan(start))
        report_plot_add_level(&plot, "90 % of the base's", 7, 0.9 * start);
    return report_plot_finish(out, &plot, "Diversity on held-out captions", "step", "diversity");
}

// Names of the alarms that any run watches.
static int list_alarms(const report_input *in, const char **names) {
    int count = 0;
    for (int r = 0; r < in->run_count; r++)
        for (int i = 0; i < in->runs[r]->metrics.count && count < ALARMS_MAX; i++) {
            const char *name = in->runs[r]->metrics.series[i]->name;
            int listed = strncmp(name, alarm_prefix, strlen(alarm_prefix)) != 0;
            for (int k = 0; k < count && !listed; k++)
                listed = strcmp(names[k], name) == 0;
            if (!listed)
                names[count++] = name;
        }
    return count;
}

static status put_alarms(report_text *out, const report_input *in) {
    const char *names[ALARMS_MAX], *quiet[ALARMS_MAX];
    const int count = list_alarms(in, names);
    int quiet_count = 0;
    report_text_put(out, "<h3>Alarms</h3>\n");
    if (count == 0) {
        report_put_missing(out, "The runs recorded no alarms (alarm/NAME in metrics.jsonl).");
        return STATUS_OK;
    }
    report_text_put(out, "<div class=\"charts three\">\n");
    for (int a = 0; a < count; a++) {
        double greatest = 0;
        for (int r = 0; r < in->run_count; r++)
            greatest =
                fmax(greatest, report_series_greatest(report_metrics_find(&in->runs[r]->metrics, names[a])));
        if (greatest <= 0) {
            quiet[quiet_count++] = names[a];
            continue;
        }
        char title[REPORT_METRIC_NAME_MAX];
        snprintf(title, sizeof title, "%s", names[a] + strlen(alarm_prefix));
        for (char *c = title; *c != '\0'; c++)
            *c = *c == '_' ? ' ' : *c;
        TRY(put_metric(out, in, names[a], title, "share"));
    }
    report_text_put(out, "</div>\n");
    if (quiet_count == 0)
        return STATUS_OK;
    report_text_put(
        out, "<p>%s: ", quiet_count == count ? "Watched at every step, and never raised" : "Never raised");
    for (int a = 0; a < quiet_count; a++) {
        report_text_put(out, "%s", a > 0 ? ", " : "");
        report_put_words(out, quiet[a] + strlen(alarm_prefix));
    }
    report_text_put(out, ".</p>\n");
    return STATUS_OK;
}

status report_put_runs(report_text *out, const report_input *in) {
    report_text_put(out, "<h2>Reinforcement learning</h2>\n");
    put_table(out, in);
    report_text_put(out, "<div class=\"charts\">\n");
    TRY(put_metric(out, in, "reward", "Reward that each run learns from",
                   "mean of a batch, in its own unit"));
    TRY(put_metric(out, in, "kl_ref", "KL to the reference", "nats a sequence"));
    TRY(put_metric(out, in, "entropy", "Entropy of the policy", "nats a token"));
    TRY(put_diversity(out, in));
    TRY(put_metric(out, in, "explained_variance", "Explained variance of the value network", "share"));
    TRY(put_metric(out, in, "grad_norm", "Norm of the policy's gradient, before clipping", "norm"));
    report_text_put(out, "</div>\n");
    return put_alarms(out, in);
}
