#include "core/dpo.h"

#include "kernels/memory.h"
#include "kernels/operators.h"

#include <math.h>
#include <string.h>

struct dpo {
    device *device;
    dpo_config config;
    policy *policy, *reference;
    policy_pass *policy_pass, *reference_pass;
    double *policy_sums, *reference_sums; // [2 slot_pairs] log-probability of each clip
    // [2 slot_pairs * frames] each: of one level
    float *scored, *advantages, *entropies, *kls; // on the device
    float *scratch;                               // on the device
    float *host;                                  // log-probabilities, then advantages
    void *memory;
};

static void carve(dpo *d, arena *a) {
    const temporal_config *shape = &policy_get_config(d->policy)->temporal;
    const size_t clips = 2 * (size_t)d->config.slot_pairs, rows = clips * (size_t)d->config.frames;
    int largest = 0;
    for (int level = 0; level < shape->levels; level++)
        if (shape->codebook[level] > largest)
            largest = shape->codebook[level];
    float **rows_of[] = {&d->scored, &d->advantages, &d->entropies, &d->kls};
    for (size_t i = 0; i < sizeof rows_of / sizeof rows_of[0]; i++)
        *rows_of[i] = arena_take(a, sizeof(float) * rows);
    d->scratch = arena_take(a, sizeof(float) * policy_loss_scratch_floats(d->device, largest));
}

status dpo_create(dpo **out, device *device, policy *policy, struct policy *reference,
                  const dpo_config *config) {
    *out = NULL;
    dpo *d;
    TRY(memory_allocate((void **)&d, sizeof *d, "preference optimisation"));
    *d = (dpo){.device = device, .config = *config, .policy = policy, .reference = reference};
    const int clips = 2 * config->slot_pairs;
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&d->policy_sums, sizeof(double) * 2 * (size_t)clips, "preference rows"),
             failed);
    d->reference_sums = d->policy_sums + clips;
    TRY_GOTO(result,
             memory_allocate((void **)&d->host, sizeof(float) * (size_t)clips * (size_t)config->frames,
                             "preference rows"),
             failed);
    TRY_GOTO(result, policy_pass_create(&d->policy_pass, policy, clips, config->frames, true), failed);
    TRY_GOTO(result, policy_pass_create(&d->reference_pass, reference, clips, config->frames, false), failed);
    arena a = {0};
    carve(d, &a);
    TRY_GOTO(result, device_allocate(device, &d->memory, a.used, "preference rows"), failed);
    a = (arena){.base = d->memory, .capacity = a.used};
    carve(d, &a);
    *out = d;
    return STATUS_OK;
failed:
    dpo_destroy(d);
    return result;
}

void dpo_destroy(dpo *d) {
    if (d == NULL)
        return;
    policy_pass_destroy(d->policy_pass);
    policy_pass_destroy(d->reference_pass);
    device_free(d->device, d->memory);
    memory_free(d->policy_sums);
    memory_free(d->host);
    memory_free(d);
}

// Log-probability of every clip, summed in the order of levels, then frames.
static status sum_clips(dpo *d, policy_pass *pass, double *sums) {
    const temporal_config *shape = &policy_get_config(d->policy)->temporal;
    const int clips = 2 * d->config.slot_pairs, frames = d->config.frames;
    memset(sums, 0, sizeof(double) * (size_t)clips);
    for (int level = 0; level < shape->levels; level++) {
        op_log_probability(d->device, (int64_t)clips * frames, shape->codebook[level],
                           policy_pass_logits(pass, level), d->config.temperature,
                           policy_pass_actions(pass, level), d->scored);
        TRY(device_download(d->device, d->host, d->scored, sizeof(float) * (size_t)clips * (size_t)frames));
        for (int clip = 0; clip < clips; clip++)
            for (int f = 0; f < frames; f++)
                sums[clip] += (double)d->host[clip * frames + f];
    }
    return STATUS_OK;
}

// Statistics of a pair; returns the size of its advantages, beta s(-m).
static double measure_pair(const dpo *d, int pair, dpo_statistics *out) {
    out->preferred = d->policy_sums[2 * pair] - d->reference_sums[2 * pair];
    out->rejected = d->policy_sums[2 * pair + 1] - d->reference_sums[2 * pair + 1];
    out->margin = (double)d->config.beta * (out->preferred - out->rejected);
    // log(1 + exp(-m)) without overflow
    out->loss = out->margin > 0.0 ? log1p(exp(-out->margin)) : log1p(exp(out->margin)) - out->margin;
    return (double)d->config.beta / (1.0 + exp(out->margin));
}

status dpo_pass_slot(dpo *d, const dpo_slot *slot, float *gradients, dpo_statistics *statistics) {
    const temporal_config *shape = &policy_get_config(d->policy)->temporal;
    const int clips = 2 * d->config.slot_pairs, frames = d->config.frames;
    const int64_t rows = (int64_t)clips * frames;
    TRY(policy_forward(d->reference, d->reference_pass, clips, slot->prefix, slot->tokens));
    TRY(sum_clips(d, d->reference_pass, d->reference_sums));
    TRY(policy_forward(d->policy, d->policy_pass, clips, slot->prefix, slot->tokens));
    TRY(sum_clips(d, d->policy_pass, d->policy_sums));
    for (int pair = 0; pair < d->config.slot_pairs; pair++) {
        const float size = (float)measure_pair(d, pair, &statistics[pair]);
        for (int f = 0; f < frames; f++) {
            d->host[2 * pair * frames + f] = size;
            d->host[(2 * pair + 1) * frames + f] = -size;
        }
    }
    TRY(device_upload(d->device, d->advantages, d->host, sizeof(float) * (size_t)rows));
    const policy_loss_terms terms = {.temperature = d->config.temperature,
                                     .policy_weight = 1.0f / (float)d->config.batch};
    for (int level = 0; level < shape->levels; level++)
        op_policy_loss(d->device, rows, shape->codebook[level], policy_pass_logits(d->policy_pass, level),
                       NULL, policy_pass_actions(d->policy_pass, level), d->advantages, &terms, d->scored,
                       d->entropies, d->kls, d->scratch);
    op_zero(d->device, sizeof(float) * policy_parameters(d->policy)->size, gradients);
    return policy_backward(d->policy, d->policy_pass, clips, gradients, slot->watch);
}
