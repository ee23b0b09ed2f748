#include "core/temporal.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct temporal {
    device *device;
    temporal_config config;
    transformer *transformer;
    size_t prefix_embedding; // [prefix * prefix_codebook, width]
    size_t begin;            // [1, width]
    size_t embedding[LEVELS_MAX];
};

struct temporal_pass {
    device *device;
    int batch, frames;
    transformer_activations *activations;
    int32_t *staged; // [2 + levels, batch * sequence] rows of the embedding tables: prefix, begin, levels
    int32_t *index;  // the same on the device
    float *output;   // [batch * frames, width]
    float *dx;       // [batch * sequence, width]
};

struct temporal_decoder {
    device *device;
    int batch;
    transformer_cache *cache;
    transformer_activations *start; // of prefix and begin
    int32_t *staged;                // [2, batch * (prefix + 1)] rows of the prefix table and of begin
    int32_t *index;                 // the same on the device
    float *output;                  // [batch, width] of begin
};

status temporal_create(temporal **out, device *device, const temporal_config *config, parameter_list *list,
                       weight_use use, weight_precision precision) {
    *out = NULL;
    temporal *t;
    TRY(memory_allocate((void **)&t, sizeof *t, "temporal stage"));
    t->device = device;
    t->config = *config;
    t->config.transformer.positions = config->prefix + config->frames;
    t->config.transformer.causal = true;
    const int64_t width = config->transformer.width;
    // The sum of a frame's embeddings has about unit variance a row.
    const float scale = 1.0f / sqrtf((float)width);
    status result;
    if (config->prefix > 0)
        TRY_GOTO(result,
                 parameter_list_add(list, "prefix.embedding.weight",
                                    (int64_t)config->prefix * config->prefix_codebook, width,
                                    INITIALISE_NORMAL, scale, &t->prefix_embedding),
                 failed);
    TRY_GOTO(result, parameter_list_add(list, "begin.weight", 1, width, INITIALISE_NORMAL, scale, &t->begin),
             failed);
    for (int level = 0; level < config->levels; level++) {
        char name[PARAMETER_NAME_MAX];
        snprintf(name, sizeof name, "temporal.embedding.%d.weight", level);
        TRY_GOTO(result,
                 parameter_list_add(list, name, config->codebook[level], width, INITIALISE_NORMAL, scale,
                                    &t->embedding[level]),
                 failed);
    }
    TRY_GOTO(
        result,
        transformer_create(&t->transformer, device, &t->config.transformer, list, "temporal", use, precision),
        failed);
    *out = t;
    return STATUS_OK;
failed:
    temporal_destroy(t);
    return result;
}

void temporal_destroy(temporal *t) {
    if (t == NULL)
        return;
    transformer_destroy(t->transformer);
    memory_free(t);
}

status temporal_pack(temporal *t, const float *parameters) {
    return transformer_pack(t->transformer, parameters);
}

const temporal_config *temporal_get_config(const temporal *t) {
    return &t->config;
}

status temporal_pass_create(temporal_pass **out, const temporal *t, int batch, int frames, bool keep) {
    *out = NULL;
    temporal_pass *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "temporal pass"));
    p->device = t->device;
    p->batch = batch;
    p->frames = frames;
    const size_t sequence = (size_t)(t->config.prefix + frames), rows = (size_t)batch * sequence;
    const size_t width = (size_t)t->config.transformer.width;
    status result;
    TRY_GOTO(result,
             transformer_activations_create(&p->activations, t->transformer, batch, (int)sequence, keep),
             failed);
    const size_t index_bytes = sizeof(int32_t) * rows * (size_t)(2 + t->config.levels);
    TRY_GOTO(result, memory_allocate((void **)&p->staged, index_bytes, "temporal token indices"), failed);
    TRY_GOTO(result, device_allocate(t->device, (void **)&p->index, index_bytes, "temporal token indices"),
             failed);
    TRY_GOTO(result,
             device_allocate(t->device, (void **)&p->output, sizeof(float) * (size_t)batch * frames * width,
                             "temporal outputs"),
             failed);
    if (keep)
        TRY_GOTO(
            result,
            device_allocate(t->device, (void **)&p->dx, sizeof(float) * rows * width, "temporal gradients"),
            failed);
    *out = p;
    return STATUS_OK;
