#include "launch/model_setup.h"

#include "core/code_embedding.h"
#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "launch/codec_file.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static transformer_config transformer_of(const run_config_transformer *c) {
    return (transformer_config){
        .layers = c->layers, .width = c->width, .heads = c->heads, .feed_forward = c->ffn};
}

static status check_levels(const run_config *config, const shard_format *format) {
    const int levels = 1 + config->model.coarse_levels;
    if ((uint32_t)levels > format->levels)
        return FAIL(
            "model.coarse_levels is %d, but the tokens of %s have %u acoustic levels; lower the setting or "
            "encode with more levels",
            config->model.coarse_levels, config->data.tokens, format->levels - 1);
    return STATUS_OK;
}

status model_policy_config(policy_config *out, const run_config *config, const shard_format *format) {
    TRY(check_levels(config, format));
    *out = (policy_config){.depth = transformer_of(&config->model.depth)};
    temporal_config *t = &out->temporal;
    t->transformer = transformer_of(&config->model.temporal);
    t->levels = 1 + config->model.coarse_levels;
    for (int i = 0; i < t->levels; i++)
        t->codebook[i] = (int)format->codebook_size[i];
    t->prefix = config->model.prefix;
    t->prefix_codebook = config->model.prefix_codebook;
    t->frames =
        config->pretrain.frames > config->train.frames ? config->pretrain.frames : config->train.frames;
    return policy_config_check(out);
}

status model_embedding_config(embedding_config *out, const run_config *config, const shard_format *format,
                              int vocabulary) {
    TRY(check_levels(config, format));
    const transformer_config tower = {.layers = config->embedding.layers,
                                      .width = config->embedding.width,
                                      .heads = config->embedding.heads,
                                      .feed_forward = config->embedding.ffn};
    *out = (embedding_config){.text = tower,
                              .music = tower,
                              .vocabulary = vocabulary,
                              .levels = 1 + config->model.coarse_levels,
                              .output = config->embedding.output,
                              .rhythm_channels = config->embedding.rhythm_channels,
                              .variation = config->embedding.variation};
    out->text.positions = config->embedding.text_length;
    out->music.positions = config->embedding.frames;
    const int32_t lags = config->embedding.rhythm_lags, most = config->embedding.frames - 1;
    out->rhythm_lags = lags < most ? lags : most;
    for (int i = 0; i < out->levels; i++)
        out->codebook[i] = (int)format->codebook_size[i];
    return STATUS_OK;
}

static int shape_of(const parameter *p, int64_t shape[2]) {
    shape[0] = p->rows > 0 ? p->rows : p->columns;
    shape[1] = p->columns;
    return p->rows > 0 ? 2 : 1;
}

status model_start_from_codes(const run_config *config, const shard_format *format,
                              const parameter_list *list, const char *prefix, int levels, float rms,
                              float *values) {
    codec *codec;
    char identity[DIGEST_HEX];
    TRY(run_config_require_path(config, "data.codec", NULL));
    TRY(codec_load(&codec, config->data.codec));
    status result = codec_identify(codec, identity);
    if (result == STATUS_OK && strcmp(identity, format->codec) != 0)
        result = FAIL("%s is codec %s, the tokens in %s were made by %s; encode them again or use that codec",
                      config->data.codec, identity, config->data.tokens, format->codec);
    if (result == STATUS_OK)
        result = code_embedding_start(codec, (uint64_t)config->seed, list, prefix, levels, rms, values);
    codec_destroy(codec);
    return result;
}

status model_start_from_prefix_codes(const run_config *config, const parameter_list *list, float rms,
                                     float *values) {
    char path[PATH_MAX];
    safetensors *file;
    const tensor_view *view;
    float *codebooks = NULL;
    int64_t shape[3] = {0};
    snprintf(path, sizeof path, "%s/embedding.safetensors", config->data.embedding);
    TRY(safetensors_open(&file, path));
    status result;
    TRY_GOTO(result, safetensors_find(file, "prefix.codebooks", &view), done);
    if (view->rank == 3)
        memcpy(shape, view->shape, sizeof shape);
    TRY_GOTO(result,
             memory_allocate((void **)&codebooks, sizeof(float) * (size_t)(shape[0] * shape[1] * shape[2]),
                             "codebooks"),
             done);
    TRY_GOTO(result, safetensors_read_f32(file, "prefix.codebooks", 3, shape, codebooks), done);
    result = code_embedding_start_prefix(codebooks, (int)shape[0], (int)shape[1], (int)shape[2],
                                         (uint64_t)config->seed, list, rms, values);
done:
    memory_free(codebooks);
    safetensors_close(file);
    return result;
}

void model_views(const parameter_list *list, const float *values, tensor_view *views) {
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        int64_t shape[2];
        int rank = shape_of(p, shape);
        views[i] = tensor_view_make(p->name, TENSOR_F32, values + p->offset, rank, shape);
    }
}

