#include "core/learner.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

// What a slot's policy pass finds of one level, [rows] each, behind each other; rows: slot_samples * frames.
typedef struct level_results {
    float *scored, *reference_scored, *entropies, *kls, *ratios, *weighed;
} level_results;
enum { LEVEL_RESULTS = 6 };

// All of a slot's levels: what goes to the device before them, and comes back after them, at once.
typedef struct slot_rows {
    float *advantages; // [rows]
    float *sampled;    // [levels, rows] log-probabilities, behind the advantages
    float *results;    // [levels, LEVEL_RESULTS, rows]
} slot_rows;

struct learner {
    device *device;
    learner_config config;
    policy *policy, *reference;
    value_network *value;
    policy_pass *policy_pass, *reference_pass;
    value_pass *value_pass;
    optimizer *policy_optimizer, *value_optimizer;
    slot_rows rows, host; // on the device, the same on the host
    float *scratch;       // on the device
    float *d_values;      // [slot_samples * frames] on the host
    void *memory, *host_memory;
};

static size_t rows_of(const learner *l) {
    return (size_t)l->config.slot_samples * (size_t)l->config.frames;
}

static void carve_rows(slot_rows *r, const learner *l, arena *a) {
    const size_t rows = rows_of(l), levels = (size_t)l->config.policy.temporal.levels;
    r->advantages = arena_take(a, sizeof(float) * rows * (1 + levels));
    r->sampled = r->advantages != NULL ? r->advantages + rows : NULL;
    r->results = arena_take(a, sizeof(float) * rows * levels * LEVEL_RESULTS);
}

static level_results results_of(const learner *l, const slot_rows *r, int level) {
    const size_t rows = rows_of(l);
    float *first = r->results + (size_t)level * LEVEL_RESULTS * rows;
    return (level_results){
        first, first + rows, first + 2 * rows, first + 3 * rows, first + 4 * rows, first + 5 * rows};
}

static void carve(learner *l, arena *a) {
    int largest = 0;
    for (int level = 0; level < l->config.policy.temporal.levels; level++)
        if (l->config.policy.temporal.codebook[level] > largest)
            largest = l->config.policy.temporal.codebook[level];
    carve_rows(&l->rows, l, a);
    l->scratch = arena_take(a, sizeof(float) * policy_loss_scratch_floats(l->device, largest));
}

static void carve_host(learner *l, arena *a) {
    carve_rows(&l->host, l, a);
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

// Hands the device what the policy pass starts from: advantages, and the log-probabilities of sampling where
// they are to be corrected for.
static status send_rows(learner *l, const learner_slot *slot, float advantage_scale) {
    const int frames = l->config.frames, levels = l->config.policy.temporal.levels;
    const int64_t rows = (int64_t)rows_of(l);
    for (int64_t row = 0; row < rows; row++) {
        const int64_t sample = row / frames;
        l->host.advantages[row] = isnan(slot->returns[sample])
                                      ? 0.0f
                                      : (slot->returns[sample] - slot->values[row]) * advantage_scale;
        for (int level = 0; level < levels; level++)
            l->host.sampled[level * rows + row] = slot->log_probabilities[row * levels + level];
    }
    return device_upload(l->device, l->rows.advantages, l->host.advantages,
                         sizeof(float) * (size_t)rows *
                             (l->config.correct_importance ? 1 + (size_t)levels : 1));
}

// Scores one level against the sampled tokens and leaves its gradient in the logits. Waits for nothing.
static void score_level(learner *l, int level) {
    const learner_config *c = &l->config;
    const level_results found = results_of(l, &l->rows, level);
    const int codebook = c->policy.temporal.codebook[level];
    const int64_t rows = (int64_t)rows_of(l);
    float *logits = policy_pass_logits(l->policy_pass, level);
    const float *reference = policy_pass_logits(l->reference_pass, level), *advantages = l->rows.advantages;
    const int32_t *actions = policy_pass_actions(l->policy_pass, level);
    op_log_probability(l->device, rows, codebook, reference, c->temperature, actions, found.reference_scored);
    if (c->correct_importance) {
        op_log_probability(l->device, rows, codebook, logits, c->temperature, actions, found.scored);
        op_importance(l->device, rows, found.scored, l->rows.sampled + level * rows, advantages,
                      c->importance_cap, c->clip, found.ratios, found.weighed);
        advantages = found.weighed;
    }
    const policy_loss_terms terms = {.temperature = c->temperature,
                                     .policy_weight = (1.0f - c->alpha) / (float)c->batch,
                                     .kl_weight = c->alpha / (float)c->batch,
                                     .entropy_weight = c->entropy_bonus / (float)c->batch};
    op_policy_loss(l->device, rows, codebook, logits, reference, actions, advantages, &terms, found.scored,
                   found.entropies, found.kls, l->scratch);
}

static void count_level(const learner *l, int level, learner_policy_statistics *statistics) {
    const learner_config *c = &l->config;
    const level_results found = results_of(l, &l->host, level);
    const int64_t rows = (int64_t)rows_of(l);
    const float *sampled = l->host.sampled + level * rows;
    for (int64_t row = 0; row < rows; row++) {
        learner_policy_statistics *s = &statistics[row / c->frames];
        const double scored = (double)found.scored[row];
        float advantage = l->host.advantages[row], weight = 1.0f;
        if (c->correct_importance) {
            const float ratio = found.ratios[row];
            weight = ratio < c->importance_cap ? ratio : c->importance_cap;
            s->clipped += importance_is_clipped(ratio, advantage, c->clip);
            advantage = found.weighed[row];
        }
        s->importance += (double)weight;
        s->kl += (double)found.kls[row];
        s->kl_k1 += scored - (double)found.reference_scored[row];
        s->entropy += (double)found.entropies[row];
        s->policy_loss -= (1.0 - (double)c->alpha) * (double)advantage * scored;
        const double gap = fabs(scored - (double)sampled[row]);
        if (!(gap <= s->log_probability_gap)) // a NaN is kept
            s->log_probability_gap = gap;
    }
}

// Both passes forward, and what learning needs of them in statistics and logits.
static status score_slot(learner *l, const learner_slot *slot, float advantage_scale,
                         learner_policy_statistics *statistics) {
    const int samples = l->config.slot_samples, levels = l->config.policy.temporal.levels;
    TRY(send_rows(l, slot, advantage_scale));
    TRY(policy_forward(l->reference, l->reference_pass, samples, slot->prefix, slot->tokens));
    TRY(policy_forward(l->policy, l->policy_pass, samples, slot->prefix, slot->tokens));
    for (int level = 0; level < levels; level++)
        score_level(l, level);
    TRY(device_download(l->device, l->host.results, l->rows.results,
                        sizeof(float) * rows_of(l) * (size_t)levels * LEVEL_RESULTS));
    memset(statistics, 0, sizeof *statistics * (size_t)samples);
    for (int level = 0; level < levels; level++)
        count_level(l, level, statistics);
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
