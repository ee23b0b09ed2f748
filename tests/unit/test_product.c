// Matrix products: those of few rows against oneDNN's, bit by bit, and the trial that decides between them.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/philox.h"
#include "kernels/product.h"

#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 70 };
static const struct {
    int64_t outputs, inputs;
} shapes[] = {{16, 16}, {32, 64}, {144, 48}, {48, 192}, {7, 80}, {256, 704}, {96, 1024}, {80, 1408}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };
static const int64_t row_counts[] = {1, 2, 5, 8, 12, 16, 17, 32, ROWS_MAX};
static philox_stream numbers = {.key = 5};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static float *random_floats(size_t count) {
    float *out = malloc(sizeof(float) * count);
    for (size_t i = 0; i < count; i++)
        out[i] = philox_next_uniform(&numbers) - 0.5f;
    return out;
}

static device *device_or_skip(int threads) {
    device *d;
    must(device_create(&d, threads));
    if (d->vector->few_rows_f32 != NULL && d->batch_invariant)
        return d;
    device_destroy(d);
    print_message("skipped: this processor has no products of few rows\n");
    skip();
    return NULL;
}

static weight *packed(device *d, int shape, weight_use use, weight_precision precision, const float *plain) {
    weight *w;
    must(weight_create(&w, d, shapes[shape].outputs, shapes[shape].inputs, use, precision));
    must(weight_pack(w, plain));
    return w;
}

// A weight for sampling and one for scoring give the same products.
static void compare(device *d, int shape, weight_precision precision) {
    const size_t outputs = (size_t)shapes[shape].outputs, inputs = (size_t)shapes[shape].inputs;
    float *plain = random_floats(outputs * inputs), *x = random_floats(ROWS_MAX * inputs);
    float *wanted = random_floats(ROWS_MAX * outputs), *found = malloc(sizeof(float) * ROWS_MAX * outputs);
    memcpy(found, wanted, sizeof(float) * ROWS_MAX * outputs);
    weight *score = packed(d, shape, WEIGHT_SCORE, precision, plain),
           *sample = packed(d, shape, WEIGHT_SAMPLE, precision, plain);
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++)
        for (int accumulate = 1; accumulate >= 0; accumulate--) {
            must(product_forward(score, row_counts[i], x, wanted, accumulate));
            must(product_forward(sample, row_counts[i], x, found, accumulate));
            if (memcmp(wanted, found, sizeof(float) * (size_t)row_counts[i] * outputs) != 0)
                fail_msg("%zu x %zu, %ld rows, precision %d: other bits", outputs, inputs,
                         (long)row_counts[i], (int)precision);
        }
    weight_destroy(sample);
    weight_destroy(score);
    free(plain);
    free(x);
    free(wanted);
    free(found);
}

static void test_few_rows_have_the_bits_of_many(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        device *d = device_or_skip(threads);
        for (int shape = 0; shape < SHAPES; shape++) {
            int64_t chunk;
            must(few_rows_find_chunk(d, shapes[shape].outputs, shapes[shape].inputs, WEIGHT_F32, &chunk));
            if (chunk == 0)
                print_message("%ld x %ld: not used\n", (long)shapes[shape].outputs,
                              (long)shapes[shape].inputs);
            compare(d, shape, WEIGHT_F32);
            compare(d, shape, WEIGHT_BF16);
        }
        device_destroy(d);
    }
}

// The shapes of the reference sizes must be served, or sampling would be slow without a word.
static void test_few_rows_are_used(void **state) {
    (void)state;
    device *d = device_or_skip(2);
    static const int64_t used[][2] = {{1536, 512}, {512, 1408}, {256, 704}, {1024, 256}};
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
        for (weight_precision precision = WEIGHT_F32; precision <= WEIGHT_BF16; precision++) {
            int64_t chunk;
            must(few_rows_find_chunk(d, used[i][0], used[i][1], precision, &chunk));
            if (chunk == 0 && (precision == WEIGHT_F32 || d->has_bf16))
                fail_msg("%ld x %ld, precision %d is left to oneDNN", (long)used[i][0], (long)used[i][1],
                         (int)precision);
        }
    device_destroy(d);
}

// Sums in the wrong order by one place.
static void other_order(const few_rows_shape *shape, int64_t rows, const void *x, const void *strip,
                        const void *follow, float *y) {
    few_rows_shape halves = *shape;
    halves.chunk = 64;
    vector_operators_avx512.few_rows_f32(&halves, rows, x, strip, follow, y);
}

// Wrong in the last bit of one output of the last row.
static void one_bit(const few_rows_shape *shape, int64_t rows, const void *x, const void *strip,
                    const void *follow, float *y) {
    vector_operators_avx512.few_rows_f32(shape, rows, x, strip, follow, y);
    uint32_t bits;
    memcpy(&bits, &y[(rows - 1) * shape->y_stride + shape->outputs - 1], sizeof bits);
    bits ^= 1u;
    memcpy(&y[(rows - 1) * shape->y_stride + shape->outputs - 1], &bits, sizeof bits);
}

static void test_other_bits_are_refused(void **state) {
    (void)state;
    void (*const wrong[])(const few_rows_shape *, int64_t, const void *, const void *, const void *,
                          float *) = {other_order, one_bit, NULL};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        device *d = device_or_skip(2);
        vector_operators table = *d->vector;
        table.few_rows_f32 = wrong[i];
        d->vector = &table;
        int64_t chunk;
        must(few_rows_find_chunk(d, 256, 704, WEIGHT_F32, &chunk));
        assert_int_equal(chunk, 0);
        compare(d, 5, WEIGHT_F32); // oneDNN serves the weight
        device_destroy(d);
    }
}

// Weights come and go in any order; what a product remembers of the one after it is never read.
static void test_destroyed_in_any_order(void **state) {
    (void)state;
    device *d = device_or_skip(2);
    float *plain = random_floats(256 * 704), *x = random_floats(1024), *y = random_floats(256);
    weight *list[3];
    for (int i = 0; i < 3; i++)
        list[i] = packed(d, 4 + i, WEIGHT_SAMPLE, WEIGHT_F32, plain);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 3; i++)
            must(product_forward(list[i], 1, x, y, false));
    weight_destroy(list[2]);
    must(product_forward(list[0], 1, x, y, false));
    weight_destroy(list[0]);
    must(product_forward(list[1], 1, x, y, false));
    weight_destroy(list[1]);
    free(plain);
    free(x);
    free(y);
    device_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_rows_have_the_bits_of_many),
        cmocka_unit_test(test_few_rows_are_used),
        cmocka_unit_test(test_other_bits_are_refused),
        cmocka_unit_test(test_destroyed_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
