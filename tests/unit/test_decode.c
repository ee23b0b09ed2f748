// Decoding a stack of blocks in one parallel region against its operators one after another, bit by bit.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/strips.h"
#include "kernels/decode.h"
#include "kernels/philox.h"
#include "tests/as_activations.h"

#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, POSITIONS = 90 };
static philox_stream numbers = {.key = 7};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static float *random_floats(size_t count, float scale) {
    float *out = malloc(sizeof(float) * count);
    for (size_t i = 0; i < count; i++)
        out[i] = (philox_next_uniform(&numbers) - 0.5f) * scale;
    return out;
}

static float *zeros(size_t count) {
    return calloc(count, sizeof(float));
}

typedef struct shape {
    int heads, head_dim, feed_forward, batch, threads;
} shape;

typedef struct stack {
    device *device;
    decode_layer layer[LAYERS];
    decode_stack s;
    float *tables[2];
} stack;

static const int matrices = 4;

// Sizes of qkv, out, gate_up and down.
static void sizes_of(const shape *c, int matrix, int64_t *outputs, int64_t *inputs) {
    const int64_t width = (int64_t)c->heads * c->head_dim;
    const int64_t all[][2] = {
        {3 * width, width}, {width, width}, {2 * c->feed_forward, width}, {width, c->feed_forward}};
    *outputs = all[matrix][0];
    *inputs = all[matrix][1];
}

static void create(stack *t, const shape *c, int threads, weight_use use, weight_precision precision,
                   float *const *plain, const float *gain) {
    *t = (stack){0};
    must(device_create(&t->device, threads));
    const size_t width = (size_t)c->heads * (size_t)c->head_dim, rows = (size_t)c->batch,
                 table = POSITIONS * (size_t)c->head_dim / 2;
    t->tables[0] = zeros(table);
    t->tables[1] = zeros(table);
    op_rotary_table(t->device, POSITIONS, c->head_dim, t->tables[0], t->tables[1]);
    t->s = (decode_stack){.capacity = {.batch = c->batch,
                                       .sequence = POSITIONS,
                                       .heads = c->heads,
                                       .head_dim = c->head_dim,
                                       .causal = true,
                                       .cosine = t->tables[0],
                                       .sine = t->tables[1]},
                          .layers = LAYERS,
                          .feed_forward = c->feed_forward,
                          .epsilon = 1e-5f,
                          .layer = t->layer,
                          .norm = gain,
                          .x = zeros(rows * width),
                          .output = zeros(rows * width),
                          .normed = as_activations(zeros(rows * width)),
                          .qkv = as_activations(zeros(rows * 3 * width)),
                          .attended = as_activations(zeros(rows * width)),
                          .gate_up = as_activations(zeros(rows * 2 * (size_t)c->feed_forward)),
                          .activated = as_activations(zeros(rows * (size_t)c->feed_forward))};
    t->s.attention_scratch = zeros(attention_scratch_floats(t->device, &t->s.capacity));
    must(device_allocate(t->device, &t->s.scratch, decode_scratch_bytes(t->device, &t->s), "scratch"));
    for (int i = 0; i < LAYERS; i++) {
        decode_layer *l = &t->layer[i];
        weight **list[] = {&l->qkv, &l->out, &l->gate_up, &l->down};
        for (int matrix = 0; matrix < matrices; matrix++) {
            int64_t outputs, inputs;
            sizes_of(c, matrix, &outputs, &inputs);
            must(weight_create(list[matrix], t->device, outputs, inputs, use, precision));
            must(weight_pack(*list[matrix], plain[i * matrices + matrix]));
            must(weight_prepare_block(*list[matrix], c->batch, false));
        }
        l->norm1 = l->norm2 = gain;
        const size_t cache = attention_cache_bytes(t->device, &t->s.capacity) / sizeof(float);
        l->keys = as_activations(zeros(cache));
        l->values = as_activations(zeros(cache));
    }
}

static void destroy(stack *t) {
    for (int i = 0; i < LAYERS; i++) {
        weight_destroy(t->layer[i].qkv);
        weight_destroy(t->layer[i].out);
        weight_destroy(t->layer[i].gate_up);
        weight_destroy(t->layer[i].down);
        free(t->layer[i].keys);
        free(t->layer[i].values);
    }
    void *const buffers[] = {t->s.x,        t->s.output,           t->s.normed,    t->s.qkv,
                             t->s.attended, t->s.gate_up,          t->s.activated, t->tables[0],
                             t->tables[1],  t->s.attention_scratch};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        free(buffers[i]);
    device_free(t->device, t->s.scratch);
    device_destroy(t->device);
}

