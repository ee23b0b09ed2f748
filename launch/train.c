#include "launch/train.h"

#include "data/digest.h"
#include "kernels/memory.h"
#include "launch/progress.h"
#include "launch/train_parts.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONDITIONER_BATCH = 64, CAPTION_BYTES_EXPECTED = 1024 };

static const double deadline_seconds = 3600.0; // for a peer that never comes

status train_check_batch(const train *t, const sampling_round *round, const rollout_batch *batch,
                         sample_range samples) {
    const uint32_t levels = (uint32_t)t->shape.temporal.levels, frames = (uint32_t)t->config->train.frames;
    if (batch->step != (uint64_t)round->step || batch->weight_version != (uint64_t)round->version)
        return FAIL("a rollout batch of step %llu, version %llu came where step %lld, version %lld was due",
                    (unsigned long long)batch->step, (unsigned long long)batch->weight_version,
                    (long long)round->step, (long long)round->version);
    if (batch->first_sample != samples.first || batch->samples != samples.count || batch->levels != levels ||
        batch->frames != frames || batch->prefix_tokens != (uint32_t)t->shape.temporal.prefix)
        return FAIL("a rollout batch of samples %u+%u, %u frames x %u levels came where samples %u+%u, %u x "
                    "%u were due",
                    batch->first_sample, batch->samples, batch->frames, batch->levels, samples.first,
                    samples.count, frames, levels);
    return STATUS_OK;
}

// The version that samples step k.
static int64_t version_of(const train *t, int64_t step) {
    const int64_t version = step - t->config->train.lag;
    return version > 0 ? version : 0;
}

static status create_mailboxes(train *t) {
    const run_config *config = t->config;
    const role_members *members = t->layout.members;
    mailbox_plan plan = {.message_bytes = rollout_batch_bytes(
                             (uint32_t)config->train.batch, (uint32_t)config->train.frames,
                             (uint32_t)t->shape.temporal.levels, (uint32_t)t->shape.temporal.prefix,
                             (size_t)config->train.batch * CAPTION_BYTES_EXPECTED)};
    const size_t scores = reward_batch_bytes((uint32_t)config->train.batch, (uint32_t)t->reward_width);
    if (plan.message_bytes < scores)
        plan.message_bytes = scores;
    const int peers = members[ROLE_REWARD].count + members[ROLE_LEARNER].count;
    plan.sends = (config->train.lag + 1) * peers + members[ROLE_LEARNER].count;
    plan.receives = 2;
    for (int i = 0; i < 2; i++)
        TRY(mailbox_create(&t->mailboxes[i], t->world, &plan));
    return STATUS_OK;
}

// Learners form a group; the first of them sends weights to the rollout ranks that do not learn.
static status create_groups(train *t) {
    const int learners = t->layout.members[ROLE_LEARNER].count,
              rollouts = t->layout.members[ROLE_ROLLOUT].count;
    int *ranks;
    TRY(memory_allocate((void **)&ranks, sizeof(int) * (size_t)t->layout.ranks, "rank list"));
    roles_list(&t->layout, ROLE_LEARNER, ranks);
    status result = group_create(&t->learner.group, t->world, ranks, learners);
    int receivers = 0;
    for (int i = 0; i < rollouts; i++) {
        const int rank = roles_rank(&t->layout, ROLE_ROLLOUT, i);
        if (!roles_carries(&t->layout, ROLE_LEARNER, rank))
            ranks[receivers++] = rank;
    }
    if (result == STATUS_OK)
        result = weights_create(&t->channel, t->world, roles_rank(&t->layout, ROLE_LEARNER, 0), ranks,
                                receivers, t->parameters);
    memory_free(ranks);
    return result;
}

static status create_older(train *t) {
    if (t->config->train.lag == 0 || world_rank(t->world) != roles_rank(&t->layout, ROLE_LEARNER, 0))
        return STATUS_OK;
    return memory_allocate((void **)&t->older, sizeof(float) * (size_t)t->config->train.lag * t->parameters,
                           "older weights");
}

static status read_format(train *t) {
    corpus *corpus;
    TRY(corpus_open(&corpus, t->config->data.tokens, SHARD_TOKENS));
    t->format = *corpus_get_format(corpus);
    corpus_close(corpus);
    return model_policy_config(&t->shape, t->config, &t->format);
}

