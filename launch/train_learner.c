// The learner role: what it holds, and how it collects rollouts and scores.
#include "launch/train.h"
#include "launch/train_parts.h"

#include "core/sound_check.h"
#include "core/statistics.h"
#include "data/digest.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

// Codes of all levels.
static size_t codes_of(const train *t) {
    size_t codes = 0;
    for (int level = 0; level < t->shape.temporal.levels; level++)
        codes += (size_t)t->shape.temporal.codebook[level];
    return codes;
}

size_t train_row_bytes(const run_config *config) {
    const size_t scores =
        2 * (size_t)config->train.rewards.count + SCORE_COLUMNS + (size_t)config->embedding.output;
    return sizeof(double) * (STATISTIC_REWARDS + scores);
}

status train_learner_create(train *t) {
    learner_role *l = &t->learner;
    const run_config *config = t->config;
    const int member = train_member(t, ROLE_LEARNER);
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
        .correct_importance = config->train.lag > 0 || config->train.ppo_epochs > 1 ||
                              config->train.rollout_precision != RUN_PRECISION_F32,
        .importance_cap = (float)config->train.importance_cap,
        .clip = config->train.ppo_epochs > 1 ? (float)config->train.clip : 0.0f,
        .entropy_bonus = (float)config->train.entropy_bonus,
        .no_value_network =
            config->train.baseline != RUN_BASELINE_VALUE || config->train.method == RUN_METHOD_DPO,
        .optimizer = {.beta1 = (float)config->train.beta1,
                      .beta2 = (float)config->train.beta2,
                      .epsilon = (float)config->train.epsilon,
                      .weight_decay = (float)config->train.weight_decay,
                      .gradient_clip = (float)config->train.gradient_clip},
    };
    TRY(learner_create(&l->learner, t->device, &shape));
    const size_t policy_size = policy_parameters(learner_policy(l->learner))->size;
    TRY(gradient_sum_create(&l->policy_gradients, t->device, policy_size, l->slots.count));
    if (learner_value(l->learner) != NULL)
        TRY(gradient_sum_create(&l->value_gradients, t->device,
                                value_parameters(learner_value(l->learner))->size, l->slots.count));
    else
        TRY(memory_allocate((void **)&l->group_advantages, sizeof(double) * (size_t)config->train.batch,
                            "advantages"));
    const size_t samples = l->samples.count, frames = (size_t)config->train.frames;
    const size_t tokens = samples * frames * (size_t)t->shape.temporal.levels;
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
    TRY(memory_allocate((void **)&l->histogram, sizeof(double) * codes_of(t), "histogram of codes"));
    return memory_allocate((void **)&l->rows, sizeof(double) * (size_t)config->train.batch * l->row_width,
                           "statistics of the batch");
}

void train_learner_destroy(train *t) {
    learner_role *l = &t->learner;
    device_group_destroy(l->devices); // before the buffers that it may still use
    train_release_shards(t);
    gradient_sum_destroy(l->policy_gradients);
    gradient_sum_destroy(l->value_gradients);
    learner_destroy(l->learner);
    group_destroy(l->group);
    memory_free(l->group_advantages);
    memory_free(l->prefix);
    memory_free(l->tokens);
    memory_free(l->log_probabilities);
    memory_free(l->scores);
    memory_free(l->returns);
    memory_free(l->values);
    memory_free(l->value_statistics);
    memory_free(l->policy_statistics);
    memory_free(l->histogram);
    memory_free(l->rows);
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
    const int routes = roles_routes(&t->layout, ROLE_LEARNER, train_member(t, ROLE_LEARNER), ROLE_ROLLOUT,
                                    t->routes, t->route_capacity);
    for (int i = 0; i < routes; i++) {
        const void *message;
        size_t bytes;
        rollout_batch batch;
        const exchange_link link = {round, ROLE_ROLLOUT, ROLE_LEARNER, t->routes[i]};
        TRY(exchange_receive(t->exchange, &link, "learn", &message, &bytes));
        TRY(exchange_blame(t->exchange, &link, rollout_batch_parse(&batch, message, bytes)));
        TRY(train_check_batch(t, round, &batch, t->routes[i].samples));
        const size_t at = batch.first_sample - l->samples.first;
        memcpy(l->tokens + at * clip, batch.tokens, sizeof(uint16_t) * clip * batch.samples);
        memcpy(l->log_probabilities + at * clip, batch.log_probabilities,
               sizeof(float) * clip * batch.samples);
        if (prefix > 0)
            memcpy(l->prefix + at * prefix, batch.prefix, sizeof(uint16_t) * prefix * batch.samples);
        for (uint32_t s = 0; s < batch.samples; s++) {
            double *row = train_row(t, batch.first_sample + s);
            row[STATISTIC_ROLLOUT_SECONDS] = batch.seconds;
            row[STATISTIC_DIGEST] = short_digest(batch.tokens + s * clip, sizeof(uint16_t) * clip) +
                                    short_digest(batch.log_probabilities + s * clip, sizeof(float) * clip);
        }
        exchange_release(t->exchange, &link, message);
    }
    return STATUS_OK;
}

