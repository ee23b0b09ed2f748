#include "core/embedding.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct tower {
    transformer *transformer;
    int tables;
    size_t table[EMBEDDING_LEVELS_MAX]; // offsets: [entries, width]
    int entries[EMBEDDING_LEVELS_MAX];
    size_t projection; // [output, width]
    weight *projection_weight;
} tower;

struct embedding {
    device *device;
    embedding_config config;
    parameter_list list;
    tower text, music;
    size_t channels, rhythm; // offsets: [rhythm channels, width], [output, rhythm lags * rhythm channels]
    weight *channels_weight, *rhythm_weight;
    size_t variation; // offset: [output, 2 * music width]
    weight *variation_weight;
    size_t log_scale; // [1]
    float *values;
    float scale; // of the values that were packed last
};

typedef struct tower_pass {
    transformer_activations *activations;
    int32_t *staged;  // [tables, batch * positions] on the host
    int32_t *index;   // the same on the device
    int32_t *lengths; // [batch]; used by the text tower
    bool has_lengths;
    float *host_output; // [batch, output]
    float *pooled;      // [batch, width]
    float *projected;   // [batch, output]
    float *output;      // [batch, output]
    float *inverse_norms;
    float *d_output, *d_projected; // [batch, output]
    float *d_pooled;               // [batch, width]
    float *dx;                     // [batch * positions, width]
} tower_pass;

typedef struct rhythm_pass {
    float *channels;                              // [batch * positions, channels]
    float *correlations;                          // [batch, lags, channels]
    float *inverse_energies;                      // [batch, channels]
    float *d_correlations, *d_channels, *scratch; // as the three above
} rhythm_pass;

// What the music tower hears over time, beside its transformer.
typedef struct time_pass {
    rhythm_pass rhythm;
    float *variation, *d_variation; // [batch, 2, music width]
} time_pass;

struct embedding_pass {
    int batch;
    bool keep;
    tower_pass text, music;
    time_pass time;
    float *scratch;     // [2, batch, batch]
    float *d_log_scale; // [1] and the padding of the parameter
    device *device;
    void *memory, *host_memory;
};

static status create_tower(embedding *e, tower *t, const transformer_config *config, const char *name,
                           int tables, const int *entries, bool learn) {
    t->tables = tables;
    const float scale = 1.0f / sqrtf((float)config->width);
    char full[PARAMETER_NAME_MAX];
    for (int i = 0; i < tables; i++) {
        snprintf(full, sizeof full, "%s.embedding.%d.weight", name, i);
        t->entries[i] = entries[i];
        TRY(parameter_list_add(&e->list, full, entries[i], config->width, INITIALISE_NORMAL, scale,
                               &t->table[i]));
    }
    TRY(transformer_create(&t->transformer, e->device, config, &e->list, name,
                           learn ? WEIGHT_LEARN : WEIGHT_SCORE, WEIGHT_F32));
    snprintf(full, sizeof full, "%s.projection.weight", name);
    TRY(parameter_list_add(&e->list, full, e->config.output, config->width, INITIALISE_NORMAL, scale,
                           &t->projection));
    return weight_create(&t->projection_weight, e->device, e->config.output, config->width,
                         learn ? WEIGHT_LEARN : WEIGHT_SCORE, WEIGHT_F32);
}

static bool hears_rhythm(const embedding *e) {
    return e->config.rhythm_lags > 0;
}

static status create_rhythm(embedding *e, bool learn) {
    const embedding_config *c = &e->config;
    const weight_use use = learn ? WEIGHT_LEARN : WEIGHT_SCORE;
    const int64_t inputs = (int64_t)c->rhythm_lags * c->rhythm_channels;
    TRY(parameter_list_add(&e->list, "music.rhythm.channels.weight", c->rhythm_channels, c->music.width,
                           INITIALISE_NORMAL, 1.0f / sqrtf((float)c->music.width), &e->channels));
    TRY(parameter_list_add(&e->list, "music.rhythm.projection.weight", c->output, inputs, INITIALISE_NORMAL,
                           1.0f / sqrtf((float)inputs), &e->rhythm));
    TRY(weight_create(&e->channels_weight, e->device, c->rhythm_channels, c->music.width, use, WEIGHT_F32));
    return weight_create(&e->rhythm_weight, e->device, c->output, inputs, use, WEIGHT_F32);
}

