#include "core/transformer.h"

#include "kernels/decode.h"
#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float norm_epsilon = 1e-5f;

typedef struct layer {
    size_t norm1, qkv, out, norm2, gate_up, down; // offsets in the flat buffer
    weight *qkv_weight, *out_weight, *gate_up_weight, *down_weight;
} layer;

struct transformer {
    device *device;
    transformer_config config;
    layer *layers; // [layers]
    size_t norm;
    float *cosine, *sine; // [positions, head_dim / 2]
};

// What one layer leaves for its backward pass. Rows are batch * sequence.
typedef struct layer_activations {
    float *input;                    // [rows, width]
    activation *normed1;             // [rows, width]
    float *inverse_rms1;             // [rows]
    activation *qkv;                 // [rows, 3 * width], rotated
    activation *attended;            // [rows, width]
    float *log_sum;                  // [batch, heads, sequence]
    float *middle;                   // [rows, width]
    activation *normed2;             // [rows, width]
    float *inverse_rms2;             // [rows]
    activation *gate_up, *activated; // [rows, 2 * feed_forward], [rows, feed_forward]
} layer_activations;

struct transformer_activations {
    device *device;
    int batch, sequence;
    bool keep;
    layer_activations *layers; // [layers], all alike if not kept
    float *final_input;        // [rows, width]
    float *inverse_rms;        // [rows]
    float *output;             // [rows, width]
    float *attention_scratch;
    activation *d_normed;  // [rows, width]
    activation *d_qkv;     // [rows, 3 * width]
    activation *d_gate_up; // [rows, 2 * feed_forward]
    activation *d_inner;   // [rows, max(width, feed_forward)]
    void *memory;
};

struct transformer_cache {
    device *device;
    int batch;
    attention_shape capacity;
    decode_stack stack;
    decode_layer *layers; // [layers]
    void *memory;
};

status transformer_config_check(const transformer_config *c, const char *what) {
    if (c->layers < 1 || c->width < 16 || c->heads < 1 || c->feed_forward < 16 || c->positions < 1)
        return FAIL_USAGE(
            "%s: layers %d, width %d, heads %d, feed-forward %d: each must be positive, widths at least 16",
            what, c->layers, c->width, c->heads, c->feed_forward);
    if (c->width % c->heads != 0 || c->width / c->heads % 16 != 0)
        return FAIL_USAGE("%s: width %d over %d heads gives heads of %g; a multiple of 16 is wanted", what,
                          c->width, c->heads, (double)c->width / c->heads);
    if (c->feed_forward % 16 != 0)
        return FAIL_USAGE("%s: feed-forward %d is no multiple of 16", what, c->feed_forward);
    return STATUS_OK;
}

static status add_tensor(parameter_list *list, const char *prefix, int index, const char *name, int64_t rows,
                         int64_t columns, float scale, size_t *offset) {
    char full[PARAMETER_NAME_MAX];
    if (index >= 0)
        snprintf(full, sizeof full, "%s.layers.%d.%s.weight", prefix, index, name);
    else
        snprintf(full, sizeof full, "%s.%s.weight", prefix, name);
    return parameter_list_add(list, full, rows, columns, rows == 0 ? INITIALISE_ONES : INITIALISE_NORMAL,
                              scale, offset);
}

// What the device's kernels are not made for.
static status check_limits(const device *device, const transformer_config *c, const char *what) {
    const device_limits limits = device_get_limits(device);
    if (limits.width > 0 && c->width > limits.width)
        return FAIL("%s: width %d is more than the %d that %s computes; use a narrower model or device=cpu",
                    what, c->width, limits.width, device_name(device));
    if (limits.head_dim > 0 && c->width / c->heads > limits.head_dim)
        return FAIL("%s: width %d over %d heads gives heads of %d, more than the %d that %s computes; use at "
                    "least %d heads or device=cpu",
                    what, c->width, c->heads, c->width / c->heads, limits.head_dim, device_name(device),
                    (c->width + limits.head_dim - 1) / limits.head_dim);
    return STATUS_OK;
}

