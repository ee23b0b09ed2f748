// The learner's mathematics: KL-regularised REINFORCE with a learned baseline (Cideron et al., "MusicRL",
// 2024). For a sequence of tokens a with return R it minimises, averaged over the batch,
//
//     - (1 - alpha) sum_t A_t log pi(a_t | s_t)  +  alpha sum_t KL(pi(. | s_t) || pi_0(. | s_t)),
//
// both summed over the tokens of the sequence, A_t = (R - V(s_t)) / sigma with sigma the batch's deviation of
// R - V or 1, the KL exact over the whole codebook, both distributions at the sampling temperature. The value
// network minimises the mean squared error of V. A step walks over gradient slots, each a fixed set of
// samples, twice: learner_value_slot for all, then learner_policy_slot for all.
#pragma once

#include "core/optimizer.h"
#include "core/policy.h"
#include "core/value.h"

typedef struct learner_config {
    policy_config policy;
    int slot_samples, frames; // samples of a gradient slot, frames of a rollout
    int batch;                // samples of a step: the gradients are means over it
    float temperature, alpha;
    bool correct_importance; // rollouts came from other weights or precision: weigh by min(cap, pi /
                             // pi_rollout)
    float importance_cap;
    optimizer_config optimizer; // of both networks
} learner_config;

typedef struct learner learner;
status learner_create(learner **out, device *device, const learner_config *config);
void learner_destroy(learner *learner); // NULL is allowed

policy *learner_policy(learner *learner);
policy *learner_reference(learner *learner);
value_network *learner_value(learner *learner);
optimizer *learner_policy_optimizer(learner *learner);
optimizer *learner_value_optimizer(learner *learner);

// One slot's samples, S = slot_samples, borrowed host arrays.
typedef struct learner_slot {
    const uint16_t *prefix;         // [S, prefix]
    const uint16_t *tokens;         // [S, frames, levels]
    const float *log_probabilities; // [S, frames, levels] as sampled
    const float *returns;           // [S]
    float *values;                  // [S, frames]: written by the value pass, read by the policy pass
} learner_slot;

// Per sample, sums over its frames or tokens.
typedef struct learner_value_statistics {
    double error, squared_error; // of R - V over frames
} learner_value_statistics;
typedef struct learner_policy_statistics {
    double kl;                  // exact KL(pi || pi_0) of the sequence, nats
    double kl_k1;               // its estimate from the sampled tokens: sum of log pi - log pi_0
    double entropy;             // sum over tokens, nats
    double policy_loss;         // - (1 - alpha) sum of A log pi
    double importance;          // sum over tokens of the weights applied
    double log_probability_gap; // largest |scored - sampled|
} learner_policy_statistics;

// Overwrites gradients [value parameters] with the slot's share of the value gradient; statistics: [S].
status learner_value_slot(learner *learner, const learner_slot *slot, float *gradients,
                          learner_value_statistics *statistics);
// Overwrites gradients [policy parameters]; advantage_scale: 1 / sigma.
status learner_policy_slot(learner *learner, const learner_slot *slot, float advantage_scale,
                           float *gradients, learner_policy_statistics *statistics);