// A rank that only scores has no policy, but takes part in making the channel that weights go through.
static status count_parameters(train *t) {
    policy *counted = NULL;
    const policy *known = t->learner.active ? learner_policy(t->learner.learner) : t->rollout.policy;
    if (known == NULL) {
        TRY(policy_create(&counted, t->device, &t->shape, false, WEIGHT_F32));
        known = counted;
    }
    t->parameters = policy_parameters(known)->size;
    policy_destroy(counted);
    return STATUS_OK;
}

static status prepare(train *t) {
    const run_config *config = t->config;
    TRY(run_config_require(config, "data.tokens"));
    TRY(run_config_require(config, "data.embedding"));
    TRY(run_config_require(config, "data.base"));
    TRY(roles_parse(&t->layout, config->roles, world_size(t->world), (uint32_t)config->train.batch,
                    (uint32_t)config->train.gradient_slots));
    TRY(memory_allocate((void **)&t->routes, sizeof *t->routes * (size_t)t->layout.ranks, "routes"));
    TRY(device_create(&t->device, world_threads(t->world)));
    TRY(read_format(t));
    plan_begin(&t->plan);
    TRY(conditioner_load(&t->conditioner, t->device, config->data.embedding, CONDITIONER_BATCH));
    TRY(conditioner_check_format(t->conditioner, &t->format));
    const embedding_config *embedding = embedding_get_config(t->conditioner->embedding);
    if (t->conditioner->prefix != config->model.prefix ||
        t->conditioner->prefix_codebook != config->model.prefix_codebook)
        return FAIL("the embedding in %s has a prefix of %d x %d, the run file wants %d x %d",
                    config->data.embedding, t->conditioner->prefix, t->conditioner->prefix_codebook,
                    config->model.prefix, config->model.prefix_codebook);
    if (embedding->music.positions > config->train.frames)
        return FAIL(
            "train.frames is %d, but the reward hears segments of %d frames; raise it or train an embedding "
            "with fewer embedding.frames",
            config->train.frames, embedding->music.positions);
    const int64_t rows = (int64_t)(config->train.batch / config->train.gradient_slots) *
                         config->train.frames * t->shape.temporal.levels;
    if (rows > INT32_MAX)
        return FAIL(
            "a gradient slot of train.batch / train.gradient_slots = %d rollouts of %d frames has %lld "
            "tokens, at most %d are possible; use more slots or fewer frames",
            config->train.batch / config->train.gradient_slots, config->train.frames, (long long)rows,
            INT32_MAX);
    t->embedding_width = embedding->output;
    t->reward_width = config->train.rewards.count + t->embedding_width;
    for (int i = 0; i < REWARDS_MAX; i++)
        t->reward_std[i] = 1.0;
    TRY(train_rollout_create(t));
    TRY(train_reward_create(t));
    TRY(train_learner_create(t));
    return count_parameters(t);
}

// Everyone starts from the base; the value network takes what it shares with it.
static status load_base(train *t) {
    uint64_t step;
    const char *base = t->config->data.base;
    if (t->rollout.active) {
        TRY(model_load_policy(t->rollout.policy, base, t->run.writes ? model_listener : NULL, &step));
        t->rollout.packed_version = 0;
    }
    if (!t->learner.active)
        return STATUS_OK;
    policy *policy = learner_policy(t->learner.learner), *reference = learner_reference(t->learner.learner);
    value_network *value = learner_value(t->learner.learner);
    TRY(model_load_policy(reference, base, NULL, &step));
    memcpy(policy_values(policy), policy_values(reference), sizeof(float) * t->parameters);
    parameter_list_initialise(value_parameters(value), (uint64_t)t->config->seed, value_values(value));
    parameter_list_copy_shared(policy_parameters(policy), policy_values(policy), value_parameters(value),
                               value_values(value));
    TRY(policy_pack(policy));
    return value_pack(value);
}

static void reference_digest(const train *t, char text[DIGEST_HEX]) {
    const digest found =
        digest_bytes(policy_values(learner_reference(t->learner.learner)), sizeof(float) * t->parameters);
    digest_to_hex(&found, text);
}

