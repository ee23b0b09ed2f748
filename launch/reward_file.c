#include "launch/reward_file.h"

#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "launch/model_setup.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void member_path(char out[PATH_MAX], const char *folder, int member) {
    snprintf(out, PATH_MAX, "%s/reward-%d.safetensors", folder, member);
}

status reward_embedding_identity(const char *folder, char out[DIGEST_HEX]) {
    char path[PATH_MAX];
    uint64_t bytes;
    digest found;
    snprintf(path, sizeof path, "%s/embedding.safetensors", folder);
    TRY(digest_file(path, &bytes, &found));
    digest_to_hex(&found, out);
    return STATUS_OK;
}

static char *describe(const reward_description *d) {
    const temporal_config *t = &d->model.temporal;
    json_t *levels = json_array();
    for (int i = 0; i < t->levels; i++)
        json_array_append_new(levels, json_integer(t->codebook[i]));
    json_t *json =
        json_pack("{s:s,s:i,s:s,s:s,s:{s:i,s:i,s:i,s:i},s:o,s:i,s:i,s:i,s:i,s:i}", "kind", d->kind, "members",
                  d->members, "codec", d->codec, "embedding", d->embedding, "temporal", "layers",
                  t->transformer.layers, "width", t->transformer.width, "heads", t->transformer.heads,
                  "feed_forward", t->transformer.feed_forward, "codebook", levels, "prefix", t->prefix,
                  "prefix_codebook", t->prefix_codebook, "frames", t->frames, "features",
                  (int)d->model.features, "embedding_width", d->model.embedding);
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(json);
    return text;
}

status reward_file_save(const char *folder, int member, const reward_description *description,
                        const json_t *training, device *device, reward_model *model) {
    char path[PATH_MAX], *text = describe(description), *settings = json_dumps(training, JSON_COMPACT);
    const parameter_list *list = reward_model_parameters(model);
    tensor_view *views = NULL;
    mirror values = {0};
    status result;
    if (text == NULL || settings == NULL) {
        result = FAIL("out of host memory: the description of a reward model");
        goto done;
    }
    TRY_GOTO(result,
             mirror_create(&values, device, reward_model_values(model), sizeof(float) * list->size,
                           "parameters on the host"),
             done);
    TRY_GOTO(result, mirror_fetch(&values), done);
    TRY_GOTO(result, memory_allocate((void **)&views, sizeof *views * (size_t)list->count, "tensor list"),
             done);
    model_views(list, values.host, views);
    const safetensors_pair metadata[] = {{"reward", text}, {"training", settings}};
    member_path(path, folder, member);
    result = safetensors_write(path, views, (size_t)list->count, metadata, 2);
done:
    mirror_release(&values);
    memory_free(views);
    free(settings);
    free(text);
    return result;
}

status reward_file_training(json_t **out, const char *folder, int member) {
    char path[PATH_MAX];
    json_error_t error;
    safetensors *file;
    member_path(path, folder, member);
    TRY(safetensors_open(&file, path));
    const char *text = safetensors_metadata(file, "training");
    *out = text == NULL ? NULL : json_loads(text, 0, &error);
    safetensors_close(file);
    return STATUS_OK;
}

