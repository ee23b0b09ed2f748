// The learner's mathematics: KL-regularised REINFORCE with a learned baseline (Cideron et al., "MusicRL",
// 2024). For a sequence of tokens a with return R it minimises, averaged over the batch,
//
//     - (1 - alpha) sum_t A_t log pi(a_t | s_t)  +  alpha sum_t KL(pi(. | s_t) || pi_0(. | s_t)),
//
// both summed over the tokens of the sequence, A_t = (R - V(s_t)) / sigma with sigma the batch's deviation of
// R - V or 1, the KL exact over the whole codebook, both distributions at the sampling temperature. The value
// network minimises the mean squared error of V. A step walks over gradient slots, each a fixed set of
// samples, twice: learner_value_slot for all, then learner_policy_slot for all. Variants: another baseline in
// place of V (core/advantage.h), several such walks over one batch with PPO's clipping, an entropy bonus.
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
    // PPO (Schulman et al. 2017), with a ratio pi / pi_rollout for each token: the term of a token is
    // constant, so its gradient 0, where the ratio has left [1 - clip, 1 + clip] in the direction of the
    // advantage. 0: off; otherwise correct_importance must be set.
    float clip;
    float entropy_bonus;        // the loss has - entropy_bonus * entropy of the sequence
    bool no_value_network;      // the caller fills learner_slot.values; learner_value_* are not to be called
    optimizer_config optimizer; // of both networks
} learner_config;

typedef struct learner learner;
status learner_create(learner **out, device *device, const learner_config *config);
void learner_destroy(learner *learner); // NULL is allowed

policy *learner_policy(learner *learner);
policy *learner_reference(learner *learner);
value_network *learner_value(learner *learner); // NULL with no_value_network
optimizer *learner_policy_optimizer(learner *learner);
optimizer *learner_value_optimizer(learner *learner); // NULL with no_value_network
// Changes the weight of the KL from here on.
void learner_set_alpha(learner *learner, float alpha);

// One slot's samples, S = slot_samples, borrowed host arrays.
typedef struct learner_slot {
    const uint16_t *prefix;         // [S, prefix]
    const uint16_t *tokens;         // [S, frames, levels]
    const float *log_probabilities; // [S, frames, levels] as sampled
    const float *returns;           // [S]; NaN: not known, the sample has no value error and no advantage
    // [S, frames]: written by the value pass, read by the policy pass. NULL in value passes after the first
    // over a batch: its advantages stay what they were.
    float *values;
    const gradient_watch *watch; // of the backward pass; NULL: nobody
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
    double importance;          // sum over tokens of the weights applied, before clipping
    double clipped;             // tokens whose term is constant by PPO's clipping
    double log_probability_gap; // largest |scored - sampled|
} learner_policy_statistics;

// Overwrites gradients [value parameters] with the slot's share of the value gradient; statistics: [S].
status learner_value_slot(learner *learner, const learner_slot *slot, float *gradients,
                          learner_value_statistics *statistics);
// Overwrites gradients [policy parameters]; advantage_scale: 1 / sigma.
status learner_policy_slot(learner *learner, const learner_slot *slot, float advantage_scale,
                           float *gradients, learner_policy_statistics *statistics);
// The statistics of the samples under the present policy, without gradients; values and returns do not
// matter.
status learner_measure_slot(learner *learner, const learner_slot *slot,
                            learner_policy_statistics *statistics);