static void embedding_digest(const train *t, char text[DIGEST_HEX]) {
    const digest found = digest_bytes(embedding_values(t->conditioner->embedding),
                                      sizeof(float) * embedding_parameters(t->conditioner->embedding)->size);
    digest_to_hex(&found, text);
}

// The weights of version step - lag + i, in a checkpoint of `step`.
static void older_name(int i, char *name, size_t size) {
    snprintf(name, size, "policy-older-%d.safetensors", i);
}

static status save(train *t) {
    const double start = stage_seconds();
    status result = STATUS_OK;
    if (t->run.writes) {
        checkpoint_writer *writer = NULL;
        learner *l = t->learner.learner;
        const parameter_list *list = policy_parameters(learner_policy(l));
        json_t *means = json_array(), *deviations = json_array();
        for (int i = 0; i < t->config->train.rewards.count; i++) {
            json_array_append_new(means, json_real(t->reward_mean[i]));
            json_array_append_new(deviations, json_real(t->reward_std[i]));
        }
        char reference[DIGEST_HEX], embedding[DIGEST_HEX], name[64];
        reference_digest(t, reference);
        embedding_digest(t, embedding);
        json_t *state =
            json_pack("{s:I,s:i,s:I,s:s,s:s,s:o,s:o}", "step", (json_int_t)t->step, "lag",
                      t->config->train.lag, "skipped_updates", (json_int_t)t->skipped_updates, "reference",
                      reference, "embedding", embedding, "reward_mean", means, "reward_std", deviations);
        TRY_GOTO(result, metrics_sync(t->run.metrics), done);
        TRY_GOTO(result, checkpoint_begin(&writer, t->run.checkpoints, (uint64_t)t->step, "rl"), done);
        TRY_GOTO(result,
                 model_add_to_checkpoint(writer, "policy.safetensors", list, policy_values(learner_policy(l)),
                                         NULL, 0),
                 done);
        TRY_GOTO(result,
                 model_add_to_checkpoint(writer, "value.safetensors", value_parameters(learner_value(l)),
                                         value_values(learner_value(l)), NULL, 0),
                 done);
        for (int i = 0; i < t->config->train.lag; i++) {
            older_name(i, name, sizeof name);
            TRY_GOTO(
                result,
                model_add_to_checkpoint(writer, name, list, t->older + (size_t)i * t->parameters, NULL, 0),
                done);
        }
        TRY_GOTO(result,
                 run_save_optimizer(writer, "policy-optimizer.safetensors", learner_policy_optimizer(l)),
                 done);
        TRY_GOTO(result,
                 run_save_optimizer(writer, "value-optimizer.safetensors", learner_value_optimizer(l)), done);
        checkpoint_writer *finished = writer;
        writer = NULL;
        TRY_GOTO(result, checkpoint_commit(finished, state), done);
        const checkpoint_keep keep = {.last = (size_t)t->config->train.keep, .every = 0, .best = -1};
        TRY_GOTO(result, checkpoint_prune(t->run.checkpoints, &keep, NULL, NULL), done);
    done:
        checkpoint_abort(writer);
        json_decref(state);
    }
    t->save_seconds = stage_seconds() - start;
    return world_agree(t->world, result);
}

static status read_policy(const checkpoint *from, const char *name, const parameter_list *list,
                          float *values) {
    safetensors *file;
    TRY(checkpoint_open_tensors(from, name, &file));
    status result = model_read(file, list, values);
    safetensors_close(file);
    return result;
}

static status resume_learner(train *t, const checkpoint *from) {
    learner *l = t->learner.learner;
    char digest[DIGEST_HEX];
    reference_digest(t, digest);
    const char *recorded = json_string_value(json_object_get(checkpoint_state(from), "reference"));
    if (recorded == NULL || strcmp(recorded, digest) != 0)
        return FAIL(
            "%s was trained against another base than the one in %s; restore that base or choose another "
            "'folder'",
            checkpoint_path(from), t->config->data.base);
    TRY(read_policy(from, "policy.safetensors", policy_parameters(learner_policy(l)),
                    policy_values(learner_policy(l))));
    TRY(read_policy(from, "value.safetensors", value_parameters(learner_value(l)),
                    value_values(learner_value(l))));
    TRY(run_load_optimizer(from, "policy-optimizer.safetensors", learner_policy_optimizer(l)));
    TRY(run_load_optimizer(from, "value-optimizer.safetensors", learner_value_optimizer(l)));
    TRY(policy_pack(learner_policy(l)));
    return value_pack(learner_value(l));
}

