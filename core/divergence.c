#include "core/divergence.h"

#include "kernels/memory.h"

#include <string.h>

struct divergence {
    device *device;
    policy *of, *reference;
    policy_pass *of_pass, *reference_pass;
    int batch, frames;
    // On the device: [4, batch * frames]: advantages (0), log-probabilities, entropies, divergences
    float *rows, *scratch;
    float *found;              // [batch * frames] divergences
    uint16_t *prefix, *tokens; // [batch, prefix], [batch, frames, levels]: a batch that is not full, padded
};

status divergence_create(divergence **out, device *device, policy *of, int batch, int frames) {
    *out = NULL;
    divergence *d;
    TRY(memory_allocate((void **)&d, sizeof *d, "divergence"));
    d->device = device;
    d->of = of;
    d->batch = batch;
    d->frames = frames;
    const temporal_config *shape = &policy_get_config(of)->temporal;
    int largest = 0;
    for (int level = 0; level < shape->levels; level++)
        largest = shape->codebook[level] > largest ? shape->codebook[level] : largest;
    const size_t clips = (size_t)batch, rows = clips * (size_t)frames;
    status result;
    TRY_GOTO(result, policy_create(&d->reference, device, policy_get_config(of), WEIGHT_SCORE, WEIGHT_F32),
             failed);
    TRY_GOTO(result, policy_pass_create(&d->of_pass, of, batch, frames, false), failed);
    TRY_GOTO(result, policy_pass_create(&d->reference_pass, d->reference, batch, frames, false), failed);
    TRY_GOTO(result, device_allocate(device, (void **)&d->rows, sizeof(float) * 4 * rows, "divergence rows"),
             failed);
    TRY_GOTO(result, memory_allocate((void **)&d->found, sizeof(float) * rows, "divergence rows"), failed);
    TRY_GOTO(result,
             device_allocate(device, (void **)&d->scratch,
                             sizeof(float) * policy_loss_scratch_floats(device, largest),
                             "divergence scratch"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&d->prefix, sizeof(uint16_t) * clips * (size_t)shape->prefix,
                             "padded prefixes"),
             failed);
    TRY_GOTO(
        result,
        memory_allocate((void **)&d->tokens, sizeof(uint16_t) * rows * (size_t)shape->levels, "padded clips"),
        failed);
    *out = d;
    return STATUS_OK;
failed:
    divergence_destroy(d);
    return result;
}

void divergence_destroy(divergence *d) {
    if (d == NULL)
        return;
    policy_pass_destroy(d->of_pass);
    policy_pass_destroy(d->reference_pass);
    policy_destroy(d->reference);
    device_free(d->device, d->rows);
    device_free(d->device, d->scratch);
    memory_free(d->found);
    memory_free(d->prefix);
    memory_free(d->tokens);
    memory_free(d);
}

policy *divergence_reference(divergence *d) {
    return d->reference;
}

static status measure_batch(divergence *d, const uint16_t *prefix, const uint16_t *tokens, size_t count,
                            float temperature, double *out) {
    const temporal_config *shape = &policy_get_config(d->of)->temporal;
    const size_t rows = (size_t)d->batch * (size_t)d->frames;
    float *advantages = d->rows, *scored = d->rows + rows, *entropies = d->rows + 2 * rows,
          *divergences = d->rows + 3 * rows;
    const policy_loss_terms terms = {.temperature = temperature}; // no gradient is wanted
    TRY(policy_forward(d->reference, d->reference_pass, d->batch, prefix, tokens));
    TRY(policy_forward(d->of, d->of_pass, d->batch, prefix, tokens));
    memset(out, 0, sizeof *out * count);
    for (int level = 0; level < shape->levels; level++) {
        op_policy_loss(d->device, (int64_t)rows, shape->codebook[level],
                       policy_pass_logits(d->of_pass, level), policy_pass_logits(d->reference_pass, level),
                       policy_pass_actions(d->of_pass, level), advantages, &terms, scored, entropies,
                       divergences, d->scratch);
        TRY(device_download(d->device, d->found, divergences, sizeof(float) * count * (size_t)d->frames));
        for (size_t row = 0; row < count * (size_t)d->frames; row++)
            out[row / (size_t)d->frames] += (double)d->found[row];
    }
    return STATUS_OK;
}

status divergence_measure(divergence *d, const uint16_t *prefix, const uint16_t *tokens, size_t count,
                          float temperature, double *out) {
    const temporal_config *shape = &policy_get_config(d->of)->temporal;
    const size_t batch = (size_t)d->batch, clip = (size_t)d->frames * (size_t)shape->levels;
    const size_t words = (size_t)shape->prefix;
    for (size_t at = 0; at < count; at += batch) {
        const size_t size = count - at < batch ? count - at : batch;
        const uint16_t *batch_prefix = prefix + at * words, *batch_tokens = tokens + at * clip;
        if (size < batch) {
            memcpy(d->prefix, batch_prefix, sizeof(uint16_t) * size * words);
            memcpy(d->tokens, batch_tokens, sizeof(uint16_t) * size * clip);
            batch_prefix = d->prefix;
            batch_tokens = d->tokens;
        }
        TRY(measure_batch(d, batch_prefix, batch_tokens, size, temperature, out + at));
    }
    return STATUS_OK;
}
