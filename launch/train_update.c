// One step of learning: advantages, gradients over the slots, updates.
#include "launch/train_parts.h"

#include "core/advantage.h"
#include "core/kl_control.h"

#include <math.h>
#include <string.h>

status train_share_rows(train *t) {
    return group_all_reduce_tree_double(t->learner.group, t->learner.rows,
                                        (size_t)t->config->train.batch * t->learner.row_width);
}

static status share_own_rows(train *t) {
    const learner_role *l = &t->learner;
    for (uint32_t i = 0; i < (uint32_t)t->config->train.batch; i++)
        if (i < l->samples.first || i >= l->samples.first + l->samples.count)
            memset(train_row(t, i), 0, sizeof(double) * l->row_width);
    return train_share_rows(t);
}

static learner_slot slot_of(const train *t, uint32_t slot) {
    const learner_role *l = &t->learner;
    const sample_range samples = roles_slot_samples(&t->layout, slot);
    const size_t at = samples.first - l->samples.first, frames = (size_t)t->config->train.frames;
    const size_t clip = frames * (size_t)t->shape.temporal.levels;
    return (learner_slot){.prefix = l->prefix + at * (size_t)t->shape.temporal.prefix,
                          .tokens = l->tokens + at * clip,
                          .log_probabilities = l->log_probabilities + at * clip,
                          .returns = l->returns + at,
                          .values = l->values + at * frames};
}

// Value pass over this learner's slots; leaves their gradient in value_gradients. The first
// epoch's also gives the values that the advantages come from, and the statistics.
static status value_pass_over_slots(train *t, int epoch) {
    learner_role *l = &t->learner;
    for (uint32_t slot = l->slots.first; slot < l->slots.first + l->slots.count; slot++) {
        learner_slot view = slot_of(t, slot);
        const sample_range samples = roles_slot_samples(&t->layout, slot);
        if (epoch > 0)
            view.values = NULL;
        view.watch = train_next_watch(t, NETWORK_VALUE);
        TRY(learner_value_slot(l->learner, &view, gradient_sum_values(l->value_gradients),
                               l->value_statistics));
        for (uint32_t i = 0; epoch == 0 && i < samples.count; i++) {
            double *row = train_row(t, samples.first + i);
            row[STATISTIC_ERROR] = l->value_statistics[i].error;
            row[STATISTIC_SQUARED_ERROR] = l->value_statistics[i].squared_error;
        }
        gradient_sum_add(l->value_gradients);
    }
    return STATUS_OK;
}

static status policy_pass_over_slots(train *t, int epoch, float advantage_scale) {
    learner_role *l = &t->learner;
    for (uint32_t slot = l->slots.first; slot < l->slots.first + l->slots.count; slot++) {
        learner_slot view = slot_of(t, slot);
        const sample_range samples = roles_slot_samples(&t->layout, slot);
        view.watch = train_next_watch(t, NETWORK_POLICY);
        TRY(learner_policy_slot(l->learner, &view, advantage_scale, gradient_sum_values(l->policy_gradients),
                                l->policy_statistics));
        for (uint32_t i = 0; i < samples.count; i++) {
            double *row = train_row(t, samples.first + i);
            row[STATISTIC_IMPORTANCE] += l->policy_statistics[i].importance;
            row[STATISTIC_CLIPPED] += l->policy_statistics[i].clipped;
            if (epoch > 0)
                continue;
            row[STATISTIC_KL] = l->policy_statistics[i].kl;
            row[STATISTIC_KL_K1] = l->policy_statistics[i].kl_k1;
            row[STATISTIC_ENTROPY] = l->policy_statistics[i].entropy;
            row[STATISTIC_POLICY_LOSS] = l->policy_statistics[i].policy_loss;
            row[STATISTIC_GAP] = l->policy_statistics[i].log_probability_gap;
        }
        gradient_sum_add(l->policy_gradients);
    }
    return STATUS_OK;
}