static status resume_state(train *t, const checkpoint *from) {
    const json_t *state = checkpoint_state(from);
    const json_t *means = json_object_get(state, "reward_mean"),
                 *deviations = json_object_get(state, "reward_std");
    const int64_t lag = json_integer_value(json_object_get(state, "lag"));
    if (lag != t->config->train.lag || json_array_size(means) != (size_t)t->config->train.rewards.count)
        return FAIL(
            "%s is of a run with lag %lld and %zu rewards, the run file wants lag %d and %d; restore the "
            "settings or choose another folder",
            checkpoint_path(from), (long long)lag, json_array_size(means), t->config->train.lag,
            t->config->train.rewards.count);
    char digest[DIGEST_HEX];
    embedding_digest(t, digest);
    const char *recorded = json_string_value(json_object_get(state, "embedding"));
    if (recorded == NULL || strcmp(recorded, digest) != 0)
        return FAIL(
            "%s was trained with another embedding than the one in %s; restore that one or choose another "
            "'folder'",
            checkpoint_path(from), t->config->data.embedding);
    t->step = (int64_t)checkpoint_describe(from)->step;
    t->skipped_updates = json_integer_value(json_object_get(state, "skipped_updates"));
    for (int i = 0; i < t->config->train.rewards.count; i++) {
        t->reward_mean[i] = json_number_value(json_array_get(means, (size_t)i));
        t->reward_std[i] = json_number_value(json_array_get(deviations, (size_t)i));
    }
    return t->learner.active ? resume_learner(t, from) : STATUS_OK;
}

// One batch through the roles that this rank carries.
static status run_round(train *t, const sampling_round *round) {
    if (t->rollout.active)
        TRY(train_rollout_round(t, round));
    if (t->reward.active)
        TRY(train_reward_round(t, round));
    return t->learner.active ? train_learner_collect(t, round) : STATUS_OK;
}

// Samples the steps that are under way when step t->step begins: lag of them, each with its own version.
static status fill_pipeline(train *t, const checkpoint *from) {
    const int lag = t->config->train.lag;
    for (int i = 0; i < lag; i++) {
        const int64_t step = t->step + i, version = version_of(t, step);
        if (from != NULL) {
            float *values = NULL;
            char name[64];
            older_name(i, name, sizeof name);
            const parameter_list *list = t->rollout.active ? policy_parameters(t->rollout.policy)
                                         : t->run.writes
                                             ? policy_parameters(learner_policy(t->learner.learner))
                                             : NULL;
            if (list == NULL)
                continue;
            TRY(memory_allocate((void **)&values, sizeof(float) * t->parameters, "older weights"));
            status result = read_policy(from, name, list, values);
            if (result == STATUS_OK && t->rollout.active)
                result = train_rollout_set_weights(t, version, values);
            if (result == STATUS_OK && t->run.writes)
                memcpy(t->older + (size_t)i * t->parameters, values, sizeof(float) * t->parameters);
            memory_free(values);
            TRY(result);
        } else if (t->run.writes) {
            memcpy(t->older + (size_t)i * t->parameters, policy_values(learner_policy(t->learner.learner)),
                   sizeof(float) * t->parameters);
        }
        const sampling_round ahead = {.kind = ROUND_TRAIN, .step = step, .version = version};
        if (t->rollout.active && step < t->config->train.steps)
            TRY(train_rollout_round(t, &ahead));
    }
    if (from != NULL && t->rollout.active) { // this version was sent before the run stopped
        float *values;
        TRY(memory_allocate((void **)&values, sizeof(float) * t->parameters, "weights"));
        status result = read_policy(from, "policy.safetensors", policy_parameters(t->rollout.policy), values);
        if (result == STATUS_OK)
            result = train_rollout_set_weights(t, t->step, values);
        memory_free(values);
        TRY(result);
    }
    return STATUS_OK;
}

