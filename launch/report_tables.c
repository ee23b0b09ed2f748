#include "launch/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { COLUMNS_MAX = 12 };

void report_put_missing(report_text *out, const char *sentence) {
    report_text_put(out, "<p class=\"missing\">%s</p>\n", sentence);
}

void report_put_words(report_text *out, const char *name) {
    char words[128];
    snprintf(words, sizeof words, "%s", name);
    for (char *c = words; *c != '\0'; c++)
        if (*c == '_')
            *c = ' ';
    report_text_put_escaped(out, words);
}

double report_json_number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void put_cell(report_text *out, double value) {
    report_text_put(out, "<td>");
    report_text_put_number(out, value);
    report_text_put(out, "</td>");
}

static void put_signed(report_text *out, double value) {
    if (value > 0)
        report_text_put(out, "+");
    report_text_put_number(out, value);
}

// Numbers of `object` that stand alone, as a list. Keys of `skip` (ends with NULL) are shown elsewhere.
static void put_numbers(report_text *out, json_t *object, const char *const *skip) {
    int open = 0;
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        int skipped = !json_is_number(value) && !json_is_string(value);
        for (int i = 0; skip != NULL && skip[i] != NULL; i++)
            skipped |= strcmp(skip[i], key) == 0;
        if (skipped)
            continue;
        report_text_put(out, "%s<div><dt>", open ? "" : "<dl>");
        open = 1;
        report_put_words(out, key);
        report_text_put(out, "</dt><dd>");
        if (json_is_string(value))
            report_text_put_escaped(out, json_string_value(value));
        else
            report_text_put_number(out, json_number_value(value));
        report_text_put(out, "</dd></div>");
    }
    if (open)
        report_text_put(out, "</dl>\n");
}

static void put_verdict(report_text *out, const json_t *evaluation) {
    const double difference = report_json_number(evaluation, "paired_difference");
    const double error = report_json_number(evaluation, "standard_error");
    const double captions = report_json_number(evaluation, "captions");
    if (isnan(difference) || isnan(error))
        return;
    report_text_put(out, "<p>Paired difference of the reward, RL &minus; base: <b class=\"%s\">",
                    difference > 0 ? "good" : "bad");
    put_signed(out, difference);
    report_text_put(out, "</b> &plusmn; ");
    report_text_put_number(out, error);
    report_text_put(out, " (standard error%s", isnan(captions) ? "" : " over ");
    if (!isnan(captions))
        report_text_put(out, "%.0f captions", captions);
    report_text_put(out, ")");
    if (error > 0) {
        report_text_put(out, ", that is %s%.1f standard errors", difference < 0 ? "&minus;" : "",
                        fabs(difference / error));
    }
    report_text_put(out, ".</p>\n");
}

void report_put_evaluation(report_text *out, const report_input *input) {
    report_text_put(out, "<h2>Evaluation on held-out captions</h2>\n");
    json_t *base = json_object_get(input->evaluation, "base"), *rl = json_object_get(input->evaluation, "rl");
    if (!json_is_object(base) || !json_is_object(rl)) {
        report_put_missing(out, "There is no side-by-side evaluation yet (evaluation.json).");
        return;
    }
    put_verdict(out, input->evaluation);
    report_text_put(out, "<div class=\"scroll\"><table><thead><tr><th>mean over captions</th><th>base</th>"
                         "<th>RL</th><th>RL &minus; base</th></tr></thead><tbody>");
    const char *key;
    json_t *value;
    json_object_foreach(rl, key, value) {
        if (!json_is_number(value))
            continue;
        const double before = report_json_number(base, key), after = json_number_value(value);
        report_text_put(out, "<tr><td>");
        report_put_words(out, key);
        report_text_put(out, "</td>");
        put_cell(out, before);
        put_cell(out, after);
        report_text_put(out, "<td>");
        put_signed(out, after - before);
        report_text_put(out, "</td></tr>");
    }
    report_text_put(out, "</tbody></table></div>\n");
    static const char *const shown[] = {"captions", "paired_difference", "standard_error", NULL};
    put_numbers(out, input->evaluation, shown);
}

void report_put_base_losses(report_text *out, const report_input *input) {
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
        put_cell(out, loss);
        put_cell(out, entropy);
        put_cell(out, entropy - loss);
        report_text_put(out, "</tr>");
    }
    report_text_put(out, "</tbody></table></div>\n");
    if (unigram == NULL)
        report_put_missing(out, "The unigram entropies are not known (base/summary.json).");
}

// Every array of numbers in codec.json is a column.
void report_put_codec(report_text *out, const report_input *input) {
    report_text_put(out, "<h2>Codec</h2>\n");
    if (input->codec == NULL) {
        report_put_missing(out, "There are no figures of the codec (codec.json).");
        return;
    }
    const char *names[COLUMNS_MAX];
    const json_t *columns[COLUMNS_MAX];
    size_t count = 0, rows = 0;
    const char *key;
    json_t *value;
    json_object_foreach(input->codec, key, value) {
        if (!json_is_array(value) || json_array_size(value) == 0 || count == COLUMNS_MAX ||
            !json_is_number(json_array_get(value, 0)))
            continue;
        names[count] = key;
        columns[count++] = value;
        rows = json_array_size(value) > rows ? json_array_size(value) : rows;
    }
    if (count > 0) {
        report_text_put(out, "<div class=\"scroll\"><table><thead><tr><th>level</th>");
        for (size_t c = 0; c < count; c++) {
            report_text_put(out, "<th>");
            report_put_words(out, names[c]);
            report_text_put(out, "</th>");
        }
        report_text_put(out, "</tr></thead><tbody>");
        for (size_t row = 0; row < rows; row++) {
            report_text_put(out, "<tr><td>%zu</td>", row + 1);
            for (size_t c = 0; c < count; c++) {
                const json_t *cell = json_array_get(columns[c], row);
                put_cell(out, json_is_number(cell) ? json_number_value(cell) : NAN);
            }
            report_text_put(out, "</tr>");
        }
        report_text_put(out, "</tbody></table></div>\n");
    }
    put_numbers(out, input->codec, NULL);
}
