// The sections of a report; each writes itself, or a sentence on what is missing.
#pragma once

#include "launch/report_data.h"
#include "launch/report_text.h"

// Everything that was read. NULL and empty where files are missing.
typedef struct report_input {
    const char *folder;
    report_metrics metrics, base_metrics;
    json_t *base_summary, *evaluation, *codec, *samples, *notes;
} report_input;

// The head of the page: title, style sheet; `title` is escaped here.
void report_put_head(report_text *out, const char *title);

// <p class="missing">, plain words.
void report_put_missing(report_text *out, const char *sentence);

// "learning_rate" as "learning rate", escaped.
void report_put_words(report_text *out, const char *name);

// Base against RL on held-out captions.
void report_put_evaluation(report_text *out, const report_input *input);

// Final held-out loss of the base model by level, beside the unigram entropy.
void report_put_base_losses(report_text *out, const report_input *input);

// The codec's figures by level.
void report_put_codec(report_text *out, const report_input *input);

// Players side by side for each prompt. Fails on a clip that is no WAV file, or a name that leaves the
// folder.
status report_put_clips(report_text *out, const report_input *input);

// Number at `key` of a JSON object; NaN if there is none. `object` may be NULL.
double report_json_number(const json_t *object, const char *key);