static status parse(reward_description *out, const char *path, const safetensors *file) {
    const char *text = safetensors_metadata(file, "reward"), *kind, *codec, *embedding;
    json_error_t error;
    json_t *json = text == NULL ? NULL : json_loads(text, 0, &error), *levels = NULL;
    *out = (reward_description){0};
    temporal_config *t = &out->model.temporal;
    int features = -1;
    const bool good =
        json != NULL &&
        json_unpack(json, "{s:s,s:i,s:s,s:s,s:{s:i,s:i,s:i,s:i},s:o,s:i,s:i,s:i,s:i,s:i}", "kind", &kind,
                    "members", &out->members, "codec", &codec, "embedding", &embedding, "temporal", "layers",
                    &t->transformer.layers, "width", &t->transformer.width, "heads", &t->transformer.heads,
                    "feed_forward", &t->transformer.feed_forward, "codebook", &levels, "prefix", &t->prefix,
                    "prefix_codebook", &t->prefix_codebook, "frames", &t->frames, "features", &features,
                    "embedding_width", &out->model.embedding) == 0 &&
        json_array_size(levels) >= 1 && json_array_size(levels) <= LEVELS_MAX && t->frames >= 1 &&
        t->prefix >= 0 && out->members >= 1 && features >= REWARD_FEATURES_NONE &&
        features <= REWARD_FEATURES_MUSIC_TEXT;
    if (good) {
        t->levels = (int)json_array_size(levels);
        for (int i = 0; i < t->levels; i++)
            t->codebook[i] = (int)json_integer_value(json_array_get(levels, (size_t)i));
        t->transformer.causal = true;
        out->model.features = (reward_features)features;
        snprintf(out->kind, sizeof out->kind, "%s", kind);
        snprintf(out->codec, sizeof out->codec, "%s", codec);
        snprintf(out->embedding, sizeof out->embedding, "%s", embedding);
    }
    json_decref(json);
    return good ? STATUS_OK
                : FAIL("%s does not describe a reward model; make it with 'musicrl reward train'", path);
}

status reward_file_describe(reward_description *out, const char *folder, int member, const char *kind) {
    char path[PATH_MAX];
    member_path(path, folder, member);
    if (access(path, F_OK) != 0)
        return FAIL("%s holds no %s model (reward-%d.safetensors); make it with 'musicrl reward train %s'",
                    folder, kind, member, kind);
    safetensors *file;
    TRY(safetensors_open(&file, path));
    status result = parse(out, path, file);
    safetensors_close(file);
    TRY(result);
    if (strcmp(out->kind, kind) != 0)
        return FAIL("%s is a %s model, wanted is a %s model; exchange the folders in data", path, out->kind,
                    kind);
    return STATUS_OK;
}

status reward_file_load(reward_model **out, device *device, const char *folder, int member,
                        const reward_description *description, weight_precision precision) {
    *out = NULL;
    char path[PATH_MAX];
    member_path(path, folder, member);
    safetensors *file = NULL;
    reward_model *model = NULL;
    status result;
    TRY_GOTO(result, safetensors_open(&file, path), done);
    TRY_GOTO(result, reward_model_create(&model, device, &description->model, false, precision), done);
    TRY_GOTO(result,
             model_read_values(file, reward_model_parameters(model), device, reward_model_values(model)),
             done);
    TRY_GOTO(result, reward_model_pack(model), done);
    *out = model;
    model = NULL;
done:
    safetensors_close(file);
    reward_model_destroy(model);
    return result;
}

status reward_file_check(const reward_description *d, const char *folder, const shard_format *format,
                         const char *embedding) {
    const temporal_config *t = &d->model.temporal;
    if (strcmp(d->codec, format->codec) != 0)
        return FAIL("the %s model in %s was trained on tokens of codec %s, the tokens here are of codec %s; "
                    "train it on ratings of these tokens",
                    d->kind, folder, d->codec, format->codec);
    if (format->levels < (uint32_t)t->levels)
        return FAIL("the %s model in %s reads %d token levels, the tokens here have %u; train it with the "
                    "same model.coarse_levels",
                    d->kind, folder, t->levels, format->levels);
    for (int i = 0; i < t->levels; i++)
        if (format->codebook_size[i] != (uint32_t)t->codebook[i])
            return FAIL(
                "level %d has a codebook of %u, the %s model in %s was trained on one of %d; train it "
                "on ratings of these tokens",
                i, format->codebook_size[i], d->kind, folder, t->codebook[i]);
    const bool reads = t->prefix > 0 || d->model.features != REWARD_FEATURES_NONE;
    if (reads && strcmp(d->embedding, embedding) != 0)
        return FAIL("the %s model in %s was trained with joint embedding %.8s, data.embedding is %.8s; train "
                    "it again with this one",
                    d->kind, folder, d->embedding, embedding);
    return STATUS_OK;
}
