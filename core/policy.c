#include "core/policy.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct policy {
    device *device;
    policy_config config;
    parameter_list list;
    float *values;
    temporal *temporal;
    transformer *depth;
    size_t input;                 // [depth width, temporal width]
    size_t level;                 // [levels, depth width]
    size_t embedding[LEVELS_MAX]; // [codebook, depth width], of levels 0 .. levels - 2
    size_t head[LEVELS_MAX];      // [codebook, depth width]
    weight *input_weight, *head_weight[LEVELS_MAX];
};

struct policy_pass {
    device *device;
    int batch, frames;
    temporal_pass *temporal;
    transformer_activations *depth;
    // [levels, batch * frames * levels] rows of the depth embeddings: level, then tokens; behind them the
    // actions, [levels, batch * frames]
    int32_t *staged;          // on the host
    int32_t *index, *actions; // on the device
    float *condition;         // [batch * frames, depth width]
    const float *temporal_output;
    float *hidden[LEVELS_MAX]; // [batch * frames, depth width] input of each head
    float *logits[LEVELS_MAX]; // [batch * frames, codebook]
    float *d_depth;            // [batch * frames * levels, depth width]
    float *d_temporal;         // [batch * frames, temporal width]
    void *memory;
};

struct policy_sampler {
    device *device;
    int batch, frames;
    temporal_decoder *temporal;
    transformer_cache *depth;
    float *condition;        // [batch, depth width]
    float *logits, *scratch; // [batch, largest codebook]
    sample_state *state;
    sample_terms terms;             // of the rollout before
    int32_t *drawn;                 // [levels, batch] tokens of a frame
    float *drawn_log_probabilities; // [levels, batch]
    int32_t *tokens;                // [frames, levels, batch]
    float *log_probabilities;       // [frames, levels, batch]
    int32_t *level_index;           // [levels, batch]
    uint32_t *samples;              // [batch]
    void *memory;
    int32_t *host_tokens; // [frames, levels, batch]
    float *host_log_probabilities;
};

static int largest_codebook(const policy_config *c) {
    int largest = 0;
    for (int i = 0; i < c->temporal.levels; i++)
        largest = c->temporal.codebook[i] > largest ? c->temporal.codebook[i] : largest;
    return largest;
}

status policy_config_check(const policy_config *c) {
    const temporal_config *t = &c->temporal;
    if (t->levels < 1 || t->levels > LEVELS_MAX)
        return FAIL_USAGE("a frame has %d levels, 1 to %d are wanted", t->levels, LEVELS_MAX);
    for (int i = 0; i < t->levels; i++)
        if (t->codebook[i] < 16 || t->codebook[i] % 16 != 0 || t->codebook[i] > 65536)
            return FAIL_USAGE(
                "the codebook of level %d has %d entries, a multiple of 16 up to 65536 is wanted", i,
                t->codebook[i]);
    if (t->frames < 1 || t->prefix < 0 || (t->prefix > 0 && t->prefix_codebook < 1))
        return FAIL_USAGE("frames %d, prefix %d x %d: frames must be positive, the prefix not negative",
                          t->frames, t->prefix, t->prefix_codebook);
    transformer_config temporal_part = t->transformer, depth_part = c->depth;
    temporal_part.positions = depth_part.positions = 1;
    TRY(transformer_config_check(&temporal_part, "temporal transformer"));
    return transformer_config_check(&depth_part, "depth transformer");
}

static status add_depth_tensors(policy *p, weight_use use, weight_precision precision) {
    const policy_config *c = &p->config;
    const int64_t width = c->depth.width, temporal_width = c->temporal.transformer.width;
    const float scale = 1.0f / sqrtf((float)width);
    TRY(parameter_list_add(&p->list, "depth.input.weight", width, temporal_width, INITIALISE_NORMAL,
                           1.0f / sqrtf((float)temporal_width), &p->input));
    TRY(parameter_list_add(&p->list, "depth.level.weight", c->temporal.levels, width, INITIALISE_NORMAL,
                           scale, &p->level));
    TRY(weight_create(&p->input_weight, p->device, width, temporal_width, use, precision));
    for (int level = 0; level < c->temporal.levels; level++) {
        char name[PARAMETER_NAME_MAX];
        if (level + 1 < c->temporal.levels) {
            snprintf(name, sizeof name, "depth.embedding.%d.weight", level);
            TRY(parameter_list_add(&p->list, name, c->temporal.codebook[level], width, INITIALISE_NORMAL,
                                   scale, &p->embedding[level]));
        }
        snprintf(name, sizeof name, "head.%d.weight", level);
        TRY(parameter_list_add(&p->list, name, c->temporal.codebook[level], width, INITIALISE_NORMAL, scale,
                               &p->head[level]));
        TRY(weight_create(&p->head_weight[level], p->device, c->temporal.codebook[level], width, use,
                          precision));
    }
    return STATUS_OK;
}

