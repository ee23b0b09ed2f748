#include "kernels/cpu/few_rows.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <string.h>

enum { PAIR = 2 * VECTOR_LANES };

typedef void (*few_rows_function)(const few_rows_shape *shape, int64_t rows, const void *x, const void *strip,
                                  const void *follow, float *y);

static few_rows_function function_of(const device *d, weight_precision precision) {
    return precision == WEIGHT_BF16 ? d->has_bf16 ? d->vector->few_rows_bf16 : NULL : d->vector->few_rows_f32;
}

status few_rows_create(few_rows_weight *p, device *d, int64_t outputs, int64_t inputs,
                       weight_precision precision, int64_t chunk) {
    *p = (few_rows_weight){.outputs = outputs, .chunk = chunk, .precision = precision};
    p->stream.parts = 1;
    p->stream.pairs = (outputs + PAIR - 1) / PAIR;
    p->stream.words = precision == WEIGHT_BF16 ? inputs / 2 : inputs;
    p->bytes = (size_t)(p->stream.pairs * p->stream.words) * PAIR * sizeof(float);
    return device_allocate(d, (void **)&p->stream.values, p->bytes, "packed weights");
}

void few_rows_release(few_rows_weight *p, device *d) {
    if (d->last_few_rows == p)
        d->last_few_rows = NULL;
    device_free(d, p->stream.values);
    *p = (few_rows_weight){0};
}

void few_rows_pack(few_rows_weight *p, device *d, const float *plain) {
    const int64_t words = p->stream.words, outputs = p->outputs;
    const bool bf16 = p->precision == WEIGHT_BF16;
#pragma omp parallel for schedule(static)
    for (int64_t pair = 0; pair < p->stream.pairs; pair++) {
        const int64_t first = pair * PAIR, columns = outputs - first < PAIR ? outputs - first : PAIR;
        float *to = (float *)few_rows_at(&p->stream, pair);
        for (int64_t word = 0; word < words; word++, to += PAIR)
            for (int64_t i = 0; i < columns; i++)
                if (bf16)
                    d->vector->round_to_bf16(2, plain + ((first + i) * words + word) * 2,
                                             (uint16_t *)(to + i));
                else
                    to[i] = plain[(first + i) * words + word];
    }
}

void few_rows_multiply_share(const few_rows_weight *p, const device *d, int thread, int threads,
                             int64_t parts, int64_t rows, const void *x, float *y, bool accumulate,
                             const void *follow) {
    const few_rows_function multiply = function_of(d, p->precision);
    const few_rows_stream *stream = &p->stream;
    const int64_t part_pairs = stream->pairs / parts, begin = part_pairs * thread / threads,
                  end = part_pairs * (thread + 1) / threads;
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = begin; i < end; i++) {
            const int64_t pair = part * part_pairs + i, left = p->outputs - pair * PAIR;
            const few_rows_shape shape = {.words = stream->words,
                                          .chunk = p->chunk,
                                          .outputs = (int)(left < PAIR ? left : PAIR),
                                          .y_stride = p->outputs,
                                          .accumulate = accumulate};
            const void *next = i + 1 < end        ? few_rows_at(stream, pair + 1)
                               : part + 1 < parts ? few_rows_at(stream, (part + 1) * part_pairs + begin)
                                                  : follow;
            multiply(&shape, rows, x, few_rows_at(stream, pair), next, y + pair * PAIR);
        }
}

void few_rows_multiply(few_rows_weight *p, device *d, int64_t rows, const void *x, float *y,
                       bool accumulate) {
    const few_rows_stream *stream = &p->stream;
    // Products follow one another in the same order at every position, so that each thread can fetch the
    // start of its share of the next product while this one ends.
    if (d->last_few_rows != NULL)
        d->last_few_rows->following = *stream;
    d->last_few_rows = p;
    const few_rows_stream *following = p->following.values != NULL ? &p->following : stream;
#pragma omp parallel if (rows * stream->pairs * stream->words * PAIR >= PARALLEL_PRODUCTS)
    {
        const int thread = thread_number(), threads = thread_count();
        few_rows_multiply_share(p, d, thread, threads, 1, rows, x, y, accumulate,
                                few_rows_at(following, few_rows_first(following, thread, threads)));
    }
}

enum { TRIAL_ROWS = 37 };

typedef struct trial {
    float *plain;      // [outputs, inputs]
    float *x;          // [TRIAL_ROWS, inputs]
    uint16_t *rounded; // [TRIAL_ROWS, inputs]
    float *wanted, *y; // [TRIAL_ROWS, outputs]
    void *memory;
} trial;

