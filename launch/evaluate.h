// `musicrl evaluate`: several models against the first, with the same random numbers for all. Automatic
// scores on held-out captions, and raters' scores of clips of a fixed list of prompts, side by side; the
// raters are simulated (data.listeners) or people (a file of ratings). Writes evaluation.json, samples/ and
// notes.json.
#pragma once

#include "launch/run_config.h"

typedef struct evaluate_options {
    const char *const *models; // [model_count] FOLDER or NAME=FOLDER of runs; the first is the baseline
    int model_count;
    const char *output;    // folder of the results; NULL: that of the last model
    const char *config;    // run file; NULL: config.yaml of the last model's folder
    char *const *settings; // [setting_count] run files to lay over it, and key.sub=value
    int setting_count;
    const char *prompts; // file of prompts; NULL: the built-in list
    const char *ratings; // file of people's ratings; NULL: simulated listeners
    bool skip_bad_ratings;
    int raters;                 // simulated listeners a comparison
    int best_of;                // 2 or more: best-of-n of the baseline as one more model
    const char *best_of_reward; // by this reward; NULL: preference if there is one, otherwise text_adherence
} evaluate_options;

enum { EVALUATE_MODELS_MAX = 24, EVALUATE_RATERS_MAX = 32 };

status evaluate_run(const evaluate_options *options);
