#include "kernels/cpu/strips.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <string.h>

enum { PAIR = 2 * VECTOR_LANES };
// In words; longer than any row: a sum in one piece.
static const int64_t whole = INT64_MAX / 4;

typedef void (*strip_function)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                               const void *follow, float *y);

// NULL: oneDNN has to serve this precision. AVX2's function for bf16 runs everywhere.
static strip_function function_of(const device *d, weight_precision precision) {
    if (precision == WEIGHT_F32)
        return d->vector->strips_f32;
    return d->has_bf16 ? d->vector->strips_bf16 : d->strips_only ? vector_operators_avx2.strips_bf16 : NULL;
}

status strips_create(strip_weight *p, device *d, int64_t outputs, int64_t inputs, weight_precision precision,
                     int64_t chunk) {
    *p = (strip_weight){.outputs = outputs, .chunk = chunk, .precision = precision};
    p->stream.parts = 1;
    p->stream.pairs = (outputs + PAIR - 1) / PAIR;
    p->stream.words = precision == WEIGHT_BF16 ? inputs / 2 : inputs;
    p->bytes = (size_t)(p->stream.pairs * p->stream.words) * PAIR * sizeof(float);
    return device_allocate(d, (void **)&p->stream.values, p->bytes, "packed weights");
}

void strips_release(strip_weight *p, device *d) {
    if (d->last_strips == p)
        d->last_strips = NULL;
    device_free(d, p->stream.values);
    *p = (strip_weight){0};
}

void strips_pack(strip_weight *p, device *d, const float *plain) {
    const int64_t words = p->stream.words, outputs = p->outputs;
    const bool bf16 = p->precision == WEIGHT_BF16;
#pragma omp parallel for schedule(static)
    for (int64_t pair = 0; pair < p->stream.pairs; pair++) {
        const int64_t first = pair * PAIR, columns = outputs - first < PAIR ? outputs - first : PAIR;
        float *to = (float *)strips_at(&p->stream, pair);
        for (int64_t word = 0; word < words; word++, to += PAIR)
            for (int64_t i = 0; i < columns; i++)
                if (bf16)
                    d->vector->round_to_bf16(2, plain + ((first + i) * words + word) * 2,
                                             (uint16_t *)(to + i));
                else
                    to[i] = plain[(first + i) * words + word];
    }
}

// One pair of strips of x [words, outputs], whose rows are the words.
static void pack_pair(int64_t words, int64_t outputs, int64_t pair, const float *x, float *to) {
    const int64_t first = pair * PAIR, columns = outputs - first < PAIR ? outputs - first : PAIR;
    for (int64_t word = 0; word < words; word++)
        memcpy(to + word * PAIR, x + word * outputs + first, sizeof(float) * (size_t)columns);
}

void strips_pack_transposed(strip_weight *p, const float *plain) {
#pragma omp parallel for schedule(static)
    for (int64_t pair = 0; pair < p->stream.pairs; pair++)
        pack_pair(p->stream.words, p->outputs, pair, plain, (float *)strips_at(&p->stream, pair));
}

static strip_shape shape_of(const strip_weight *p, int64_t pair, bool accumulate, bool packed_x) {
    const int64_t left = p->outputs - pair * PAIR;
    return (strip_shape){.words = p->stream.words,
                         .packed_x = packed_x,
                         .chunk = p->chunk,
                         .outputs = (int)(left < PAIR ? left : PAIR),
                         .y_stride = p->outputs,
                         .accumulate = accumulate};
}

void strips_multiply_share(const strip_weight *p, const device *d, int thread, int threads, int64_t parts,
                           int64_t rows, const void *x, float *y, bool accumulate, const void *follow) {
    const strip_function multiply = function_of(d, p->precision);
    const strip_stream *stream = &p->stream;
    const int64_t part_pairs = stream->pairs / parts, begin = part_pairs * thread / threads,
                  end = part_pairs * (thread + 1) / threads;
    for (int64_t part = 0; part < parts; part++)
        for (int64_t i = begin; i < end; i++) {
            const int64_t pair = part * part_pairs + i;
            const strip_shape shape = shape_of(p, pair, accumulate, false);
            const void *next = i + 1 < end        ? strips_at(stream, pair + 1)
                               : part + 1 < parts ? strips_at(stream, (part + 1) * part_pairs + begin)
                                                  : follow;
            multiply(&shape, rows, x, strips_at(stream, pair), next, y + pair * PAIR);
        }
}

