// Tests, intervals and correlations, against SciPy 1.10 (wilcoxon without continuity correction, spearmanr,
// rankdata, sem) and against what can be said by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/agreement.h"
#include "core/significance.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

static void near_to(double found, double wanted, double tolerance) {
    if (!(fabs(found - wanted) <= tolerance))
        fail_msg("%.12g, wanted %.12g", found, wanted);
}

static wilcoxon_outcome test_of(const double *differences, size_t count) {
    wilcoxon_outcome out;
    assert_int_equal(wilcoxon_signed_rank(differences, count, &out), STATUS_OK);
    return out;
}

static void test_wilcoxon_exact(void **state) {
    (void)state;
    // Depression scores of nine patients, the example of Hollander and Wolfe.
    const double nine[] = {1.83 - .878, .50 - .647,  1.62 - .598, 2.48 - 2.05, 1.68 - 1.06,
                           1.88 - 1.29, 1.55 - 1.06, 3.06 - 3.14, 1.30 - 1.29};
    wilcoxon_outcome out = test_of(nine, 9);
    assert_true(out.exact);
    assert_int_equal(out.used, 9);
    near_to(out.minus, 5.0, 0.0);
    near_to(out.plus, 40.0, 0.0);
    near_to(out.p, 0.0390625, 1e-15);
    near_to(erfc(fabs(out.z) / sqrt(2.0)), 0.038151710173415135, 1e-12);
    double forty[40];
    for (int i = 0; i < 40; i++)
        forty[i] = (i * 37 % 101 - 48) / 10.0 + 0.001 * i;
    out = test_of(forty, 40);
    assert_true(out.exact);
    near_to(fmin(out.plus, out.minus), 373.0, 0.0);
    near_to(out.p, 0.6272851643807371, 1e-12);
    // All on one side: 2 of 2^n signs are as extreme.
    double fifty[WILCOXON_EXACT_MAX];
    for (int i = 0; i < WILCOXON_EXACT_MAX; i++)
        fifty[i] = -1.0 - i;
    near_to(test_of(fifty, 6).p, 2.0 / 64.0, 0.0);
    near_to(test_of(fifty, WILCOXON_EXACT_MAX).p, ldexp(2.0, -WILCOXON_EXACT_MAX), 0.0);
    near_to(test_of(fifty, 1).p, 1.0, 0.0);
}

static void test_wilcoxon_normal(void **state) {
    (void)state;
    double d[101];
    for (int i = 0; i < 101; i++)
        d[i] = (i * 7 % 11 - 4) / 3.0;
    wilcoxon_outcome out = test_of(d, 101);
    assert_false(out.exact);
    assert_int_equal(out.used, 92);
    near_to(out.minus, 1397.0, 0.0);
    near_to(out.p, 0.003713156234869156, 1e-14);
    assert_true(out.z > 0.0);
    for (int i = 0; i < 20; i++)
        d[i] = i * 7 % 9 - 3;
    out = test_of(d, 20);
    assert_false(out.exact);
    assert_int_equal(out.used, 18);
    near_to(out.p, 0.1308988927069091, 1e-13);
    for (int i = 0; i < 60; i++)
        d[i] = (i * 53 % 97 - 40) / 7.0;
    out = test_of(d, 60);
    near_to(out.p, 0.16258646699523582, 1e-13);
    const double z = out.z;
    for (int i = 0; i < 60; i++)
        d[i] = -d[i];
    near_to(test_of(d, 60).z, -z, 1e-15);
}

static void test_wilcoxon_nothing(void **state) {
    (void)state;
    const double zeros[] = {0.0, -0.0, 0.0};
    const wilcoxon_outcome out = test_of(zeros, 3);
    assert_int_equal(out.used, 0);
    near_to(out.p, 1.0, 0.0);
    near_to(out.z, 0.0, 0.0);
    near_to(test_of(zeros, 0).p, 1.0, 0.0);
}

static void test_ranks(void **state) {
    (void)state;
    const double values[] = {3, 1, 3, 2, 3, 0}, wanted[] = {5, 2, 5, 3, 5, 1};
    double ranks[6];
    assert_int_equal(rank_values(values, 6, ranks), STATUS_OK);
    for (int i = 0; i < 6; i++)
        near_to(ranks[i], wanted[i], 0.0);
}

static void fill_thirty(double *values) {
    for (int i = 0; i < 30; i++)
        values[i] = i * 29 % 17 / 4.0;
}

static void test_mean(void **state) {
    (void)state;
    double values[30];
    fill_thirty(values);
    const mean_error out = mean_with_error(values, 30);
    near_to(out.mean, 1.9916666666666667, 1e-14);
    near_to(out.error, 0.22884120044073597, 1e-14);
    near_to(mean_with_error(values + 1, 1).mean, values[1], 0.0);
    near_to(mean_with_error(values, 1).error, 0.0, 0.0);
}

