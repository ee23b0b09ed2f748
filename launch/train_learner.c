// The learner role: collects rollouts and scores, and updates policy and value network.
#include "launch/train_parts.h"

#include "core/statistics.h"
#include "data/digest.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

status train_learner_create(train *t) {
    learner_role *l = &t->learner;
    const run_config *config = t->config;
    const int member = roles_member(&t->layout, ROLE_LEARNER, world_rank(t->world));
    l->row_width = (size_t)STATISTIC_REWARDS + (size_t)t->reward_width;
    if (member < 0)
        return STATUS_OK;
    l->active = true;
    l->samples = roles_samples(&t->layout, ROLE_LEARNER, member);
    l->slots = roles_slots(&t->layout, member);
    const learner_config shape = {
        .policy = t->shape,
        .slot_samples = config->train.batch / config->train.gradient_slots,
        .frames = config->train.frames,
        .batch = config->train.batch,
        .temperature = (float)config->train.temperature,
        .alpha = (float)config->train.alpha,
        .correct_importance = config->train.lag > 0 || config->train.rollout_precision != RUN_PRECISION_F32,
        .importance_cap = (float)config->train.importance_cap,
        .optimizer = {.beta1 = (float)config->train.beta1,
                      .beta2 = (float)config->train.beta2,
                      .epsilon = (float)config->train.epsilon,
                      .weight_decay = (float)config->train.weight_decay,
                      .gradient_clip = (float)config->train.gradient_clip},
    };
    TRY(learner_create(&l->learner, t->device, &shape));
    const size_t policy_size = policy_parameters(learner_policy(l->learner))->size;
    const size_t value_size = value_parameters(learner_value(l->learner))->size;
    TRY(tree_accumulator_create(&l->policy_tree, TREE_FLOAT, policy_size, l->slots.count));
    TRY(tree_accumulator_create(&l->value_tree, TREE_FLOAT, value_size, l->slots.count));
    const size_t samples = l->samples.count, frames = (size_t)config->train.frames;
    const size_t tokens = samples * frames * (size_t)t->shape.temporal.levels;
    TRY(memory_allocate((void **)&l->policy_gradients, sizeof(float) * policy_size, "policy gradients"));
    TRY(memory_allocate((void **)&l->value_gradients, sizeof(float) * value_size, "value gradients"));
    TRY(memory_allocate((void **)&l->prefix,
                        sizeof(uint16_t) * (samples * (size_t)t->shape.temporal.prefix + 1),
                        "learner prefixes"));
    TRY(memory_allocate((void **)&l->tokens, sizeof(uint16_t) * tokens, "learner tokens"));
    TRY(memory_allocate((void **)&l->log_probabilities, sizeof(float) * tokens, "learner log-probabilities"));
    TRY(memory_allocate((void **)&l->scores, sizeof(float) * samples * (size_t)t->reward_width,
                        "learner scores"));
    TRY(memory_allocate((void **)&l->returns, sizeof(float) * samples, "returns"));
    TRY(memory_allocate((void **)&l->values, sizeof(float) * samples * frames, "values"));
    TRY(memory_allocate((void **)&l->value_statistics,
                        sizeof *l->value_statistics * (size_t)shape.slot_samples, "statistics"));
    TRY(memory_allocate((void **)&l->policy_statistics,
                        sizeof *l->policy_statistics * (size_t)shape.slot_samples, "statistics"));
    return memory_allocate((void **)&l->rows, sizeof(double) * (size_t)config->train.batch * l->row_width,
                           "statistics of the batch");
}

void train_learner_destroy(train *t) {
    learner_role *l = &t->learner;
    tree_accumulator_destroy(l->policy_tree);
    tree_accumulator_destroy(l->value_tree);
    learner_destroy(l->learner);
    group_destroy(l->group);
    memory_free(l->policy_gradients);
    memory_free(l->value_gradients);
    memory_free(l->prefix);
    memory_free(l->tokens);
    memory_free(l->log_probabilities);
    memory_free(l->scores);
    memory_free(l->returns);
    memory_free(l->values);
    memory_free(l->value_statistics);
    memory_free(l->policy_statistics);
    memory_free(l->rows);
}