// What op_decode has to equal: its operators, one after another.
static void decode_one_by_one(stack *t, int position) {
    const decode_stack *s = &t->s;
    device *d = t->device;
    const int64_t rows = s->capacity.batch, width = (int64_t)s->capacity.heads * s->capacity.head_dim;
    for (const decode_layer *l = s->layer; l < s->layer + s->layers; l++) {
        op_rms_norm(d, rows, width, s->x, l->norm1, s->epsilon, s->normed, NULL, NULL);
        must(block_product(l->qkv, rows, s->normed, s->qkv));
        op_attention_decode(d, &s->capacity, position, s->qkv, l->keys, l->values, s->attended,
                            s->attention_scratch);
        must(block_product_add(l->out, rows, s->attended, s->x));
        op_rms_norm(d, rows, width, s->x, l->norm2, s->epsilon, s->normed, NULL, NULL);
        must(block_product(l->gate_up, rows, s->normed, s->gate_up));
        op_swiglu(d, rows, s->feed_forward, s->gate_up, s->activated);
        must(block_product_add(l->down, rows, s->activated, s->x));
    }
    op_rms_norm_last(d, rows, width, s->x, s->norm, s->epsilon, s->output, NULL);
}

static void compare(const shape *c, weight_precision precision) {
    const size_t width = (size_t)c->heads * (size_t)c->head_dim, count = (size_t)c->batch * width;
    float *plain[LAYERS * 4], *gain = random_floats(width, 2.0f);
    for (int i = 0; i < LAYERS * matrices; i++) {
        int64_t outputs, inputs;
        sizes_of(c, i % matrices, &outputs, &inputs);
        plain[i] = random_floats((size_t)(outputs * inputs), 0.3f);
    }
    stack one, together;
    create(&one, c, 1, WEIGHT_SCORE, precision, plain, gain);
    create(&together, c, c->threads, WEIGHT_SAMPLE, precision, plain, gain);
    if (precision == WEIGHT_F32 || together.device->has_bf16 || together.device->strips_only)
        for (int i = 0; i < LAYERS; i++)
            if (weight_strips(together.layer[i].qkv) == NULL || weight_strips(together.layer[i].down) == NULL)
                fail_msg("oneDNN serves the weights of %d heads of %d: nothing is compared", c->heads,
                         c->head_dim);
    for (int position = 0; position < POSITIONS; position++) {
        float *x = random_floats(count, 2.0f);
        memcpy(one.s.x, x, sizeof(float) * count);
        memcpy(together.s.x, x, sizeof(float) * count);
        free(x);
        decode_one_by_one(&one, position);
        must(op_decode(together.device, &together.s, position));
        if (memcmp(one.s.x, together.s.x, sizeof(float) * count) != 0 ||
            memcmp(one.s.output, together.s.output, sizeof(float) * count) != 0)
            fail_msg("%d heads of %d, feed-forward %d, batch %d, %d threads, precision %d: other bits at "
                     "position %d",
                     c->heads, c->head_dim, c->feed_forward, c->batch, c->threads, (int)precision, position);
    }
    const size_t cache = attention_cache_bytes(one.device, &one.s.capacity);
    for (int i = 0; i < LAYERS; i++) {
        assert_memory_equal(one.layer[i].keys, together.layer[i].keys, cache);
        assert_memory_equal(one.layer[i].values, together.layer[i].values, cache);
    }
    destroy(&together);
    destroy(&one);
    for (int i = 0; i < LAYERS * matrices; i++)
        free(plain[i]);
    free(gain);
}

// Heads and columns that threads can keep, and those that they cannot.
static const shape shapes[] = {
    {4, 64, 192, 16, 2}, {8, 32, 96, 5, 4},  {4, 32, 160, 16, 3}, {4, 16, 176, 6, 2}, {2, 48, 64, 1, 4},
    {1, 80, 48, 17, 2},  {4, 64, 192, 3, 1}, {4, 32, 176, 20, 4}, {2, 32, 64, 40, 5},
};

static void test_same_bits_as_one_by_one(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare(&shapes[i], WEIGHT_F32);
}

static void test_same_bits_in_bf16(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        compare(&shapes[i], WEIGHT_BF16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_as_one_by_one),
        cmocka_unit_test(test_same_bits_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
