// The policy: a hierarchical autoregressive model of audio tokens. The temporal transformer runs once a
// frame; the depth transformer runs over the levels of a frame, each level's input being a projection of the
// temporal output plus the level's own embedding plus the embedding of the level before it; one head a level
// gives the logits. (RQ-Transformer, Lee et al. 2022; MegaByte, Yu et al. 2023.)
#pragma once

#include "core/temporal.h"

typedef struct policy_config {
    temporal_config temporal;
    transformer_config depth; // positions is derived: levels
} policy_config;

status policy_config_check(const policy_config *config);

typedef struct policy policy;
// use, precision: of the packed weights. WEIGHT_SAMPLE makes sampling fast and long passes slow.
status policy_create(policy **out, device *device, const policy_config *config, weight_use use,
                     weight_precision precision);
void policy_destroy(policy *policy); // NULL is allowed

const policy_config *policy_get_config(const policy *policy);
const parameter_list *policy_parameters(const policy *policy);
// The flat parameter buffer. After writing to it, call policy_pack.
float *policy_values(policy *policy);
status policy_pack(policy *policy);

// Multiply-adds of the model's matrix products for one frame, forward.
double policy_products_per_frame(const policy_config *config);

// Workspace of teacher-forced passes over [batch, frames]; keep: a backward pass will follow.
typedef struct policy_pass policy_pass;
status policy_pass_create(policy_pass **out, const policy *policy, int batch, int frames, bool keep);
void policy_pass_destroy(policy_pass *pass);

// prefix: [batch, prefix], tokens: [batch, frames, levels], on the host. Leaves the logits and the actions of
// every level in the pass.
status policy_forward(policy *policy, policy_pass *pass, int batch, const uint16_t *prefix,
                      const uint16_t *tokens);
float *policy_pass_logits(policy_pass *pass, int level);                // [batch * frames, codebook[level]]
const int32_t *policy_pass_actions(const policy_pass *pass, int level); // [batch * frames]
// The logits hold their gradients now; adds the parameters' to gradients [policy_parameters()->size]. `watch`
// may be NULL.
status policy_backward(policy *policy, policy_pass *pass, int batch, float *gradients,
                       const gradient_watch *watch);

// Sampling with a cache.
typedef struct policy_sampler policy_sampler;
status policy_sampler_create(policy_sampler **out, const policy *policy, int batch, int frames);
void policy_sampler_destroy(policy_sampler *sampler);

typedef struct rollout_request {
    int batch, frames;
    const uint16_t *prefix;  // [batch, prefix]
    const uint32_t *samples; // [batch] index of each sample within its step
    uint64_t seed;
    uint32_t step;
    sample_terms terms;
} rollout_request;

// tokens: [batch, frames, levels]; log_probabilities: [batch, frames, levels], temperature applied, of whole
// distributions.
status policy_sample(policy *policy, policy_sampler *sampler, const rollout_request *request,
                     uint16_t *tokens, float *log_probabilities);