static status create_variation(embedding *e, bool learn) {
    const int64_t inputs = 2 * (int64_t)e->config.music.width;
    TRY(parameter_list_add(&e->list, "music.variation.projection.weight", e->config.output, inputs,
                           INITIALISE_NORMAL, 1.0f / sqrtf((float)inputs), &e->variation));
    return weight_create(&e->variation_weight, e->device, e->config.output, inputs,
                         learn ? WEIGHT_LEARN : WEIGHT_SCORE, WEIGHT_F32);
}

status embedding_create(embedding **out, device *device, const embedding_config *config, bool learn) {
    *out = NULL;
    if (config->rhythm_lags > 0 && (config->rhythm_channels < 16 || config->rhythm_channels % 16 != 0 ||
                                    config->rhythm_lags >= config->music.positions))
        return FAIL_USAGE(
            "the joint embedding hears rhythm in %d channels at %d lags of %d frames; a multiple "
            "of 16 channels and fewer lags than frames are wanted",
            config->rhythm_channels, config->rhythm_lags, config->music.positions);
    if (config->output < 16 || config->output % 16 != 0)
        return FAIL_USAGE("the joint embedding has %d dimensions, a multiple of 16 is wanted",
                          config->output);
    embedding *e;
    TRY(memory_allocate((void **)&e, sizeof *e, "joint embedding"));
    e->device = device;
    e->config = *config;
    e->config.text.causal = e->config.music.causal = false;
    status result;
    TRY_GOTO(result, create_tower(e, &e->text, &e->config.text, "text", 1, &config->vocabulary, learn),
             failed);
    TRY_GOTO(result,
             create_tower(e, &e->music, &e->config.music, "music", config->levels, config->codebook, learn),
             failed);
    if (hears_rhythm(e))
        TRY_GOTO(result, create_rhythm(e, learn), failed);
    if (e->config.variation)
        TRY_GOTO(result, create_variation(e, learn), failed);
    TRY_GOTO(result, parameter_list_add(&e->list, "log_scale", 0, 1, INITIALISE_ZEROS, 0.0f, &e->log_scale),
             failed);
    TRY_GOTO(result,
             device_allocate(device, (void **)&e->values, sizeof(float) * e->list.size,
                             "joint embedding parameters"),
             failed);
    *out = e;
    return STATUS_OK;
failed:
    embedding_destroy(e);
    return result;
}

void embedding_destroy(embedding *e) {
    if (e == NULL)
        return;
    transformer_destroy(e->text.transformer);
    transformer_destroy(e->music.transformer);
    weight_destroy(e->text.projection_weight);
    weight_destroy(e->music.projection_weight);
    weight_destroy(e->channels_weight);
    weight_destroy(e->rhythm_weight);
    weight_destroy(e->variation_weight);
    device_free(e->device, e->values);
    parameter_list_release(&e->list);
    memory_free(e);
}

const embedding_config *embedding_get_config(const embedding *e) {
    return &e->config;
}

const parameter_list *embedding_parameters(const embedding *e) {
    return &e->list;
}

float *embedding_values(embedding *e) {
    return e->values;
}

static const float scale_limit = 100.0f;

status embedding_pack(embedding *e) {
    float log_scale;
    TRY(device_download(e->device, &log_scale, e->values + e->log_scale, sizeof log_scale));
    e->scale = expf(log_scale);
    e->scale = e->scale < scale_limit ? e->scale : scale_limit;
    TRY(transformer_pack(e->text.transformer, e->values));
    TRY(transformer_pack(e->music.transformer, e->values));
    TRY(weight_pack(e->text.projection_weight, e->values + e->text.projection));
    if (hears_rhythm(e)) {
        TRY(weight_pack(e->channels_weight, e->values + e->channels));
        TRY(weight_pack(e->rhythm_weight, e->values + e->rhythm));
    }
    if (e->config.variation)
        TRY(weight_pack(e->variation_weight, e->values + e->variation));
    return weight_pack(e->music.projection_weight, e->values + e->music.projection);
}

float embedding_scale(const embedding *e) {
    return e->scale;
}

status embedding_set_scale(embedding *e, float scale) {
    const float log_scale = logf(scale);
    return device_upload(e->device, e->values + e->log_scale, &log_scale, sizeof log_scale);
}