// Mean and deviation of each reward on samples of the base.
static status measure_base_rewards(train *t) {
    const int batch = t->config->train.batch, rewards = t->config->train.rewards.count;
    const int chunks = (t->config->train.whiten_samples + batch - 1) / batch;
    double sum[REWARDS_MAX] = {0}, squares[REWARDS_MAX] = {0};
    if (!t->config->train.whiten_reward)
        return STATUS_OK;
    for (int chunk = 0; chunk < chunks; chunk++) {
        const sampling_round round = {.kind = ROUND_WHITEN, .chunk = chunk};
        TRY(run_round(t, &round));
        for (int i = 0; t->learner.active && i < batch; i++)
            for (int j = 0; j < rewards; j++) {
                const double value =
                    t->learner.rows[(size_t)i * t->learner.row_width + (size_t)(STATISTIC_REWARDS + j)];
                sum[j] += value;
                squares[j] += value * value;
            }
    }
    const double count = (double)chunks * batch;
    for (int j = 0; j < rewards; j++) {
        const double mean = sum[j] / count, variance = squares[j] / count - mean * mean;
        t->reward_mean[j] = mean;
        t->reward_std[j] = variance > 1e-12 ? sqrt(variance) : 1e-6;
    }
    return STATUS_OK;
}

typedef struct evaluation {
    bool done;
    double reward, diversity;
} evaluation;

// Reward and diversity on held-out captions; the draws are the same at every evaluation.
static status evaluate(train *t, evaluation *out) {
    const int batch = t->config->train.batch, captions = t->config->train.evaluate_captions;
    double sum = 0.0, diversity = 0.0;
    int chunks = 0;
    for (int first = 0; first < captions; first += batch, chunks++) {
        const sampling_round round = {
            .kind = ROUND_EVALUATE, .step = t->step, .chunk = first / batch, .version = t->step};
        const int size = captions - first < batch ? captions - first : batch;
        TRY(run_round(t, &round));
        if (!t->learner.active)
            continue;
        for (int i = 0; i < size; i++)
            sum += t->learner.rows[(size_t)i * t->learner.row_width + STATISTIC_REWARD];
        diversity += train_diversity(t, (size_t)size) * size;
    }
    *out = (evaluation){.done = true, .reward = sum / captions, .diversity = diversity / captions};
    return STATUS_OK;
}

typedef struct step_times {
    double total, learn, sync;
} step_times;

static double column_maximum(const train *t, int column) {
    double largest = 0.0;
    for (int i = 0; i < t->config->train.batch; i++) {
        const double value = t->learner.rows[(size_t)i * t->learner.row_width + (size_t)column];
        largest = value > largest ? value : largest;
    }
    return largest;
}

typedef struct batch_rewards {
    double mean, deviation, each[REWARDS_MAX], diversity, rollout_seconds, reward_seconds;
} batch_rewards;

// Of the collected training batch; to be called before the rows are used for another round.
static batch_rewards summarise_batch(const train *t) {
    const int batch = t->config->train.batch;
    batch_rewards out = {.diversity = train_diversity(t, (size_t)batch),
                         .rollout_seconds = column_maximum(t, STATISTIC_ROLLOUT_SECONDS),
                         .reward_seconds = column_maximum(t, STATISTIC_REWARD_SECONDS)};
    double squares = 0.0;
    for (int i = 0; i < batch; i++) {
        const double *row = t->learner.rows + (size_t)i * t->learner.row_width;
        out.mean += row[STATISTIC_REWARD] / batch;
        for (int j = 0; j < t->config->train.rewards.count; j++)
            out.each[j] += row[STATISTIC_REWARDS + j] / batch;
    }
    for (int i = 0; i < batch; i++) {
        const double difference =
            t->learner.rows[(size_t)i * t->learner.row_width + STATISTIC_REWARD] - out.mean;
        squares += difference * difference / batch;
    }
    out.deviation = sqrt(squares);
    return out;
}

