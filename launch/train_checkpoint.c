// How a run starts from the base or from a checkpoint, and the settings that one must agree with.
#include "launch/train_parts.h"

#include "data/digest.h"
#include "data/json_file.h"
#include "kernels/memory.h"
#include "launch/reward_file.h"
#include "launch/settings_record.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

status train_load_base(train *t) {
    const char *base = t->config->data.base;
    t->rollout.packed_version = 0;
    if (!t->learner.active)
        return t->rollout.active ? model_load_policy(t->rollout.policy, t->device, base, NULL, NULL)
                                 : STATUS_OK;
    policy *policy = learner_policy(t->learner.learner), *reference = learner_reference(t->learner.learner);
    value_network *value = learner_value(t->learner.learner);
    const parameter_list *list = policy_parameters(policy);
    TRY(model_load_policy(reference, t->device, base, t->run.writes ? model_listener : NULL, NULL));
    if (t->rollout.active) {
        parameter_list_copy(t->device, list, policy_values(reference), policy_values(t->rollout.policy));
        TRY(policy_pack(t->rollout.policy));
    }
    TRY(model_digest(t->device, list, policy_values(reference), t->reference));
    parameter_list_copy(t->device, list, policy_values(reference), policy_values(policy));
    for (int i = 0; i < t->config->train.lag && t->run.writes; i++)
        TRY(device_download(t->device, t->older + (size_t)i * t->parameters, policy_values(reference),
                            sizeof(float) * t->parameters));
    TRY(policy_pack(policy));
    if (value == NULL)
        return STATUS_OK;
    TRY(model_initialise(t->device, value_parameters(value), (uint64_t)t->config->seed, value_values(value)));
    parameter_list_copy_shared(t->device, list, policy_values(policy), value_parameters(value),
                               value_values(value));
    return value_pack(value);
}

void train_older_name(int i, char name[64]) {
    snprintf(name, 64, "policy-older-%d.safetensors", i);
}

// Adds the digest of the weights of a learned reward's models.
static status record_reward(const train *t, const char *name) {
    const bool quality = strcmp(name, "quality") == 0;
    const char *folder = quality ? t->config->data.quality : t->config->data.preference;
    reward_description description;
    digest all = {{0}};
    TRY(reward_file_describe(&description, folder, 0, name));
    for (int i = 0; i < description.members; i++) {
        char path[RUN_CONFIG_PATH_MAX + 64];
        uint64_t bytes;
        digest own;
        snprintf(path, sizeof path, "%s/reward-%d.safetensors", folder, i);
        TRY(digest_file(path, &bytes, &own));
        all = digest_joined(&all, sizeof all, &own, sizeof own);
    }
    char text[DIGEST_HEX];
    digest_to_hex(&all, text);
    json_object_set_new(t->settings, quality ? "models in data.quality" : "models in data.preference",
                        json_string(text));
    return STATUS_OK;
}

status train_record_settings(train *t) {
    static const char *const keys[] = {"seed", "model", "train", "dpo", NULL};
    static const char *const except[] = {"train.steps",
                                         "train.evaluate_every",
                                         "train.save_every",
                                         "train.keep",
                                         "train.keep_every",
                                         "train.save_rollouts_every",
                                         "train.select",
                                         "train.stop",
                                         "train.alarm_clips",
                                         "train.shard_optimizer",
                                         NULL};
    const settings_scope scope = {keys, except};
    char text[DIGEST_HEX];
    TRY(settings_record_create(&t->settings, t->config, &scope));
    embedding *embedding = t->conditioner->embedding;
    TRY(model_digest(t->device, embedding_parameters(embedding), embedding_values(embedding), text));
    json_object_set_new(t->settings, "codec of data.tokens", json_string(t->format.codec));
    json_object_set_new(t->settings, "weights in data.embedding", json_string(text));
    const run_config_rewards *rewards = &t->config->train.rewards;
    for (int j = 0; j < rewards->count; j++)
        if (rewards->entries[j].weight != 0.0 && strcmp(rewards->entries[j].name, "text_adherence") != 0)
            TRY(record_reward(t, rewards->entries[j].name));
    return STATUS_OK;
}