static void carve_tower(tower_pass *p, const embedding *e, const tower *t, int batch, bool keep, arena *a) {
    const transformer_config *c = transformer_get_config(t->transformer);
    const size_t rows = (size_t)batch * c->positions, width = (size_t)c->width,
                 output = (size_t)e->config.output;
    p->index = arena_take(a, sizeof(int32_t) * rows * (size_t)t->tables);
    p->lengths = arena_take(a, sizeof(int32_t) * (size_t)batch);
    p->pooled = arena_take(a, sizeof(float) * (size_t)batch * width);
    p->projected = arena_take(a, sizeof(float) * (size_t)batch * output);
    p->output = arena_take(a, sizeof(float) * (size_t)batch * output);
    p->inverse_norms = arena_take(a, sizeof(float) * (size_t)batch);
    if (keep) {
        p->d_output = arena_take(a, sizeof(float) * (size_t)batch * output);
        p->d_projected = arena_take(a, sizeof(float) * (size_t)batch * output);
        p->d_pooled = arena_take(a, sizeof(float) * (size_t)batch * width);
        p->dx = arena_take(a, sizeof(float) * rows * width);
    }
}

static void carve_rhythm(rhythm_pass *p, const embedding *e, size_t batch, bool keep, arena *a) {
    const size_t channels = (size_t)e->config.rhythm_channels, lags = (size_t)e->config.rhythm_lags,
                 rows = batch * (size_t)e->config.music.positions;
    p->channels = arena_take(a, sizeof(float) * rows * channels);
    p->correlations = arena_take(a, sizeof(float) * batch * lags * channels);
    p->inverse_energies = arena_take(a, sizeof(float) * batch * channels);
    if (keep) {
        p->d_channels = arena_take(a, sizeof(float) * rows * channels);
        p->d_correlations = arena_take(a, sizeof(float) * batch * lags * channels);
        p->scratch = arena_take(a, sizeof(float) * batch * channels);
    }
}

static void carve_pass(embedding_pass *p, const embedding *e, arena *a) {
    carve_tower(&p->text, e, &e->text, p->batch, p->keep, a);
    carve_tower(&p->music, e, &e->music, p->batch, p->keep, a);
    if (hears_rhythm(e))
        carve_rhythm(&p->time.rhythm, e, (size_t)p->batch, p->keep, a);
    if (e->config.variation) {
        const size_t bytes = sizeof(float) * 2 * (size_t)p->batch * (size_t)e->config.music.width;
        p->time.variation = arena_take(a, bytes);
        p->time.d_variation = p->keep ? arena_take(a, bytes) : NULL;
    }
    if (p->keep) {
        p->scratch = arena_take(a, sizeof(float) * 2 * (size_t)p->batch * (size_t)p->batch);
        p->d_log_scale = arena_take(a, sizeof(float) * PARAMETER_PADDING);
    }
}

static void carve_host_tower(tower_pass *p, const embedding *e, const tower *t, int batch, arena *a) {
    const size_t rows = (size_t)batch * (size_t)transformer_get_config(t->transformer)->positions;
    p->staged = arena_take(a, sizeof(int32_t) * rows * (size_t)t->tables);
    p->host_output = arena_take(a, sizeof(float) * (size_t)batch * (size_t)e->config.output);
}

static void carve_host(embedding_pass *p, const embedding *e, arena *a) {
    carve_host_tower(&p->text, e, &e->text, p->batch, a);
    carve_host_tower(&p->music, e, &e->music, p->batch, a);
}

status embedding_pass_create(embedding_pass **out, const embedding *e, int batch, bool keep) {
    *out = NULL;
    embedding_pass *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "embedding pass"));
    p->device = e->device;
    p->batch = batch;
    p->keep = keep;
    status result;
    TRY_GOTO(result,
             transformer_activations_create(&p->text.activations, e->text.transformer, batch,
                                            e->config.text.positions, keep),
             failed);
    TRY_GOTO(result,
             transformer_activations_create(&p->music.activations, e->music.transformer, batch,
                                            e->config.music.positions, keep),
             failed);
    arena a = {0};
    carve_pass(p, e, &a);
    TRY_GOTO(result, device_allocate(e->device, &p->memory, a.used, "embedding pass"), failed);
    a = (arena){.base = p->memory, .capacity = a.used};
    carve_pass(p, e, &a);
    a = (arena){0};
    carve_host(p, e, &a);
    TRY_GOTO(result, memory_allocate(&p->host_memory, a.used, "embedding pass"), failed);
    a = (arena){.base = p->host_memory, .capacity = a.used};
    carve_host(p, e, &a);
    *out = p;
    return STATUS_OK;
failed:
    embedding_pass_destroy(p);
    return result;
}