// Many rows are shared out among the threads. As many as stay in the second-level cache are brought into the
// order in which they are read, and then all weights pass by: rows that lie a power of two apart would
// otherwise fight for the same lines of the first-level cache.
enum { ROWS_TOGETHER = 2 * STRIP_GROUP };

static bool are_many(const device *d, int64_t rows) {
    return d->strips_only && rows >= ROWS_TOGETHER * d->threads;
}

static int64_t padded(int64_t count, int64_t unit) {
    return (count + unit - 1) / unit * unit;
}

static int64_t packed_words(const strip_weight *p) {
    return padded(p->stream.words, STRIP_BLOCK);
}

static void pack_rows(const strip_weight *p, int64_t rows, const float *x, float *to) {
    const int64_t words = p->stream.words, group_words = STRIP_GROUP * packed_words(p);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t at = 0; at < words; at += STRIP_BLOCK)
            memcpy(to + row / STRIP_GROUP * group_words + at * STRIP_GROUP + row % STRIP_GROUP * STRIP_BLOCK,
                   x + row * words + at,
                   sizeof(float) * (size_t)(words - at < STRIP_BLOCK ? words - at : STRIP_BLOCK));
}

static void multiply_many(const strip_weight *p, const device *d, int64_t rows, const float *x, float *y,
                          bool accumulate) {
    const strip_function multiply = function_of(d, p->precision);
#pragma omp parallel num_threads(d->threads)
    {
        const int thread = thread_number(), threads = thread_count();
        const int64_t end = rows * (thread + 1) / threads;
        float *together = (float *)d->packed_rows + thread * ROWS_TOGETHER * packed_words(p);
        for (int64_t row = rows * thread / threads; row < end; row += ROWS_TOGETHER) {
            const int64_t count = end - row < ROWS_TOGETHER ? end - row : ROWS_TOGETHER;
            pack_rows(p, count, x + row * p->stream.words, together);
            for (int64_t pair = 0; pair < p->stream.pairs; pair++) {
                const strip_shape shape = shape_of(p, pair, accumulate, true);
                multiply(&shape, count, together, strips_at(&p->stream, pair),
                         strips_at(&p->stream, (pair + 1) % p->stream.pairs),
                         y + row * p->outputs + pair * PAIR);
            }
        }
    }
}

status strips_prepare(const strip_weight *p, device *d, int64_t rows) {
    if (!are_many(d, rows))
        return STATUS_OK;
    const size_t bytes = sizeof(float) * ROWS_TOGETHER * (size_t)packed_words(p) * (size_t)d->threads;
    return device_grow(&d->packed_rows, &d->packed_rows_bytes, bytes, "packed rows");
}

void strips_multiply(strip_weight *p, device *d, int64_t rows, const void *x, float *y, bool accumulate) {
    if (are_many(d, rows)) {
        multiply_many(p, d, rows, x, y, accumulate);
        return;
    }
    const strip_stream *stream = &p->stream;
    // Products follow one another in the same order at every position, so that each thread can fetch the
    // start of its share of the next product while this one ends.
    if (d->last_strips != NULL)
        d->last_strips->following = *stream;
    d->last_strips = p;
    const strip_stream *following = p->following.values != NULL ? &p->following : stream;
#pragma omp parallel num_threads(d->threads) if (rows * stream->pairs * stream->words * PAIR >=              \
                                                 PARALLEL_PRODUCTS)
    {
        const int thread = thread_number(), threads = thread_count();
        strips_multiply_share(p, d, thread, threads, 1, rows, x, y, accumulate,
                              strips_at(following, strips_first(following, thread, threads)));
    }
}

// The gradient of a weight is a product that sums over rows: dy, transposed, takes the place of its rows and
// x that of the weight. Both are packed for GRADIENT_ROWS rows at a time, whose sums are added in order.
enum { GRADIENT_ROWS = 512 };

status strips_gradient_prepare(device *d, int64_t outputs, int64_t inputs) {
    const int64_t width = padded(outputs, STRIP_GROUP) + padded(inputs, PAIR);
    return device_grow(&d->packed_rows, &d->packed_rows_bytes, sizeof(float) * GRADIENT_ROWS * (size_t)width,
                       "packed rows");
}

