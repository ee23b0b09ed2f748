// Reward models on rated clips: scores of a set, shared by the ranks, and how well they agree with the votes.
#pragma once

#include "comm/group.h"
#include "launch/reward_data.h"

// Scores of the set's clips: each rank of the group (NULL: this process alone) scores a share, every one
// receives all. inputs: of any capacity. scores: [clip count]; pooled: [clip count, width] pooled vectors, or
// NULL.
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
