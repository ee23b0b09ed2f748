#include "kernels/fft.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

typedef struct arrays {
    float *signal, *spectrum, *back, *scratch;
} arrays;

static arrays arrays_create(const fft *plan) {
    size_t n = fft_length(plan);
    arrays a;
    assert_int_equal(memory_allocate((void **)&a.signal, n * FFT_LANES * sizeof(float), "signal"), STATUS_OK);
    assert_int_equal(memory_allocate((void **)&a.spectrum, (n + 2) * FFT_LANES * sizeof(float), "spectrum"),
                     STATUS_OK);
    assert_int_equal(memory_allocate((void **)&a.back, n * FFT_LANES * sizeof(float), "back"), STATUS_OK);
    assert_int_equal(
        memory_allocate((void **)&a.scratch, fft_scratch_floats(plan) * sizeof(float), "scratch"), STATUS_OK);
    return a;
}

static void arrays_destroy(arrays *a) {
    memory_free(a->signal);
    memory_free(a->spectrum);
    memory_free(a->back);
    memory_free(a->scratch);
}

static void test_against_definition(void **state) {
    (void)state;
    for (size_t n = 8; n <= 2048; n *= 2) {
        fft *plan;
        assert_int_equal(fft_create(&plan, n), STATUS_OK);
        arrays a = arrays_create(plan);
        philox_stream random = {.key = 7, .purpose = (uint32_t)n};
        for (size_t i = 0; i < n * FFT_LANES; i++)
            a.signal[i] = 2.0f * philox_next_uniform(&random) - 1.0f;
        fft_forward(plan, a.signal, a.spectrum, a.scratch);
        double worst = 0;
        for (size_t lane = 0; lane < FFT_LANES; lane++) {
            for (size_t k = 0; k <= n / 2; k += n > 256 ? 13 : 1) {
                double re = 0, im = 0;
                for (size_t t = 0; t < n; t++) {
                    double angle = -2.0 * M_PI * (double)((k * t) % n) / (double)n;
                    re += a.signal[t * FFT_LANES + lane] * cos(angle);
                    im += a.signal[t * FFT_LANES + lane] * sin(angle);
                }
                worst = fmax(worst, fabs(re - a.spectrum[(2 * k) * FFT_LANES + lane]));
                worst = fmax(worst, fabs(im - a.spectrum[(2 * k + 1) * FFT_LANES + lane]));
            }
        }
        assert_true(worst < 3e-7 * sqrt((double)n) * log2((double)n));
        fft_inverse(plan, a.spectrum, a.back, a.scratch);
        for (size_t i = 0; i < n * FFT_LANES; i++)
            assert_true(fabsf(a.back[i] - a.signal[i]) < 2e-6f);
        arrays_destroy(&a);
        fft_destroy(plan);
    }
}

// A signal's transform does not depend on which lane holds it, nor on its neighbours.
static void test_lanes_are_independent(void **state) {
    (void)state;
    fft *plan;
    assert_int_equal(fft_create(&plan, 64), STATUS_OK);
    arrays a = arrays_create(plan), b = arrays_create(plan);
    for (size_t t = 0; t < 64; t++) {
        for (size_t lane = 0; lane < FFT_LANES; lane++)
            a.signal[t * FFT_LANES + lane] = sinf((float)(t * t + lane));
        b.signal[t * FFT_LANES + 5] = a.signal[t * FFT_LANES + 2];
    }
    fft_forward(plan, a.signal, a.spectrum, a.scratch);
    fft_forward(plan, b.signal, b.spectrum, b.scratch);
    for (size_t k = 0; k < 66; k++)
        assert_true(a.spectrum[k * FFT_LANES + 2] == b.spectrum[k * FFT_LANES + 5]);
    arrays_destroy(&a);
    arrays_destroy(&b);
    fft_destroy(plan);
}

static void test_bad_length(void **state) {
    (void)state;
    fft *plan;
    const size_t bad[] = {0, 4, 12, 1000, (size_t)1 << 21};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(fft_create(&plan, bad[i]), STATUS_USAGE);
        assert_null(plan);
        assert_non_null(strstr(status_message(), "power of two"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition),
        cmocka_unit_test(test_lanes_are_independent),
        cmocka_unit_test(test_bad_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
