#include "core/learner.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

// [slot_samples * frames] each; the four results lie behind each other.
typedef struct level_rows {
    float *advantages;
    float *scored, *reference_scored, *entropies, *kls;
} level_rows;
enum { LEVEL_RESULTS = 4 };

struct learner {
    device *device;
    learner_config config;
    policy *policy, *reference;
    value_network *value;
    policy_pass *policy_pass, *reference_pass;
    value_pass *value_pass;
    optimizer *policy_optimizer, *value_optimizer;
    // Of one level: advantages and results on the device, the same on the host.
    level_rows rows, host;
    float *scratch;  // on the device
    float *d_values; // [slot_samples * frames] on the host
    void *memory, *host_memory;
};

static void carve_rows(level_rows *r, size_t rows, arena *a) {
    r->advantages = arena_take(a, sizeof(float) * rows);
    r->scored = arena_take(a, sizeof(float) * rows * LEVEL_RESULTS);
    if (a->base != NULL) {
        r->reference_scored = r->scored + rows;
        r->entropies = r->scored + 2 * rows;
        r->kls = r->scored + 3 * rows;
    }
}

static size_t rows_of(const learner *l) {
    return (size_t)l->config.slot_samples * (size_t)l->config.frames;
}

static void carve(learner *l, arena *a) {
    int largest = 0;
    for (int level = 0; level < l->config.policy.temporal.levels; level++)
        if (l->config.policy.temporal.codebook[level] > largest)
            largest = l->config.policy.temporal.codebook[level];
    carve_rows(&l->rows, rows_of(l), a);
    l->scratch = arena_take(a, sizeof(float) * policy_loss_scratch_floats(l->device, largest));
}

static void carve_host(learner *l, arena *a) {
    carve_rows(&l->host, rows_of(l), a);
    l->d_values = arena_take(a, sizeof(float) * rows_of(l));
}

status learner_create(learner **out, device *device, const learner_config *config) {
    *out = NULL;
    learner *l;
    TRY(memory_allocate((void **)&l, sizeof *l, "learner"));
    l->device = device;
    l->config = *config;
    const int samples = config->slot_samples, frames = config->frames;
    status result;
    TRY_GOTO(result, policy_create(&l->policy, device, &config->policy, WEIGHT_LEARN, WEIGHT_F32), failed);
    TRY_GOTO(result, policy_create(&l->reference, device, &config->policy, WEIGHT_SCORE, WEIGHT_F32), failed);
    TRY_GOTO(result, policy_pass_create(&l->policy_pass, l->policy, samples, frames, true), failed);
    TRY_GOTO(result, policy_pass_create(&l->reference_pass, l->reference, samples, frames, false), failed);
    TRY_GOTO(result,
             optimizer_create(&l->policy_optimizer, device, policy_parameters(l->policy), &config->optimizer),
             failed);
    if (!config->no_value_network) {
        TRY_GOTO(result, value_create(&l->value, device, &config->policy.temporal, true), failed);
        TRY_GOTO(result, value_pass_create(&l->value_pass, l->value, samples, frames, true), failed);
        TRY_GOTO(
            result,
            optimizer_create(&l->value_optimizer, device, value_parameters(l->value), &config->optimizer),
            failed);
    }
    arena a = {0};
    carve(l, &a);
    TRY_GOTO(result, device_allocate(device, &l->memory, a.used, "learner rows"), failed);
    a = (arena){.base = l->memory, .capacity = a.used};
    carve(l, &a);
    a = (arena){0};
    carve_host(l, &a);
    TRY_GOTO(result, memory_allocate(&l->host_memory, a.used, "learner rows"), failed);
    a = (arena){.base = l->host_memory, .capacity = a.used};
    carve_host(l, &a);
    *out = l;
    return STATUS_OK;
failed:
    learner_destroy(l);
    return result;
}

void learner_destroy(learner *l) {
    if (l == NULL)
        return;
    policy_pass_destroy(l->policy_pass);
    policy_pass_destroy(l->reference_pass);
    value_pass_destroy(l->value_pass);
    optimizer_destroy(l->policy_optimizer);
    optimizer_destroy(l->value_optimizer);
    policy_destroy(l->policy);
    policy_destroy(l->reference);
    value_destroy(l->value);
    device_free(l->device, l->memory);
    memory_free(l->host_memory);
    memory_free(l);
}

policy *learner_policy(learner *l) {
    return l->policy;
}

policy *learner_reference(learner *l) {
    return l->reference;
}

value_network *learner_value(learner *l) {
    return l->value;
}

optimizer *learner_policy_optimizer(learner *l) {
    return l->policy_optimizer;
}

optimizer *learner_value_optimizer(learner *l) {
    return l->value_optimizer;
}

void learner_set_alpha(learner *l, float alpha) {
    l->config.alpha = alpha;
}

status learner_value_slot(learner *l, const learner_slot *slot, float *gradients,
                          learner_value_statistics *statistics) {
    const int samples = l->config.slot_samples, frames = l->config.frames;
    const float weight = 2.0f / ((float)l->config.batch * (float)frames);
    const float *values;
    TRY(value_forward(l->value, l->value_pass, samples, slot->prefix, slot->tokens, &values));
    for (int s = 0; s < samples; s++) {
        statistics[s] = (learner_value_statistics){0};
        for (int f = 0; f < frames; f++) {
            const int row = s * frames + f;
            const double error =
                isnan(slot->returns[s]) ? 0.0 : (double)slot->returns[s] - (double)values[row];
            if (slot->values != NULL)
                slot->values[row] = values[row];
            l->d_values[row] = -weight * (float)error;
            statistics[s].error += error;
            statistics[s].squared_error += error * error;
        }
    }
    op_zero(l->device, sizeof(float) * value_parameters(l->value)->size, gradients);
    return value_backward(l->value, l->value_pass, samples, l->d_values, gradients, slot->watch);
}