status train_learner_measure_kl(train *t) {
    learner_role *l = &t->learner;
    for (uint32_t slot = l->slots.first; slot < l->slots.first + l->slots.count; slot++) {
        const learner_slot view = slot_of(t, slot);
        const sample_range samples = roles_slot_samples(&t->layout, slot);
        TRY(learner_measure_slot(l->learner, &view, l->policy_statistics));
        for (uint32_t i = 0; i < samples.count; i++)
            train_row(t, samples.first + i)[STATISTIC_KL] = l->policy_statistics[i].kl;
    }
    return share_own_rows(t);
}

static double column_sum(const train *t, int column) {
    double sum = 0.0;
    for (int i = 0; i < t->config->train.batch; i++)
        sum += train_row(t, (uint32_t)i)[column];
    return sum;
}

static double column_mean(const train *t, int column) {
    return column_sum(t, column) / t->config->train.batch;
}

typedef struct return_moments {
    int known; // samples whose return is known
    double mean, variance;
} return_moments;

static return_moments measure_returns(const train *t) {
    return_moments out = {0};
    double sum = 0.0;
    for (int i = 0; i < t->config->train.batch; i++) {
        const double value = train_row(t, (uint32_t)i)[STATISTIC_RETURN];
        sum += isnan(value) ? 0.0 : value;
        out.known += !isnan(value);
    }
    if (out.known == 0)
        return out;
    out.mean = sum / out.known;
    for (int i = 0; i < t->config->train.batch; i++) {
        const double difference = train_row(t, (uint32_t)i)[STATISTIC_RETURN] - out.mean;
        out.variance += isnan(difference) ? 0.0 : difference * difference / out.known;
    }
    return out;
}

// What the samples' digests become, taken in order: equal runs draw equal tokens, and this shows it.
static double batch_digest(const train *t) {
    uint64_t mixed = 0;
    for (int i = 0; i < t->config->train.batch; i++)
        mixed = mixed * UINT64_C(6364136223846793005) + (uint64_t)train_row(t, (uint32_t)i)[STATISTIC_DIGEST];
    return (double)(mixed >> 12);
}

static float whitening(const train *t, double deviation) {
    const double floor = t->config->train.advantage_std_floor;
    return t->config->train.whiten_advantage ? (float)(1.0 / (deviation > floor ? deviation : floor)) : 1.0f;
}

// The baseline is the value network's: its pass leaves values and, in value_gradients, its own gradient.
static status value_advantages(train *t, step_result *out, float *scale) {
    learner_role *l = &t->learner;
    const return_moments returns = measure_returns(t);
    if (t->step == 0 && isfinite(returns.mean)) {
        TRY(value_set_bias(learner_value(l->learner), (float)returns.mean));
        TRY(value_pack(learner_value(l->learner)));
    }
    TRY(value_pass_over_slots(t, 0));
    TRY(share_own_rows(t));
    const double known = (returns.known > 0 ? returns.known : 1) * (double)t->config->train.frames;
    const double error = column_sum(t, STATISTIC_ERROR) / known;
    const double squared = column_sum(t, STATISTIC_SQUARED_ERROR) / known;
    const double variance = squared - error * error > 0.0 ? squared - error * error : 0.0;
    out->value_loss = squared;
    out->advantage_mean = error;
    out->advantage_std = sqrt(variance);
    out->explained_variance = returns.variance > 0.0 ? 1.0 - variance / returns.variance : 0.0;
    *scale = whitening(t, out->advantage_std);
    return STATUS_OK;
}