static void carve_trial(trial *t, int64_t outputs, int64_t inputs, arena *a) {
    t->plain = arena_take(a, sizeof(float) * (size_t)(outputs * inputs));
    t->x = arena_take(a, sizeof(float) * (size_t)(TRIAL_ROWS * inputs));
    t->rounded = arena_take(a, sizeof(uint16_t) * (size_t)(TRIAL_ROWS * inputs));
    t->wanted = arena_take(a, sizeof(float) * (size_t)(TRIAL_ROWS * outputs));
    t->y = arena_take(a, sizeof(float) * (size_t)(TRIAL_ROWS * outputs));
}

// Compares with oneDNN's products, which go to y first, for one row, a few and more than a group.
static bool same_bits(few_rows_weight *p, device *d, weight *other, trial *t, int64_t inputs,
                      status *result) {
    static const int row_counts[] = {1, 16, TRIAL_ROWS};
    const void *x = p->precision == WEIGHT_BF16 ? (const void *)t->rounded : t->x;
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++)
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            const size_t count = (size_t)(row_counts[i] * p->outputs);
            for (size_t j = 0; j < count; j++)
                t->wanted[j] = t->y[j] = t->plain[j % (size_t)(p->outputs * inputs)];
            *result = product_forward(other, row_counts[i], t->x, t->wanted, accumulate);
            if (*result != STATUS_OK)
                return false;
            few_rows_multiply(p, d, row_counts[i], x, t->y, accumulate);
            if (memcmp(t->wanted, t->y, sizeof(float) * count) != 0)
                return false;
        }
    return true;
}

static status find_chunk(device *d, int64_t outputs, int64_t inputs, weight_precision precision,
                         int64_t *chunk) {
    // In words; longer than a row: oneDNN does not cut its sums.
    static const int64_t lengths[] = {INT64_MAX / 4, 256, 512, 1024, 2048};
    weight *other = NULL;
    few_rows_weight packed = {0};
    trial t = {0};
    arena a = {0};
    philox_stream numbers = {.key = 1, .purpose = 0x666577u};
    status result;
    carve_trial(&t, outputs, inputs, &a);
    TRY_GOTO(result, memory_allocate(&t.memory, a.used, "product trial"), done);
    a = (arena){.base = t.memory, .capacity = a.used};
    carve_trial(&t, outputs, inputs, &a);
    for (int64_t i = 0; i < outputs * inputs; i++)
        t.plain[i] = philox_next_uniform(&numbers) - 0.5f;
    for (int64_t i = 0; i < TRIAL_ROWS * inputs; i++)
        t.x[i] = philox_next_uniform(&numbers) - 0.5f;
    d->vector->round_to_bf16((size_t)(TRIAL_ROWS * inputs), t.x, t.rounded);
    TRY_GOTO(result, weight_create(&other, d, outputs, inputs, WEIGHT_SCORE, precision), done);
    TRY_GOTO(result, weight_pack(other, t.plain), done);
    TRY_GOTO(result, few_rows_create(&packed, d, outputs, inputs, precision, 0), done);
    few_rows_pack(&packed, d, t.plain);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0] && *chunk == 0; i++) {
        packed.chunk = lengths[i];
        if (same_bits(&packed, d, other, &t, inputs, &result))
            *chunk = lengths[i];
        if (result != STATUS_OK)
            break;
    }
done:
    few_rows_release(&packed, d);
    weight_destroy(other);
    memory_free(t.memory);
    return result;
}

status few_rows_find_chunk(device *d, int64_t outputs, int64_t inputs, weight_precision precision,
                           int64_t *chunk) {
    *chunk = 0;
    // Where oneDNN's own rows depend on the batch, there are no bits to agree on.
    if (function_of(d, precision) == NULL || !d->batch_invariant || (precision == WEIGHT_BF16 && inputs % 2))
        return STATUS_OK;
    for (int i = 0; i < d->trial_count; i++) {
        const product_trial *known = &d->trials[i];
        if (known->outputs == outputs && known->inputs == inputs && known->precision == precision) {
            *chunk = known->chunk;
            return STATUS_OK;
        }
    }
    TRY(find_chunk(d, outputs, inputs, precision, chunk));
    if (d->trial_count < PRODUCT_TRIALS_MAX)
        d->trials[d->trial_count++] = (product_trial){outputs, inputs, precision, *chunk};
    return STATUS_OK;
}
