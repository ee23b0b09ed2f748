// What a checkpoint of the RL run holds, and how it is written while training goes on: by the first learner,
// or, where the optimisers are shared out (train.shard_optimizer), each learner's part by that learner.
#include "launch/train_parts.h"

#include "data/json_file.h"
#include "kernels/memory.h"

#include <jansson.h>

static status add_optimizer(train *t, const char *name, const optimizer *optimizer) {
    const group *learners = t->learner.group;
    return run_add_optimizer(t->saver, name, optimizer, group_index(learners),
                             t->learner.sharded ? group_size(learners) : 1);
}

static status add_networks(train *t) {
    learner *l = t->learner.learner;
    const parameter_list *list = policy_parameters(learner_policy(l));
    TRY(model_add_to_saver(t->saver, "policy.safetensors", list, t->device,
                           policy_values(learner_policy(l))));
    for (int i = 0; i < t->config->train.lag; i++) {
        char name[64];
        train_older_name(i, name);
        TRY(model_add_to_saver(t->saver, name, list, NULL, t->older + (size_t)i * t->parameters));
    }
    return learner_value(l) == NULL
               ? STATUS_OK
               : model_add_to_saver(t->saver, "value.safetensors", value_parameters(learner_value(l)),
                                    t->device, value_values(learner_value(l)));
}

status train_create_saver(train *t) {
    learner *l = t->learner.learner;
    const int member = train_member(t, ROLE_LEARNER), others = t->layout.members[ROLE_LEARNER].count - 1;
    if (member != 0 && !t->learner.sharded)
        return STATUS_OK;
    TRY(saver_create(&t->saver, "rl"));
    if (t->learner.sharded) {
        TRY(saver_share(t->saver, member == 0, others));
        TRY(memory_allocate((void **)&t->receipts, (size_t)(others + 1) * SAVER_RECEIPTS, "receipts"));
    }
    if (member == 0)
        TRY(add_networks(t));
    TRY(add_optimizer(t, "policy-optimizer", learner_policy_optimizer(l)));
    return learner_value(l) == NULL ? STATUS_OK
                                    : add_optimizer(t, "value-optimizer", learner_value_optimizer(l));
}

// What the saver's thread does beside the files: the metrics are durable before the checkpoint of their step;
// selected.json always names a checkpoint that is there, so it comes after the new one and before the old
// ones go.
static status sync_metrics(void *context) {
    const train_saving *saving = context;
    return metrics_sync(saving->metrics);
}

static status publish_and_prune(void *context) {
    train_saving *saving = context;
    json_t *selection = saving->selection;
    saving->selection = NULL;
    TRY(json_file_publish(saving->selection_path, selection));
    return checkpoint_prune(saving->folder, &saving->keep, NULL, NULL);
}

static status start_save(train *t) {
    TRY(saver_wait(t->saver)); // so that t->saving is free
    json_t *means = json_array(), *deviations = json_array();
    for (int i = 0; i < t->config->train.rewards.count; i++) {
        json_array_append_new(means, json_real(t->reward_mean[i]));
        json_array_append_new(deviations, json_real(t->reward_std[i]));
    }
    json_t *state =
        json_pack("{s:I,s:f,s:I,s:I,s:I,s:I,s:I,s:s,s:o,s:o,s:o,s:o,s:o}", "step", (json_int_t)t->step,
                  "alpha", t->alpha, "skipped_updates", (json_int_t)t->skipped_updates, "bad_scores",
                  (json_int_t)t->bad_scores, "dpo_position", (json_int_t)t->dpo.position, "dpo_epoch",
                  (json_int_t)t->dpo.epoch, "dpo_pairs", (json_int_t)t->dpo.count, "reference", t->reference,
                  "reward_mean", means, "reward_std", deviations, "evaluations", train_evaluations_to_json(t),
                  "floors_of", train_floors_to_json(t), "settings", json_deep_copy(t->settings));
    if (state == NULL)
        return FAIL("the checkpoint of step %lld cannot be described: one of its numbers is not finite",
                    (long long)t->step);
    json_decref(t->saving.selection); // of a checkpoint that was not written
    t->saving = (train_saving){.metrics = t->run.metrics,
                               .folder = t->run.checkpoints,
                               .keep = {.last = (size_t)t->config->train.keep,
                                        .every = (uint64_t)t->config->train.keep_every,
                                        .best = t->evaluations[train_select(t)].step,
                                        .first = true}};
    train_describe_selection(t, &t->saving.selection, t->saving.selection_path);
    const saver_hooks hooks = {.before = sync_metrics, .after = publish_and_prune, .context = &t->saving};
    return saver_start(t->saver, t->run.checkpoints, (uint64_t)t->step, state, &hooks);
}

// Of a checkpoint that every learner writes a part of.
static status start_part(train *t) {
    return saver_start(t->saver, t->run.checkpoints, (uint64_t)t->step, NULL, NULL);
}

static bool is_shared(const train *t) {
    return t->config->train.shard_optimizer && t->layout.members[ROLE_LEARNER].count > 1;
}

// Once every learner has written its part, the first has the receipts of all and commits.
static status commit_parts(train *t) {
    const learner_role *l = &t->learner;
    char own[SAVER_RECEIPTS];
    if (!l->active)
        return STATUS_OK;
    TRY(saver_receipts(t->saver, own));
    TRY(group_gather(l->group, own, sizeof own, t->receipts, 0));
    return t->run.writes ? saver_commit(t->saver, t->receipts + SAVER_RECEIPTS) : STATUS_OK;
}

// All ranks agree that no write failed so far, and on whether a checkpoint of several parts can be committed.
static status settle(train *t, bool waits) {
    const bool writes = t->saver != NULL;
    bool unwritten = false;
    TRY(world_agree(t->world, !writes ? STATUS_OK : waits ? saver_wait(t->saver) : saver_check(t->saver)));
    if (!t->save_has_parts)
        return STATUS_OK;
    TRY(world_any(t->world, writes && !saver_is_written(t->saver), &unwritten));
    if (unwritten)
        return STATUS_OK;
    // One that has failed since it was looked at above: who waits for its receipt would wait for ever.
    TRY(world_agree(t->world, writes ? saver_check(t->saver) : STATUS_OK));
    t->save_has_parts = false;
    return world_agree(t->world, commit_parts(t));
}

status train_save(train *t) {
    const double start = stage_seconds();
    if (t->save_has_parts)
        TRY(train_save_finish(t));
    status result = world_agree(t->world, t->run.writes ? start_save(t) : STATUS_OK);
    if (result == STATUS_OK && is_shared(t)) {
        result = world_agree(t->world, t->saver != NULL && !t->run.writes ? start_part(t) : STATUS_OK);
        t->save_has_parts = true;
    }
    t->save_seconds = stage_seconds() - start;
    return result;
}

status train_save_check(train *t) {
    return settle(t, false);
}

status train_save_finish(train *t) {
    const bool has_parts = t->save_has_parts;
    TRY(settle(t, true));
    return has_parts ? world_agree(t->world, t->run.writes ? saver_wait(t->saver) : STATUS_OK) : STATUS_OK;
}