status model_read(const safetensors *file, const parameter_list *list, float *values) {
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        int64_t shape[2];
        int rank = shape_of(p, shape);
        TRY(safetensors_read_f32(file, p->name, rank, shape, values + p->offset));
    }
    return STATUS_OK;
}

static status mirror_values(mirror *out, device *device, const parameter_list *list, float *values) {
    return mirror_create(out, device, values, sizeof(float) * list->size, "parameters on the host");
}

status model_read_values(const safetensors *file, const parameter_list *list, device *device, float *values) {
    mirror m;
    TRY(mirror_values(&m, device, list, values));
    status result = model_read(file, list, m.host);
    if (result == STATUS_OK)
        result = mirror_store(&m);
    mirror_release(&m);
    return result;
}

status model_initialise(device *device, const parameter_list *list, uint64_t seed, float *values) {
    mirror m;
    TRY(mirror_values(&m, device, list, values));
    parameter_list_initialise(list, seed, m.host);
    const status result = mirror_store(&m);
    mirror_release(&m);
    return result;
}

status model_add_to_saver(saver *saver, const char *name, const parameter_list *list, device *device,
                          const float *values) {
    const size_t count = (size_t)list->count;
    tensor_view *views = NULL;
    saved_tensor *tensors = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&views, sizeof *views * count, "tensor list"), done);
    TRY_GOTO(result, memory_allocate((void **)&tensors, sizeof *tensors * count, "tensor list"), done);
    model_views(list, values, views);
    for (size_t i = 0; i < count; i++)
        tensors[i] = (saved_tensor){views[i], device};
    result = saver_add_tensors(saver, name, tensors, count);
done:
    memory_free(views);
    memory_free(tensors);
    return result;
}

status model_digest(device *device, const parameter_list *list, float *values, char out[DIGEST_HEX]) {
    mirror m;
    TRY(mirror_values(&m, device, list, values));
    const status result = mirror_fetch(&m);
    if (result == STATUS_OK) {
        const digest found = digest_bytes(m.host, m.bytes);
        digest_to_hex(&found, out);
    }
    mirror_release(&m);
    return result;
}

status model_selected_step(const char *run_folder, int64_t *step) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/selected.json", run_folder);
    *step = -1;
    struct stat info;
    if (stat(path, &info) != 0 && errno == ENOENT)
        return STATUS_OK;
    json_error_t error;
    json_t *selected = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (selected == NULL)
        return FAIL("%s:%d: %s; remove it to use the newest checkpoint", path, error.line, error.text);
    const json_t *number = json_object_get(selected, "step");
    if (json_is_integer(number))
        *step = json_integer_value(number);
    json_decref(selected);
    return *step >= 0 ? STATUS_OK
                      : FAIL("%s does not say a 'step'; remove it to use the newest checkpoint", path);
}

// The checkpoint that selected.json of a run folder names; *out stays NULL where there is none.
static status open_selected(checkpoint **out, const char *run_folder, checkpoint_listener listener) {
    char line[PATH_MAX];
    int64_t step;
    TRY(model_selected_step(run_folder, &step));
    if (step < 0)
        return STATUS_OK;
    snprintf(line, sizeof line, "%s/checkpoints/step-%06lld", run_folder, (long long)step);
    status result = checkpoint_open(out, line);
    if (result != STATUS_OK)
        return status_prefix(
            result, "%s/selected.json names step %lld (remove it to use the newest checkpoint): ", run_folder,
            (long long)step);
    snprintf(line, sizeof line, "%s: step %lld is used, as selected.json says", run_folder, (long long)step);
    if (listener != NULL)
        listener(NULL, line);
    return STATUS_OK;
}

status model_load_policy(policy *policy, device *device, const char *run_folder, checkpoint_listener listener,
                         uint64_t *step) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s/checkpoints", run_folder);
    checkpoint *checkpoint = NULL;
    safetensors *file = NULL;
    status result;
    TRY_GOTO(result, open_selected(&checkpoint, run_folder, listener), done);
    if (checkpoint == NULL)
        TRY_GOTO(result, checkpoint_open_newest(&checkpoint, folder), done);
    if (checkpoint == NULL) {
        result = FAIL("%s holds no checkpoint; run the stage that makes it first", folder);
        goto done;
    }
    TRY_GOTO(result, checkpoint_open_tensors(checkpoint, "policy.safetensors", &file), done);
    TRY_GOTO(result, model_read_values(file, policy_parameters(policy), device, policy_values(policy)), done);
    TRY_GOTO(result, policy_pack(policy), done);
    if (step != NULL)
        *step = checkpoint_describe(checkpoint)->step;
done:
    safetensors_close(file);
    checkpoint_close(checkpoint);
    return result;
}

void model_listener(void *context, const char *line) {
    (void)context;
    fprintf(stderr, "musicrl: %s\n", line);
}
