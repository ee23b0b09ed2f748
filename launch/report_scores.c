// Every run's automatic scores, whatever it was trained on: against KL, and against step.
#include "launch/report_parts.h"
#include "launch/report_plot.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCORES_MAX = 8 };
static const char score_prefix[] = "eval/reward/";

// Names of the scores that any run has, those of the paper first.
static int list_scores(const report_input *in, const char **names) {
    static const char *const known[] = {"text_adherence", "quality", "preference"};
    int count = 0;
    for (int pass = 0; pass < 4; pass++) // one for each known name, one for all others
        for (int r = 0; r < in->run_count; r++)
            for (int i = 0; i < in->runs[r]->metrics.count && count < SCORES_MAX; i++) {
                const char *series = in->runs[r]->metrics.series[i]->name;
                if (strncmp(series, score_prefix, strlen(score_prefix)) != 0)
                    continue;
                const char *name = series + strlen(score_prefix);
                int listed = 0;
                for (int k = 0; k < count; k++)
                    listed |= strcmp(names[k], name) == 0;
                if (!listed && (pass == 3 || strcmp(known[pass], name) == 0))
                    names[count++] = name;
            }
    return count;
}

// One run's score: up to the checkpoint that serves as a line, past it dashed, and a ring around it.
static void add_run(report_plot *plot, const report_run *run, const report_series *score, int against_kl) {
    const report_series *held_out = report_metrics_find(&run->metrics, "eval/kl_ref");
    const report_series *kl = held_out->count > 0 ? held_out : report_metrics_find(&run->metrics, "kl_ref");
    const double selected = report_json_number(run->selected, "step");
    const char *label = report_model_name(run->name);
    const int color = report_model_color(run->name);
    double *x;
    if (score->count == 0 || plot->outcome != STATUS_OK)
        return;
    plot->outcome = memory_allocate((void **)&x, score->count * sizeof *x, "points of a chart");
    if (plot->outcome != STATUS_OK)
        return;
    size_t until = 0; // points up to the selected one
    for (size_t i = 0; i < score->count; i++) {
        x[i] = against_kl ? report_series_at(kl, score->step[i], 0) : score->step[i];
        if (isnan(selected) || score->step[i] <= selected)
            until = i + 1;
    }
    report_plot_add(plot, label, color, REPORT_STROKE_LINE, x, score->value, until);
    if (until > 0 && until < score->count)
        report_plot_add(plot, NULL, color, REPORT_STROKE_DASHED, x + until - 1, score->value + until - 1,
                        score->count - until + 1);
    if (until > 0 && !isnan(selected))
        report_plot_add(plot, NULL, color, REPORT_STROKE_RINGS, x + until - 1, score->value + until - 1, 1);
    memory_free(x);
}

static status put_charts(report_text *out, const report_input *in, const char *const *names, int count,
                         int against_kl) {
    report_plot plot = {0};
    report_text_put(out, "<div class=\"charts three\">\n");
    for (int s = 0; s < count; s++) {
        char series[REPORT_METRIC_NAME_MAX + 16], title[128];
        snprintf(series, sizeof series, "%s%s", score_prefix, names[s]);
        for (int r = 0; r < in->run_count; r++)
            add_run(&plot, in->runs[r], report_metrics_find(&in->runs[r]->metrics, series), against_kl);
        snprintf(title, sizeof title, "%s against %s", names[s], against_kl ? "KL" : "step");
        for (char *c = title; *c != '\0'; c++)
            *c = *c == '_' ? ' ' : *c;
        title[0] = (char)(title[0] >= 'a' && title[0] <= 'z' ? title[0] - 'a' + 'A' : title[0]);
        TRY(report_plot_finish(out, &plot, title,
                               against_kl ? "KL to the reference, nats a sequence" : "step",
                               "score, held-out captions"));
    }
    report_text_put(out, "</div>\n");
    return STATUS_OK;
}

// Which scores are lower at the end than at the checkpoint that serves, run by run.
static void put_falls(report_text *out, const report_input *in, const char *const *names, int count) {
    int open = 0;
    for (int r = 0; r < in->run_count; r++) {
        const report_run *run = in->runs[r];
        const double selected = report_json_number(run->selected, "step");
        int listed = 0;
        for (int s = 0; s < count && !isnan(selected); s++) {
            char name[REPORT_METRIC_NAME_MAX + 16];
            snprintf(name, sizeof name, "%s%s", score_prefix, names[s]);
            const report_series *score = report_metrics_find(&run->metrics, name);
            const double at = report_series_at(score, selected, NAN), last = report_series_last(score);
            if (score->count == 0 || score->step[score->count - 1] <= selected || !(last < at))
                continue;
            if (!open++)
                report_text_put(out, "<p>Lower at the end of training than at the ringed checkpoint:</p>\n"
                                     "<ul class=\"falls\">");
            if (!listed++) {
                report_text_put(out, "<li>");
                if (run->name[0] != '\0') { // one of several
                    report_text_put(out, "<b>");
                    report_text_put_escaped(out, report_model_name(run->name));
                    report_text_put(out, "</b>, ");
                }
                report_text_put(out, "step %.0f to %.0f: ", selected, score->step[score->count - 1]);
            } else {
                report_text_put(out, "; ");
            }
            report_put_words(out, names[s]);
            report_text_put(out, " ");
            report_text_put_number(out, at);
            report_text_put(out, " to ");
            report_text_put_number(out, last);
        }
        if (listed)
            report_text_put(out, "</li>");
    }
    if (open)
        report_text_put(out, "</ul>\n");
}

status report_put_scores(report_text *out, const report_input *in) {
    const char *names[SCORES_MAX];
    const int count = list_scores(in, names);
    report_text_put(out, "<h2>Scores</h2>\n");
    if (count == 0) {
        report_put_missing(out, "No run has scores on held-out captions yet (eval/reward/NAME in its "
                                "metrics.jsonl).");
        return STATUS_OK;
    }
    report_text_put(out,
                    "<p>All automatic scores of every run, whatever it was trained on. The ring marks the "
                    "checkpoint that serves; what lies past it is dashed, and shows over-optimisation where "
                    "a score falls.</p>\n<h3>Against KL</h3>\n");
    TRY(put_charts(out, in, names, count, 1));
    report_text_put(out, "<h3>Against step</h3>\n");
    TRY(put_charts(out, in, names, count, 0));
    put_falls(out, in, names, count);
    return STATUS_OK;
}
