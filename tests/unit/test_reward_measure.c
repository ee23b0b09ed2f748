// How reward models are measured: accuracy, rank correlation and calibration on cases solved by hand,
// intervals over captions, the sides of captions.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/reward_measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static void test_accuracy(void **state) {
    (void)state;
    reward_example examples[] = {{0, 1, PREFERENCE_A, 0.0f}, // right
                                 {0, 2, PREFERENCE_B, 0.0f}, // wrong
                                 {1, 3, PREFERENCE_A, 0.0f}, // equal scores: half
                                 {2, 3, PREFERENCE_TIE, 0.0f}, {0, 3, PREFERENCE_BOTH_BAD, 0.0f},
                                 {3, 0, PREFERENCE_B, 0.0f}}; // right
    const reward_set set = {.examples = examples, .count = 6, .clip_count = 4};
    const float scores[] = {2.0f, 1.0f, 0.0f, 1.0f}, threshold[2] = {-1.0f, -3.0f};
    const reward_outcome outcome = reward_measure(&set, false, scores, threshold);
    assert_int_equal(outcome.decisive, 4);
    assert_true(fabs(outcome.accuracy - 2.5 / 4.0) < 1e-12);
    double loss = 0.0, gradient[4];
    for (int i = 0; i < 6; i++)
        loss += preference_loss(examples[i].vote, (double)scores[examples[i].a],
                                (double)scores[examples[i].b], threshold, gradient) /
                6.0;
    assert_true(fabs(outcome.loss - loss) < 1e-12);
    size_t of[] = {0, 0, 0, 1, 1, 1};
    const reward_units units = {of, 2};
    interval accuracy;
    must(reward_accuracy(&set, &units, scores, 500, 1, &accuracy));
    assert_true(fabs(accuracy.mean - 2.5 / 4.0) < 1e-12);
    // Caption 0 alone has 1.5 of 3 right, caption 1 has 1 of 1: every draw lies between.
    assert_true(fabs(accuracy.low - 0.5) < 1e-9 && fabs(accuracy.high - 1.0) < 1e-9);
    // By these, caption 0 has 2 of 3 right and caption 1 none.
    const float others[] = {1.0f, 0.0f, 2.0f, 3.0f};
    interval gain;
    must(reward_accuracy_gain(&set, &units, scores, others, 500, 1, &gain));
    assert_true(fabs(gain.mean - 0.5 / 4.0) < 1e-12);
    assert_true(fabs(gain.low + 0.5 / 3.0) < 1e-9 && fabs(gain.high - 1.0) < 1e-9);
    must(reward_accuracy_gain(&set, &units, others, others, 500, 1, &gain));
    assert_true(gain.mean == 0.0 && gain.low == 0.0 && gain.high == 0.0);
}

static void test_scores(void **state) {
    (void)state;
    enum { CLIPS = 12 };
    reward_example examples[2 * CLIPS];
    size_t of[2 * CLIPS];
    float scores[CLIPS], ratings[CLIPS];
    for (int i = 0; i < CLIPS; i++) {
        for (int k = 0; k < 2; k++) {
            examples[2 * i + k] = (reward_example){.a = i, .b = i, .target = k == 0 ? 0.5f : 0.0f};
            of[2 * i + k] = (size_t)(i / 3);
        }
        scores[i] = expf((float)i); // of one order with the ratings
        ratings[i] = (float)i / CLIPS;
    }
    const reward_set set = {.examples = examples, .count = 2 * CLIPS, .clip_count = CLIPS};
    const reward_units units = {of, 4};
    interval spearman;
    must(reward_spearman(&set, &units, scores, ratings, 300, 1, &spearman));
    assert_true(fabs(spearman.mean - 1.0) < 1e-12 && fabs(spearman.low - 1.0) < 1e-12);
    for (int i = 0; i < CLIPS; i++)
        scores[i] = -scores[i];
    must(reward_spearman(&set, &units, scores, ratings, 300, 1, &spearman));
    assert_true(fabs(spearman.mean + 1.0) < 1e-12);
    for (int i = 0; i < CLIPS; i++)
        scores[i] = 0.25f;
    const reward_outcome outcome = reward_measure(&set, true, scores, NULL);
    assert_true(fabs(outcome.loss - 0.0625) < 1e-7);
    assert_true(isnan(outcome.accuracy));
}

static void test_sides(void **state) {
    (void)state;
    int sides[3] = {0};
    for (int i = 0; i < 20000; i++) {
        char caption[64];
        snprintf(caption, sizeof caption, "a slow tune number %d for oboe", i);
        const reward_side side = reward_caption_side(caption);
        assert_int_equal(side != REWARD_SIDE_TRAINING, caption_is_held_out(caption) != 0);
        sides[side]++;
    }
    assert_true(abs(sides[REWARD_SIDE_SELECTION] - 1000) < 150);
    assert_true(abs(sides[REWARD_SIDE_TEST] - 1000) < 150);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_sides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
