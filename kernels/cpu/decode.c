// Decoding in one parallel region. Between two products of few rows little happens, so that starting and
// ending a region for each operator, and handing every intermediate result from one thread's cache to the
// other's, would cost about as much as an eighth of the products. Here a thread keeps what it makes: it
// normalises all rows for itself, attends with those heads, and gates those columns, whose products it has
// computed. Threads wait for one another four times a block, wherever a product needs all columns.
#include "kernels/decode.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/strips.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

// Heads that are taken together, phase by phase: what would wait for one head's result works on the next.
enum { HEADS_TOGETHER = 4, PAIR = 2 * VECTOR_LANES };

// The pairs of sample and head that a thread has: `count` of them, in runs of `run` that begin every
// `stride`.
typedef struct head_share {
    int first, run, stride, count;
} head_share;

static int pair_of(const head_share *share, int i) {
    return share->first + i / share->run * share->stride + i % share->run;
}

// The share of a thread: the same heads of every sample, or a stretch of all pairs.
static head_share share_heads(const attention_shape *shape, bool by_heads, int thread, int threads) {
    if (by_heads) {
        const int run = shape->heads / threads;
        return (head_share){run * thread, run, shape->heads, run * shape->batch};
    }
    const int pairs = shape->batch * shape->heads, first = pairs * thread / threads,
              count = pairs * (thread + 1) / threads - first;
    return (head_share){first, count > 0 ? count : 1, 0, count};
}

typedef struct head_buffers {
    const attention_shape *capacity;
    int position;
    float *qkv, *keys, *values, *out;
    uint16_t *rounded; // as out, in bf16; NULL: not wanted
    float *scores;     // [HEADS_TOGETHER, padded capacity]
} head_buffers;

// follow: where this thread will read next.
static void attend(const vector_operators *v, const head_buffers *b, const head_share *share,
                   const void *follow) {
    const attention_shape *shape = b->capacity;
    const int heads = shape->heads, head_dim = shape->head_dim, half = head_dim / 2;
    const size_t width = (size_t)heads * head_dim, rows = padded_rows(shape->sequence),
                 cached = rows * (size_t)head_dim;
    const float *cosine = shape->cosine + b->position * half, *sine = shape->sine + b->position * half;
    const attention_head terms = {
        .head_dim = head_dim, .scale = 1.0f / sqrtf((float)head_dim), .limit = b->position + 1};
    for (int first = 0; first < share->count; first += HEADS_TOGETHER) {
        const int left = share->count - first, count = left < HEADS_TOGETHER ? left : HEADS_TOGETHER;
        size_t pair[HEADS_TOGETHER + 1];
        float factor[HEADS_TOGETHER];
        for (int i = 0; i < count || (i == count && count < left); i++)
            pair[i] = (size_t)pair_of(share, first + i);
        for (int i = 0; i < count; i++) {
            float *query = b->qkv + (pair[i] / heads * 3 * heads + pair[i] % heads) * head_dim;
            float *values = b->values + pair[i] * cached;
            v->rotate(head_dim, cosine, sine, 1.0f, query);
            v->rotate(head_dim, cosine, sine, 1.0f, query + width);
            memcpy(values + (size_t)b->position * head_dim, query + 2 * width,
                   sizeof(float) * (size_t)head_dim);
            v->score_keys(&terms, query, query + width, b->keys + pair[i] * cached,
                          i + 1 < count ? b->keys + pair[i + 1] * cached : b->values + pair[0] * cached,
                          b->scores + (size_t)i * rows);
        }
        for (int i = 0; i < count; i++)
            factor[i] = v->softmax_keys(&terms, b->scores + (size_t)i * rows);
        for (int i = 0; i < count; i++) {
            const size_t at = pair[i] * (size_t)head_dim; // [batch, heads, head_dim]
            const float *next = i + 1 < count  ? b->values + pair[i + 1] * cached
                                : count < left ? b->keys + pair[count] * cached
                                               : follow;
            v->weigh_values(&terms, b->scores + (size_t)i * rows, factor[i], b->values + pair[i] * cached,
                            next, b->out + at);
            if (b->rounded != NULL)
                v->round_to_bf16((size_t)head_dim, b->out + at, b->rounded + at);
        }
    }
}

void cpu_op_attention_decode(device *d, const attention_shape *capacity, int position, activation *qkv,
                             activation *key_cache, activation *value_cache, activation *out,
                             float *scratch) {
    const int64_t elements =
        (int64_t)capacity->batch * capacity->heads * capacity->head_dim * (position + VECTOR_LANES);
    (void)elements; // where OpenMP is off
#pragma omp parallel num_threads(d->threads) if (elements >= PARALLEL_ELEMENTS)
    {
        const int thread = thread_number();
        const head_share share = share_heads(capacity, false, thread, thread_count());
        const head_buffers buffers = {.capacity = capacity,
                                      .position = position,
                                      .qkv = f32_of(qkv),
                                      .keys = f32_of(key_cache),
                                      .values = f32_of(value_cache),
                                      .out = f32_of(out),
                                      .scores = scratch + (size_t)thread * HEADS_TOGETHER *
                                                              padded_rows(capacity->sequence)};
        attend(d->vector, &buffers, &share, key_cache);
    }
}