status transformer_create(transformer **out, device *device, const transformer_config *config,
                          parameter_list *list, const char *prefix, weight_use use,
                          weight_precision precision) {
    *out = NULL;
    TRY(transformer_config_check(config, prefix));
    TRY(check_limits(device, config, prefix));
    transformer *t;
    TRY(memory_allocate((void **)&t, sizeof *t, "transformer"));
    t->device = device;
    t->config = *config;
    const int64_t width = config->width, inner = config->feed_forward;
    const int head_dim = config->width / config->heads;
    // Residual branches start smaller with depth (GPT-2).
    const float scale = 1.0f / sqrtf((float)width), branch = scale / sqrtf(2.0f * (float)config->layers);
    const float down_scale = 1.0f / sqrtf((float)inner) / sqrtf(2.0f * (float)config->layers);
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&t->layers, sizeof *t->layers * (size_t)config->layers, "layers"),
             failed);
    for (int i = 0; i < config->layers; i++) {
        layer *l = &t->layers[i];
        TRY_GOTO(result, add_tensor(list, prefix, i, "norm1", 0, width, 0, &l->norm1), failed);
        TRY_GOTO(result, add_tensor(list, prefix, i, "qkv", 3 * width, width, scale, &l->qkv), failed);
        TRY_GOTO(result, add_tensor(list, prefix, i, "out", width, width, branch, &l->out), failed);
        TRY_GOTO(result, add_tensor(list, prefix, i, "norm2", 0, width, 0, &l->norm2), failed);
        TRY_GOTO(result, add_tensor(list, prefix, i, "gate_up", 2 * inner, width, scale, &l->gate_up),
                 failed);
        TRY_GOTO(result, add_tensor(list, prefix, i, "down", width, inner, down_scale, &l->down), failed);
        TRY_GOTO(result, weight_create(&l->qkv_weight, device, 3 * width, width, use, precision), failed);
        TRY_GOTO(result, weight_create(&l->out_weight, device, width, width, use, precision), failed);
        TRY_GOTO(result, weight_create(&l->gate_up_weight, device, 2 * inner, width, use, precision), failed);
        TRY_GOTO(result, weight_create(&l->down_weight, device, width, inner, use, precision), failed);
    }
    TRY_GOTO(result, add_tensor(list, prefix, -1, "norm", 0, width, 0, &t->norm), failed);
    size_t table = (size_t)config->positions * (size_t)head_dim / 2;
    TRY_GOTO(result, device_allocate(device, (void **)&t->cosine, sizeof(float) * table, "rotary table"),
             failed);
    TRY_GOTO(result, device_allocate(device, (void **)&t->sine, sizeof(float) * table, "rotary table"),
             failed);
    op_rotary_table(device, config->positions, head_dim, t->cosine, t->sine);
    *out = t;
    return STATUS_OK;
failed:
    transformer_destroy(t);
    return result;
}

void transformer_destroy(transformer *t) {
    if (t == NULL)
        return;
    for (int i = 0; t->layers != NULL && i < t->config.layers; i++) {
        weight_destroy(t->layers[i].qkv_weight);
        weight_destroy(t->layers[i].out_weight);
        weight_destroy(t->layers[i].gate_up_weight);
        weight_destroy(t->layers[i].down_weight);
    }
    memory_free(t->layers);
    device_free(t->device, t->cosine);
    device_free(t->device, t->sine);
    memory_free(t);
}

const transformer_config *transformer_get_config(const transformer *t) {
    return &t->config;
}

status transformer_pack(transformer *t, const float *parameters) {
    for (int i = 0; i < t->config.layers; i++) {
        const layer *l = &t->layers[i];
        TRY(weight_pack(l->qkv_weight, parameters + l->qkv));
        TRY(weight_pack(l->out_weight, parameters + l->out));
        TRY(weight_pack(l->gate_up_weight, parameters + l->gate_up));
        TRY(weight_pack(l->down_weight, parameters + l->down));
    }
    return STATUS_OK;
}

double transformer_products_per_row(const transformer_config *c) {
    return (double)c->layers * (4.0 * c->width * c->width + 3.0 * c->width * c->feed_forward);
}

static attention_shape shape_of(const transformer *t, int batch, int sequence, const int32_t *lengths) {
    return (attention_shape){.batch = batch,
                             .sequence = sequence,
                             .heads = t->config.heads,
                             .head_dim = t->config.width / t->config.heads,
                             .causal = t->config.causal,
                             .lengths = lengths,
                             .cosine = t->cosine,
                             .sine = t->sine,
                             .longest = t->config.positions};
}