static void test_bootstrap(void **state) {
    (void)state;
    double values[30];
    fill_thirty(values);
    interval out, again;
    assert_int_equal(bootstrap_mean(values, 30, 20000, 0.95, 7, &out), STATUS_OK);
    near_to(out.mean, 1.9916666666666667, 1e-14);
    near_to(out.low, 1.55, 0.015); // 400 000 draws of NumPy
    near_to(out.high, 2.43333333, 0.015);
    assert_int_equal(bootstrap_mean(values, 30, 20000, 0.95, 7, &again), STATUS_OK);
    assert_memory_equal(&out, &again, sizeof out);
    assert_int_equal(bootstrap_mean(values, 30, 200, 0.95, 7, &out), STATUS_OK);
    assert_int_equal(bootstrap_mean(values, 30, 200, 0.95, 8, &again), STATUS_OK);
    assert_memory_not_equal(&out, &again, sizeof out);
    // One unit has nothing to vary; a wider level is a wider interval.
    assert_int_equal(bootstrap_mean(values + 3, 1, 50, 0.95, 7, &out), STATUS_OK);
    near_to(out.low, values[3], 0.0);
    near_to(out.high, values[3], 0.0);
    assert_int_equal(bootstrap_mean(values, 30, 5000, 0.99, 7, &out), STATUS_OK);
    assert_int_equal(bootstrap_mean(values, 30, 5000, 0.5, 7, &again), STATUS_OK);
    assert_true(out.low < again.low && again.low < again.high && again.high < out.high);
    assert_int_equal(bootstrap_mean(values, 0, 50, 0.95, 7, &out), STATUS_FAILED);
    assert_int_equal(bootstrap_mean(values, 30, 0, 0.95, 7, &out), STATUS_FAILED);
    assert_int_equal(bootstrap_mean(values, 30, 50, 1.0, 7, &out), STATUS_FAILED);
}

// A ratio that is undefined where unit 0 was not drawn.
static double ratio(void *context, const size_t *drawn, size_t units) {
    size_t *calls = context, zeros = 0;
    ++*calls;
    for (size_t i = 0; i < units; i++) {
        assert_true(drawn[i] < units);
        zeros += drawn[i] == 0;
    }
    return zeros == 0 ? NAN : (double)units / (double)zeros;
}

static double undefined(void *context, const size_t *drawn, size_t units) {
    (void)context, (void)drawn, (void)units;
    return NAN;
}

static void test_bootstrap_undefined(void **state) {
    (void)state;
    size_t calls = 0;
    interval out;
    assert_int_equal(bootstrap_interval(ratio, &calls, 4, 500, 0.95, 1, &out), STATUS_OK);
    assert_int_equal(calls, 501);
    near_to(out.mean, 4.0, 0.0);
    assert_true(out.low >= 1.0 && out.high <= 4.0);
    assert_int_equal(bootstrap_interval(undefined, NULL, 4, 10, 0.95, 1, &out), STATUS_OK);
    assert_true(isnan(out.mean) && isnan(out.low) && isnan(out.high));
}

static void test_spearman(void **state) {
    (void)state;
    double x[25], y[25], rho;
    for (int i = 0; i < 25; i++) {
        x[i] = i * 13 % 7;
        y[i] = i * 11 % 9 + (i % 2 ? x[i] : 0);
    }
    assert_int_equal(spearman_correlation(x, y, 25, &rho), STATUS_OK);
    near_to(rho, 0.42712878940035437, 1e-14);
    const double iq[] = {106, 100, 86, 101, 99, 103, 97, 113, 112, 110},
                 hours[] = {7, 27, 2, 50, 28, 29, 20, 12, 6, 17};
    assert_int_equal(spearman_correlation(iq, hours, 10, &rho), STATUS_OK);
    near_to(rho, -29.0 / 165.0, 1e-14);
    double cubes[10];
    for (int i = 0; i < 10; i++)
        cubes[i] = iq[i] * iq[i] * iq[i];
    assert_int_equal(spearman_correlation(iq, cubes, 10, &rho), STATUS_OK);
    near_to(rho, 1.0, 1e-15);
    const double constant[] = {2, 2, 2};
    assert_int_equal(spearman_correlation(constant, iq, 3, &rho), STATUS_OK);
    assert_true(isnan(rho));
    assert_int_equal(spearman_correlation(iq, hours, 0, &rho), STATUS_OK);
    assert_true(isnan(rho));
}

static void test_calibration(void **state) {
    (void)state;
    enum { COUNT = 200 };
    double predicted[COUNT], observed[COUNT];
    for (int i = 0; i < COUNT; i++) {
        predicted[i] = 0.5 + 0.5 * (double)((i * 7) % COUNT) / COUNT;
        observed[i] = predicted[i] - 0.125;
    }
    calibration_bin bins[CALIBRATION_BINS];
    int count;
    assert_int_equal(calibration_bins(predicted, observed, COUNT, bins, &count), STATUS_OK);
    assert_int_equal(count, CALIBRATION_BINS);
    for (int i = 0; i < count; i++) {
        assert_int_equal(bins[i].count, COUNT / CALIBRATION_BINS);
        assert_true(fabs(bins[i].predicted - bins[i].observed - 0.125) < 1e-9);
        assert_true(i == 0 || bins[i].predicted > bins[i - 1].predicted);
    }
    assert_true(fabs(calibration_error(bins, count) - 0.125) < 1e-9);
    assert_int_equal(calibration_bins(predicted, observed, 3, bins, &count), STATUS_OK);
    assert_int_equal(count, 3);
    assert_int_equal(calibration_bins(predicted, observed, 0, bins, &count), STATUS_OK);
    assert_int_equal(count, 0);
    assert_true(calibration_error(bins, 0) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilcoxon_exact),
        cmocka_unit_test(test_wilcoxon_normal),
        cmocka_unit_test(test_wilcoxon_nothing),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_mean),
        cmocka_unit_test(test_bootstrap),
        cmocka_unit_test(test_bootstrap_undefined),
        cmocka_unit_test(test_spearman),
        cmocka_unit_test(test_calibration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