void embedding_pass_destroy(embedding_pass *p) {
    if (p == NULL)
        return;
    transformer_activations_destroy(p->text.activations);
    transformer_activations_destroy(p->music.activations);
    device_free(p->device, p->memory);
    memory_free(p->host_memory);
    memory_free(p);
}

static const float rhythm_epsilon = 1e-5f; // what is constant in time has no rhythm

// Of the music tower's input x [batch * positions, width].
static status rhythm_forward(embedding *e, rhythm_pass *p, int batch, const float *x) {
    const embedding_config *c = &e->config;
    TRY(product_forward(e->channels_weight, (int64_t)batch * c->music.positions, x, p->channels, false));
    op_autocorrelation(e->device, batch, c->music.positions, c->rhythm_channels, c->rhythm_lags,
                       rhythm_epsilon, p->channels, p->correlations, p->inverse_energies);
    return STATUS_OK;
}

// d_projected: [batch, output]; x as in the forward pass.
static status rhythm_backward(embedding *e, rhythm_pass *p, int batch, const float *x,
                              const float *d_projected, float *gradients) {
    const embedding_config *c = &e->config;
    TRY(product_backward_weight(e->rhythm_weight, batch, p->correlations, d_projected, gradients + e->rhythm,
                                true));
    TRY(product_backward_data(e->rhythm_weight, batch, d_projected, p->d_correlations, false));
    op_autocorrelation_backward(e->device, batch, c->music.positions, c->rhythm_channels, c->rhythm_lags,
                                p->channels, p->correlations, p->inverse_energies, p->d_correlations,
                                p->d_channels, p->scratch);
    return product_backward_weight(e->channels_weight, (int64_t)batch * c->music.positions, x, p->d_channels,
                                   gradients + e->channels, true);
}

// The tower's input starts with code vectors of a root mean square of about 0.3 (launch/embed_job.c): at this
// scale their variances are near 1, and the logarithms near 0. What hardly varies is as good as constant.
static const float variation_scale = 10.0f, variation_epsilon = 1e-3f;

// Of the music tower's input x [batch * positions, width].
static status time_forward(embedding *e, time_pass *p, int batch, const float *x) {
    const transformer_config *c = &e->config.music;
    if (hears_rhythm(e))
        TRY(rhythm_forward(e, &p->rhythm, batch, x));
    if (e->config.variation)
        op_time_variation(e->device, batch, c->positions, c->width, variation_scale, variation_epsilon, x,
                          p->variation);
    return STATUS_OK;
}

// Adds what was heard to projected [batch, output].
static status time_project(embedding *e, const time_pass *p, int batch, float *projected) {
    if (hears_rhythm(e))
        TRY(product_forward(e->rhythm_weight, batch, p->rhythm.correlations, projected, true));
    if (e->config.variation)
        TRY(product_forward(e->variation_weight, batch, p->variation, projected, true));
    return STATUS_OK;
}

// x as in the forward pass; d_projected: [batch, output]; adds to dx [batch * positions, width].
static status time_backward(embedding *e, time_pass *p, int batch, const float *x, const float *d_projected,
                            float *gradients, float *dx) {
    const transformer_config *c = &e->config.music;
    if (hears_rhythm(e)) {
        TRY(rhythm_backward(e, &p->rhythm, batch, x, d_projected, gradients));
        TRY(product_backward_data(e->channels_weight, (int64_t)batch * c->positions, p->rhythm.d_channels, dx,
                                  true));
    }
    if (e->config.variation) {
        TRY(product_backward_weight(e->variation_weight, batch, p->variation, d_projected,
                                    gradients + e->variation, true));
        TRY(product_backward_data(e->variation_weight, batch, d_projected, p->d_variation, false));
        op_time_variation_backward(e->device, batch, c->positions, c->width, variation_scale, x, p->variation,
                                   p->d_variation, dx);
    }
    return STATUS_OK;
}

