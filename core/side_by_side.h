// Side-by-side evaluation: what raters' scores of two models' clips of the same prompts say about the models.
// A prompt's ratings are not independent of each other, so prompts are the units of every test and interval.
#pragma once

#include "core/significance.h"

#include <stddef.h>
#include <stdint.h>

// One rater's scores of two clips of one prompt.
typedef struct rated_pair {
    uint32_t prompt;
    float a, b;
} rated_pair;

// One score of a clip.
typedef struct opinion {
    uint32_t prompt;
    float score;
} opinion;

typedef struct side_by_side {
    size_t ratings, prompts;   // rated pairs, and prompts with one or more
    size_t wins, ties, losses; // of a: raters who scored a higher, equal, lower
    interval win_rate;         // wins / (wins + losses), 95 % over prompts; NaN if all are ties
    interval difference;       // mean over prompts of a prompt's mean a - b, 95 % over prompts
    wilcoxon_outcome test;     // signed-rank test of the prompts' mean differences
} side_by_side;

// pairs: [count], prompt < prompts. Zeros and NaN of no ratings. The bootstrap draws `resamples` times under
// `seed`.
status side_by_side_compare(const rated_pair *pairs, size_t count, size_t prompts, size_t resamples,
                            uint64_t seed, side_by_side *out);

// The mean of all opinions [count], 95 % resampling prompts with theirs; NaN of none.
status mean_opinion_score(const opinion *opinions, size_t count, size_t prompts, size_t resamples,
                          uint64_t seed, interval *out);