// What the device's kernels are not made for; transformer_create looks at the rest.
static status check_limits(const device *device, const policy_config *c) {
    const int limit = device_get_limits(device).codebook;
    for (int level = 0; limit > 0 && level < c->temporal.levels; level++)
        if (c->temporal.codebook[level] > limit)
            return FAIL("the codebook of level %d has %d codes, more than the %d that %s samples from; use a "
                        "smaller one or device=cpu",
                        level, c->temporal.codebook[level], limit, device_name(device));
    return STATUS_OK;
}

status policy_create(policy **out, device *device, const policy_config *config, weight_use use,
                     weight_precision precision) {
    *out = NULL;
    TRY(policy_config_check(config));
    TRY(check_limits(device, config));
    policy *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "policy"));
    p->device = device;
    p->config = *config;
    p->config.depth.positions = config->temporal.levels;
    p->config.depth.causal = true;
    status result;
    TRY_GOTO(result, temporal_create(&p->temporal, device, &config->temporal, &p->list, use, precision),
             failed);
    TRY_GOTO(result, add_depth_tensors(p, use, precision), failed);
    TRY_GOTO(result,
             transformer_create(&p->depth, device, &p->config.depth, &p->list, "depth", use, precision),
             failed);
    TRY_GOTO(result,
             device_allocate(device, (void **)&p->values, sizeof(float) * p->list.size, "policy parameters"),
             failed);
    p->config.temporal = *temporal_get_config(p->temporal);
    *out = p;
    return STATUS_OK;
failed:
    policy_destroy(p);
    return result;
}

void policy_destroy(policy *p) {
    if (p == NULL)
        return;
    temporal_destroy(p->temporal);
    transformer_destroy(p->depth);
    weight_destroy(p->input_weight);
    for (int level = 0; level < LEVELS_MAX; level++)
        weight_destroy(p->head_weight[level]);
    device_free(p->device, p->values);
    parameter_list_release(&p->list);
    memory_free(p);
}

const policy_config *policy_get_config(const policy *p) {
    return &p->config;
}

const parameter_list *policy_parameters(const policy *p) {
    return &p->list;
}

float *policy_values(policy *p) {
    return p->values;
}

status policy_pack(policy *p) {
    TRY(temporal_pack(p->temporal, p->values));
    TRY(transformer_pack(p->depth, p->values));
    TRY(weight_pack(p->input_weight, p->values + p->input));
    for (int level = 0; level < p->config.temporal.levels; level++)
        TRY(weight_pack(p->head_weight[level], p->values + p->head[level]));
    return STATUS_OK;
}

double policy_products_per_frame(const policy_config *c) {
    double total = transformer_products_per_row(&c->temporal.transformer);
    total += (double)c->temporal.transformer.width * c->depth.width;
    total += c->temporal.levels * transformer_products_per_row(&c->depth);
    for (int level = 0; level < c->temporal.levels; level++)
        total += (double)c->temporal.codebook[level] * c->depth.width;
    return total;
}

static void carve_pass(policy_pass *s, const policy *p, bool keep, arena *a) {
    const size_t rows = (size_t)s->batch * s->frames, levels = (size_t)p->config.temporal.levels;
    const size_t width = (size_t)p->config.depth.width;
    s->index = arena_take(a, sizeof(int32_t) * rows * levels * (levels + 1));
    s->actions = s->index + rows * levels * levels;
    s->condition = arena_take(a, sizeof(float) * rows * width);
    for (size_t level = 0; level < levels; level++) {
        s->hidden[level] = arena_take(a, sizeof(float) * rows * width);
        s->logits[level] = arena_take(a, sizeof(float) * rows * (size_t)p->config.temporal.codebook[level]);
    }
    if (keep) {
        s->d_depth = arena_take(a, sizeof(float) * rows * levels * width);
        s->d_temporal = arena_take(a, sizeof(float) * rows * (size_t)p->config.temporal.transformer.width);
    }
}