static float *take(arena *a, size_t floats) {
    return arena_take(a, sizeof(float) * floats);
}

static activation *take_activations(const transformer *t, arena *a, size_t count) {
    return arena_take(a, device_activation_bytes(t->device) * count);
}

static void carve_activations(transformer_activations *s, const transformer *t, arena *a) {
    const size_t rows = (size_t)s->batch * s->sequence, width = (size_t)t->config.width;
    const size_t inner = (size_t)t->config.feed_forward;
    const attention_shape shape = shape_of(t, s->batch, s->sequence, NULL);
    for (int i = 0; i < t->config.layers; i++) {
        layer_activations *l = &s->layers[i];
        if (!s->keep && i > 0) {
            *l = s->layers[0];
            continue;
        }
        l->input = take(a, rows * width);
        l->normed1 = take_activations(t, a, rows * width);
        l->inverse_rms1 = take(a, rows);
        l->qkv = take_activations(t, a, rows * 3 * width);
        l->attended = take_activations(t, a, rows * width);
        l->log_sum = take(a, rows * (size_t)t->config.heads);
        l->middle = take(a, rows * width);
        l->normed2 = take_activations(t, a, rows * width);
        l->inverse_rms2 = take(a, rows);
        l->gate_up = take_activations(t, a, rows * 2 * inner);
        l->activated = take_activations(t, a, rows * inner);
    }
    s->final_input = s->keep ? take(a, rows * width) : s->layers[0].input;
    s->inverse_rms = take(a, rows);
    s->output = take(a, rows * width);
    s->attention_scratch = take(a, attention_scratch_floats(t->device, &shape));
    if (s->keep) {
        s->d_normed = take_activations(t, a, rows * width);
        s->d_qkv = take_activations(t, a, rows * 3 * width);
        s->d_gate_up = take_activations(t, a, rows * 2 * inner);
        s->d_inner = take_activations(t, a, rows * (inner > width ? inner : width));
    }
}

status transformer_activations_create(transformer_activations **out, const transformer *t, int batch,
                                      int sequence, bool keep) {
    *out = NULL;
    if (sequence > t->config.positions)
        return FAIL("a sequence of %d positions is longer than the %d that the model was made for", sequence,
                    t->config.positions);
    transformer_activations *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "activations"));
    s->device = t->device;
    s->batch = batch;
    s->sequence = sequence;
    s->keep = keep;
    status result;
    TRY_GOTO(
        result,
        memory_allocate((void **)&s->layers, sizeof *s->layers * (size_t)t->config.layers, "activations"),
        failed);
    arena a = {0};
    carve_activations(s, t, &a);
    TRY_GOTO(result, device_allocate(t->device, &s->memory, a.used, "activations"), failed);
    a = (arena){.base = s->memory, .capacity = a.used};
    carve_activations(s, t, &a);
    const int64_t rows = (int64_t)batch * sequence;
    for (int i = 0; i < t->config.layers; i++) {
        TRY_GOTO(result, weight_prepare_block(t->layers[i].qkv_weight, rows, keep), failed);
        TRY_GOTO(result, weight_prepare_block(t->layers[i].out_weight, rows, keep), failed);
        TRY_GOTO(result, weight_prepare_block(t->layers[i].gate_up_weight, rows, keep), failed);
        TRY_GOTO(result, weight_prepare_block(t->layers[i].down_weight, rows, keep), failed);
    }
    *out = s;
    return STATUS_OK;
failed:
    transformer_activations_destroy(s);
    return result;
}

void transformer_activations_destroy(transformer_activations *s) {
    if (s == NULL)
        return;
    device_free(s->device, s->memory);
    memory_free(s->layers);
    memory_free(s);
}

float *transformer_input(transformer_activations *s) {
    return s->layers[0].input;
}