static status receive_scores(train *t, const sampling_round *round) {
    learner_role *l = &t->learner;
    const size_t width = (size_t)t->reward_width;
    const int routes = roles_routes(&t->layout, ROLE_LEARNER, train_member(t, ROLE_LEARNER), ROLE_REWARD,
                                    t->routes, t->route_capacity);
    for (int i = 0; i < routes; i++) {
        const void *message;
        size_t bytes;
        reward_batch batch;
        const exchange_link link = {round, ROLE_REWARD, ROLE_LEARNER, t->routes[i]};
        TRY(exchange_receive(t->exchange, &link, "learn", &message, &bytes));
        TRY(exchange_blame(t->exchange, &link, reward_batch_parse(&batch, message, bytes)));
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
            train_row(t, batch.first_sample + s)[STATISTIC_REWARD_SECONDS] = batch.seconds;
        exchange_release(t->exchange, &link, message);
    }
    return STATUS_OK;
}

// Weighted sums of a sample's scores into its row; NaN if one of the scores is no number, so that the sample
// counts neither in means nor in what is learnt.
static void sum_scores(train *t, uint32_t i) {
    learner_role *l = &t->learner;
    const run_config_rewards *rewards = &t->config->train.rewards;
    const float *score = l->scores + (size_t)i * (size_t)t->reward_width;
    double *row = train_row(t, l->samples.first + i), target = 0.0;
    for (int j = 0; j < t->reward_width; j++)
        row[STATISTIC_REWARDS + j] = (double)score[j];
    for (int j = 0; j < rewards->count; j++) {
        const double weight = rewards->entries[j].weight;
        if (weight == 0.0)
            continue;
        if (!isfinite(score[j])) {
            row[STATISTIC_REWARD] = target = NAN;
            break;
        }
        row[STATISTIC_REWARD] += weight * (double)score[j];
        target += weight * ((double)score[j] - t->reward_mean[j]) / t->reward_std[j];
    }
    row[STATISTIC_RETURN] = target;
    l->returns[i] = (float)target;
}

// How evenly the batch uses the codes of each level. Counts are whole numbers, whose sums are exact.
static status measure_codes(train *t) {
    learner_role *l = &t->learner;
    const int levels = t->shape.temporal.levels;
    const size_t rows = (size_t)l->samples.count * (size_t)t->config->train.frames;
    memset(l->histogram, 0, sizeof(double) * codes_of(t));
    double *counts = l->histogram;
    for (int level = 0; level < levels; counts += t->shape.temporal.codebook[level], level++)
        for (size_t row = 0; row < rows; row++)
            counts[l->tokens[row * (size_t)levels + (size_t)level]] += 1.0;
    TRY(group_all_reduce_tree_double(l->group, l->histogram, codes_of(t)));
    counts = l->histogram;
    for (int level = 0; level < levels; counts += t->shape.temporal.codebook[level], level++)
        l->perplexity[level] = sound_check_perplexity(counts, (size_t)t->shape.temporal.codebook[level]);
    return STATUS_OK;
}

// Some rollouts without a score may be left out, but not all. Asked of the whole batch, so that the answer
// does not depend on who scores which part.
static status check_scores(const train *t, const sampling_round *round) {
    for (uint32_t i = 0; i < (uint32_t)t->config->train.batch; i++)
        if (!isnan(train_row(t, i)[STATISTIC_RETURN]))
            return STATUS_OK;
    return FAIL(
        "step %lld: none of %d rollouts has a finite score by every reward of train.rewards; a reward "
        "model or the joint embedding is broken, train it again",
        (long long)round->step, t->config->train.batch);
}

status train_learner_collect(train *t, const sampling_round *round) {
    learner_role *l = &t->learner;
    watch_enter(t->watch, WATCH_LEARN, t->step);
    memset(l->rows, 0, sizeof(double) * (size_t)t->config->train.batch * l->row_width);
    TRY(receive_rollouts(t, round));
    TRY(receive_scores(t, round));
    for (uint32_t i = 0; i < l->samples.count; i++)
        sum_scores(t, i);
    TRY(measure_codes(t));
    TRY(train_share_rows(t)); // when that is done, every learner has its samples
    TRY(exchange_collected(t->exchange, round));
    return check_scores(t, round);
}

double train_diversity(const train *t, size_t count) {
    const size_t at = (size_t)STATISTIC_REWARDS + (size_t)train_embedding_column(t);
    return statistics_diversity(t->learner.rows + at, t->learner.row_width, count,
                                (size_t)t->embedding_width);
}