failed:
    temporal_pass_destroy(p);
    return result;
}

void temporal_pass_destroy(temporal_pass *p) {
    if (p == NULL)
        return;
    transformer_activations_destroy(p->activations);
    memory_free(p->staged);
    device_free(p->device, p->index);
    device_free(p->device, p->output);
    device_free(p->device, p->dx);
    memory_free(p);
}

// The row of every embedding table at every position; -1 where a table has no part.
static status fill_index(const temporal *t, temporal_pass *p, int batch, const uint16_t *prefix,
                         const uint16_t *tokens) {
    const int prefix_length = t->config.prefix, levels = t->config.levels,
              sequence = prefix_length + p->frames;
    const size_t rows = (size_t)batch * sequence;
    memset(p->staged, 0xff, sizeof(int32_t) * rows * (size_t)(2 + levels));
    for (int b = 0; b < batch; b++) {
        const size_t first = (size_t)b * sequence;
        for (int i = 0; i < prefix_length; i++)
            p->staged[first + i] = i * t->config.prefix_codebook + prefix[(size_t)b * prefix_length + i];
        p->staged[rows + first + prefix_length] = 0;
        for (int frame = 0; frame + 1 < p->frames; frame++)
            for (int level = 0; level < levels; level++)
                p->staged[rows * (2 + level) + first + prefix_length + 1 + frame] =
                    tokens[((size_t)b * p->frames + frame) * levels + level];
    }
    return device_upload(t->device, p->index, p->staged, sizeof(int32_t) * rows * (size_t)(2 + levels));
}

status temporal_forward(temporal *t, const float *parameters, temporal_pass *p, int batch,
                        const uint16_t *prefix, const uint16_t *tokens, const float **output) {
    const int sequence = t->config.prefix + p->frames;
    const int64_t rows = (int64_t)batch * sequence, width = t->config.transformer.width;
    TRY(fill_index(t, p, batch, prefix, tokens));
    const float *tables[EMBEDDING_TABLES_MAX] = {parameters + t->prefix_embedding, parameters + t->begin};
    const int32_t *index[EMBEDDING_TABLES_MAX];
    for (int i = 0; i < 2 + t->config.levels; i++) {
        index[i] = p->index + rows * i;
        if (i >= 2)
            tables[i] = parameters + t->embedding[i - 2];
    }
    op_embedding_sum(t->device, rows, width, 2 + t->config.levels, tables, index,
                     transformer_input(p->activations), false);
    const float *hidden;
    TRY(transformer_forward(t->transformer, parameters, p->activations, batch, NULL, &hidden));
    op_copy_rows(t->device, batch, p->frames * width, hidden + t->config.prefix * width, sequence * width,
                 p->output, p->frames * width, false);
    *output = p->output;
    return STATUS_OK;
}

status temporal_backward(temporal *t, const float *parameters, float *gradients, temporal_pass *p, int batch,
                         const float *d_output, const gradient_watch *watch) {
    const int sequence = t->config.prefix + p->frames;
    const int64_t rows = (int64_t)batch * sequence, width = t->config.transformer.width;
    op_zero(t->device, sizeof(float) * (size_t)(rows * width), p->dx);
    op_copy_rows(t->device, batch, p->frames * width, d_output, p->frames * width,
                 p->dx + t->config.prefix * width, sequence * width, false);
    TRY(transformer_backward(t->transformer, parameters, gradients, p->activations, batch, NULL, p->dx,
                             watch));
    if (t->config.prefix > 0)
        op_embedding_backward(t->device, rows, (int64_t)t->config.prefix * t->config.prefix_codebook, width,
                              p->index, p->dx, gradients + t->prefix_embedding);
    op_embedding_backward(t->device, rows, 1, width, p->index + rows, p->dx, gradients + t->begin);
    for (int level = 0; level < t->config.levels; level++)
        op_embedding_backward(t->device, rows, t->config.codebook[level], width,
                              p->index + rows * (2 + level), p->dx, gradients + t->embedding[level]);
    return gradient_watch_tell(watch, 0);
}

