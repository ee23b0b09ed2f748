// Reward models on rated clips: scores of a set, shared by the ranks, and how well they agree with the votes.
#pragma once

#include "comm/group.h"
#include "core/significance.h"
#include "launch/reward_data.h"

// Scores of the set's clips: each rank of the group (NULL: this process alone) scores a share, every one
// receives all. inputs: of any capacity. scores: [clip count]; pooled: [clip count, pooled count] pooled
// vectors, or NULL.
status reward_score_set(reward_data *data, reward_model *model, reward_pass *pass, reward_inputs *inputs,
                        group *group, const reward_set *set, float *scores, float *pooled);

typedef struct reward_outcome {
    double loss;     // mean: nats a vote; squared error of scores in [0, 1]
    double accuracy; // share of decisive votes whose winner has the higher score, equal scores counting half;
                     // NaN where there is none
    size_t count, decisive;
} reward_outcome;
// threshold: as preference_loss; for scores (the quality model) not read.
reward_outcome reward_measure(const reward_set *set, bool quality, const float *scores,
                              const float *threshold);

// Which independent unit, a caption, each example of a set belongs to.
typedef struct reward_units {
    size_t *of;   // [examples]
    size_t count; // of captions
} reward_units;
status reward_units_create(reward_units *out, const reward_data *data, const reward_set *set);
void reward_units_destroy(reward_units *units);

// Accuracy as in reward_measure, with the 95 % interval of a bootstrap over captions.
status reward_accuracy(const reward_set *set, const reward_units *units, const float *scores,
                       size_t resamples, uint64_t seed, interval *out);
// Accuracy by scores less accuracy by other scores, [clip count] each, of the same votes: the bootstrap draws
// the same captions for both.
status reward_accuracy_gain(const reward_set *set, const reward_units *units, const float *scores,
                            const float *others, size_t resamples, uint64_t seed, interval *out);
// Spearman's rank correlation of scores [clip count] with the mean ratings of the clips [clip count],
// likewise.
status reward_spearman(const reward_set *set, const reward_units *units, const float *scores,
                       const float *ratings, size_t resamples, uint64_t seed, interval *out);