static double *row_of(const train *t, uint32_t sample) {
    return t->learner.rows + (size_t)sample * t->learner.row_width;
}

// Every learner fills the rows of its own samples; the sum with the others' zeros is exact, so that all
// learners then add the same numbers in the same order.
static status share_rows(train *t) {
    return group_all_reduce_tree_double(t->learner.group, t->learner.rows,
                                        (size_t)t->config->train.batch * t->learner.row_width);
}

static void clear_foreign_rows(train *t) {
    const learner_role *l = &t->learner;
    for (uint32_t i = 0; i < (uint32_t)t->config->train.batch; i++)
        if (i < l->samples.first || i >= l->samples.first + l->samples.count)
            memset(row_of(t, i), 0, sizeof(double) * l->row_width);
}

// 52 bits of a digest, which a double holds exactly, as it does the sum of two.
static double short_digest(const void *bytes, size_t count) {
    const digest whole = digest_bytes(bytes, count);
    uint64_t first;
    memcpy(&first, &whole, sizeof first);
    return (double)(first >> 12);
}

static status receive_rollouts(train *t, const sampling_round *round) {
    learner_role *l = &t->learner;
    const size_t levels = (size_t)t->shape.temporal.levels, prefix = (size_t)t->shape.temporal.prefix;
    const size_t clip = (size_t)t->config->train.frames * levels;
    const int member = roles_member(&t->layout, ROLE_LEARNER, world_rank(t->world));
    const int routes =
        roles_routes(&t->layout, ROLE_LEARNER, member, ROLE_ROLLOUT, t->routes, t->layout.ranks);
    for (int i = 0; i < routes; i++) {
        const void *message;
        size_t bytes;
        rollout_batch batch;
        TRY(mailbox_receive(train_mailbox(t, round), t->routes[i].rank, MESSAGE_ROLLOUT_BATCH, "learn",
                            &message, &bytes));
        TRY(rollout_batch_parse(&batch, message, bytes));
        TRY(train_check_batch(t, round, &batch, t->routes[i].samples));
        const size_t at = batch.first_sample - l->samples.first;
        memcpy(l->tokens + at * clip, batch.tokens, sizeof(uint16_t) * clip * batch.samples);
        memcpy(l->log_probabilities + at * clip, batch.log_probabilities,
               sizeof(float) * clip * batch.samples);
        if (prefix > 0)
            memcpy(l->prefix + at * prefix, batch.prefix, sizeof(uint16_t) * prefix * batch.samples);
        for (uint32_t s = 0; s < batch.samples; s++) {
            double *row = row_of(t, batch.first_sample + s);
            row[STATISTIC_ROLLOUT_SECONDS] = batch.seconds;
            row[STATISTIC_DIGEST] = short_digest(batch.tokens + s * clip, sizeof(uint16_t) * clip) +
                                    short_digest(batch.log_probabilities + s * clip, sizeof(float) * clip);
        }
        mailbox_release(train_mailbox(t, round), message);
    }
    return STATUS_OK;
}

static status receive_scores(train *t, const sampling_round *round) {
    learner_role *l = &t->learner;
    const size_t width = (size_t)t->reward_width;
    const int member = roles_member(&t->layout, ROLE_LEARNER, world_rank(t->world));
    const int routes =
        roles_routes(&t->layout, ROLE_LEARNER, member, ROLE_REWARD, t->routes, t->layout.ranks);
    for (int i = 0; i < routes; i++) {
        const void *message;
        size_t bytes;
        reward_batch batch;
        TRY(mailbox_receive(train_mailbox(t, round), t->routes[i].rank, MESSAGE_REWARD_BATCH, "learn",
                            &message, &bytes));
        TRY(reward_batch_parse(&batch, message, bytes));
        const sample_range wanted = t->routes[i].samples;
        if (batch.step != (uint64_t)round->step || batch.first_sample != wanted.first ||
            batch.samples != wanted.count || batch.reward_count != (uint32_t)t->reward_width)
            return FAIL(
                "scores of step %llu, samples %u+%u x %u came where step %lld, samples %u+%u x %d were due",
                (unsigned long long)batch.step, batch.first_sample, batch.samples, batch.reward_count,
                (long long)round->step, wanted.first, wanted.count, t->reward_width);
        memcpy(l->scores + (batch.first_sample - l->samples.first) * width, batch.rewards,
               sizeof(float) * width * batch.samples);
        for (uint32_t s = 0; s < batch.samples; s++)
            row_of(t, batch.first_sample + s)[STATISTIC_REWARD_SECONDS] = batch.seconds;
        mailbox_release(train_mailbox(t, round), message);
    }
    return STATUS_OK;
}