void strips_gradient(device *d, int64_t outputs, int64_t inputs, int64_t rows, const float *x,
                     const float *dy, float *dw, bool accumulate) {
    const int64_t groups = padded(outputs, STRIP_GROUP) / STRIP_GROUP, pairs = padded(inputs, PAIR) / PAIR;
    float *const packed_dy = d->packed_rows, *const packed_x =
                                                 packed_dy + groups * STRIP_GROUP * GRADIENT_ROWS;
#pragma omp parallel num_threads(d->threads)
    {
        const int thread = thread_number(), threads = thread_count();
        const bool by_groups = groups >= 4 * threads; // otherwise by pairs
        const int64_t first_group = groups * thread / threads, end_group = groups * (thread + 1) / threads,
                      first_pair = pairs * thread / threads, end_pair = pairs * (thread + 1) / threads;
        for (int64_t row = 0; row < rows; row += GRADIENT_ROWS) {
            const int64_t count = rows - row < GRADIENT_ROWS ? rows - row : GRADIENT_ROWS,
                          group_words = STRIP_GROUP * padded(count, STRIP_BLOCK);
            for (int64_t group = first_group; group < end_group; group++) {
                const int64_t first = group * STRIP_GROUP, left = outputs - first;
                d->vector->pack_transposed(count, (int)(left < STRIP_GROUP ? left : STRIP_GROUP),
                                           dy + row * outputs + first, (size_t)outputs,
                                           packed_dy + group * group_words);
            }
            for (int64_t pair = first_pair; pair < end_pair; pair++)
                pack_pair(count, inputs, pair, x + row * inputs, packed_x + pair * count * PAIR);
#pragma omp barrier
            const int64_t first = by_groups ? first_group * STRIP_GROUP : 0,
                          end = by_groups && end_group < groups ? end_group * STRIP_GROUP : outputs;
            for (int64_t pair = by_groups ? 0 : first_pair; pair < (by_groups ? pairs : end_pair); pair++) {
                const int64_t left = inputs - pair * PAIR;
                const strip_shape shape = {.words = count,
                                           .packed_x = true,
                                           .chunk = whole,
                                           .outputs = (int)(left < PAIR ? left : PAIR),
                                           .y_stride = inputs,
                                           .accumulate = accumulate || row > 0};
                const float *strip = packed_x + pair * count * PAIR;
                d->vector->strips_f32(&shape, end - first, packed_dy + first / STRIP_GROUP * group_words,
                                      strip, strip + count * PAIR, dw + first * inputs + pair * PAIR);
            }
#pragma omp barrier
        }
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
static bool same_bits(strip_weight *p, device *d, weight *other, trial *t, int64_t inputs, status *result) {
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
            strips_multiply(p, d, row_counts[i], x, t->y, accumulate);
            if (memcmp(t->wanted, t->y, sizeof(float) * count) != 0)
                return false;
        }
    return true;
}

static status find_chunk(device *d, int64_t outputs, int64_t inputs, weight_precision precision,
                         int64_t *chunk) {
    const int64_t lengths[] = {whole, 256, 512, 1024, 2048};
    weight *other = NULL;
    strip_weight packed = {0};
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
    TRY_GOTO(result, strips_create(&packed, d, outputs, inputs, precision, 0), done);
    strips_pack(&packed, d, t.plain);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0] && *chunk == 0; i++) {
        packed.chunk = lengths[i];
        if (same_bits(&packed, d, other, &t, inputs, &result))
            *chunk = lengths[i];
        if (result != STATUS_OK)
            break;
    }
done:
    strips_release(&packed, d);
    weight_destroy(other);
    memory_free(t.memory);
    return result;
}

status strips_find_chunk(device *d, int64_t outputs, int64_t inputs, weight_precision precision,
                         int64_t *chunk) {
    *chunk = 0;
    if (d->strips_only) {
        if (precision == WEIGHT_BF16 && inputs % 2)
            return FAIL("a bf16 weight of [%ld, %ld] was asked for; an even number of inputs is wanted",
                        (long)outputs, (long)inputs);
        *chunk = whole;
        return STATUS_OK;
    }
    if (function_of(d, precision) == NULL || (precision == WEIGHT_BF16 && inputs % 2))
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
