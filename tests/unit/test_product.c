// Matrix products: those of strips against oneDNN's, bit by bit, and the trial that decides between them; and
// strips where they serve all products.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/strips.h"
#include "kernels/philox.h"
#include "kernels/product.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 170 };
static const struct {
    int64_t outputs, inputs;
} shapes[] = {{16, 16}, {32, 64}, {144, 48}, {48, 192}, {7, 80}, {256, 704}, {96, 1024}, {80, 1408}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };
static const int64_t row_counts[] = {1, 2, 5, 8, 12, 16, 17, 32, 70, ROWS_MAX};
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

// Where oneDNN's rows do not depend on their batch, so that strips have to agree with it.
static device *device_or_skip(int threads) {
    device *d;
    must(device_create(&d, threads));
    if (!d->strips_only)
        return d;
    device_destroy(d);
    print_message("skipped: strips serve all products here, as oneDNN's rows depend on their batch\n");
    skip();
    return NULL;
}

// Where strips serve all products, which every processor can be made to do.
static device *device_of_strips(int threads) {
    device *d;
    must(device_create(&d, threads));
    assert_true(d->batch_invariant);
    d->strips_only = true;
    return d;
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

static void test_strips_have_the_bits_of_many(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        device *d = device_or_skip(threads);
        for (int shape = 0; shape < SHAPES; shape++) {
            int64_t chunk;
            must(strips_find_chunk(d, shapes[shape].outputs, shapes[shape].inputs, WEIGHT_F32, &chunk));
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
static void test_strips_are_used(void **state) {
    (void)state;
    device *d = device_or_skip(2);
    static const int64_t used[][2] = {{1536, 512}, {512, 1408}, {256, 704}, {1024, 256}};
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
        for (weight_precision precision = WEIGHT_F32; precision <= WEIGHT_BF16; precision++) {
            int64_t chunk;
            must(strips_find_chunk(d, used[i][0], used[i][1], precision, &chunk));
            if (chunk == 0 && (precision == WEIGHT_F32 || d->has_bf16))
                fail_msg("%ld x %ld, precision %d is left to oneDNN", (long)used[i][0], (long)used[i][1],
                         (int)precision);
        }
    device_destroy(d);
}

// Sums in the wrong order by one place.
static void other_order(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                        const void *follow, float *y) {
    strip_shape halves = *shape;
    halves.chunk = 64;
    vector_operators_avx512.strips_f32(&halves, rows, x, strip, follow, y);
}

// Wrong in the last bit of one output of the last row.
static void one_bit(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                    const void *follow, float *y) {
    vector_operators_avx512.strips_f32(shape, rows, x, strip, follow, y);
    uint32_t bits;
    memcpy(&bits, &y[(rows - 1) * shape->y_stride + shape->outputs - 1], sizeof bits);
    bits ^= 1u;
    memcpy(&y[(rows - 1) * shape->y_stride + shape->outputs - 1], &bits, sizeof bits);
}

static void test_other_bits_are_refused(void **state) {
    (void)state;
    void (*const wrong[])(const strip_shape *, int64_t, const void *, const void *, const void *,
                          float *) = {other_order, one_bit, NULL};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        device *d = device_or_skip(2);
        vector_operators table = *d->vector;
        table.strips_f32 = wrong[i];
        d->vector = &table;
        int64_t chunk;
        must(strips_find_chunk(d, 256, 704, WEIGHT_F32, &chunk));
        assert_int_equal(chunk, 0);
        compare(d, 5, WEIGHT_F32); // oneDNN serves the weight
        device_destroy(d);
    }
}

// Weights come and go in any order; what a product remembers of the one after it is never read.
static void test_destroyed_in_any_order(void **state) {
    (void)state;
    device *d;
    must(device_create(&d, 2));
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

// found = the sum over `count` products a[i * a_step] b[i * b_step], within the rounding of a chain of f32
// sums.
static void check_sum(float found, size_t count, const float *a, size_t a_step, const float *b,
                      size_t b_step) {
    double sum = 0.0, size = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double product = (double)a[i * a_step] * (double)b[i * b_step];
        sum += product;
        size += fabs(product);
    }
    assert_true(fabs((double)found - sum) <= (double)count * 0x1p-24 * size);
}

// As the products round it.
static void round_to_bf16(device *d, size_t count, float *values) {
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        d->vector->round_to_bf16(1, &values[i], &half);
        const uint32_t bits = (uint32_t)half << 16;
        memcpy(&values[i], &bits, sizeof bits);
    }
}

// Elements are right, and rows alone have the bits of rows together.
static void check_rows(device *d, int shape, weight_precision precision) {
    const size_t outputs = (size_t)shapes[shape].outputs, inputs = (size_t)shapes[shape].inputs;
    float *plain = random_floats(outputs * inputs), *x = random_floats(ROWS_MAX * inputs);
    float *together = malloc(sizeof(float) * ROWS_MAX * outputs),
          *part = malloc(sizeof(float) * ROWS_MAX * outputs);
    if (precision == WEIGHT_BF16) {
        round_to_bf16(d, outputs * inputs, plain);
        round_to_bf16(d, ROWS_MAX * inputs, x);
    }
    weight *w = packed(d, shape, WEIGHT_SCORE, precision, plain);
    assert_non_null(weight_strips(w));
    must(product_forward(w, ROWS_MAX, x, together, false));
    for (size_t i = 0; i < ROWS_MAX * outputs; i += 7)
        check_sum(together[i], inputs, x + i / outputs * inputs, 1, plain + i % outputs * inputs, 1);
    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        const size_t rows = (size_t)row_counts[i], first = ROWS_MAX - rows;
        must(product_forward(w, (int64_t)rows, x + first * inputs, part, false));
        assert_memory_equal(part, together + first * outputs, sizeof(float) * rows * outputs);
        must(product_forward(w, (int64_t)rows, x + first * inputs, part, true));
        for (size_t j = 0; j < rows * outputs; j++)
            assert_true(part[j] == 2.0f * together[first * outputs + j]);
    }
    weight_destroy(w);
    free(plain);
    free(x);
    free(together);
    free(part);
}