status policy_pass_create(policy_pass **out, const policy *p, int batch, int frames, bool keep) {
    *out = NULL;
    policy_pass *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "policy pass"));
    s->device = p->device;
    s->batch = batch;
    s->frames = frames;
    const int levels = p->config.temporal.levels;
    status result;
    TRY_GOTO(result, temporal_pass_create(&s->temporal, p->temporal, batch, frames, keep), failed);
    TRY_GOTO(result, transformer_activations_create(&s->depth, p->depth, batch * frames, levels, keep),
             failed);
    arena a = {0};
    carve_pass(s, p, keep, &a);
    TRY_GOTO(result, device_allocate(p->device, &s->memory, a.used, "policy pass"), failed);
    a = (arena){.base = s->memory, .capacity = a.used};
    carve_pass(s, p, keep, &a);
    const int64_t rows = (int64_t)batch * frames;
    TRY_GOTO(result,
             memory_allocate((void **)&s->staged, sizeof(int32_t) * (size_t)(rows * levels * (levels + 1)),
                             "policy token indices"),
             failed);
    TRY_GOTO(result, weight_prepare(p->input_weight, rows, keep), failed);
    for (int level = 0; level < levels; level++)
        TRY_GOTO(result, weight_prepare(p->head_weight[level], rows, keep), failed);
    *out = s;
    return STATUS_OK;
failed:
    policy_pass_destroy(s);
    return result;
}

void policy_pass_destroy(policy_pass *s) {
    if (s == NULL)
        return;
    temporal_pass_destroy(s->temporal);
    transformer_activations_destroy(s->depth);
    memory_free(s->staged);
    device_free(s->device, s->memory);
    memory_free(s);
}

float *policy_pass_logits(policy_pass *s, int level) {
    return s->logits[level];
}

const int32_t *policy_pass_actions(const policy_pass *s, int level) {
    return s->actions + (size_t)s->batch * s->frames * level;
}

// Table 0 is the level embedding; table k > 0 holds the tokens of level k - 1, read at level k.
static status fill_depth_index(const policy *p, policy_pass *s, int batch, const uint16_t *tokens) {
    const int levels = p->config.temporal.levels;
    const size_t frames = (size_t)batch * s->frames, rows = frames * levels;
    int32_t *index = s->staged, *actions = index + (size_t)s->batch * s->frames * levels * levels;
    memset(index, 0xff, sizeof(int32_t) * rows * levels);
    for (size_t frame = 0; frame < frames; frame++)
        for (int level = 0; level < levels; level++) {
            size_t row = frame * levels + level;
            index[row] = level;
            if (level > 0)
                index[rows * level + row] = tokens[row - 1];
            actions[(size_t)s->batch * s->frames * level + frame] = tokens[row];
        }
    return device_upload(p->device, s->index, s->staged,
                         sizeof(int32_t) * (size_t)s->batch * s->frames * levels * (levels + 1));
}

status policy_forward(policy *p, policy_pass *s, int batch, const uint16_t *prefix, const uint16_t *tokens) {
    const int levels = p->config.temporal.levels;
    const int64_t frames = (int64_t)batch * s->frames, rows = frames * levels, width = p->config.depth.width;
    TRY(temporal_forward(p->temporal, p->values, s->temporal, batch, prefix, tokens, &s->temporal_output));
    TRY(product_forward(p->input_weight, frames, s->temporal_output, s->condition, false));
    TRY(fill_depth_index(p, s, batch, tokens));
    const float *tables[LEVELS_MAX] = {p->values + p->level};
    const int32_t *index[LEVELS_MAX];
    for (int i = 0; i < levels; i++) {
        index[i] = s->index + rows * i;
        if (i > 0)
            tables[i] = p->values + p->embedding[i - 1];
    }
    float *x = transformer_input(s->depth);
    op_repeat_rows(p->device, frames, levels, width, s->condition, x);
    op_embedding_sum(p->device, rows, width, levels, tables, index, x, true);
    const float *hidden;
    TRY(transformer_forward(p->depth, p->values, s->depth, (int)frames, NULL, &hidden));
    for (int level = 0; level < levels; level++) {
        op_copy_rows(p->device, frames, width, hidden + level * width, levels * width, s->hidden[level],
                     width, false);
        TRY(product_forward(p->head_weight[level], frames, s->hidden[level], s->logits[level], false));
    }
    return STATUS_OK;
}

