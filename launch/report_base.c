// The base model: losses by level.
#include "launch/report_parts.h"
#include "launch/report_svg.h"

#include <math.h>
#include <stdio.h>

enum { LINES_MAX = 32 };

static report_line line_of(const report_series *series, const char *label, int color, report_stroke stroke) {
    return (report_line){label, color, stroke, series->step, series->value, series->count};
}

static void put_base_losses(report_text *out, const report_input *input) {
    const json_t *unigram = json_object_get(input->base_summary, "unigram_entropy");
    char name[REPORT_METRIC_NAME_MAX];
    int levels = 0;
    for (;; levels++) {
        snprintf(name, sizeof name, "eval/loss/level%d", levels);
        if (report_metrics_find(&input->base_metrics, name)->count == 0)
            break;
    }
    if (levels == 0) {
        report_put_missing(out, "There are no held-out losses of the base model (base/metrics.jsonl).");
        return;
    }
    report_text_put(out,
                    "<div class=\"scroll\"><table><thead><tr><th>nats per token</th><th>held-out loss</th>"
                    "<th>unigram entropy</th><th>below it by</th></tr></thead><tbody>");
    for (int level = 0; level < levels; level++) {
        snprintf(name, sizeof name, "eval/loss/level%d", level);
        const double loss = report_series_last(report_metrics_find(&input->base_metrics, name));
        const json_t *value = json_array_get(unigram, (size_t)level);
        const double entropy = json_is_number(value) ? json_number_value(value) : NAN;
        report_text_put(out, "<tr><td>level %d%s</td>", level, level == 0 ? ", semantic" : "");
        report_put_cell(out, loss);
        report_put_cell(out, entropy);
        report_put_cell(out, entropy - loss);
        report_text_put(out, "</tr>");
    }
    report_text_put(out, "</tbody></table></div>\n");
    if (unigram == NULL)
        report_put_missing(out, "The unigram entropies are not known (base/summary.json).");
}

void report_put_base(report_text *out, const report_input *input) {
    const report_metrics *m = &input->base_metrics;
    const json_t *unigram = json_object_get(input->base_summary, "unigram_entropy");
    report_text_put(out, "<h2>Base model</h2>\n");
    if (!m->found) {
        report_put_missing(out, "There are no metrics of the base model (base/metrics.jsonl).");
        return;
    }
    static char labels[LINES_MAX][64];
    double entropies[LINES_MAX];
    report_line lines[LINES_MAX];
    int count = 0;
    const char *entropy_label = NULL; // one entry stands for all
    for (int level = 0; count + 3 <= LINES_MAX; level++) {
        char name[REPORT_METRIC_NAME_MAX];
        snprintf(name, sizeof name, "loss/level%d", level);
        const report_series *training = report_metrics_find(m, name);
        snprintf(name, sizeof name, "eval/loss/level%d", level);
        const report_series *held_out = report_metrics_find(m, name);
        if (training->count == 0 && held_out->count == 0)
            break;
        const int color = level % REPORT_COLORS;
        snprintf(labels[count], sizeof labels[count], "level %d%s", level, level == 0 ? ", semantic" : "");
        const char *label = labels[count];
        lines[count++] = line_of(training, held_out->count == 0 ? label : NULL, color, REPORT_STROKE_FAINT);
        lines[count++] = line_of(held_out, label, color, REPORT_STROKE_LINE);
        const json_t *entropy = json_array_get(unigram, (size_t)level);
        if (json_is_number(entropy)) {
            entropies[count] = json_number_value(entropy);
            lines[count] = (report_line){NULL, color, REPORT_STROKE_LEVEL, NULL, &entropies[count], 1};
            count++;
        }
    }
    for (int i = count - 1; i >= 0 && entropy_label == NULL; i--)
        if (lines[i].stroke == REPORT_STROKE_LEVEL)
            entropy_label = lines[i].label = "unigram entropy, colour by level";
    report_text_put(out, "<div class=\"charts\">\n");
    report_svg_chart(out, &(report_chart){"Loss by level: held out (marked) and training (pale)", "step",
                                          "nats per token", lines, count});
    report_text_put(out, "<div>\n");
    put_base_losses(out, input);
    report_text_put(out, "</div></div>\n");
}