static void test_strips_serve_all_rows(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        device *d = device_of_strips(threads);
        for (int shape = 0; shape < SHAPES; shape++) {
            check_rows(d, shape, WEIGHT_F32);
            check_rows(d, shape, WEIGHT_BF16);
        }
        device_destroy(d);
    }
}

// All three products on one to five threads, the last time with AVX2's functions: elements are right, and
// their bits equal to those of the first time.
static void check_threads(int shape, size_t rows) {
    const size_t outputs = (size_t)shapes[shape].outputs, inputs = (size_t)shapes[shape].inputs;
    float *plain = random_floats(outputs * inputs), *x = random_floats(rows * inputs),
          *dy = random_floats(rows * outputs);
    float *y[2], *dx[2], *dw[2];
    for (int i = 0; i < 2; i++) {
        y[i] = malloc(sizeof(float) * rows * outputs);
        dx[i] = malloc(sizeof(float) * rows * inputs);
        dw[i] = malloc(sizeof(float) * outputs * inputs);
    }
    for (int threads = 1; threads <= 5; threads++) {
        const int now = threads > 1;
        device *d = device_of_strips(threads);
        if (threads == 5)
            d->vector = &vector_operators_avx2;
        weight *w = packed(d, shape, WEIGHT_LEARN, WEIGHT_F32, plain);
        must(product_forward(w, (int64_t)rows, x, y[now], false));
        must(product_backward_data(w, (int64_t)rows, dy, dx[now], false));
        must(product_backward_weight(w, (int64_t)rows, x, dy, dw[now], false));
        if (now) {
            assert_memory_equal(y[0], y[1], sizeof(float) * rows * outputs);
            assert_memory_equal(dx[0], dx[1], sizeof(float) * rows * inputs);
            assert_memory_equal(dw[0], dw[1], sizeof(float) * outputs * inputs);
        }
        for (size_t i = 0; threads == 1 && i < rows * inputs; i += 7)
            check_sum(dx[0][i], outputs, dy + i / inputs * outputs, 1, plain + i % inputs, inputs);
        for (size_t i = 0; threads == 1 && i < outputs * inputs; i += 5)
            check_sum(dw[0][i], rows, dy + i / inputs, outputs, x + i % inputs, inputs);
        // A second time on top: twice the first but for the gradient of a weight, which adds chunk by chunk.
        must(product_backward_data(w, (int64_t)rows, dy, dx[1], now));
        must(product_backward_weight(w, (int64_t)rows, x, dy, dw[1], now));
        for (size_t i = 0; now && i < rows * inputs; i++)
            assert_true(dx[1][i] == 2.0f * dx[0][i]);
        for (size_t i = 0; now && i < outputs * inputs; i++)
            assert_true(fabsf(dw[1][i] - 2.0f * dw[0][i]) <= (float)rows * 0x1p-23f);
        weight_destroy(w);
        device_destroy(d);
    }
    for (int i = 0; i < 2; i++) {
        free(y[i]);
        free(dx[i]);
        free(dw[i]);
    }
    free(plain);
    free(x);
    free(dy);
}

static void test_strips_do_not_depend_on_threads(void **state) {
    (void)state;
    static const size_t row_counts[] = {1, 30, 513, 1100};
    for (int shape = 0; shape < SHAPES; shape++)
        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++)
            check_threads(shape, row_counts[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strips_serve_all_rows),
        cmocka_unit_test(test_strips_do_not_depend_on_threads),
        cmocka_unit_test(test_strips_have_the_bits_of_many),
        cmocka_unit_test(test_strips_are_used),
        cmocka_unit_test(test_other_bits_are_refused),
        cmocka_unit_test(test_destroyed_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
