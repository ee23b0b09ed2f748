// The sections of a report; each writes itself, or a sentence on what is missing.
#pragma once

#include "launch/report_data.h"
#include "launch/report_text.h"
#include "launch/run_config.h"

#include <stdbool.h>

enum { REPORT_RUNS_MAX = 16, REPORT_SEEDS_MAX = 16, REPORT_NAME_MAX = 64 };

// A run of reinforcement learning: a folder with metrics of one.
typedef struct report_run {
    char name[REPORT_NAME_MAX]; // of its folder; "" if that is the folder of the report itself
    report_metrics metrics;
    json_t *selected;   // which checkpoint serves; NULL: the newest
    run_config *config; // NULL: not known
} report_run;

// Another seed's evaluation.
typedef struct report_seed {
    char name[REPORT_NAME_MAX];
    json_t *evaluation;
} report_seed;

// Everything that was read. NULL and empty where files are missing.
typedef struct report_input {
    const char *folder;
    report_run *runs[REPORT_RUNS_MAX]; // [run_count]
    int run_count;
    int is_single;                       // the folder is itself the one run
    report_seed seeds[REPORT_SEEDS_MAX]; // [seed_count], this folder's own evaluation first
    int seed_count;
    report_metrics base_metrics, quality_metrics, preference_metrics;
    json_t *base_summary, *evaluation, *codec, *samples, *notes, *reward, *ablation, *listeners;
    json_t *pooled; // seeds.json
} report_input;

// Reads a folder; see report.h for the files. What is damaged is an error that names file and line. Free with
// report_input_free also after a failure.
status report_input_read(report_input *out, const char *folder);
// Whether there was nothing to read.
bool report_input_is_empty(const report_input *input);
void report_input_free(report_input *input);

// The head of the page: title, style sheet; `title` is escaped here.
void report_put_head(report_text *out, const char *title);

// <p class="missing">, plain words.
void report_put_missing(report_text *out, const char *sentence);

// "learning_rate" as "learning rate", escaped.
void report_put_words(report_text *out, const char *name);

// The name of a model for a reader: "ru" as "RU", "base" as "Base"; others as they are. Not escaped.
const char *report_model_name(const char *name);

// The colour of a model, the same in every drawing.
int report_model_color(const char *name);

// A <div> of a <dl>; nothing for NaN. `format` prints the value; NULL: report_text_put_number.
void report_put_fact(report_text *out, const char *name, const char *format, double value);

// Numbers and texts of `object` that stand alone, as a list, without the keys in `skip` (ends with NULL;
// may be NULL).
void report_put_numbers(report_text *out, json_t *object, const char *const *skip);

// A <td> with a number.
void report_put_cell(report_text *out, double value);

// The figures that matter most, at the top.
void report_put_tiles(report_text *out, const report_input *input);

// Models side by side: wins, ties and losses of each pair, opinion scores, and what else was measured.
void report_put_sides(report_text *out, const report_input *input);

// The same over seeds; nothing for one seed.
void report_put_seeds(report_text *out, const report_input *input);

// Players side by side for each prompt. Fails on a clip that is no WAV file, or a name that leaves the
// folder.
status report_put_clips(report_text *out, const report_input *input);

// The automatic scores of every run against KL and step.
status report_put_scores(report_text *out, const report_input *input);

// Reward, KL, entropy and diversity of every run against step, the alarms, and a table of the runs.
status report_put_runs(report_text *out, const report_input *input);

// One run in detail.
status report_put_run(report_text *out, const report_run *run);

// Accuracy and calibration of the reward models, and the ablations.
status report_put_rewards(report_text *out, const report_input *input);

// What the simulated listeners can hear.
void report_put_listeners(report_text *out, const report_input *input);

// Curves and table of the base model's losses.
void report_put_base(report_text *out, const report_input *input);

// The codec's figures by level.
void report_put_codec(report_text *out, const report_input *input);

// Settings of a run; `run` is its name, "" where there is only one.
void report_put_settings(report_text *out, const run_config *config, const char *run);
