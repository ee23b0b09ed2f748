// Linear fits: known weights are found again, the optimum is one, ties and constants are harmless, bad input
// is an error.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/linear_fit.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { ROWS = 600, WIDTH = 5, PAIRS = 6000 };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

// No folds: this penalty.
static const fit_options *penalty(double ridge) {
    static double ridges[1];
    static fit_options options = {.ridges = ridges, .ridge_count = 1};
    ridges[0] = ridge;
    return &options;
}

static const double truth[WIDTH] = {1.0, -0.5, 0.0, 2.0, 0.25};

static void draw(float *x, philox_stream *stream) {
    for (int i = 0; i < ROWS * WIDTH; i++)
        x[i] = 2.0f * philox_next_uniform(stream) - 1.0f;
}

static double utility(const float *row) {
    double sum = 0.0;
    for (int j = 0; j < WIDTH; j++)
        sum += truth[j] * (double)row[j];
    return sum;
}

static void test_preference_finds_the_weights(void **state) {
    (void)state;
    static float x[ROWS * WIDTH];
    static fit_pair pairs[PAIRS];
    philox_stream stream = {.key = 1};
    draw(x, &stream);
    for (int i = 0; i < PAIRS; i++) {
        const int a = (int)philox_next_below(&stream, ROWS), b = (int)philox_next_below(&stream, ROWS);
        const double p = 1.0 / (1.0 + exp(utility(x + b * WIDTH) - utility(x + a * WIDTH)));
        pairs[i] = (fit_pair){a, b, (double)philox_next_uniform(&stream) < p ? 1.0f : 0.0f};
    }
    double weights[WIDTH] = {0.0};
    must(fit_preference(x, WIDTH, pairs, PAIRS, penalty(1e-6), weights, NULL));
    for (int j = 0; j < WIDTH; j++)
        assert_true(fabs(weights[j] - truth[j]) < 0.12);
    // At the minimum the gradient of the mean log-likelihood is 0.
    for (int j = 0; j < WIDTH; j++) {
        double slope = 0.0;
        for (int i = 0; i < PAIRS; i++) {
            double d = 0.0;
            for (int k = 0; k < WIDTH; k++)
                d += weights[k] * (double)(x[pairs[i].a * WIDTH + k] - x[pairs[i].b * WIDTH + k]);
            slope += (1.0 / (1.0 + exp(-d)) - (double)pairs[i].outcome) *
                     (double)(x[pairs[i].a * WIDTH + j] - x[pairs[i].b * WIDTH + j]) / PAIRS;
        }
        assert_true(fabs(slope) < 1e-4);
    }
    // A penalty draws the weights towards 0; another start ends at the same place.
    double small[WIDTH] = {0.0}, again[WIDTH] = {5.0, 5.0, -5.0, 5.0, 0.0};
    must(fit_preference(x, WIDTH, pairs, PAIRS, penalty(1.0), small, NULL));
    must(fit_preference(x, WIDTH, pairs, PAIRS, penalty(1.0), again, NULL));
    for (int j = 0; j < WIDTH; j++) {
        assert_true(fabs(small[j] - again[j]) < 1e-3);
        assert_true(fabs(small[j]) <= fabs(weights[j]) + 0.02);
    }
}

static void test_preference_of_ties_and_constants(void **state) {
    (void)state;
    float x[4 * WIDTH] = {0.0f};
    for (int i = 0; i < 4; i++) {
        x[i * WIDTH] = (float)i;
        x[i * WIDTH + 1] = 7.0f; // never differs
    }
    const fit_pair ties[] = {{0, 3, 0.5f}, {1, 2, 0.5f}, {3, 1, 0.5f}};
    double weights[WIDTH] = {1.0, 1.0, 0.0, 0.0, 0.0};
    must(fit_preference(x, WIDTH, ties, 3, penalty(1e-3), weights, NULL));
    assert_true(fabs(weights[0]) < 1e-3 && isfinite(weights[1]));
    // Perfectly separable: the penalty keeps the minimum finite.
    const fit_pair wins[] = {{3, 0, 1.0f}, {2, 1, 1.0f}, {0, 2, 0.0f}};
    must(fit_preference(x, WIDTH, wins, 3, penalty(1e-3), weights, NULL));
    assert_true(weights[0] > 0.5 && isfinite(weights[0]));
    assert_int_equal(fit_preference(x, WIDTH, wins, 0, penalty(1e-3), weights, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "no pairs"));
}

