#include "launch/conditioner.h"

#include "data/safetensors.h"
#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "launch/model_setup.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *transformer_json(const transformer_config *c) {
    return json_pack("{s:i,s:i,s:i,s:i,s:i}", "layers", c->layers, "width", c->width, "heads", c->heads,
                     "feed_forward", c->feed_forward, "positions", c->positions);
}

static int transformer_from_json(json_t *json, transformer_config *out) {
    return json_unpack(json, "{s:i,s:i,s:i,s:i,s:i}", "layers", &out->layers, "width", &out->width, "heads",
                       &out->heads, "feed_forward", &out->feed_forward, "positions", &out->positions);
}

status conditioner_save(const char *folder, device *device, embedding *e, const void *tokenizer_model,
                        size_t tokenizer_bytes, int prefix, int prefix_codebook, const float *codebooks,
                        const char *codec) {
    const embedding_config *c = embedding_get_config(e);
    const parameter_list *list = embedding_parameters(e);
    json_t *levels = json_array();
    for (int i = 0; i < c->levels; i++)
        json_array_append_new(levels, json_integer(c->codebook[i]));
    json_t *json =
        json_pack("{s:o,s:o,s:i,s:o,s:i,s:i,s:i,s:b,s:i,s:i}", "text", transformer_json(&c->text), "music",
                  transformer_json(&c->music), "vocabulary", c->vocabulary, "codebook", levels, "output",
                  c->output, "rhythm_channels", c->rhythm_channels, "rhythm_lags", c->rhythm_lags,
                  "variation", c->variation, "prefix", prefix, "prefix_codebook", prefix_codebook);
    char *text = json == NULL ? NULL : json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(json);
    if (text == NULL)
        return FAIL("out of host memory: the description of the embedding");
    status result;
    tensor_view *views = NULL;
    mirror values = {0};
    TRY_GOTO(result,
             mirror_create(&values, device, embedding_values(e), sizeof(float) * list->size,
                           "parameters on the host"),
             done);
    TRY_GOTO(result, mirror_fetch(&values), done);
    TRY_GOTO(result,
             memory_allocate((void **)&views, sizeof *views * (size_t)(list->count + 2), "tensor list"),
             done);
    model_views(list, values.host, views);
    const int64_t codebook_shape[] = {prefix, prefix_codebook, c->output},
                  bytes[] = {(int64_t)tokenizer_bytes};
    views[list->count] = tensor_view_make("prefix.codebooks", TENSOR_F32, codebooks, 3, codebook_shape);
    views[list->count + 1] = tensor_view_make("tokenizer", TENSOR_U8, tokenizer_model, 1, bytes);
    const safetensors_pair metadata[] = {{"embedding", text}, {"codec", codec}};
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/embedding.safetensors", folder);
    TRY_GOTO(result, safetensors_write(path, views, (size_t)list->count + 2, metadata, 2), done);
done:
    mirror_release(&values);
    memory_free(views);
    free(text);
    return result;
}

static status read_description(const char *path, const safetensors *file, embedding_config *config,
                               int *prefix, int *prefix_codebook) {
    const char *text = safetensors_metadata(file, "embedding");
    json_error_t error;
    json_t *json = text == NULL ? NULL : json_loads(text, 0, &error), *levels = NULL, *text_tower,
           *music_tower;
    int variation = 0;
    *config = (embedding_config){0};
    int bad = json == NULL ||
              json_unpack(json, "{s:o,s:o,s:i,s:o,s:i,s:i,s:i,s?b,s:i,s:i}", "text", &text_tower, "music",
                          &music_tower, "vocabulary", &config->vocabulary, "codebook", &levels, "output",
                          &config->output, "rhythm_channels", &config->rhythm_channels, "rhythm_lags",
                          &config->rhythm_lags, "variation", &variation, "prefix", prefix, "prefix_codebook",
                          prefix_codebook) != 0 ||
              transformer_from_json(text_tower, &config->text) != 0 ||
              transformer_from_json(music_tower, &config->music) != 0 || json_array_size(levels) < 1 ||
              json_array_size(levels) > EMBEDDING_LEVELS_MAX || *prefix < 0 || *prefix > RVQ_LEVELS_MAX;
    if (!bad) {
        config->variation = variation != 0;
        config->levels = (int)json_array_size(levels);
        for (int i = 0; i < config->levels; i++)
            config->codebook[i] = (int)json_integer_value(json_array_get(levels, (size_t)i));
    }
    json_decref(json);
    return bad ? FAIL("%s does not describe a joint embedding; make it with 'musicrl embed train'", path)
               : STATUS_OK;
}