// device: that has the values; NULL: the host.
static status read_weights(const checkpoint *from, const char *name, const parameter_list *list,
                           device *device, float *values) {
    safetensors *file;
    TRY(checkpoint_open_tensors(from, name, &file));
    const status result =
        device != NULL ? model_read_values(file, list, device, values) : model_read(file, list, values);
    safetensors_close(file);
    return result;
}

static status resume_learner(train *t, const checkpoint *from) {
    learner *l = t->learner.learner;
    const char *recorded = json_string_value(json_object_get(checkpoint_state(from), "reference"));
    if (recorded == NULL || strcmp(recorded, t->reference) != 0)
        return FAIL(
            "%s was trained against another base than the one in %s; restore that base or choose another "
            "'folder'",
            checkpoint_path(from), t->config->data.base);
    TRY(read_weights(from, "policy.safetensors", policy_parameters(learner_policy(l)), t->device,
                     policy_values(learner_policy(l))));
    TRY(run_load_optimizer(from, "policy-optimizer", learner_policy_optimizer(l)));
    TRY(policy_pack(learner_policy(l)));
    if (learner_value(l) == NULL)
        return STATUS_OK;
    TRY(read_weights(from, "value.safetensors", value_parameters(learner_value(l)), t->device,
                     value_values(learner_value(l))));
    TRY(run_load_optimizer(from, "value-optimizer", learner_value_optimizer(l)));
    return value_pack(learner_value(l));
}

status train_resume(train *t, const checkpoint *from) {
    const json_t *state = checkpoint_state(from);
    const json_t *means = json_object_get(state, "reward_mean"),
                 *deviations = json_object_get(state, "reward_std");
    TRY(settings_record_compare(json_object_get(state, "settings"), t->settings, checkpoint_path(from),
                                "choose another 'folder'"));
    t->dpo.position = (size_t)json_integer_value(json_object_get(state, "dpo_position"));
    t->dpo.epoch = json_integer_value(json_object_get(state, "dpo_epoch"));
    const long long pairs = json_integer_value(json_object_get(state, "dpo_pairs"));
    if (t->learner.active && pairs != (long long)t->dpo.count)
        return FAIL("%s learnt from %lld pairs, %s has %zu now; restore them or choose another 'folder'",
                    checkpoint_path(from), pairs, t->config->data.ratings, t->dpo.count);
    if (json_array_size(json_object_get(state, "evaluations")) == 0)
        return FAIL("%s does not hold the evaluations of its run: another version of the program wrote it; "
                    "choose another 'folder'",
                    checkpoint_path(from));
    t->step = (int64_t)checkpoint_describe(from)->step;
    t->alpha = json_number_value(json_object_get(state, "alpha"));
    t->bad_scores = json_integer_value(json_object_get(state, "bad_scores"));
    TRY(train_selection_begin(t, state));
    t->skipped_updates = json_integer_value(json_object_get(state, "skipped_updates"));
    for (int i = 0; i < t->config->train.rewards.count; i++) {
        t->reward_mean[i] = json_number_value(json_array_get(means, (size_t)i));
        t->reward_std[i] = json_number_value(json_array_get(deviations, (size_t)i));
    }
    return t->learner.active ? resume_learner(t, from) : STATUS_OK;
}

status train_resume_older(train *t, const checkpoint *from, int i, int64_t version) {
    float *values = NULL;
    char name[64];
    train_older_name(i, name);
    const parameter_list *list = t->rollout.active ? policy_parameters(t->rollout.policy)
                                 : t->run.writes   ? policy_parameters(learner_policy(t->learner.learner))
                                                   : NULL;
    if (list == NULL)
        return STATUS_OK;
    TRY(memory_allocate((void **)&values, sizeof(float) * t->parameters, "older weights"));
    status result = read_weights(from, name, list, NULL, values);
    if (result == STATUS_OK && t->rollout.active)
        result = train_rollout_set_weights(t, version, values);
    if (result == STATUS_OK && t->run.writes)
        memcpy(t->older + (size_t)i * t->parameters, values, sizeof(float) * t->parameters);
    memory_free(values);
    return result;
}

status train_resume_rollout(train *t, const checkpoint *from) {
    if (!t->rollout.active)
        return STATUS_OK;
    policy *policy = t->rollout.policy;
    TRY(read_weights(from, "policy.safetensors", policy_parameters(policy), t->device,
                     policy_values(policy)));
    t->rollout.packed_version = t->step;
    return policy_pack(policy);
}
