// The reward models: accuracy beside chance and ceiling, calibration, ablations, learning curves.
#include "launch/report_bars.h"
#include "launch/report_parts.h"
#include "launch/report_plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BARS_MAX = 24, POINTS_MAX = 64 };

static report_bar bar_of(const char *name, const json_t *accuracy, double start, double paper, int color) {
    return (report_bar){name,
                        start,
                        report_json_number(accuracy, "mean"),
                        report_json_number(accuracy, "low"),
                        report_json_number(accuracy, "high"),
                        paper,
                        color};
}

static void put_accuracies(report_text *out, const char *title, const report_bar *rows, int count,
                           double ceiling) {
    report_bars_put(out,
                    &(report_bars){.title = title,
                                   .interval = "95 % interval",
                                   .rows = rows,
                                   .count = count,
                                   .scale = 100,
                                   .suffix = " %",
                                   .decimals = 1,
                                   .levels = {0.5, ceiling},
                                   .level_labels = {"chance", "ceiling: no model can be right more often"}});
}

// Predicted against observed, with the diagonal on which a calibrated model lies.
static status put_calibration(report_text *out, const json_t *points, const char *title, const char *x_label,
                              const char *y_label, int color) {
    double x[POINTS_MAX], y[POINTS_MAX], ends[2] = {INFINITY, -INFINITY};
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(points) && count < POINTS_MAX; i++) {
        const json_t *point = json_array_get(points, i);
        x[count] = report_json_number(point, "predicted");
        y[count] = report_json_number(point, "observed");
        if (isnan(x[count]) || isnan(y[count]) || report_json_number(point, "count") == 0)
            continue;
        ends[0] = fmin(ends[0], fmin(x[count], y[count]));
        ends[1] = fmax(ends[1], fmax(x[count], y[count]));
        count++;
    }
    if (count == 0)
        return STATUS_OK;
    report_plot plot = {0};
    report_plot_add(&plot, "perfect calibration", REPORT_COLOR_NEUTRAL, REPORT_STROKE_DASHED, ends, ends, 2);
    report_plot_add(&plot, "held-out captions", color, REPORT_STROKE_LINE, x, y, count);
    return report_plot_finish(out, &plot, title, x_label, y_label);
}

// Loss, or accuracy, of training and of held-out captions against step.
static status put_curve(report_text *out, const report_metrics *m, const char *name, const char *title,
                        const char *unit) {
    char held_out[REPORT_METRIC_NAME_MAX];
    snprintf(held_out, sizeof held_out, "eval/%s", name);
    report_plot plot = {0};
    report_plot_add_smooth(&plot, "training", REPORT_COLOR_NEUTRAL, report_metrics_find(m, name));
    report_plot_add_series(&plot, "held out", 2, REPORT_STROKE_LINE, report_metrics_find(m, held_out));
    return report_plot_finish(out, &plot, title, "step", unit);
}

// "0.830 [0.800, 0.860]" for {"mean", "low", "high"}; nothing if there is no mean.
static void put_interval(report_text *out, const char *name, const json_t *interval) {
    const double low = report_json_number(interval, "low"), high = report_json_number(interval, "high");
    if (isnan(report_json_number(interval, "mean")))
        return;
    report_text_put(out, "<div><dt>%s</dt><dd>", name);
    report_text_put_number(out, report_json_number(interval, "mean"));
    if (!isnan(low) && !isnan(high)) {
        report_text_put(out, " [");
        report_text_put_number(out, low);
        report_text_put(out, ", ");
        report_text_put_number(out, high);
        report_text_put(out, "]");
    }
    report_text_put(out, "</dd></div>");
}

static void put_summary(report_text *out, const json_t *quality, const json_t *preference) {
    report_text_put(out, "<dl>");
    put_interval(out, "quality: Spearman correlation", json_object_get(quality, "spearman"));
    report_put_fact(out, "quality: held-out clips", NULL, report_json_number(quality, "clips"));
    put_interval(out, "preference: accuracy", json_object_get(preference, "accuracy"));
    report_put_fact(out, "preference: ceiling of any model", NULL, report_json_number(preference, "ceiling"));
    report_put_fact(out, "two listeners agree", NULL, report_json_number(preference, "agreement"));
    report_put_fact(out, "preference: calibration error", NULL, report_json_number(preference, "ece"));
    report_put_fact(out, "preference: held-out pairs", NULL, report_json_number(preference, "pairs"));
    report_put_fact(out, "preference: step that serves", NULL, report_json_number(preference, "step"));
    report_text_put(out, "</dl>\n");
}