static status load_parts(conditioner *c, const char *path, const safetensors *file) {
    embedding_config config;
    TRY(read_description(path, file, &config, &c->prefix, &c->prefix_codebook));
    const char *codec = safetensors_metadata(file, "codec");
    snprintf(c->codec, sizeof c->codec, "%s", codec != NULL ? codec : "");
    TRY(embedding_create(&c->embedding, c->device, &config, false));
    TRY(model_read_values(file, embedding_parameters(c->embedding), c->device,
                          embedding_values(c->embedding)));
    TRY(embedding_pack(c->embedding));
    TRY(embedding_pass_create(&c->pass, c->embedding, c->batch, false));
    const tensor_view *model;
    TRY(safetensors_find(file, "tokenizer", &model));
    TRY(tokenizer_create(&c->tokenizer, model->data, tensor_view_bytes(model)));
    if (tokenizer_vocabulary_size(c->tokenizer) > (uint32_t)config.vocabulary)
        return FAIL("%s: its tokenizer has %u pieces, its text tower %d", path,
                    tokenizer_vocabulary_size(c->tokenizer), config.vocabulary);
    const size_t batch = (size_t)c->batch, output = (size_t)config.output;
    TRY(memory_allocate((void **)&c->text, sizeof(int32_t) * batch * (size_t)config.text.positions,
                        "caption tokens"));
    TRY(memory_allocate((void **)&c->lengths, sizeof(int32_t) * batch, "caption lengths"));
    TRY(memory_allocate((void **)&c->segments,
                        sizeof(uint16_t) * batch * (size_t)config.music.positions * (size_t)config.levels,
                        "segments"));
    TRY(memory_allocate((void **)&c->sum, sizeof(float) * output, "embedding sum"));
    if (c->prefix == 0)
        return STATUS_OK;
    float *codebooks;
    const int64_t shape[] = {c->prefix, c->prefix_codebook, config.output};
    TRY(memory_allocate((void **)&codebooks, sizeof(float) * (size_t)(shape[0] * shape[1] * shape[2]),
                        "codebooks"));
    status result = safetensors_read_f32(file, "prefix.codebooks", 3, shape, codebooks);
    if (result == STATUS_OK)
        result = rvq_create(&c->quantiser, codebooks, (uint32_t)config.output, (uint32_t)c->prefix,
                            (uint32_t)c->prefix_codebook, (uint32_t)c->prefix, 1);
    memory_free(codebooks);
    TRY(result);
    return memory_allocate((void **)&c->rvq_scratch, sizeof(float) * rvq_scratch_floats(c->quantiser),
                           "prefix quantiser");
}

status conditioner_check_folder(const char *folder) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/embedding.safetensors", folder);
    if (access(path, F_OK) != 0)
        return FAIL("%s is no folder of a joint embedding (it has no embedding.safetensors); make one with "
                    "'musicrl embed train'",
                    folder);
    return STATUS_OK;
}

status conditioner_load(conditioner **out, device *device, const char *folder, int batch) {
    *out = NULL;
    TRY(conditioner_check_folder(folder));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/embedding.safetensors", folder);
    conditioner *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "conditioner"));
    c->device = device;
    c->batch = batch;
    safetensors *file = NULL;
    status result;
    TRY_GOTO(result, safetensors_open(&file, path), done);
    TRY_GOTO(result, load_parts(c, path, file), done);
    *out = c;
done:
    safetensors_close(file);
    if (result != STATUS_OK)
        conditioner_destroy(c);
    return result;
}

void conditioner_destroy(conditioner *c) {
    if (c == NULL)
        return;
    embedding_pass_destroy(c->pass);
    embedding_destroy(c->embedding);
    tokenizer_destroy(c->tokenizer);
    rvq_destroy(c->quantiser);
    memory_free(c->text);
    memory_free(c->lengths);
    memory_free(c->segments);
    memory_free(c->sum);
    memory_free(c->rvq_scratch);
    memory_free(c);
}