// Fills the cache of every layer too, unless it is NULL.
static status forward(transformer *t, const float *parameters, transformer_activations *s,
                      transformer_cache *cache, int batch, const int32_t *lengths, const float **output) {
    device *d = t->device;
    const int64_t rows = (int64_t)batch * s->sequence, width = t->config.width,
                  inner = t->config.feed_forward;
    const attention_shape shape = shape_of(t, batch, s->sequence, lengths);
    for (int i = 0; i < t->config.layers; i++) {
        const layer *l = &t->layers[i];
        layer_activations *a = &s->layers[i];
        float *next = i + 1 < t->config.layers ? s->layers[i + 1].input : s->final_input;
        op_rms_norm(d, rows, width, a->input, parameters + l->norm1, norm_epsilon, a->normed1,
                    a->inverse_rms1, a->middle);
        TRY(block_product(l->qkv_weight, rows, a->normed1, a->qkv));
        op_attention(d, &shape, a->qkv, a->attended, a->log_sum, s->attention_scratch);
        if (cache != NULL) {
            attention_shape capacity = cache->capacity;
            capacity.batch = batch;
            op_attention_fill_cache(d, &capacity, s->sequence, a->qkv, cache->layers[i].keys,
                                    cache->layers[i].values);
        }
        TRY(block_product_add(l->out_weight, rows, a->attended, a->middle));
        op_rms_norm(d, rows, width, a->middle, parameters + l->norm2, norm_epsilon, a->normed2,
                    a->inverse_rms2, next);
        TRY(block_product(l->gate_up_weight, rows, a->normed2, a->gate_up));
        op_swiglu(d, rows, inner, a->gate_up, a->activated);
        TRY(block_product_add(l->down_weight, rows, a->activated, next));
    }
    op_rms_norm_last(d, rows, width, s->final_input, parameters + t->norm, norm_epsilon, s->output,
                     s->inverse_rms);
    *output = s->output;
    return STATUS_OK;
}

status transformer_forward(transformer *t, const float *parameters, transformer_activations *s, int batch,
                           const int32_t *lengths, const float **output) {
    return forward(t, parameters, s, NULL, batch, lengths, output);
}

status transformer_prefill(transformer *t, const float *parameters, transformer_activations *s,
                           transformer_cache *cache, int batch, const float **output) {
    return forward(t, parameters, s, cache, batch, NULL, output);
}

status transformer_backward(transformer *t, const float *parameters, float *gradients,
                            transformer_activations *s, int batch, const int32_t *lengths, float *dx,
                            const gradient_watch *watch) {
    device *d = t->device;
    const int64_t rows = (int64_t)batch * s->sequence, width = t->config.width,
                  inner = t->config.feed_forward;
    const attention_shape shape = shape_of(t, batch, s->sequence, lengths);
    op_store_activations(d, rows, width, dx, s->d_normed);
    op_zero(d, sizeof(float) * (size_t)(rows * width), dx);
    op_rms_norm_backward(d, rows, width, s->final_input, parameters + t->norm, s->inverse_rms, s->d_normed,
                         dx, gradients + t->norm);
    for (int i = t->config.layers - 1; i >= 0; i--) {
        const layer *l = &t->layers[i];
        const layer_activations *a = &s->layers[i];
        op_store_activations(d, rows, width, dx, s->d_normed);
        TRY(block_backward_weight(l->down_weight, rows, a->activated, s->d_normed, gradients + l->down));
        TRY(block_backward_data(l->down_weight, rows, s->d_normed, s->d_inner));
        op_swiglu_backward(d, rows, inner, a->gate_up, s->d_inner, s->d_gate_up);
        TRY(block_backward_weight(l->gate_up_weight, rows, a->normed2, s->d_gate_up, gradients + l->gate_up));
        TRY(block_backward_data(l->gate_up_weight, rows, s->d_gate_up, s->d_normed));
        op_rms_norm_backward(d, rows, width, a->middle, parameters + l->norm2, a->inverse_rms2, s->d_normed,
                             dx, gradients + l->norm2);
        op_store_activations(d, rows, width, dx, s->d_normed);
        TRY(block_backward_weight(l->out_weight, rows, a->attended, s->d_normed, gradients + l->out));
        TRY(block_backward_data(l->out_weight, rows, s->d_normed, s->d_inner));
        op_attention_backward(d, &shape, a->qkv, a->attended, a->log_sum, s->d_inner, s->d_qkv,
                              s->attention_scratch);
        TRY(block_backward_weight(l->qkv_weight, rows, a->normed1, s->d_qkv, gradients + l->qkv));
        TRY(block_backward_data(l->qkv_weight, rows, s->d_qkv, s->d_normed));
        op_rms_norm_backward(d, rows, width, a->input, parameters + l->norm1, a->inverse_rms1, s->d_normed,
                             dx, gradients + l->norm1);
        TRY(gradient_watch_tell(watch, l->norm1)); // a layer's first tensor
    }
    return STATUS_OK;
}

