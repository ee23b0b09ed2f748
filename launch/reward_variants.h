// Preference models that differ from the run's in one thing, and simpler predictors of preference: what the
// run's model is compared with. A variant is trained when it is first asked for, in a folder of its own under
// data.preference, and kept.
#pragma once

#include "comm/world.h"
#include "core/significance.h"
#include "launch/reward_measure.h"

typedef enum reward_variant {
    REWARD_VARIANT_FULL,            // data.preference as it is
    REWARD_VARIANT_NO_TEXT,         // reads no caption
    REWARD_VARIANT_TOKENS,          // reads nothing of the joint embedding, as the paper's
    REWARD_VARIANT_HALF,            // as TOKENS, hearing the middle 1/2 of the clip (the paper's 10 s of 20)
    REWARD_VARIANT_QUARTER,         // ... 1/4 (5 s)
    REWARD_VARIANT_THREE_TWENTIETH, // ... 3/20 (3 s)
    REWARD_VARIANT_SCRATCH,         // as TOKENS, from random weights
    REWARD_VARIANT_LINEAR,          // logistic Bradley-Terry on the joint embedding: music, and music x text
    REWARD_VARIANT_ADHERENCE,       // the higher text adherence wins
    REWARD_VARIANT_QUALITY,         // the higher score of the quality model wins
    REWARD_VARIANTS,
} reward_variant;
const char *reward_variant_name(reward_variant variant); // "from scratch"
double reward_variant_paper(reward_variant variant);     // accuracy in the paper, NaN where it gives none

// Votes on held-out captions that selected nothing, with what the run file says beside them.
typedef struct reward_test {
    world *world;
    const run_config *config;
    device *device;
    reward_plan plan; // of the run's model
    reward_data data; // as this model reads them
    reward_set set;
    reward_units units;
} reward_test;
// Opens data.ratings by the plan of `kind`; what there is on the test side, up to reward.test_limit.
status reward_test_open(reward_test *out, world *world, const run_config *config, const char *kind);
void reward_test_close(reward_test *test);

// Scores of the test's clips [clip count] by a published model of `plan`.
status reward_test_score(reward_test *test, const reward_plan *plan, float *scores);
// The same by a variant, which is trained if it is not there yet (then collective).
status reward_variant_score(reward_test *test, reward_variant variant, float *scores);

// Whether a variant needs nothing that is not there: QUALITY a model in data.quality.
bool reward_variant_can_be_had(const reward_test *test, reward_variant variant);

// "agreement" and "ceiling" of the panel that labelled, from listeners.json beside data.listeners; NaN where
// there is none, or where people rated.
void reward_panel_numbers(const run_config *config, const ratings *ratings, double *agreement,
                          double *ceiling);