// Written before the checkpoint of the step, so that no checkpoint is ahead of the metrics; hence the time of
// saving is that of the checkpoint before.
static status write_metrics(train *t, const batch_rewards *rewards, const step_result *r, float rate_factor,
                            const step_times *times, const evaluation *held_out) {
    if (!t->run.writes)
        return STATUS_OK;
    metrics *m = t->run.metrics;
    const run_config *config = t->config;
    char name[RUN_CONFIG_NAME_MAX + 16];
    const double tokens = (double)config->train.frames * t->shape.temporal.levels;
    metrics_begin(m, t->step);
    metrics_add(m, "reward", rewards->mean);
    for (int j = 0; j < config->train.rewards.count; j++) {
        snprintf(name, sizeof name, "reward/%s", config->train.rewards.entries[j].name);
        metrics_add(m, name, rewards->each[j]);
    }
    metrics_add(m, "reward_std", rewards->deviation);
    metrics_add(m, "kl_ref", r->kl);
    metrics_add(m, "kl_ref_token", r->kl / tokens);
    metrics_add(m, "kl_k1", r->kl_k1);
    metrics_add(m, "entropy", r->entropy / tokens);
    metrics_add(m, "advantage_mean", r->advantage_mean);
    metrics_add(m, "advantage_std", r->advantage_std);
    metrics_add(m, "value_loss", r->value_loss);
    metrics_add(m, "explained_variance", r->explained_variance);
    metrics_add(m, "policy_loss", r->policy_loss);
    metrics_add(m, "importance", r->importance);
    metrics_add(m, "grad_norm", r->gradient_norm);
    metrics_add(m, "value_grad_norm", r->value_gradient_norm);
    metrics_add(m, "learning_rate", config->train.learning_rate * (double)rate_factor);
    metrics_add(m, "logprob_gap_max", r->gap);
    metrics_add(m, "staleness", (double)(t->step - 1 - version_of(t, t->step - 1)));
    metrics_add(m, "rollout_digest", r->rollout_digest);
    metrics_add(m, "diversity", rewards->diversity);
    metrics_add(m, "frames_per_s", (double)config->train.batch * config->train.frames / times->total);
    metrics_add(m, "seconds/rollout", rewards->rollout_seconds);
    metrics_add(m, "seconds/reward", rewards->reward_seconds);
    metrics_add(m, "seconds/learn", times->learn);
    metrics_add(m, "seconds/sync", times->sync);
    metrics_add(m, "seconds/save", t->save_seconds);
    metrics_add(m, "peak_host_bytes", (double)memory_resident_peak_bytes());
    metrics_add(m, "peak_device_bytes", (double)memory_read_counters().peak_bytes);
    metrics_add(m, "planned_bytes", (double)t->plan.bytes);
    metrics_add(m, "resident_before_bytes", (double)t->plan.resident_before);
    metrics_add(m, "allocations", (double)memory_read_counters().allocations);
    metrics_add(m, "skipped_updates", (double)t->skipped_updates);
    if (held_out->done) {
        metrics_add(m, "eval/reward", held_out->reward);
        metrics_add(m, "eval/diversity", held_out->diversity);
    }
    return metrics_end(m);
}

// Policy equals reference before the first update, and scoring repeats sampling; anything else is a fault of
// the program or of the machine, better found now than in the curves.
static status check_step(const train *t, const step_result *r) {
    if (t->step == 0 && r->kl != 0.0)
        return FAIL(
            "the policy starts as the base, but KL(policy || base) of the first step is %g nats, not 0",
            r->kl);
    const bool exact = t->config->train.lag == 0 && t->config->train.rollout_precision == RUN_PRECISION_F32 &&
                       device_is_batch_invariant(t->device);
    if (exact && r->gap != 0.0 && !r->skipped)
        return FAIL(
            "log-probabilities from sampling and from scoring differ by up to %g at step %lld, they must be "
            "equal to the last bit",
            r->gap, (long long)t->step);
    return STATUS_OK;
}