status policy_backward(policy *p, policy_pass *s, int batch, float *gradients, const gradient_watch *watch) {
    const int levels = p->config.temporal.levels;
    const int64_t frames = (int64_t)batch * s->frames, rows = frames * levels, width = p->config.depth.width;
    for (int level = 0; level < levels; level++) {
        TRY(product_backward_weight(p->head_weight[level], frames, s->hidden[level], s->logits[level],
                                    gradients + p->head[level], true));
        TRY(product_backward_data(p->head_weight[level], frames, s->logits[level], s->hidden[level], false));
        op_copy_rows(p->device, frames, width, s->hidden[level], width, s->d_depth + level * width,
                     levels * width, false);
    }
    TRY(transformer_backward(p->depth, p->values, gradients, s->depth, (int)frames, NULL, s->d_depth, watch));
    op_embedding_backward(p->device, rows, levels, width, s->index, s->d_depth, gradients + p->level);
    for (int i = 1; i < levels; i++)
        op_embedding_backward(p->device, rows, p->config.temporal.codebook[i - 1], width, s->index + rows * i,
                              s->d_depth, gradients + p->embedding[i - 1]);
    op_sum_repeated(p->device, frames, levels, width, s->d_depth, s->condition);
    TRY(product_backward_weight(p->input_weight, frames, s->temporal_output, s->condition,
                                gradients + p->input, true));
    TRY(gradient_watch_tell(watch, p->input)); // the first tensor behind the temporal stage's
    TRY(product_backward_data(p->input_weight, frames, s->condition, s->d_temporal, false));
    return temporal_backward(p->temporal, p->values, gradients, s->temporal, batch, s->d_temporal, watch);
}

static void carve_sampler(policy_sampler *s, const policy *p, arena *a) {
    const size_t batch = (size_t)s->batch, codebook = (size_t)largest_codebook(&p->config);
    s->condition = arena_take(a, sizeof(float) * batch * (size_t)p->config.depth.width);
    s->logits = arena_take(a, sizeof(float) * batch * codebook);
    s->scratch = arena_take(a, sizeof(float) * batch * codebook);
    const size_t levels = (size_t)p->config.temporal.levels, tokens = batch * levels * (size_t)s->frames;
    s->state = arena_take(a, sizeof *s->state);
    s->drawn = arena_take(a, sizeof(int32_t) * batch * levels);
    s->drawn_log_probabilities = arena_take(a, sizeof(float) * batch * levels);
    s->tokens = arena_take(a, sizeof(int32_t) * tokens);
    s->log_probabilities = arena_take(a, sizeof(float) * tokens);
    s->level_index = arena_take(a, sizeof(int32_t) * batch * levels);
    s->samples = arena_take(a, sizeof(uint32_t) * batch);
}

status policy_sampler_create(policy_sampler **out, const policy *p, int batch, int frames) {
    *out = NULL;
    policy_sampler *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "sampler"));
    s->device = p->device;
    s->batch = batch;
    s->frames = frames;
    status result;
    TRY_GOTO(result, temporal_decoder_create(&s->temporal, p->temporal, batch, frames), failed);
    TRY_GOTO(result, transformer_cache_create(&s->depth, p->depth, batch, p->config.temporal.levels), failed);
    arena a = {0};
    carve_sampler(s, p, &a);
    TRY_GOTO(result, device_allocate(p->device, &s->memory, a.used, "sampler"), failed);
    a = (arena){.base = s->memory, .capacity = a.used};
    carve_sampler(s, p, &a);
    const size_t levels = (size_t)p->config.temporal.levels, tokens = (size_t)batch * levels * (size_t)frames;
    TRY_GOTO(result, memory_allocate((void **)&s->host_tokens, sizeof(int32_t) * tokens, "sampled tokens"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&s->host_log_probabilities, sizeof(float) * tokens, "sampled tokens"),
             failed);
    for (size_t i = 0; i < levels * (size_t)batch; i++) // there is at least one frame
        s->host_tokens[i] = (int32_t)(i / (size_t)batch);
    TRY_GOTO(
        result,
        device_upload(p->device, s->level_index, s->host_tokens, sizeof(int32_t) * levels * (size_t)batch),
        failed);
    TRY_GOTO(result, weight_prepare(p->input_weight, batch, false), failed);
    for (int level = 0; level < p->config.temporal.levels; level++)
        TRY_GOTO(result, weight_prepare(p->head_weight[level], batch, false), failed);
    *out = s;
    return STATUS_OK;
failed:
    policy_sampler_destroy(s);
    return result;
}

void policy_sampler_destroy(policy_sampler *s) {
    if (s == NULL)
        return;
    device_forget(s->device, s);
    temporal_decoder_destroy(s->temporal);
    transformer_cache_destroy(s->depth);
    device_free(s->device, s->memory);
    memory_free(s->host_tokens);
    memory_free(s->host_log_probabilities);
    memory_free(s);
}

