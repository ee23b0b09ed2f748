#include "core/learner.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

struct learner {
    device *device;
    learner_config config;
    policy *policy, *reference;
    value_network *value;
    policy_pass *policy_pass, *reference_pass;
    value_pass *value_pass;
    optimizer *policy_optimizer, *value_optimizer;
    // [slot_samples * frames] each: of one level, or of the value head
    float *advantages, *sampled, *scored, *reference_scored, *entropies, *kls, *d_values;
    float *scratch;
    void *memory;
};

static void carve(learner *l, arena *a) {
    const size_t rows = (size_t)l->config.slot_samples * (size_t)l->config.frames;
    int largest = 0;
    for (int level = 0; level < l->config.policy.temporal.levels; level++)
        if (l->config.policy.temporal.codebook[level] > largest)
            largest = l->config.policy.temporal.codebook[level];
    float **rows_of[] = {&l->advantages, &l->sampled, &l->scored,  &l->reference_scored,
                         &l->entropies,  &l->kls,     &l->d_values};
    for (size_t i = 0; i < sizeof rows_of / sizeof rows_of[0]; i++)
        *rows_of[i] = arena_take(a, sizeof(float) * rows);
    l->scratch = arena_take(a, sizeof(float) * policy_loss_scratch_floats(l->device, largest));
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
    memset(gradients, 0, sizeof(float) * value_parameters(l->value)->size);
    return value_backward(l->value, l->value_pass, samples, l->d_values, gradients);
}

// Whether PPO's objective min(ratio A, clip(ratio) A) of a token is the constant one.
static bool is_clipped(float ratio, float advantage, float clip) {
    return clip > 0.0f &&
           ((advantage > 0.0f && ratio > 1.0f + clip) || (advantage < 0.0f && ratio < 1.0f - clip));
}

// Scores one level against the sampled tokens, leaves its gradient in the logits and adds to the statistics.
static void score_level(learner *l, const learner_slot *slot, int level, float advantage_scale,
                        learner_policy_statistics *statistics) {
    const learner_config *c = &l->config;
    const int frames = c->frames, levels = c->policy.temporal.levels,
              codebook = c->policy.temporal.codebook[level];
    const int64_t rows = (int64_t)c->slot_samples * frames;
    float *logits = policy_pass_logits(l->policy_pass, level);
    const float *reference = policy_pass_logits(l->reference_pass, level);
    const int32_t *actions = policy_pass_actions(l->policy_pass, level);
    op_log_probability(l->device, rows, codebook, reference, c->temperature, actions, l->reference_scored);
    if (c->correct_importance)
        op_log_probability(l->device, rows, codebook, logits, c->temperature, actions, l->scored);
    for (int64_t row = 0; row < rows; row++) {
        const int64_t sample = row / frames;
        l->sampled[row] = slot->log_probabilities[row * levels + level];
        l->advantages[row] = isnan(slot->returns[sample])
                                 ? 0.0f
                                 : (slot->returns[sample] - slot->values[row]) * advantage_scale;
        float weight = 1.0f;
        if (c->correct_importance) {
            const float ratio = expf(l->scored[row] - l->sampled[row]);
            const bool clipped = is_clipped(ratio, l->advantages[row], c->clip);
            weight = ratio < c->importance_cap ? ratio : c->importance_cap;
            l->advantages[row] *= clipped ? 0.0f : weight;
            statistics[sample].clipped += clipped;
        }
        statistics[sample].importance += (double)weight;
    }
    const policy_loss_terms terms = {.temperature = c->temperature,
                                     .policy_weight = (1.0f - c->alpha) / (float)c->batch,
                                     .kl_weight = c->alpha / (float)c->batch,
                                     .entropy_weight = c->entropy_bonus / (float)c->batch};
    op_policy_loss(l->device, rows, codebook, logits, reference, actions, l->advantages, &terms, l->scored,
                   l->entropies, l->kls, l->scratch);
    for (int64_t row = 0; row < rows; row++) {
        learner_policy_statistics *s = &statistics[row / frames];
        s->kl += (double)l->kls[row];
        s->kl_k1 += (double)l->scored[row] - (double)l->reference_scored[row];
        s->entropy += (double)l->entropies[row];
        s->policy_loss -= (1.0 - (double)c->alpha) * (double)l->advantages[row] * (double)l->scored[row];
        const double gap = fabs((double)l->scored[row] - (double)l->sampled[row]);
        if (!(gap <= s->log_probability_gap)) // a NaN is kept
            s->log_probability_gap = gap;
    }
}

// Both passes forward, and what learning needs of them in statistics and logits.
static status score_slot(learner *l, const learner_slot *slot, float advantage_scale,
                         learner_policy_statistics *statistics) {
    const int samples = l->config.slot_samples;
    TRY(policy_forward(l->reference, l->reference_pass, samples, slot->prefix, slot->tokens));
    TRY(policy_forward(l->policy, l->policy_pass, samples, slot->prefix, slot->tokens));
    memset(statistics, 0, sizeof *statistics * (size_t)samples);
    for (int level = 0; level < l->config.policy.temporal.levels; level++)
        score_level(l, slot, level, advantage_scale, statistics);
    return STATUS_OK;
}

status learner_policy_slot(learner *l, const learner_slot *slot, float advantage_scale, float *gradients,
                           learner_policy_statistics *statistics) {
    TRY(score_slot(l, slot, advantage_scale, statistics));
    memset(gradients, 0, sizeof(float) * policy_parameters(l->policy)->size);
    return policy_backward(l->policy, l->policy_pass, l->config.slot_samples, gradients);
}

status learner_measure_slot(learner *l, const learner_slot *slot, learner_policy_statistics *statistics) {
    return score_slot(l, slot, 0.0f, statistics);
}