status train_learner_collect(train *t, const sampling_round *round) {
    learner_role *l = &t->learner;
    const run_config *config = t->config;
    const int rewards = config->train.rewards.count;
    memset(l->rows, 0, sizeof(double) * (size_t)config->train.batch * l->row_width);
    TRY(receive_rollouts(t, round));
    TRY(receive_scores(t, round));
    for (uint32_t i = 0; i < l->samples.count; i++) {
        const float *score = l->scores + (size_t)i * (size_t)t->reward_width;
        double *row = row_of(t, l->samples.first + i), target = 0.0;
        for (int j = 0; j < t->reward_width; j++)
            row[STATISTIC_REWARDS + j] = (double)score[j];
        for (int j = 0; j < rewards; j++) {
            const double weight = config->train.rewards.entries[j].weight;
            row[STATISTIC_REWARD] += weight * (double)score[j];
            target += weight * ((double)score[j] - t->reward_mean[j]) / t->reward_std[j];
        }
        row[STATISTIC_RETURN] = target;
        l->returns[i] = (float)target;
    }
    return share_rows(t);
}

double train_diversity(const train *t, size_t count) {
    const size_t at = (size_t)STATISTIC_REWARDS + (size_t)t->config->train.rewards.count;
    return statistics_diversity(t->learner.rows + at, t->learner.row_width, count,
                                (size_t)t->embedding_width);
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

// Value pass over this learner's slots; leaves the summed gradient of all learners in value_gradients.
static status value_pass_over_slots(train *t) {
    learner_role *l = &t->learner;
    for (uint32_t slot = l->slots.first; slot < l->slots.first + l->slots.count; slot++) {
        const learner_slot view = slot_of(t, slot);
        const sample_range samples = roles_slot_samples(&t->layout, slot);
        TRY(learner_value_slot(l->learner, &view, l->value_gradients, l->value_statistics));
        for (uint32_t i = 0; i < samples.count; i++) {
            double *row = row_of(t, samples.first + i);
            row[STATISTIC_ERROR] = l->value_statistics[i].error;
            row[STATISTIC_SQUARED_ERROR] = l->value_statistics[i].squared_error;
        }
        tree_accumulator_add(l->value_tree, l->value_gradients);
    }
    return group_all_reduce_tree(l->group, l->value_gradients,
                                 value_parameters(learner_value(l->learner))->size);
}

static status policy_pass_over_slots(train *t, float advantage_scale) {
    learner_role *l = &t->learner;
    for (uint32_t slot = l->slots.first; slot < l->slots.first + l->slots.count; slot++) {
        const learner_slot view = slot_of(t, slot);
        const sample_range samples = roles_slot_samples(&t->layout, slot);
        TRY(learner_policy_slot(l->learner, &view, advantage_scale, l->policy_gradients,
                                l->policy_statistics));
        for (uint32_t i = 0; i < samples.count; i++) {
            double *row = row_of(t, samples.first + i);
            row[STATISTIC_KL] = l->policy_statistics[i].kl;
            row[STATISTIC_KL_K1] = l->policy_statistics[i].kl_k1;
            row[STATISTIC_ENTROPY] = l->policy_statistics[i].entropy;
            row[STATISTIC_POLICY_LOSS] = l->policy_statistics[i].policy_loss;
            row[STATISTIC_IMPORTANCE] = l->policy_statistics[i].importance;
            row[STATISTIC_GAP] = l->policy_statistics[i].log_probability_gap;
        }
        tree_accumulator_add(l->policy_tree, l->policy_gradients);
    }
    return group_all_reduce_tree(l->group, l->policy_gradients,
                                 policy_parameters(learner_policy(l->learner))->size);
}

static double column_mean(const train *t, int column) {
    const int batch = t->config->train.batch;
    double sum = 0.0;
    for (int i = 0; i < batch; i++)
        sum += row_of(t, (uint32_t)i)[column];
    return sum / batch;
}

// What the samples' digests become, taken in order: equal runs draw equal tokens, and this shows it.
static double batch_digest(const train *t) {
    uint64_t mixed = 0;
    for (int i = 0; i < t->config->train.batch; i++)
        mixed = mixed * UINT64_C(6364136223846793005) + (uint64_t)row_of(t, (uint32_t)i)[STATISTIC_DIGEST];
    return (double)(mixed >> 12);
}

status train_learner_update(train *t, float rate_factor, step_result *out) {
    learner_role *l = &t->learner;
    const run_config *config = t->config;
    const double frames = config->train.frames;
    *out = (step_result){0};
    const double first_bias = column_mean(t, STATISTIC_RETURN);
    if (t->step == 0 && isfinite(first_bias)) {
        value_set_bias(learner_value(l->learner), (float)first_bias);
        TRY(value_pack(learner_value(l->learner)));
    }
    out->rollout_digest = batch_digest(t);
    TRY(value_pass_over_slots(t));
    clear_foreign_rows(t);
    TRY(share_rows(t));
    const double error = column_mean(t, STATISTIC_ERROR) / frames;
    const double squared = column_mean(t, STATISTIC_SQUARED_ERROR) / frames;
    const double variance = squared - error * error > 0.0 ? squared - error * error : 0.0;
    const double mean_return = column_mean(t, STATISTIC_RETURN);
    double return_variance = 0.0;
    for (int i = 0; i < config->train.batch; i++) {
        const double difference = row_of(t, (uint32_t)i)[STATISTIC_RETURN] - mean_return;
        return_variance += difference * difference / config->train.batch;
    }
    const double deviation = sqrt(variance), floor = config->train.advantage_std_floor;
    const float scale =
        config->train.whiten_advantage ? (float)(1.0 / (deviation > floor ? deviation : floor)) : 1.0f;
    TRY(policy_pass_over_slots(t, scale));
    clear_foreign_rows(t);
    TRY(share_rows(t));
    out->value_loss = squared;
    out->advantage_mean = error;
    out->advantage_std = deviation;
    out->explained_variance = return_variance > 0.0 ? 1.0 - variance / return_variance : 0.0;
    out->kl = column_mean(t, STATISTIC_KL);
    out->kl_k1 = column_mean(t, STATISTIC_KL_K1);
    out->entropy = column_mean(t, STATISTIC_ENTROPY);
    out->policy_loss = column_mean(t, STATISTIC_POLICY_LOSS);
    out->importance = column_mean(t, STATISTIC_IMPORTANCE) / (frames * t->shape.temporal.levels);
    for (int i = 0; i < config->train.batch; i++) {
        const double gap = row_of(t, (uint32_t)i)[STATISTIC_GAP];
        if (!(gap <= out->gap))
            out->gap = gap;
    }
    // Every learner holds the same sums, so all of them skip or none does.
    const parameter_list *policy_list = policy_parameters(learner_policy(l->learner));
    const parameter_list *value_list = value_parameters(learner_value(l->learner));
    if (!op_all_finite(t->device, policy_list->size, l->policy_gradients) ||
        !op_all_finite(t->device, value_list->size, l->value_gradients)) {
        out->skipped = true;
        out->gradient_norm = out->value_gradient_norm = NAN;
        return STATUS_OK;
    }
    TRY(weights_wait(t->channel));
    out->gradient_norm = optimizer_update(learner_policy_optimizer(l->learner),
                                          (float)config->train.learning_rate * rate_factor,
                                          l->policy_gradients, policy_values(learner_policy(l->learner)))
                             .gradient_norm;
    out->value_gradient_norm = optimizer_update(learner_value_optimizer(l->learner),
                                                (float)config->train.value_learning_rate * rate_factor,
                                                l->value_gradients, value_values(learner_value(l->learner)))
                                   .gradient_norm;
    TRY(policy_pack(learner_policy(l->learner)));
    return value_pack(learner_value(l->learner));
}
