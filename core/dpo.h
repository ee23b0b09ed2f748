// Direct preference optimisation (Rafailov et al. 2023): a policy from pairs of clips, of which one was
// preferred, without a reward model and without sampling. Over a batch of pairs it minimises the mean of
//
//     - log s(m),   m = beta (log pi(w) / pi_0(w) - log pi(l) / pi_0(l)),
//
// s the logistic function, w and l the token sequences of the preferred and the rejected clip, pi_0 the
// reference. The gradient with respect to log pi(w) is - beta s(-m) / batch, to log pi(l) its opposite: a
// policy gradient with an advantage of beta s(-m) for every token of w and - beta s(-m) for every token of l.
#pragma once

#include "core/policy.h"

typedef struct dpo_config {
    int slot_pairs, frames; // pairs of a gradient slot, frames of a clip
    int batch;              // pairs of a step: the gradient is a mean over it
    float beta, temperature;
} dpo_config;

typedef struct dpo dpo;
// Workspace over two policies of one shape, borrowed; no policy is changed.
status dpo_create(dpo **out, device *device, policy *policy, struct policy *reference,
                  const dpo_config *config);
void dpo_destroy(dpo *dpo); // NULL is allowed

// The pairs of one slot, borrowed host arrays. Pair p is samples 2 p, preferred, and 2 p + 1, rejected.
typedef struct dpo_slot {
    const uint16_t *prefix;      // [2 slot_pairs, prefix]
    const uint16_t *tokens;      // [2 slot_pairs, frames, levels]
    const gradient_watch *watch; // of the backward pass; NULL: nobody
} dpo_slot;

typedef struct dpo_statistics {
    double loss, margin;        // - log s(m), m
    double preferred, rejected; // log pi / pi_0 of either clip, nats
} dpo_statistics;

// Overwrites gradients [policy parameters] with the slot's share; statistics: [slot_pairs].
status dpo_pass_slot(dpo *dpo, const dpo_slot *slot, float *gradients, dpo_statistics *statistics);