status conditioner_check_format(const conditioner *c, const shard_format *format) {
    const embedding_config *e = embedding_get_config(c->embedding);
    if (format->levels < (uint32_t)e->levels)
        return FAIL("the embedding reads %d token levels, the tokens have %u; train it on these tokens",
                    e->levels, format->levels);
    for (int i = 0; i < e->levels; i++)
        if (format->codebook_size[i] != (uint32_t)e->codebook[i])
            return FAIL("level %d has a codebook of %u, the embedding was trained on one of %d; train it on "
                        "these tokens",
                        i, format->codebook_size[i], e->codebook[i]);
    if (strcmp(c->codec, format->codec) != 0)
        return FAIL(
            "the tokens were made by codec %s, the embedding was trained on tokens of codec %s; train "
            "it on these tokens, or encode the corpus with its codec",
            format->codec, c->codec[0] != '\0' ? c->codec : "of unknown identity");
    return STATUS_OK;
}

status conditioner_text(conditioner *c, const char *const *captions, size_t count, float *out) {
    const embedding_config *e = embedding_get_config(c->embedding);
    const size_t positions = (size_t)e->text.positions;
    for (size_t first = 0; first < count; first += (size_t)c->batch) {
        const size_t size = count - first < (size_t)c->batch ? count - first : (size_t)c->batch;
        for (size_t i = 0; i < size; i++) {
            size_t length;
            TRY(tokenizer_encode(c->tokenizer, captions[first + i], c->text + i * positions, positions,
                                 &length));
            if (length == 0) { // an empty caption still needs one position
                c->text[i * positions] = TOKENIZER_UNKNOWN;
                length = 1;
            }
            c->lengths[i] = (int32_t)(length < positions ? length : positions);
        }
        const float *vectors;
        TRY(embedding_text(c->embedding, c->pass, (int)size, c->text, c->lengths, &vectors));
        memcpy(out + first * (size_t)e->output, vectors, sizeof(float) * size * (size_t)e->output);
    }
    return STATUS_OK;
}

// Segments of a clip of `frames` frames, and the first frame of segment i.
static int segment_count(const conditioner *c, int frames) {
    const int length = embedding_get_config(c->embedding)->music.positions;
    return frames <= length ? 1 : (2 * frames - 1) / length; // neighbours overlap by about half
}

static int segment_start(const conditioner *c, int frames, int i) {
    const int length = embedding_get_config(c->embedding)->music.positions;
    const int segments = segment_count(c, frames);
    return segments == 1 ? 0 : (int)((int64_t)i * (frames - length) / (segments - 1));
}

status conditioner_music(conditioner *c, const uint16_t *tokens, size_t count, int frames, int stride,
                         float *out) {
    const embedding_config *e = embedding_get_config(c->embedding);
    const int length = e->music.positions, segments = segment_count(c, frames);
    const size_t levels = (size_t)e->levels, output = (size_t)e->output;
    if (frames < length)
        return FAIL("a clip of %d frames is shorter than the %d that the embedding was trained on", frames,
                    length);
    const size_t total = count * (size_t)segments;
    for (size_t first = 0; first < total; first += (size_t)c->batch) {
        const size_t size = total - first < (size_t)c->batch ? total - first : (size_t)c->batch;
        for (size_t i = 0; i < size; i++) {
            const size_t clip = (first + i) / (size_t)segments;
            const int start = segment_start(c, frames, (int)((first + i) % (size_t)segments));
            const uint16_t *from = tokens + (clip * (size_t)frames + (size_t)start) * (size_t)stride;
            for (size_t f = 0; f < (size_t)length; f++)
                memcpy(c->segments + (i * (size_t)length + f) * levels, from + f * (size_t)stride,
                       sizeof(uint16_t) * levels);
        }
        const float *vectors;
        TRY(embedding_music(c->embedding, c->pass, (int)size, c->segments, &vectors));
        for (size_t i = 0; i < size; i++) {
            const size_t clip = (first + i) / (size_t)segments, segment = (first + i) % (size_t)segments;
            for (size_t d = 0; d < output; d++) {
                float *to = out + clip * output + d;
                *to = (segment == 0 ? 0.0f : *to) + vectors[i * output + d] / (float)segments;
            }
        }
    }
    return STATUS_OK;
}

void conditioner_prefix(const conditioner *c, const float *vector, uint16_t *prefix) {
    const size_t output = (size_t)embedding_get_config(c->embedding)->output;
    if (c->prefix == 0)
        return;
    float norm = 0.0f;
    for (size_t d = 0; d < output; d++)
        norm += vector[d] * vector[d];
    norm = sqrtf(norm);
    for (size_t d = 0; d < output; d++)
        c->sum[d] = vector[d] / (norm > 1e-12f ? norm : 1e-12f);
    rvq_encode(c->quantiser, c->sum, prefix, c->rvq_scratch);
}