// Of one thread; the shared ones are the same for all.
typedef struct team_buffers {
    uint16_t *attended, *activated; // shared: [rows, width] and [rows, feed_forward] in bf16
    float *normed;                  // [rows, width]
    uint16_t *rounded;              // [rows, width]
    float *scores;                  // [HEADS_TOGETHER, padded capacity]
} team_buffers;

static void carve(team_buffers *b, const decode_stack *s, int thread, int threads, arena *a) {
    const size_t rows = (size_t)s->capacity.batch, width = (size_t)s->capacity.heads * s->capacity.head_dim;
    b->attended = arena_take(a, sizeof(uint16_t) * rows * width);
    b->activated = arena_take(a, sizeof(uint16_t) * rows * (size_t)s->feed_forward);
    for (int i = 0; i < threads; i++) {
        const team_buffers own = {
            .attended = b->attended,
            .activated = b->activated,
            .normed = arena_take(a, sizeof(float) * rows * width),
            .rounded = arena_take(a, sizeof(uint16_t) * rows * width),
            .scores = arena_take(a, sizeof(float) * HEADS_TOGETHER * padded_rows(s->capacity.sequence))};
        if (i == thread)
            *b = own;
    }
}

size_t cpu_decode_scratch_bytes(const device *d, const decode_stack *s) {
    team_buffers b;
    arena a = {0};
    carve(&b, s, 0, d->threads, &a);
    return a.used;
}

typedef struct team_member {
    const device *d;
    const decode_stack *s;
    int position, thread, threads;
    int64_t rows, width;
    bool bf16;
    // Whether a thread can keep heads, or columns of the feed-forward, from one product to the next.
    bool by_heads, by_columns;
    team_buffers b;
} team_member;

static bool can_keep_heads(const attention_shape *shape, int threads) {
    return shape->head_dim % PAIR == 0 && shape->heads % threads == 0;
}

static void wait_for_all(void) {
#pragma omp barrier
}

static const void *normalise(const team_member *m, const float *gain) {
    const vector_operators *v = m->d->vector;
    for (int64_t row = 0; row < m->rows; row++)
        v->rms_norm((size_t)m->width, m->s->x + row * m->width, gain, m->s->epsilon,
                    m->b.normed + row * m->width);
    if (!m->bf16)
        return m->b.normed;
    v->round_to_bf16((size_t)(m->rows * m->width), m->b.normed, m->b.rounded);
    return m->b.rounded;
}

static void multiply(const team_member *m, weight *w, int64_t parts, const void *x, float *y, bool accumulate,
                     const void *follow) {
    strips_multiply_share(weight_strips(w), m->d, m->thread, m->threads, parts, m->rows, x, y, accumulate,
                          follow);
}

// Where this thread will begin to read a weight.
static const void *start_of(const team_member *m, weight *w, int64_t parts) {
    strip_stream stream = weight_strips(w)->stream;
    stream.parts = parts;
    return strips_at(&stream, strips_first(&stream, m->thread, m->threads));
}

// This thread's columns of gate and up, or, after all threads, its share of the rows.
static void gate(const team_member *m) {
    const vector_operators *v = m->d->vector;
    const int64_t inner = m->s->feed_forward;
    int64_t row = 0, rows = m->rows, column = 0, columns = inner;
    if (m->by_columns) {
        column = inner / PAIR * m->thread / m->threads * PAIR;
        columns = inner / PAIR * (m->thread + 1) / m->threads * PAIR - column;
    } else {
        wait_for_all();
        row = m->rows * m->thread / m->threads;
        rows = m->rows * (m->thread + 1) / m->threads;
    }
    for (; row < rows; row++) {
        const float *from = f32_of(m->s->gate_up) + 2 * row * inner + column;
        float *to = f32_of(m->s->activated) + row * inner + column;
        v->swiglu((size_t)columns, from, from + inner, to);
        if (m->bf16)
            v->round_to_bf16((size_t)columns, to, m->b.activated + row * inner + column);
    }
}