// The baseline is that of the caption's group. Every learner holds the returns of the whole batch, so that a
// group may lie on several of them. Advantages take the place of returns, with values of 0.
static void group_baseline_advantages(train *t, step_result *out, float *scale) {
    learner_role *l = &t->learner;
    const run_config *config = t->config;
    const bool by_group = config->train.whiten_group;
    const group_advantages found = group_advantages_find(
        config->train.baseline == RUN_BASELINE_GROUP ? GROUP_BASELINE_MEAN : GROUP_BASELINE_LEAVE_ONE_OUT,
        by_group ? config->train.advantage_std_floor : 0.0, l->rows + STATISTIC_RETURN, l->row_width,
        config->train.batch, config->train.group, l->group_advantages);
    for (uint32_t i = 0; i < l->samples.count; i++)
        l->returns[i] = (float)l->group_advantages[l->samples.first + i];
    memset(l->values, 0, sizeof(float) * l->samples.count * (size_t)config->train.frames);
    out->advantage_mean = found.mean;
    out->advantage_std = found.deviation;
    out->groups_without_signal = found.without_signal;
    *scale = by_group ? 1.0f : whitening(t, found.deviation);
}

status train_learner_apply(train *t, float rate_factor, step_result *out) {
    const run_config *config = t->config;
    const bool has_value = learner_value(t->learner.learner) != NULL;
    double norm, value_norm = 0.0;
    TRY(train_measure_gradients(t, NETWORK_POLICY, &norm));
    if (has_value)
        TRY(train_measure_gradients(t, NETWORK_VALUE, &value_norm));
    // Every learner has the same norms, so all of them skip or none does.
    out->skipped = !isfinite(norm) || !isfinite(value_norm);
    if (out->skipped) {
        out->gradient_norm = out->value_gradient_norm = NAN;
        return STATUS_OK;
    }
    TRY(weights_wait(t->channel));
    TRY(train_update_network(t, NETWORK_POLICY, (float)config->train.learning_rate * rate_factor, norm));
    if (has_value)
        TRY(train_update_network(t, NETWORK_VALUE, (float)config->train.value_learning_rate * rate_factor,
                                 value_norm));
    out->gradient_norm += norm / config->train.ppo_epochs;
    out->value_gradient_norm += value_norm / config->train.ppo_epochs;
    return STATUS_OK;
}

// Of the shared rows.
static void summarise(train *t, step_result *out) {
    const run_config *config = t->config;
    const double tokens = (double)config->train.frames * t->shape.temporal.levels * config->train.ppo_epochs;
    out->kl = column_mean(t, STATISTIC_KL);
    out->kl_k1 = column_mean(t, STATISTIC_KL_K1);
    out->entropy = column_mean(t, STATISTIC_ENTROPY);
    out->policy_loss = column_mean(t, STATISTIC_POLICY_LOSS);
    out->importance = column_mean(t, STATISTIC_IMPORTANCE) / tokens;
    out->clip_fraction = column_mean(t, STATISTIC_CLIPPED) / tokens;
    for (int i = 0; i < config->train.batch; i++) {
        const double gap = train_row(t, (uint32_t)i)[STATISTIC_GAP];
        if (!(gap <= out->gap))
            out->gap = gap;
    }
}

status train_learner_update(train *t, float rate_factor, step_result *out) {
    learner_role *l = &t->learner;
    const run_config *config = t->config;
    float scale = 1.0f;
    *out = (step_result){.alpha = t->alpha, .rollout_digest = batch_digest(t)};
    learner_set_alpha(l->learner, (float)t->alpha);
    if (learner_value(l->learner) != NULL)
        TRY(value_advantages(t, out, &scale));
    else
        group_baseline_advantages(t, out, &scale);
    for (int epoch = 0; epoch < config->train.ppo_epochs && !out->skipped; epoch++) {
        if (epoch > 0 && learner_value(l->learner) != NULL)
            TRY(value_pass_over_slots(t, epoch));
        TRY(policy_pass_over_slots(t, epoch, scale));
        TRY(train_learner_apply(t, rate_factor, out));
    }
    TRY(share_own_rows(t));
    summarise(t, out);
    if (config->train.kl_control == RUN_KL_ADAPTIVE)
        t->alpha = kl_control_next(t->alpha, out->kl, config->train.kl_target, config->train.kl_gain);
    return STATUS_OK;
}