status temporal_decoder_create(temporal_decoder **out, const temporal *t, int batch, int frames) {
    *out = NULL;
    temporal_decoder *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "temporal decoder"));
    c->device = t->device;
    c->batch = batch;
    const int start = t->config.prefix + 1;
    status result;
    TRY_GOTO(result, transformer_cache_create(&c->cache, t->transformer, batch, t->config.prefix + frames),
             failed);
    TRY_GOTO(result, transformer_activations_create(&c->start, t->transformer, batch, start, false), failed);
    const size_t index_bytes = sizeof(int32_t) * 2 * (size_t)batch * (size_t)start;
    TRY_GOTO(result, memory_allocate((void **)&c->staged, index_bytes, "temporal token indices"), failed);
    TRY_GOTO(result, device_allocate(t->device, (void **)&c->index, index_bytes, "temporal token indices"),
             failed);
    TRY_GOTO(result,
             device_allocate(t->device, (void **)&c->output,
                             sizeof(float) * (size_t)batch * (size_t)t->config.transformer.width,
                             "temporal outputs"),
             failed);
    *out = c;
    return STATUS_OK;
failed:
    temporal_decoder_destroy(c);
    return result;
}

void temporal_decoder_destroy(temporal_decoder *c) {
    if (c == NULL)
        return;
    transformer_cache_destroy(c->cache);
    transformer_activations_destroy(c->start);
    memory_free(c->staged);
    device_free(c->device, c->index);
    device_free(c->device, c->output);
    memory_free(c);
}

status temporal_decode_start(temporal *t, const float *parameters, temporal_decoder *c, int batch,
                             const uint16_t *prefix, const float **output) {
    const int prefix_length = t->config.prefix, positions = prefix_length + 1;
    const int64_t width = t->config.transformer.width, rows = (int64_t)batch * positions;
    for (int64_t row = 0; row < rows; row++) {
        const int position = (int)(row % positions);
        const bool begin = position == prefix_length;
        c->staged[row] =
            begin ? -1
                  : position * t->config.prefix_codebook + prefix[row / positions * prefix_length + position];
        c->staged[rows + row] = begin ? 0 : -1;
    }
    TRY(device_upload(t->device, c->index, c->staged, sizeof(int32_t) * 2 * (size_t)rows));
    const float *tables[2] = {parameters + t->prefix_embedding, parameters + t->begin}, *hidden;
    const int32_t *index[2] = {c->index, c->index + rows};
    op_embedding_sum(t->device, rows, width, 2, tables, index, transformer_input(c->start), false);
    TRY(transformer_prefill(t->transformer, parameters, c->start, c->cache, batch, &hidden));
    op_copy_rows(t->device, batch, width, hidden + prefix_length * width, positions * width, c->output, width,
                 false);
    *output = c->output;
    return STATUS_OK;
}

status temporal_decode_frame(temporal *t, const float *parameters, temporal_decoder *c, int batch,
                             const int32_t *tokens, const int32_t *frame, const float **output) {
    const float *tables[EMBEDDING_TABLES_MAX];
    const int32_t *index[EMBEDDING_TABLES_MAX];
    for (int level = 0; level < t->config.levels; level++) {
        tables[level] = parameters + t->embedding[level];
        index[level] = tokens + (size_t)level * batch;
    }
    op_embedding_sum(t->device, batch, t->config.transformer.width, t->config.levels, tables, index,
                     transformer_cache_input(c->cache), false);
    return transformer_decode(t->transformer, parameters, c->cache, batch, t->config.prefix, frame, output);
}