// follow: where this thread reads after the block.
static void decode_block(const team_member *m, const decode_layer *l, const void *follow) {
    const decode_stack *s = m->s;
    const int64_t head_parts = m->by_heads ? 3 : 1, gate_parts = m->by_columns ? 2 : 1;
    const head_share share = share_heads(&s->capacity, m->by_heads, m->thread, m->threads);
    const size_t cached = padded_rows(s->capacity.sequence) * (size_t)s->capacity.head_dim;
    const head_buffers heads = {.capacity = &s->capacity,
                                .position = m->position,
                                .qkv = f32_of(s->qkv),
                                .keys = f32_of(l->keys),
                                .values = f32_of(l->values),
                                .out = f32_of(s->attended),
                                .rounded = m->bf16 ? m->b.attended : NULL,
                                .scores = m->b.scores};
    multiply(m, l->qkv, head_parts, normalise(m, l->norm1), f32_of(s->qkv), false,
             heads.keys + (size_t)share.first * cached);
    if (!m->by_heads)
        wait_for_all();
    attend(m->d->vector, &heads, &share, start_of(m, l->out, 1));
    wait_for_all();
    multiply(m, l->out, 1, m->bf16 ? (const void *)m->b.attended : heads.out, s->x, true,
             start_of(m, l->gate_up, gate_parts));
    wait_for_all();
    multiply(m, l->gate_up, gate_parts, normalise(m, l->norm2), f32_of(s->gate_up), false,
             start_of(m, l->down, 1));
    gate(m);
    wait_for_all();
    multiply(m, l->down, 1, m->bf16 ? (const void *)m->b.activated : f32_of(s->activated), s->x, true,
             follow);
    wait_for_all();
}

static void decode_together(const device *d, const decode_stack *s, int position,
                            const strip_stream *following) {
    const attention_shape *shape = &s->capacity;
    team_member m = {.d = d,
                     .s = s,
                     .position = position,
                     .thread = thread_number(),
                     .threads = thread_count(),
                     .rows = shape->batch,
                     .width = (int64_t)shape->heads * shape->head_dim,
                     .bf16 = weight_strips(s->layer[0].qkv)->precision == WEIGHT_BF16};
    arena a = {.base = s->scratch, .capacity = SIZE_MAX};
    carve(&m.b, s, m.thread, m.threads, &a);
    m.by_heads = can_keep_heads(shape, m.threads);
    m.by_columns = s->feed_forward % PAIR == 0;
    for (int i = 0; i < s->layers; i++)
        decode_block(&m, &s->layer[i],
                     i + 1 < s->layers ? start_of(&m, s->layer[i + 1].qkv, m.by_heads ? 3 : 1)
                                       : strips_at(following, strips_first(following, m.thread, m.threads)));
    for (int64_t row = m.rows * m.thread / m.threads; row < m.rows * (m.thread + 1) / m.threads; row++)
        d->vector->rms_norm((size_t)m.width, s->x + row * m.width, s->norm, s->epsilon,
                            s->output + row * m.width);
}

static status decode_one_by_one(device *d, const decode_stack *s, int position) {
    const int64_t rows = s->capacity.batch, width = (int64_t)s->capacity.heads * s->capacity.head_dim;
    for (const decode_layer *l = s->layer; l < s->layer + s->layers; l++) {
        cpu_op_rms_norm(d, rows, width, s->x, l->norm1, s->epsilon, s->normed, NULL, NULL);
        TRY(cpu_block_product(l->qkv, rows, s->normed, s->qkv));
        cpu_op_attention_decode(d, &s->capacity, position, s->qkv, l->keys, l->values, s->attended,
                                s->attention_scratch);
        TRY(cpu_block_product_add(l->out, rows, s->attended, s->x));
        cpu_op_rms_norm(d, rows, width, s->x, l->norm2, s->epsilon, s->normed, NULL, NULL);
        TRY(cpu_block_product(l->gate_up, rows, s->normed, s->gate_up));
        cpu_op_swiglu(d, rows, s->feed_forward, s->gate_up, s->activated);
        TRY(cpu_block_product_add(l->down, rows, s->activated, s->x));
    }
    cpu_op_rms_norm_last(d, rows, width, s->x, s->norm, s->epsilon, s->output, NULL);
    return STATUS_OK;
}

status cpu_op_decode(device *d, const decode_stack *s, int position) {
    position += s->offset != NULL ? *s->offset : 0;
    for (const decode_layer *l = s->layer; l < s->layer + s->layers; l++)
        if (weight_strips(l->qkv) == NULL || weight_strips(l->out) == NULL ||
            weight_strips(l->gate_up) == NULL || weight_strips(l->down) == NULL)
            return decode_one_by_one(d, s, position);
    // As strips_multiply does for single products.
    strip_weight *first = weight_strips(s->layer[0].qkv), *last = weight_strips(s->layer[s->layers - 1].down);
    strip_stream beginning = first->stream;
    beginning.parts = can_keep_heads(&s->capacity, d->threads) ? 3 : 1;
    if (d->last_strips != NULL)
        d->last_strips->following = beginning;
    d->last_strips = last;
    const strip_stream following = last->following.values != NULL ? last->following : beginning;
    const strip_stream *widest = &weight_strips(s->layer[0].gate_up)->stream;
    (void)widest; // where OpenMP is off
#pragma omp parallel num_threads(d->threads) if (s->capacity.batch * widest->pairs * widest->words * PAIR >= \
                                                 PARALLEL_PRODUCTS)
    decode_together(d, s, position, &following);
    return STATUS_OK;
}
