#include "launch/report_parts.h"
#include "launch/report_svg.h"

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

// Names and colours of the models of the demonstration; others are called as they are.
static const struct {
    const char *name, *shown;
    int color;
} known_models[] = {{"base", "Base", REPORT_COLOR_NEUTRAL},
                    {"r", "R", 2},
                    {"u", "U", 1},
                    {"ru", "RU", 0},
                    {"mulan", "MuLan", 4},
                    {"quality", "Quality", 5},
                    {"dpo", "DPO", 3},
                    {"best-of-4", "Best of 4", 6},
                    {"r-long", "R, longer", 6},
                    {"u-long", "U, longer", 7},
                    {"ru-long", "RU, longer", 3}};
enum { KNOWN_MODELS = sizeof known_models / sizeof known_models[0] };

static int find_model(const char *name) {
    int i = 0;
    while (i < KNOWN_MODELS && strcmp(known_models[i].name, name) != 0)
        i++;
    return i;
}

const char *report_model_name(const char *name) {
    const int i = find_model(name);
    return i < KNOWN_MODELS ? known_models[i].shown : name;
}

int report_model_color(const char *name) {
    static const int others[] = {6, 7, 3, 5, 4}; // not those of base, R, U and RU
    const int i = find_model(name);
    if (i < KNOWN_MODELS)
        return known_models[i].color;
    unsigned sum = 0;
    for (const char *c = name; *c != '\0'; c++)
        sum += (unsigned char)*c;
    return others[sum % (sizeof others / sizeof others[0])];
}

void report_put_cell(report_text *out, double value) {
    report_text_put(out, "<td>");
    report_text_put_number(out, value);
    report_text_put(out, "</td>");
}

void report_put_numbers(report_text *out, json_t *object, const char *const *skip) {
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

void report_put_fact(report_text *out, const char *name, const char *format, double value) {
    if (isnan(value))
        return;
    report_text_put(out, "<div><dt>%s</dt><dd>", name);
    if (format == NULL)
        report_text_put_number(out, value);
    else
        report_text_put(out, format, value);
    report_text_put(out, "</dd></div>");
}

typedef struct codec_column {
    const char *name;
    int iterations;       // of phase reconstruction, 0: there are none
    const json_t *values; // by level, the semantic one first
} codec_column;

static void add_column(codec_column *columns, size_t *count, const char *name, int iterations,
                       const json_t *values) {
    if (*count < COLUMNS_MAX && json_is_number(json_array_get(values, 0)))
        columns[(*count)++] = (codec_column){name, iterations, values};
}

// Every array of numbers in codec.json is a column, and so is what each way of decoding keeps.
static size_t codec_columns(json_t *codec, codec_column columns[COLUMNS_MAX]) {
    size_t count = 0, index;
    const char *key;
    json_t *value;
    json_object_foreach(codec, key, value) {
        add_column(columns, &count, key, 0, value);
    }
    json_array_foreach(json_object_get(codec, "decoding"), index, value) {
        const int iterations = (int)json_integer_value(json_object_get(value, "iterations"));
        add_column(columns, &count, "kept", iterations, json_object_get(value, "survival"));
    }
    return count;
}

void report_put_codec(report_text *out, const report_input *input) {
    report_text_put(out, "<h2>Codec</h2>\n");
    if (input->codec == NULL) {
        report_put_missing(out, "There are no figures of the codec (codec.json).");
        return;
    }
    codec_column columns[COLUMNS_MAX];
    const size_t count = codec_columns(input->codec, columns);
    size_t rows = 0;
    for (size_t c = 0; c < count; c++)
        rows = json_array_size(columns[c].values) > rows ? json_array_size(columns[c].values) : rows;
    if (count > 0) {
        report_text_put(out, "<div class=\"scroll\"><table><thead><tr><th>level</th>");
        for (size_t c = 0; c < count; c++) {
            report_text_put(out, "<th>");
            report_put_words(out, columns[c].name);
            if (columns[c].iterations > 0)
                report_text_put(out, ", %d iterations", columns[c].iterations);
            report_text_put(out, "</th>");
        }
        report_text_put(out, "</tr></thead><tbody>");
        for (size_t row = 0; row < rows; row++) {
            report_text_put(out, "<tr><td>level %zu%s</td>", row, row == 0 ? ", semantic" : "");
            for (size_t c = 0; c < count; c++) {
                const json_t *cell = json_array_get(columns[c].values, row);
                report_put_cell(out, json_is_number(cell) ? json_number_value(cell) : NAN);
            }
            report_text_put(out, "</tr>");
        }
        report_text_put(
            out, "</tbody></table></div>\n<p class=\"note\">Error: mean difference of log-mel on held-out "
                 "clips with the acoustic levels up to this one. Kept: share of tokens that decoding and "
                 "encoding again give back, by iterations of phase reconstruction.</p>\n");
    }
    report_put_numbers(out, input->codec, NULL);
}

void report_put_settings(report_text *out, const run_config *c, const char *run) {
    char text[256];
    report_text_put(out, "<h2>Settings");
    if (run[0] != '\0') {
        report_text_put(out, " of ");
        report_text_put_escaped(out, report_model_name(run));
    }
    report_text_put(out, "</h2>\n<dl>");
    snprintf(text, sizeof text, "%d &times; %d, %d heads", c->model.temporal.layers, c->model.temporal.width,
             c->model.temporal.heads);
    report_text_put(out, "<div><dt>temporal transformer</dt><dd>%s</dd></div>", text);
    snprintf(text, sizeof text, "%d &times; %d, %d heads", c->model.depth.layers, c->model.depth.width,
             c->model.depth.heads);
    report_text_put(out, "<div><dt>depth transformer</dt><dd>%s</dd></div>", text);
    report_text_put(out, "<div><dt>tokens per frame</dt><dd>1 + %d</dd></div>", c->model.coarse_levels);
    report_text_put(out, "<div><dt>rewards</dt><dd>");
    for (int i = 0; i < c->train.rewards.count; i++) {
        report_text_put(out, "%s", i > 0 ? ", " : "");
        report_put_words(out, c->train.rewards.entries[i].name);
        report_text_put(out, " &times; ");
        report_text_put_number(out, c->train.rewards.entries[i].weight);
    }
    report_text_put(out, "</dd></div>");
    report_put_fact(out, "seed", "%.0f", (double)c->seed);
    report_put_fact(out, "batch, rollouts", NULL, c->train.batch);
    report_put_fact(out, "frames of a rollout", NULL, c->train.frames);
    report_put_fact(out, "temperature", NULL, c->train.temperature);
    report_put_fact(out, "alpha, weight of the KL", NULL, c->train.alpha);
    report_put_fact(out, "learning rate, policy", "%g", c->train.learning_rate);
    report_put_fact(out, "learning rate, value", "%g", c->train.value_learning_rate);
    report_put_fact(out, "lag, steps", NULL, c->train.lag);
    report_text_put(out, "<div><dt>advantage divided by its deviation</dt><dd>%s</dd></div>",
                    c->train.whiten_advantage ? "yes" : "no");
    report_text_put(out, "<div><dt>reward whitened on base samples</dt><dd>%s</dd></div>",
                    c->train.whiten_reward ? "yes" : "no");
    report_text_put(out, "<div><dt>roles</dt><dd>");
    report_text_put_escaped(out, c->roles);
    report_text_put(out, "</dd></div></dl>\n");
}