static void put_baselines(report_text *out, const json_t *preference) {
    const json_t *baselines = json_object_get(preference, "baselines");
    static char names[BARS_MAX][REPORT_NAME_MAX];
    report_bar rows[BARS_MAX];
    int count = 0;
    rows[count++] = bar_of("started from the policy", json_object_get(preference, "accuracy"), 0.5, NAN, 0);
    for (size_t i = 0; i < json_array_size(baselines) && count < BARS_MAX; i++) {
        const json_t *baseline = json_array_get(baselines, i);
        const char *name = report_json_text(baseline, "name");
        if (name == NULL)
            continue;
        snprintf(names[count], sizeof names[count], "%s", name);
        for (char *c = names[count]; *c != '\0'; c++)
            *c = *c == '_' ? ' ' : *c;
        rows[count] =
            bar_of(names[count], json_object_get(baseline, "accuracy"), 0.5, NAN, REPORT_COLOR_NEUTRAL);
        count++;
    }
    put_accuracies(out, "Preference model: accuracy on held-out pairs, beside its rivals", rows, count,
                   report_json_number(preference, "ceiling"));
}

static void put_ablation(report_text *out, const json_t *ablation) {
    const json_t *all = json_object_get(ablation, "rows");
    static char names[BARS_MAX][REPORT_NAME_MAX];
    report_bar rows[BARS_MAX];
    int count = 0;
    const double chance = report_json_number(ablation, "chance");
    for (size_t i = 0; i < json_array_size(all) && count < BARS_MAX; i++) {
        const json_t *row = json_array_get(all, i);
        const char *name = report_json_text(row, "name");
        if (name == NULL)
            continue;
        snprintf(names[count], sizeof names[count], "%s", name);
        for (char *c = names[count]; *c != '\0'; c++)
            *c = *c == '_' ? ' ' : *c;
        rows[count] = bar_of(names[count], json_object_get(row, "accuracy"), isnan(chance) ? 0.5 : chance,
                             report_json_number(row, "paper"), 0);
        count++;
    }
    report_text_put(out, "<h3>Ablations</h3>\n");
    if (count == 0)
        report_put_missing(out, "The preference model was not ablated yet (ablation.json).");
    else
        put_accuracies(out, "What the preference model needs: accuracy on held-out pairs", rows, count,
                       report_json_number(ablation, "ceiling"));
}

status report_put_rewards(report_text *out, const report_input *in) {
    const json_t *quality = json_object_get(in->reward, "quality"),
                 *preference = json_object_get(in->reward, "preference");
    if (in->reward == NULL && in->ablation == NULL && !in->quality_metrics.found &&
        !in->preference_metrics.found)
        return STATUS_OK; // a run without learnt rewards
    report_text_put(out, "<h2>Reward models</h2>\n");
    if (json_is_true(json_object_get(in->reward, "simulated")))
        report_text_put(out, "<p class=\"caution\"><b>Simulated listeners</b> gave the ratings that these "
                             "models learn and are measured on.</p>\n");
    if (in->reward == NULL)
        report_put_missing(out, "The reward models were not measured yet (reward.json).");
    else
        put_summary(out, quality, preference);
    put_baselines(out, preference);
    report_text_put(out, "<div class=\"charts\">\n");
    TRY(put_calibration(out, json_object_get(preference, "calibration"), "Preference model: calibration",
                        "predicted probability of the vote", "observed share", 0));
    TRY(put_calibration(out, json_object_get(quality, "calibration"), "Quality model: calibration",
                        "predicted score", "mean rating", 5));
    TRY(put_curve(out, &in->preference_metrics, "loss", "Preference model: loss", "nats a pair"));
    TRY(put_curve(out, &in->preference_metrics, "accuracy", "Preference model: accuracy", "share of pairs"));
    TRY(put_curve(out, &in->quality_metrics, "loss", "Quality model: loss", "squared error"));
    report_text_put(out, "</div>\n");
    put_ablation(out, in->ablation);
    return STATUS_OK;
}