// Votes on one pair count together, whichever of its two rows stands first.
static void test_votes_on_one_pair(void **state) {
    (void)state;
    float x[3 * WIDTH] = {0.0f};
    x[0] = 2.0f;
    x[2 * WIDTH] = -1.0f;
    enum { VOTES = 8 };
    // Row 0 beats row 1 in three of four votes, row 1 beats row 2 in as many.
    const fit_pair votes[VOTES] = {{0, 1, 1.0f}, {2, 1, 0.0f}, {1, 0, 0.0f}, {1, 2, 1.0f},
                                   {0, 1, 0.0f}, {2, 1, 1.0f}, {1, 0, 0.0f}, {1, 2, 1.0f}};
    double weights[WIDTH], again[WIDTH];
    must(fit_preference(x, WIDTH, votes, VOTES, penalty(1e-9), weights, NULL));
    // The minimum of log(1 + e^{-2 w}) * 3 + log(1 + e^{2 w}) + the same with w: where its slope is zero.
    const double w = weights[0],
                 slope = 2.0 * (1.0 / (1.0 + exp(-2.0 * w)) - 0.75) + (1.0 / (1.0 + exp(-w)) - 0.75);
    assert_true(fabs(slope) < 1e-5);
    fit_pair tripled[3 * VOTES];
    for (int i = 0; i < 3 * VOTES; i++)
        tripled[i] = votes[(i * 5) % VOTES];
    must(fit_preference(x, WIDTH, tripled, 3 * VOTES, penalty(1e-9), again, NULL));
    assert_true(fabs(weights[0] - again[0]) < 1e-12);
}

static void test_scores(void **state) {
    (void)state;
    static float x[ROWS * WIDTH], targets[ROWS], importances[ROWS];
    philox_stream stream = {.key = 2};
    draw(x, &stream);
    for (int i = 0; i < ROWS; i++) {
        importances[i] = (float)(1 + i % 3);
        targets[i] = (float)(utility(x + i * WIDTH) + 0.7);
    }
    double weights[WIDTH + 1];
    must(fit_scores(x, WIDTH, targets, importances, ROWS, penalty(1e-9), weights, NULL));
    for (int j = 0; j < WIDTH; j++)
        assert_true(fabs(weights[j] - truth[j]) < 1e-4);
    assert_true(fabs(weights[WIDTH] - 0.7) < 1e-4);
    // An importance of 2 is the row twice.
    static float twice[2 * ROWS * WIDTH], twice_targets[2 * ROWS], ones[2 * ROWS];
    int rows = 0;
    for (int i = 0; i < ROWS; i++) {
        targets[i] += sinf((float)i);
        importances[i] = (float)(1 + i % 2);
        for (int k = 0; k <= i % 2; k++, rows++) {
            memcpy(twice + rows * WIDTH, x + i * WIDTH, sizeof(float) * WIDTH);
            twice_targets[rows] = targets[i];
            ones[rows] = 1.0f;
        }
    }
    double other[WIDTH + 1];
    must(fit_scores(x, WIDTH, targets, importances, ROWS, penalty(0.1), weights, NULL));
    must(fit_scores(twice, WIDTH, twice_targets, ones, (size_t)rows, penalty(0.1), other, NULL));
    for (int j = 0; j <= WIDTH; j++)
        assert_true(fabs(weights[j] - other[j]) < 1e-5);
    assert_int_equal(fit_scores(x, WIDTH, targets, importances, 0, penalty(0.1), weights, NULL),
                     STATUS_FAILED);
}

// Many features that say nothing and few rows: a strong penalty predicts unseen folds better. One feature
// that says all and many rows: a weak one does.
static void test_folds_choose_the_penalty(void **state) {
    (void)state;
    enum { FEW = 60, WIDE = 40, MANY = 800 };
    static float x[MANY * WIDE], targets[MANY], ones[MANY];
    static fit_pair pairs[MANY];
    static int fold[MANY];
    const double ridges[] = {100.0, 1.0, 1e-4};
    const fit_options options = {.fold = fold, .folds = 5, .ridges = ridges, .ridge_count = 3};
    philox_stream stream = {.key = 4};
    for (int i = 0; i < MANY; i++) {
        fold[i] = i % 5;
        ones[i] = 1.0f;
        targets[i] = philox_next_uniform(&stream);
        for (int j = 0; j < WIDE; j++)
            x[i * WIDE + j] = philox_next_uniform(&stream) - 0.5f;
    }
    for (int i = 0; i < FEW; i++)
        pairs[i] = (fit_pair){2 * i, 2 * i + 1, philox_next_uniform(&stream) < 0.5f ? 1.0f : 0.0f};
    double weights[WIDE + 1], ridge;
    must(fit_preference(x, WIDE, pairs, FEW, &options, weights, &ridge));
    assert_true(ridge == 100.0);
    must(fit_scores(x, WIDE, targets, ones, FEW, &options, weights, &ridge));
    assert_true(ridge == 100.0);
    for (int i = 0; i < MANY; i++) {
        targets[i] = x[i * WIDE];
        pairs[i] = (fit_pair){i, (i + 1) % MANY, x[i * WIDE] > x[(i + 1) % MANY * WIDE] ? 1.0f : 0.0f};
    }
    must(fit_preference(x, WIDE, pairs, MANY, &options, weights, &ridge));
    assert_true(ridge == 1e-4);
    must(fit_scores(x, WIDE, targets, ones, MANY, &options, weights, &ridge));
    assert_true(ridge == 1e-4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preference_finds_the_weights),
        cmocka_unit_test(test_preference_of_ties_and_constants),
        cmocka_unit_test(test_votes_on_one_pair),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_folds_choose_the_penalty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