// Whether PPO's objective min(ratio A, clip(ratio) A) of a token is the constant one.
static bool is_clipped(float ratio, float advantage, float clip) {
    return clip > 0.0f &&
           ((advantage > 0.0f && ratio > 1.0f + clip) || (advantage < 0.0f && ratio < 1.0f - clip));
}

// Scores one level against the sampled tokens, leaves its gradient in the logits and adds to the statistics.
static status score_level(learner *l, const learner_slot *slot, int level, float advantage_scale,
                          learner_policy_statistics *statistics) {
    const learner_config *c = &l->config;
    const level_rows *on_device = &l->rows, *host = &l->host;
    const int frames = c->frames, levels = c->policy.temporal.levels,
              codebook = c->policy.temporal.codebook[level];
    const int64_t rows = (int64_t)c->slot_samples * frames;
    float *logits = policy_pass_logits(l->policy_pass, level);
    const float *reference = policy_pass_logits(l->reference_pass, level);
    const int32_t *actions = policy_pass_actions(l->policy_pass, level);
    op_log_probability(l->device, rows, codebook, reference, c->temperature, actions,
                       on_device->reference_scored);
    if (c->correct_importance) {
        op_log_probability(l->device, rows, codebook, logits, c->temperature, actions, on_device->scored);
        TRY(device_download(l->device, host->scored, on_device->scored, sizeof(float) * (size_t)rows));
    }
    for (int64_t row = 0; row < rows; row++) {
        const int64_t sample = row / frames;
        const float sampled = slot->log_probabilities[row * levels + level];
        host->advantages[row] = isnan(slot->returns[sample])
                                    ? 0.0f
                                    : (slot->returns[sample] - slot->values[row]) * advantage_scale;
        float weight = 1.0f;
        if (c->correct_importance) {
            const float ratio = expf(host->scored[row] - sampled);
            const bool clipped = is_clipped(ratio, host->advantages[row], c->clip);
            weight = ratio < c->importance_cap ? ratio : c->importance_cap;
            host->advantages[row] *= clipped ? 0.0f : weight;
            statistics[sample].clipped += clipped;
        }
        statistics[sample].importance += (double)weight;
    }
    const policy_loss_terms terms = {.temperature = c->temperature,
                                     .policy_weight = (1.0f - c->alpha) / (float)c->batch,
                                     .kl_weight = c->alpha / (float)c->batch,
                                     .entropy_weight = c->entropy_bonus / (float)c->batch};
    TRY(device_upload(l->device, on_device->advantages, host->advantages, sizeof(float) * (size_t)rows));
    op_policy_loss(l->device, rows, codebook, logits, reference, actions, on_device->advantages, &terms,
                   on_device->scored, on_device->entropies, on_device->kls, l->scratch);
    TRY(device_download(l->device, host->scored, on_device->scored,
                        sizeof(float) * (size_t)rows * LEVEL_RESULTS));
    for (int64_t row = 0; row < rows; row++) {
        learner_policy_statistics *s = &statistics[row / frames];
        const double scored = (double)host->scored[row];
        s->kl += (double)host->kls[row];
        s->kl_k1 += scored - (double)host->reference_scored[row];
        s->entropy += (double)host->entropies[row];
        s->policy_loss -= (1.0 - (double)c->alpha) * (double)host->advantages[row] * scored;
        const double gap = fabs(scored - (double)slot->log_probabilities[row * levels + level]);
        if (!(gap <= s->log_probability_gap)) // a NaN is kept
            s->log_probability_gap = gap;
    }
    return STATUS_OK;
}

// Both passes forward, and what learning needs of them in statistics and logits.
static status score_slot(learner *l, const learner_slot *slot, float advantage_scale,
                         learner_policy_statistics *statistics) {
    const int samples = l->config.slot_samples;
    TRY(policy_forward(l->reference, l->reference_pass, samples, slot->prefix, slot->tokens));
    TRY(policy_forward(l->policy, l->policy_pass, samples, slot->prefix, slot->tokens));
    memset(statistics, 0, sizeof *statistics * (size_t)samples);
    for (int level = 0; level < l->config.policy.temporal.levels; level++)
        TRY(score_level(l, slot, level, advantage_scale, statistics));
    return STATUS_OK;
}

status learner_policy_slot(learner *l, const learner_slot *slot, float advantage_scale, float *gradients,
                           learner_policy_statistics *statistics) {
    TRY(score_slot(l, slot, advantage_scale, statistics));
    op_zero(l->device, sizeof(float) * policy_parameters(l->policy)->size, gradients);
    return policy_backward(l->policy, l->policy_pass, l->config.slot_samples, gradients, slot->watch);
}

status learner_measure_slot(learner *l, const learner_slot *slot, learner_policy_statistics *statistics) {
    return score_slot(l, slot, 0.0f, statistics);
}