static void carve_cache(transformer_cache *c, const transformer *t, arena *a) {
    const size_t rows = (size_t)c->batch, width = (size_t)t->config.width,
                 inner = (size_t)t->config.feed_forward;
    decode_stack *s = &c->stack;
    for (int i = 0; i < t->config.layers; i++)
        c->layers[i].keys = arena_take(a, attention_cache_bytes(t->device, &c->capacity));
    for (int i = 0; i < t->config.layers; i++)
        c->layers[i].values = arena_take(a, attention_cache_bytes(t->device, &c->capacity));
    s->capacity = c->capacity;
    s->layers = t->config.layers;
    s->feed_forward = t->config.feed_forward;
    s->epsilon = norm_epsilon;
    s->layer = c->layers;
    s->x = take(a, rows * width);
    s->output = take(a, rows * width);
    s->normed = take_activations(t, a, rows * width);
    s->qkv = take_activations(t, a, rows * 3 * width);
    s->attended = take_activations(t, a, rows * width);
    s->gate_up = take_activations(t, a, rows * 2 * inner);
    s->activated = take_activations(t, a, rows * inner);
    s->attention_scratch = take(a, attention_scratch_floats(t->device, &c->capacity));
    s->scratch = arena_take(a, decode_scratch_bytes(t->device, s));
}

status transformer_cache_create(transformer_cache **out, const transformer *t, int batch, int positions) {
    *out = NULL;
    if (positions > t->config.positions)
        return FAIL("a cache of %d positions is longer than the %d that the model was made for", positions,
                    t->config.positions);
    transformer_cache *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "key-value cache"));
    c->batch = batch;
    c->capacity = shape_of(t, batch, positions, NULL);
    status result;
    TRY_GOTO(
        result,
        memory_allocate((void **)&c->layers, sizeof *c->layers * (size_t)t->config.layers, "key-value cache"),
        failed);
    c->device = t->device;
    arena a = {0};
    carve_cache(c, t, &a);
    TRY_GOTO(result, device_allocate(t->device, &c->memory, a.used, "key-value cache"), failed);
    a = (arena){.base = c->memory, .capacity = a.used};
    carve_cache(c, t, &a);
    for (int i = 0; i < t->config.layers; i++) {
        TRY_GOTO(result, weight_prepare_block(t->layers[i].qkv_weight, batch, false), failed);
        TRY_GOTO(result, weight_prepare_block(t->layers[i].out_weight, batch, false), failed);
        TRY_GOTO(result, weight_prepare_block(t->layers[i].gate_up_weight, batch, false), failed);
        TRY_GOTO(result, weight_prepare_block(t->layers[i].down_weight, batch, false), failed);
    }
    *out = c;
    return STATUS_OK;
failed:
    transformer_cache_destroy(c);
    return result;
}

void transformer_cache_destroy(transformer_cache *c) {
    if (c == NULL)
        return;
    device_free(c->device, c->memory);
    memory_free(c->layers);
    memory_free(c);
}

float *transformer_cache_input(transformer_cache *c) {
    return c->stack.x;
}

status transformer_decode(transformer *t, const float *parameters, transformer_cache *c, int batch,
                          int position, const int32_t *offset, const float **output) {
    for (int i = 0; i < t->config.layers; i++) {
        const layer *l = &t->layers[i];
        c->layers[i] = (decode_layer){.norm1 = parameters + l->norm1,
                                      .norm2 = parameters + l->norm2,
                                      .qkv = l->qkv_weight,
                                      .out = l->out_weight,
                                      .gate_up = l->gate_up_weight,
                                      .down = l->down_weight,
                                      .keys = c->layers[i].keys,
                                      .values = c->layers[i].values};
    }
    c->stack.capacity.batch = batch;
    c->stack.norm = parameters + t->norm;
    c->stack.offset = offset;
    TRY(op_decode(t->device, &c->stack, position));
    *output = c->stack.output;
    return STATUS_OK;
}
