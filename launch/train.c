#include "launch/train.h"

#include "kernels/memory.h"
#include "launch/progress.h"
#include "launch/topology.h"
#include "launch/train_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONDITIONER_BATCH = 64, CAPTION_BYTES_EXPECTED = 1024 };

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

status train_create_exchange(train *t) {
    const run_config *config = t->config;
    const role_members *members = t->layout.members;
    mailbox_plan messages = {.message_bytes = rollout_batch_bytes(
                                 (uint32_t)config->train.batch, (uint32_t)config->train.frames,
                                 (uint32_t)t->shape.temporal.levels, (uint32_t)t->shape.temporal.prefix,
                                 (size_t)config->train.batch * CAPTION_BYTES_EXPECTED)};
    const size_t scores = reward_batch_bytes((uint32_t)config->train.batch, (uint32_t)t->reward_width);
    if (messages.message_bytes < scores)
        messages.message_bytes = scores;
    const int peers = members[ROLE_REWARD].count + members[ROLE_LEARNER].count;
    messages.sends = (config->train.lag + 1) * peers + members[ROLE_LEARNER].count;
    messages.receives = 2;
    const exchange_plan plan = {.messages = messages,
                                .parameters = t->parameters,
                                .is_worker = t->is_worker,
                                .is_first = train_member(t, ROLE_LEARNER) == 0,
                                .run = config->folder};
    return exchange_create(&t->exchange, t->world, &t->layout, &plan);
}

status train_order(train *t, const sampling_round *round) {
    return exchange_order(t->exchange, round, t->device,
                          t->learner.active ? policy_values(learner_policy(t->learner.learner)) : NULL);
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
    for (int i = 0; i < rollouts && !roles_is_outside(&t->layout, ROLE_ROLLOUT); i++) {
        const int rank = roles_rank(&t->layout, ROLE_ROLLOUT, i);
        if (!roles_carries(&t->layout, ROLE_LEARNER, rank))
            ranks[receivers++] = rank;
    }
    if (result == STATUS_OK)
        result = device_group_create(&t->learner.devices, t->device, t->learner.group, t->gradient_note);
    // The next group has members that are not in this one, and would wait for those that have failed.
    result = world_agree(t->world, result);
    if (result == STATUS_OK)
        result = weights_create(&t->channel, t->world, t->device, roles_rank(&t->layout, ROLE_LEARNER, 0),
                                ranks, receivers, t->parameters, t->weights_note);
    memory_free(ranks);
    return result == STATUS_OK ? train_share_out(t) : result;
}

static status create_older(train *t) {
    if (t->config->train.lag == 0 || world_rank(t->world) != roles_rank(&t->layout, ROLE_LEARNER, 0))
        return STATUS_OK;
    return memory_allocate((void **)&t->older, sizeof(float) * (size_t)t->config->train.lag * t->parameters,
                           "older weights");
}

static status read_corpus(train *t) {
    const run_config *config = t->config;
    corpus *corpus;
    TRY(corpus_open(&corpus, config->data.tokens, SHARD_TOKENS));
    t->format = *corpus_get_format(corpus);
    const status result =
        clip_order_create(&t->held_out, corpus, true, (uint64_t)config->seed + 1, config->data.tokens);
    if (train_member(t, ROLE_ROLLOUT) >= 0)
        t->corpus = corpus; // every clip of it was checked: once is enough
    else
        corpus_close(corpus);
    TRY(result);
    const size_t captions = clip_order_captions(t->held_out);
    t->evaluation_captions = config->train.evaluate_captions;
    if (captions < (size_t)t->evaluation_captions)
        t->evaluation_captions =
            captions < 2 ? 2 : (int)captions; // of which there are at least two, if need be the same twice
    TRY(model_policy_config(&t->shape, config, &t->format));
    return config->train.method == RUN_METHOD_DPO ? train_dpo_widen(t) : STATUS_OK;
}