// Draws the tokens of frame s->state->frame, level by level, given the temporal output [batch, temporal
// width], keeps them, and goes on to the next frame.
static status sample_frame(policy *p, policy_sampler *s, const rollout_request *r, const float *temporal) {
    const int levels = p->config.temporal.levels, batch = r->batch;
    const int64_t width = p->config.depth.width;
    TRY(product_forward(p->input_weight, batch, temporal, s->condition, false));
    float *x = transformer_cache_input(s->depth);
    for (int level = 0; level < levels; level++) {
        int32_t *drawn = s->drawn + (size_t)batch * level;
        const float *tables[2] = {p->values + p->level};
        const int32_t *index[2] = {s->level_index + (size_t)s->batch * level};
        if (level > 0) {
            tables[1] = p->values + p->embedding[level - 1];
            index[1] = drawn - batch;
        }
        op_copy_rows(p->device, batch, width, s->condition, width, x, width, false);
        op_embedding_sum(p->device, batch, width, level > 0 ? 2 : 1, tables, index, x, true);
        const float *hidden;
        TRY(transformer_decode(p->depth, p->values, s->depth, batch, level, NULL, &hidden));
        TRY(product_forward(p->head_weight[level], batch, hidden, s->logits, false));
        const sample_position position = {.state = s->state, .level = (uint32_t)level, .samples = s->samples};
        op_sample(p->device, batch, p->config.temporal.codebook[level], s->logits, &r->terms, &position,
                  drawn, s->drawn_log_probabilities + (size_t)batch * level, s->scratch);
    }
    const int64_t row = (int64_t)batch * levels;
    op_put_row(p->device, &s->state->frame, row, s->drawn, s->tokens);
    op_put_row(p->device, &s->state->frame, row, (const int32_t *)s->drawn_log_probabilities,
               (int32_t *)s->log_probabilities);
    op_advance(p->device, &s->state->frame);
    return STATUS_OK;
}

typedef struct rollout {
    policy *policy;
    policy_sampler *sampler;
    const rollout_request *request;
} rollout;

// From the frame drawn last to the next; the same work for every frame.
static status next_frame(void *context) {
    const rollout *r = context;
    policy *p = r->policy;
    policy_sampler *s = r->sampler;
    const float *temporal;
    TRY(temporal_decode_frame(p->temporal, p->values, s->temporal, r->request->batch, s->drawn,
                              &s->state->frame, &temporal));
    return sample_frame(p, s, r->request, temporal);
}

// [frames, levels, batch] on the device -> [batch, frames, levels] on the host
static status fetch_rollout(policy_sampler *s, const rollout_request *r, int levels, uint16_t *tokens,
                            float *log_probabilities) {
    const size_t batch = (size_t)r->batch, row = (size_t)r->frames * (size_t)levels, count = row * batch;
    TRY(device_download(s->device, s->host_tokens, s->tokens, sizeof(int32_t) * count));
    TRY(device_download(s->device, s->host_log_probabilities, s->log_probabilities, sizeof(float) * count));
    for (size_t i = 0; i < row; i++)
        for (size_t b = 0; b < batch; b++) {
            tokens[b * row + i] = (uint16_t)s->host_tokens[i * batch + b];
            log_probabilities[b * row + i] = s->host_log_probabilities[i * batch + b];
        }
    return STATUS_OK;
}

status policy_sample(policy *p, policy_sampler *s, const rollout_request *r, uint16_t *tokens,
                     float *log_probabilities) {
    if (r->batch > s->batch || r->frames > s->frames)
        return FAIL("a rollout of %d samples x %d frames exceeds the sampler's %d x %d", r->batch, r->frames,
                    s->batch, s->frames);
    const sample_state state = {.seed = r->seed, .step = r->step};
    const float *temporal;
    TRY(device_upload(p->device, s->state, &state, sizeof state));
    TRY(device_upload(p->device, s->samples, r->samples, sizeof(uint32_t) * (size_t)r->batch));
    TRY(temporal_decode_start(p->temporal, p->values, s->temporal, r->batch, r->prefix, &temporal));
    TRY(sample_frame(p, s, r, temporal));
    if (r->terms.temperature != s->terms.temperature || r->terms.top_k != s->terms.top_k ||
        r->terms.top_p != s->terms.top_p)
        device_forget(p->device, s); // what it keeps draws on other terms
    s->terms = r->terms;
    TRY(device_repeat(p->device, s, (uint64_t)r->batch, r->frames - 1, next_frame, &(rollout){p, s, r}));
    return fetch_rollout(s, r, p->config.temporal.levels, tokens, log_probabilities);
}