static status learn(train *t, step_result *result, float rate_factor, step_times *times) {
    double start = stage_seconds();
    if (t->run.writes && t->config->train.lag > 0) {
        const size_t lag = (size_t)t->config->train.lag;
        memmove(t->older, t->older + t->parameters, sizeof(float) * t->parameters * (lag - 1));
        memcpy(t->older + (lag - 1) * t->parameters, policy_values(learner_policy(t->learner.learner)),
               sizeof(float) * t->parameters);
    }
    TRY(train_learner_update(t, rate_factor, result));
    TRY(check_step(t, result));
    t->skipped_updates += result->skipped;
    times->learn = stage_seconds() - start;
    start = stage_seconds();
    TRY(weights_send(t->channel, (uint64_t)t->step + 1, policy_values(learner_policy(t->learner.learner))));
    times->sync = stage_seconds() - start;
    return STATUS_OK;
}

static bool due(int64_t step, int every, bool last) {
    return last || (every > 0 && step % every == 0);
}

// One step of every role. Sampling of step + lag comes first, so that it runs beside the learning of step
// where ranks do one of the two.
static status take_step(train *t, bool *stopped, char *detail, size_t detail_size) {
    const run_config *config = t->config;
    const int lag = config->train.lag;
    const double start = stage_seconds();
    const sampling_round ahead = {.kind = ROUND_TRAIN, .step = t->step + lag, .version = t->step};
    const sampling_round due_round = {
        .kind = ROUND_TRAIN, .step = t->step, .version = version_of(t, t->step)};
    const float rate_factor = schedule_factor(t->step, config->train.warm_up, 0, 1.0f);
    step_result result = {0};
    step_times times = {0};
    batch_rewards rewards = {0};
    evaluation held_out = {0};
    if (t->rollout.active && ahead.step < config->train.steps)
        TRY(train_rollout_round(t, &ahead));
    if (t->reward.active)
        TRY(train_reward_round(t, &due_round));
    if (t->learner.active) {
        TRY(train_learner_collect(t, &due_round));
        rewards = summarise_batch(t);
        TRY(learn(t, &result, rate_factor, &times));
    }
    t->step++;
    times.total = stage_seconds() - start;
    const bool last = t->step == config->train.steps;
    if (due(t->step, config->train.evaluate_every, last))
        TRY(evaluate(t, &held_out));
    TRY(write_metrics(t, &rewards, &result, rate_factor, &times, &held_out));
    TRY(world_any(t->world, run_stop_requested(), stopped));
    if (due(t->step, config->train.save_every, last) || *stopped)
        TRY(save(t));
    snprintf(detail, detail_size, "reward %.3f, KL %.2f nats", rewards.mean, result.kl);
    return STATUS_OK;
}

// Takes in the batches that were under way when the run was asked to stop, as their senders wait for that;
// the next run samples them again.
static status drain_pipeline(train *t) {
    const int64_t end = t->step + t->config->train.lag;
    for (int64_t step = t->step; step < end && step < t->config->train.steps; step++) {
        const sampling_round round = {.kind = ROUND_TRAIN, .step = step, .version = version_of(t, step)};
        if (t->reward.active)
            TRY(train_reward_round(t, &round));
        if (t->learner.active)
            TRY(train_learner_collect(t, &round));
    }
    return STATUS_OK;
}

static status train_loop(train *t) {
    progress progress;
    char detail[96] = "";
    bool stopped = false;
    progress_start(&progress, t->run.writes ? stdout : NULL, "train", t->step, t->config->train.steps);
    while (t->step < t->config->train.steps && !stopped) {
        TRY(take_step(t, &stopped, detail, sizeof detail));
        progress_show(&progress, t->step, detail);
    }
    progress_finish(&progress, t->step, detail);
    TRY(drain_pipeline(t));
    // Rollout ranks take the last weights too, so that every message is received.
    if (t->rollout.active && !t->learner.active)
        while (t->rollout.packed_version < t->step) {
            TRY(weights_receive(t->channel, (uint64_t)t->rollout.packed_version + 1,
                                policy_values(t->rollout.policy)));
            t->rollout.packed_version++;
        }
    TRY(weights_wait(t->channel));
    for (int i = 0; i < 2; i++)
        TRY(mailbox_flush(t->mailboxes[i]));
    if (stopped && t->step < t->config->train.steps)
        return status_set(STATUS_STOPPED, "stopped on request at step %lld; run again to continue",
                          (long long)t->step);
    return STATUS_OK;
}

