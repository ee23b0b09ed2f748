// Diversity and learning-rate schedules.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/optimizer.h"
#include "core/statistics.h"

#include <math.h>

static void near_to(double found, double wanted, double tolerance) {
    if (!(fabs(found - wanted) <= tolerance))
        fail_msg("%.12g, wanted %.12g", found, wanted);
}

static void test_diversity(void **state) {
    (void)state;
    const double same[] = {1, 2, 9, 2, 4, 9, 3, 6, 9};    // parallel in the first two of three numbers
    const double axes[] = {5, 0, 0, 0, 0.1, 0, 0, 0, 30}; // orthogonal, of any length
    const double opposite[] = {1, 0, -3, 0};
    near_to(statistics_diversity(same, 3, 3, 2), 0.0, 1e-12);
    near_to(statistics_diversity(axes, 3, 3, 3), 1.0, 1e-12);
    near_to(statistics_diversity(opposite, 2, 2, 2), 2.0, 1e-12);
    near_to(statistics_diversity(axes, 3, 1, 3), 0.0, 0.0);
    // Against the definition, pair by pair.
    double vectors[7 * 4], sum = 0.0;
    for (int i = 0; i < 7 * 4; i++)
        vectors[i] = sin(1.7 * i + 0.3);
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++) {
            double dot = 0.0, a = 0.0, b = 0.0;
            for (int d = 0; d < 4; d++) {
                dot += vectors[i * 4 + d] * vectors[j * 4 + d];
                a += vectors[i * 4 + d] * vectors[i * 4 + d];
                b += vectors[j * 4 + d] * vectors[j * 4 + d];
            }
            sum += 1.0 - dot / sqrt(a * b);
        }
    near_to(statistics_diversity(vectors, 4, 7, 4), sum / 21.0, 1e-12);
}

static void test_schedule(void **state) {
    (void)state;
    near_to((double)schedule_factor(0, 5, 100, 0.1f), 0.2, 1e-7);
    near_to((double)schedule_factor(4, 5, 100, 0.1f), 1.0, 1e-7);
    near_to((double)schedule_factor(5, 5, 105, 0.1f), 1.0, 1e-7);
    near_to((double)schedule_factor(55, 5, 105, 0.1f), 0.55, 1e-6);
    near_to((double)schedule_factor(105, 5, 105, 0.1f), 0.1, 1e-6);
    near_to((double)schedule_factor(1000, 5, 105, 0.1f), 0.1, 1e-6);
    near_to((double)schedule_factor(1000, 5, 0, 1.0f), 1.0, 0.0); // constant after the warm-up
    near_to((double)schedule_factor(0, 0, 10, 0.0f), 1.0, 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_diversity),
        cmocka_unit_test(test_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