// A rank that only scores has no policy, but takes part in making the channel that weights go through.
static status count_parameters(train *t) {
    policy *counted = NULL;
    const policy *known = t->learner.active ? learner_policy(t->learner.learner) : t->rollout.policy;
    if (known == NULL) {
        TRY(policy_create(&counted, t->device, &t->shape, WEIGHT_SCORE, WEIGHT_F32));
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
    t->route_capacity = roles_most_members(&t->layout);
    TRY(memory_allocate((void **)&t->routes, sizeof *t->routes * (size_t)t->route_capacity, "routes"));
    TRY(read_corpus(t));
    for (int i = 0; i < REWARDS_MAX; i++)
        t->reward_std[i] = 1.0;
    t->alpha = config->train.alpha;
    return STATUS_OK;
}

// The models and all that they work in.
static status create_parts(void *context) {
    train *t = context;
    const run_config *config = t->config;
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
    t->reward_width = train_embedding_column(t) + t->embedding_width;
    TRY(train_rollout_create(t));
    TRY(train_reward_create(t));
    TRY(train_learner_create(t));
    return train_dpo_create(t);
}

static void destroy_parts(void *context) {
    train *t = context;
    train_rollout_destroy(t);
    train_reward_destroy(t);
    train_dpo_destroy(t);
    train_learner_destroy(t);
    conditioner_destroy(t->conditioner);
    t->rollout = (rollout_role){0};
    t->reward = (reward_role){0};
    t->dpo = (dpo_role){0};
    t->learner = (learner_role){0};
    t->conditioner = NULL;
}

static status create(train *t) {
    TRY(create_parts(t));
    TRY(train_record_settings(t));
    return count_parameters(t);
}

status train_prepare(train *t, int speaker, const char *command) {
    const plan_parts parts = {create_parts, destroy_parts, t};
    TRY(world_agree(t->world, prepare(t)));
    TRY(device_choose(&t->device, t->config, t->world, world_threads(t->world), t->device_note));
    plan_begin(&t->plan);
    TRY(plan_device(&t->plan, t->world, t->device, speaker, command, &parts));
    return world_agree(t->world, create(t));
}

static status parse_layout(train *t) {
    return roles_parse(&t->layout, t->config->roles, world_size(t->world), (uint32_t)t->config->train.batch,
                       (uint32_t)t->config->train.gradient_slots);
}

// Samples the steps that are under way when step t->step begins: lag of them, each with its own version.
static status fill_pipeline(train *t, const checkpoint *from) {
    const int lag = t->config->train.lag;
    for (int i = 0; i < lag; i++) {
        const int64_t step = t->step + i, version = train_version_of(t, step);
        if (from != NULL)
            TRY(train_resume_older(t, from, i, version));
        const sampling_round ahead = {.kind = ROUND_TRAIN, .step = step, .version = version};
        if (step >= t->config->train.steps)
            continue;
        TRY(exchange_order(t->exchange, &ahead, NULL,
                           t->older != NULL ? t->older + (size_t)i * t->parameters : NULL));
        if (t->rollout.active)
            TRY(train_rollout_round(t, &ahead));
    }
    // The version of this step was sent before the run stopped.
    return from != NULL ? train_resume_rollout(t, from) : STATUS_OK;
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

static status learn(train *t, step_record *step) {
    double start = stage_seconds();
    watch_enter(t->watch, WATCH_LEARN, t->step);
    if (t->run.writes && t->config->train.lag > 0) {
        const size_t lag = (size_t)t->config->train.lag;
        memmove(t->older, t->older + t->parameters, sizeof(float) * t->parameters * (lag - 1));
        TRY(device_download(t->device, t->older + (lag - 1) * t->parameters,
                            policy_values(learner_policy(t->learner.learner)),
                            sizeof(float) * t->parameters));
    }
    if (t->config->train.method == RUN_METHOD_DPO) {
        TRY(train_dpo_update(t, step->rate_factor, &step->result, &step->dpo));
    } else {
        TRY(train_learner_update(t, step->rate_factor, &step->result));
        TRY(check_step(t, &step->result));
    }
    t->skipped_updates += step->result.skipped;
    step->times.learn = stage_seconds() - start;
    start = stage_seconds();
    watch_enter(t->watch, WATCH_SYNC, t->step);
    TRY(weights_send(t->channel, (uint64_t)t->step + 1, policy_values(learner_policy(t->learner.learner))));
    step->times.sync = stage_seconds() - start;
    return STATUS_OK;
}

// Sampling of step + lag comes first, so that it runs beside the learning of step where ranks do one of the
// two.
static status learn_from_rollouts(train *t, step_record *step) {
    const sampling_round ahead = {
        .kind = ROUND_TRAIN, .step = t->step + t->config->train.lag, .version = t->step};
    const sampling_round due_round = {
        .kind = ROUND_TRAIN, .step = t->step, .version = train_version_of(t, t->step)};
    if (ahead.step < t->config->train.steps) {
        TRY(train_order(t, &ahead));
        if (t->rollout.active)
            TRY(train_rollout_round(t, &ahead));
    } else if (t->rollout.active && !t->learner.active) {
        TRY(train_rollout_take_weights(t, t->step)); // the learner waits for them to be taken
    }
    if (t->reward.active)
        TRY(train_reward_round(t, &due_round));
    if (!t->learner.active)
        return STATUS_OK;
    TRY(train_learner_collect(t, &due_round));
    train_measure_batch(t, (size_t)t->config->train.batch, &step->batch);
    step->made = train_batch_times(t);
    t->bad_scores += train_count_bad_scores(t);
    return learn(t, step);
}

// Ranks that do not learn take the weights of every step, as they are sent.
static status learn_from_pairs(train *t, step_record *step) {
    if (t->learner.active)
        return learn(t, step);
    watch_enter(t->watch, WATCH_SYNC, t->step);
    return t->rollout.active ? train_rollout_take_weights(t, t->step + 1) : STATUS_OK;
}

static bool due(int64_t step, int every, bool last) {
    return last || (every > 0 && step % every == 0);
}

// Why the loop ends before its last step.
typedef struct run_end {
    bool stopped, early; // a signal asked for it; a rule of train.stop did, on every rank
    char reason[256];    // of the latter, on learner ranks
} run_end;

static status save(train *t) {
    watch_enter(t->watch, WATCH_SAVE, t->step);
    TRY(train_save(t));
    watch_enter(t->watch, WATCH_SYNC, t->step);
    return STATUS_OK;
}

// One step of every role, its evaluation, its line of metrics and its checkpoint.
static status take_step(train *t, run_end *end, char *detail, size_t detail_size) {
    const run_config *config = t->config;
    const bool is_dpo = config->train.method == RUN_METHOD_DPO;
    const double start = stage_seconds();
    step_record step = {.rate_factor = schedule_factor(t->step, config->train.warm_up, 0, 1.0f)};
    TRY(is_dpo ? learn_from_pairs(t, &step) : learn_from_rollouts(t, &step));
    t->step++;
    step.times.total = stage_seconds() - start;
    const bool last = t->step == config->train.steps;
    const bool evaluates = due(t->step, config->train.evaluate_every, last);
    if (evaluates)
        TRY(train_evaluate(t));
    watch_enter(t->watch, WATCH_SYNC, t->step);
    TRY(train_write_metrics(t, &step, train_evaluation_of_step(t)));
    TRY(world_any(t->world, run_stop_requested(), &end->stopped));
    if (evaluates)
        TRY(world_any(t->world, train_ends_early(t, end->reason, sizeof end->reason), &end->early));
    const bool saves = evaluates || due(t->step, config->train.save_every, last) || end->stopped;
    TRY(saves ? save(t) : train_save_check(t));
    if (is_dpo)
        snprintf(detail, detail_size, "loss %.3f, accuracy %.2f", step.dpo.loss, step.dpo.accuracy);
    else
        snprintf(detail, detail_size, "reward %.3f, KL %.2f nats", step.batch.reward, step.result.kl);
    return STATUS_OK;
}

// Takes in the batches that were under way when the run was asked to stop, as their senders wait for that;
// the next run samples them again. Workers wait for nobody.
static status drain_pipeline(train *t) {
    if (roles_is_outside(&t->layout, ROLE_ROLLOUT))
        return STATUS_OK;
    const int64_t end = t->step + t->config->train.lag;
    for (int64_t step = t->step; step < end && step < t->config->train.steps; step++) {
        const sampling_round round = {
            .kind = ROUND_TRAIN, .step = step, .version = train_version_of(t, step)};
        if (t->reward.active)
            TRY(train_reward_round(t, &round));
        if (t->learner.active)
            TRY(train_learner_collect(t, &round));
    }
    return STATUS_OK;
}

static void print_end(const train *t, const run_end *end) {
    const evaluation *base = t->evaluations, *selected = &t->evaluations[train_select(t)];
    if (end->early)
        printf("train: ended early at step %lld: %s\n", (long long)t->step, end->reason);
    if (selected == base) {
        printf("train: no evaluated step that keeps the floors beats the base: step 0, the base itself, is "
               "selected\n");
        return;
    }
    printf("train: step %lld is selected, %.1f nats from the base:", (long long)selected->step, selected->kl);
    for (int j = 0; j < t->config->train.rewards.count; j++)
        printf(" %s %.4f (base %.4f),", t->config->train.rewards.entries[j].name, selected->each[j],
               base->each[j]);
    printf(" diversity %.4f (%.4f)\n", selected->diversity, base->diversity);
}

// Whether there is something left to be done by a run that continues this one.
static bool ends_before(const train *t, const run_end *end) {
    return end->stopped && !end->early && t->step < t->config->train.steps;
}

static status train_loop(train *t) {
    progress progress;
    char detail[96] = "";
    run_end end = {0};
    TRY(world_any(t->world, train_ends_early(t, end.reason, sizeof end.reason), &end.early));
    progress_start(&progress, t->run.writes ? stdout : NULL, "train", "step", t->step,
                   t->config->train.steps);
    while (t->step < t->config->train.steps && !end.stopped && !end.early) {
        TRY(take_step(t, &end, detail, sizeof detail));
        progress_show(&progress, t->step, detail);
    }
    progress_finish(&progress, t->step, detail);
    watch_enter(t->watch, WATCH_SAVE, t->step);
    TRY(train_save_finish(t));
    TRY(drain_pipeline(t));
    watch_enter(t->watch, WATCH_END, t->step);
    // Rollout ranks take the last weights too, so that every message is received.
    if (t->rollout.active && !t->learner.active)
        while (t->rollout.packed_version < t->step) {
            TRY(weights_receive(t->channel, (uint64_t)t->rollout.packed_version + 1,
                                policy_values(t->rollout.policy)));
            t->rollout.packed_version++;
        }
    TRY(weights_wait(t->channel));
    TRY(exchange_flush(t->exchange));
    TRY(world_agree(
        t->world, exchange_close(t->exchange, ends_before(t, &end) ? EXCHANGE_STOPPED : EXCHANGE_FINISHED)));
    if (ends_before(t, &end))
        return status_set(STATUS_STOPPED, "stopped on request at step %lld; run again to continue",
                          (long long)t->step);
    TRY(world_agree(t->world, train_publish_summary(t, end.reason)));
    if (t->run.writes)
        print_end(t, &end);
    return STATUS_OK;
}

static void print_start(const train *t, bool resumed) {
    char layout[512], nodes[512], warning[512];
    roles_describe(&t->layout, layout, sizeof layout);
    topology_describe(t->world, nodes, sizeof nodes);
    printf("train: %s; %s\n", nodes, layout);
    topology_check(t->world, &t->layout, warning, sizeof warning);
    if (warning[0] != '\0')
        printf("train: warning: %s\n", warning);
    printf("train: %s\n", t->device_note);
    if (t->gradient_note[0] != '\0')
        printf("train: gradients: %s\n", t->gradient_note);
    if (t->weights_note[0] != '\0')
        printf("train: weights: %s\n", t->weights_note);
    const bool one_order = !device_shares_memory(t->device) && t->config->one_order;
    printf("train: %d ranks x %d threads, %s, %s; %s\n", world_size(t->world), world_threads(t->world),
           device_instruction_set(t->device), device_library(t->device),
           device_is_batch_invariant(t->device) ? "products do not depend on the batch"
           : one_order                          ? "sampling and scoring add up in one order"
                       : "products depend on the batch here: sampling and scoring agree only approximately");
    snprintf(warning, sizeof warning, "%s", world_placement_warning(t->world));
    if (warning[0] != '\0')
        printf("train: warning: %s\n", warning);
    if (resumed)
        printf("train: taken up at step %lld\n", (long long)t->step);
}

void train_identify(const train *t, char *text, size_t size) {
    const bool bf16 = !device_shares_memory(t->device) && t->config->gpu_precision == RUN_PRECISION_BF16;
    snprintf(text, size, "musicrl %s; %s; %s; %s; %s products", MUSICRL_VERSION, device_name(t->device),
             device_instruction_set(t->device), device_library(t->device), bf16 ? "bf16" : "f32");
}

// On the CPU this is known (device_is_batch_invariant).
static status measure_rows(const train *t) {
    row_equality found;
    TRY(device_measure_rows(t->device, &found));
    if (found.shapes > 0)
        printf("train: rows of products have the same bits whatever the number of rows for %d of %d shapes\n",
               found.equal, found.shapes);
    return STATUS_OK;
}

// What results depend on besides the run file is compared over the ranks.
static status compare_builds(train *t) {
    char identity[256], warning[512];
    train_identify(t, identity, sizeof identity);
    TRY(world_compare_identity(t->world, identity, warning, sizeof warning));
    if (warning[0] != '\0' && t->run.writes)
        printf("train: warning: %s\n", warning);
    return STATUS_OK;
}

// For workers, who are told what they must have in common with the ranks.
static status open_exchange(train *t) {
    char identity[256];
    train_identify(t, identity, sizeof identity);
    return exchange_open(t->exchange, json_pack("{s:s, s:O}", "identity", identity, "settings", t->settings));
}

static status work(train *t, const checkpoint *resume) {
    if (resume == NULL) {
        TRY(world_agree(t->world, train_selection_begin(t, NULL)));
        TRY(train_first_evaluation(t));
        TRY(save(t));
    } else {
        TRY(world_agree(t->world, train_publish_selection(t)));
    }
    TRY(fill_pipeline(t, resume));
    return train_loop(t);
}

static status start_watch(train *t) {
    char roles[64];
    roles_describe_rank(&t->layout, world_rank(t->world), roles, sizeof roles);
    const watch_plan plan = watch_plan_make(t->config, t->config->folder, roles);
    return watch_start(&t->watch, t->world, roles_rank(&t->layout, ROLE_LEARNER, 0), &plan);
}

static status run(train *t) {
    checkpoint *resume = NULL;
    status result;
    TRY_GOTO(result, world_agree(t->world, parse_layout(t)), done);
    const int speaker = roles_rank(&t->layout, ROLE_LEARNER, 0);
    TRY_GOTO(result, train_prepare(t, speaker, "train"), done);
    TRY_GOTO(result, world_agree(t->world, train_create_exchange(t)), done);
    TRY_GOTO(result, world_agree(t->world, create_groups(t)), done);
    TRY_GOTO(result, world_agree(t->world, create_older(t)), done);
    TRY_GOTO(result, world_agree(t->world, train_create_saver(t)), done);
    TRY_GOTO(result, plan_check(&t->plan, t->world, speaker, "train"), done);
    TRY_GOTO(result, run_folder_open(&t->run, t->world, t->config->folder, speaker, &resume), done);
    result = train_load_base(t);
    if (result == STATUS_OK && resume != NULL)
        result = train_resume(t, resume);
    if (result == STATUS_OK)
        result = run_folder_start(&t->run, t->config, resume != NULL ? t->step + 1 : 0);
    TRY_GOTO(result, world_agree(t->world, result), done);
    if (t->run.writes)
        print_start(t, resume != NULL);
    TRY_GOTO(result, world_agree(t->world, t->run.writes ? measure_rows(t) : STATUS_OK), done);
    TRY_GOTO(result, compare_builds(t), done);
    TRY_GOTO(result, open_exchange(t), done);
    TRY_GOTO(result, start_watch(t), done);
    result = work(t, resume);
    if (result == STATUS_FAILED && world_size(t->world) > 1)
        world_abort(t->world, status_message()); // the other ranks may be waiting for this one
done:
    checkpoint_close(resume);
    return result;
}

void train_destroy(train *t) {
    watch_stop(t->watch);
    saver_destroy(t->saver); // before what its thread may still use
    json_decref(t->saving.selection);
    run_folder_close(&t->run);
    weights_destroy(t->channel);
    destroy_parts(t);
    clip_order_destroy(t->held_out);
    corpus_close(t->corpus);
    exchange_destroy(t->exchange);
    memory_free(t->evaluations);
    memory_free(t->older);
    memory_free(t->receipts);
    memory_free(t->routes);
    json_decref(t->settings);
    device_destroy(t->device);
    world_destroy(t->world);
}

status train_run(const run_config *config) {
    train t = {.config = config};
    run_catch_signals();
    const world_options options = {.threads = config->threads, .deadline_seconds = config->deadlines.start};
    TRY(world_create(&t.world, &options));
    status result = run(&t);
    run_speak_once(t.world, result);
    train_destroy(&t);
    return result;
}
