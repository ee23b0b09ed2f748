// Evaluations of the same models under several seeds, taken together.
#pragma once

#include "kernels/status.h"

#include <jansson.h>

enum { EVALUATE_SEEDS_MAX = 64 };

// An evaluation.json and where it came from.
typedef struct seed_evaluation {
    const char *name;
    const json_t *root;
} seed_evaluation;

// Compares every pair of models of the first evaluation that all of them compared, by the ratings of all:
// those of one prompt, whatever the seed, are one unit of the test and of the intervals. *out: an array of
// objects as "pairs" of evaluation.json, with "seeds": [{"win_rate", "wilcoxon_p"}] in the order of the
// evaluations; owned by the caller. Refuses evaluations of lists of prompts of different lengths, those that
// share no comparison, and one without its ratings.
status evaluate_pool(const seed_evaluation *evaluations, int count, json_t **out);

// The same from folders [count] that hold evaluation.json; prints a table and publishes OUTPUT/seeds.json.
status evaluate_pool_folders(const char *const *folders, int count, const char *output);