static void print_start(const train *t, bool resumed) {
    char layout[512], warning[512];
    roles_describe(&t->layout, layout, sizeof layout);
    printf("train: %s\n", layout);
    printf("train: %d ranks x %d threads, %s, %s; %s\n", world_size(t->world), world_threads(t->world),
           device_instruction_set(t->device), device_library(t->device),
           device_is_batch_invariant(t->device)
               ? "products do not depend on the batch"
               : "products depend on the batch here: sampling and scoring agree only approximately");
    snprintf(warning, sizeof warning, "%s", world_placement_warning(t->world));
    if (warning[0] != '\0')
        printf("train: warning: %s\n", warning);
    if (resumed)
        printf("train: taken up at step %lld\n", (long long)t->step);
}

// What results depend on besides the run file is compared over the ranks.
static status compare_builds(train *t) {
    char identity[256], warning[512];
    snprintf(identity, sizeof identity, "musicrl %s; %s; %s", MUSICRL_VERSION,
             device_instruction_set(t->device), device_library(t->device));
    TRY(world_compare_identity(t->world, identity, warning, sizeof warning));
    if (warning[0] != '\0' && t->run.writes)
        printf("train: warning: %s\n", warning);
    return STATUS_OK;
}

static status first_evaluation(train *t) {
    evaluation held_out;
    TRY(measure_base_rewards(t));
    TRY(evaluate(t, &held_out));
    if (!t->run.writes)
        return STATUS_OK;
    printf("train: base on held-out captions: reward %.4f, diversity %.4f\n", held_out.reward,
           held_out.diversity);
    metrics_begin(t->run.metrics, 0);
    metrics_add(t->run.metrics, "kl_ref", 0.0);
    metrics_add(t->run.metrics, "eval/reward", held_out.reward);
    metrics_add(t->run.metrics, "eval/diversity", held_out.diversity);
    return metrics_end(t->run.metrics);
}

static status work(train *t, const checkpoint *resume) {
    if (resume == NULL)
        TRY(first_evaluation(t));
    TRY(fill_pipeline(t, resume));
    return train_loop(t);
}

static status run(train *t) {
    checkpoint *resume = NULL;
    status result;
    TRY_GOTO(result, world_agree(t->world, prepare(t)), done);
    TRY_GOTO(result, world_agree(t->world, create_mailboxes(t)), done);
    TRY_GOTO(result, world_agree(t->world, create_groups(t)), done);
    TRY_GOTO(result, world_agree(t->world, create_older(t)), done);
    TRY_GOTO(result, plan_check(&t->plan, t->world, roles_rank(&t->layout, ROLE_LEARNER, 0), "train"), done);
    TRY_GOTO(result,
             run_folder_open(&t->run, t->world, t->config->folder, roles_rank(&t->layout, ROLE_LEARNER, 0),
                             &resume),
             done);
    result = load_base(t);
    if (result == STATUS_OK && resume != NULL)
        result = resume_state(t, resume);
    if (result == STATUS_OK)
        result = run_folder_start(&t->run, t->config, resume != NULL ? t->step + 1 : 0);
    TRY_GOTO(result, world_agree(t->world, result), done);
    if (t->run.writes)
        print_start(t, resume != NULL);
    TRY_GOTO(result, compare_builds(t), done);
    result = work(t, resume);
    if (result == STATUS_FAILED && world_size(t->world) > 1)
        world_abort(t->world, status_message()); // the other ranks may be waiting for this one
done:
    checkpoint_close(resume);
    return result;
}

status train_run(const run_config *config) {
    train t = {.config = config};
    run_catch_signals();
    const world_options options = {.threads = config->threads, .deadline_seconds = deadline_seconds};
    TRY(world_create(&t.world, &options));
    status result = run(&t);
    run_speak_once(t.world, result);
    run_folder_close(&t.run);
    train_rollout_destroy(&t);
    train_reward_destroy(&t);
    weights_destroy(t.channel);
    train_learner_destroy(&t);
    mailbox_destroy(t.mailboxes[0]);
    mailbox_destroy(t.mailboxes[1]);
    conditioner_destroy(t.conditioner);
    memory_free(t.older);
    memory_free(t.routes);
    device_destroy(t.device);
    world_destroy(t.world);
    return result;
}
