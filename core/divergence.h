// How far a policy has moved from another one: the exact Kullback-Leibler divergence of whole clips.
#pragma once

#include "core/policy.h"

typedef struct divergence divergence;

// A second policy of the same shape, without weights yet, and the workspace to score both on `batch` clips of
// `frames` frames at a time; no result depends on batch. `of`: the policy whose divergence will be measured,
// borrowed.
status divergence_create(divergence **out, device *device, policy *of, int batch, int frames);
void divergence_destroy(divergence *divergence); // NULL is allowed

// The policy that is measured against; load its weights and policy_pack it.
policy *divergence_reference(divergence *divergence);

// out: [count] KL(policy || reference) in nats, over the whole codebook, both at `temperature`, summed over
// the tokens of each clip. prefix: [count, prefix]; tokens: [count, frames, levels], drawn from the policy if
// the mean over clips is to estimate the divergence of the two distributions of clips.
status divergence_measure(divergence *divergence, const uint16_t *prefix, const uint16_t *tokens,
                          size_t count, float temperature, double *out);