// Takes what is staged. time: NULL for text.
static status tower_forward(embedding *e, tower *t, tower_pass *p, time_pass *time, int batch,
                            const float **output) {
    const transformer_config *c = transformer_get_config(t->transformer);
    const int64_t rows = (int64_t)batch * c->positions;
    TRY(device_upload(e->device, p->index, p->staged, sizeof(int32_t) * (size_t)(rows * t->tables)));
    const int32_t *lengths = p->has_lengths ? p->lengths : NULL;
    const float *tables[EMBEDDING_LEVELS_MAX], *hidden;
    const int32_t *index[EMBEDDING_LEVELS_MAX];
    float *x = transformer_input(p->activations);
    for (int i = 0; i < t->tables; i++) {
        tables[i] = e->values + t->table[i];
        index[i] = p->index + rows * i;
    }
    op_embedding_sum(e->device, rows, c->width, t->tables, tables, index, x, false);
    if (time != NULL)
        TRY(time_forward(e, time, batch, x));
    TRY(transformer_forward(t->transformer, e->values, p->activations, batch, lengths, &hidden));
    op_mean_pool(e->device, batch, c->positions, c->width, lengths, hidden, p->pooled);
    TRY(product_forward(t->projection_weight, batch, p->pooled, p->projected, false));
    if (time != NULL)
        TRY(time_project(e, time, batch, p->projected));
    op_normalize_rows(e->device, batch, e->config.output, p->projected, p->output, p->inverse_norms);
    if (output == NULL)
        return STATUS_OK;
    *output = p->host_output;
    return device_download(e->device, p->host_output, p->output,
                           sizeof(float) * (size_t)batch * (size_t)e->config.output);
}

static status tower_backward(embedding *e, tower *t, tower_pass *p, time_pass *time, int batch,
                             float *gradients) {
    const transformer_config *c = transformer_get_config(t->transformer);
    const int64_t rows = (int64_t)batch * c->positions;
    const int32_t *lengths = p->has_lengths ? p->lengths : NULL;
    op_normalize_rows_backward(e->device, batch, e->config.output, p->output, p->inverse_norms, p->d_output,
                               p->d_projected);
    TRY(product_backward_weight(t->projection_weight, batch, p->pooled, p->d_projected,
                                gradients + t->projection, true));
    TRY(product_backward_data(t->projection_weight, batch, p->d_projected, p->d_pooled, false));
    op_mean_pool_backward(e->device, batch, c->positions, c->width, lengths, p->d_pooled, p->dx);
    TRY(transformer_backward(t->transformer, e->values, gradients, p->activations, batch, lengths, p->dx,
                             NULL));
    if (time != NULL)
        TRY(time_backward(e, time, batch, transformer_input(p->activations), p->d_projected, gradients,
                          p->dx));
    for (int i = 0; i < t->tables; i++)
        op_embedding_backward(e->device, rows, t->entries[i], c->width, p->index + rows * i, p->dx,
                              gradients + t->table[i]);
    return STATUS_OK;
}

status embedding_text(embedding *e, embedding_pass *p, int batch, const int32_t *tokens,
                      const int32_t *lengths, const float **output) {
    const int positions = e->config.text.positions;
    p->text.has_lengths = true;
    TRY(device_upload(e->device, p->text.lengths, lengths, sizeof(int32_t) * (size_t)batch));
    for (int b = 0; b < batch; b++)
        for (int s = 0; s < positions; s++)
            p->text.staged[b * positions + s] = s < lengths[b] ? tokens[b * positions + s] : -1;
    return tower_forward(e, &e->text, &p->text, NULL, batch, output);
}

status embedding_music(embedding *e, embedding_pass *p, int batch, const uint16_t *tokens,
                       const float **output) {
    const int levels = e->config.levels;
    const size_t rows = (size_t)batch * e->config.music.positions;
    for (size_t row = 0; row < rows; row++)
        for (int level = 0; level < levels; level++)
            p->music.staged[rows * level + row] = tokens[row * levels + level];
    return tower_forward(e, &e->music, &p->music, &p->time, batch, output);
}

status embedding_backward(embedding *e, embedding_pass *p, int batch, float *gradients, double *loss) {
    const float scale = embedding_scale(e);
    float d_scale;
    *loss = op_contrastive_loss(e->device, batch, e->config.output, p->text.output, p->music.output, scale,
                                p->text.d_output, p->music.d_output, &d_scale, p->scratch);
    if (scale < scale_limit) {
        const float d_log_scale = d_scale * scale; // the parameter is the logarithm
        TRY(device_upload(e->device, p->d_log_scale, &d_log_scale, sizeof d_log_scale));
        op_copy_rows(e->device, 1, PARAMETER_PADDING, p->d_log_scale, PARAMETER_PADDING,
                     gradients + e->log_scale, PARAMETER_PADDING, true);
    }
    TRY(tower_backward(e, &e->text, &p->text, NULL, batch, gradients));
    return tower_backward(e, &e->music, &p->music, &p->time, batch, gradients);
}
