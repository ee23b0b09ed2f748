// Counting wins, ties and losses, and what is concluded from them, on tables small enough to do by hand.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/side_by_side.h"

#include <math.h>
#include <string.h>

static void near_to(double found, double wanted, double tolerance) {
    if (!(fabs(found - wanted) <= tolerance))
        fail_msg("%.12g, wanted %.12g", found, wanted);
}

static void test_by_hand(void **state) {
    (void)state;
    // Prompt 0: +1, 0, +2; prompt 2: -1, +1, 0; prompt 3: +3 by one rater; prompt 1 was not rated.
    const rated_pair pairs[] = {{0, 4, 3}, {0, 2, 2}, {0, 5, 3}, {2, 1, 2}, {2, 3, 2}, {2, 5, 5}, {3, 4, 1}};
    side_by_side out;
    assert_int_equal(side_by_side_compare(pairs, 7, 4, 1000, 1, &out), STATUS_OK);
    assert_int_equal(out.ratings, 7);
    assert_int_equal(out.prompts, 3);
    assert_int_equal(out.wins, 4);
    assert_int_equal(out.ties, 2);
    assert_int_equal(out.losses, 1);
    near_to(out.win_rate.mean, 0.8, 0.0);
    near_to(out.win_rate.low, 0.5, 0.0); // prompt 2 drawn three times
    near_to(out.win_rate.high, 1.0, 0.0);
    near_to(out.difference.mean, (1.0 + 0.0 + 3.0) / 3.0, 1e-15); // of prompts, not of ratings
    // Prompt means 1, 0, 3: the zero is dropped, two of four signs are as extreme on one side.
    assert_int_equal(out.test.used, 2);
    near_to(out.test.p, 0.5, 0.0);
    // Seen from the other side.
    rated_pair turned[7];
    for (int i = 0; i < 7; i++)
        turned[i] = (rated_pair){pairs[i].prompt, pairs[i].b, pairs[i].a};
    side_by_side back;
    assert_int_equal(side_by_side_compare(turned, 7, 4, 1000, 1, &back), STATUS_OK);
    assert_int_equal(back.wins, 1);
    assert_int_equal(back.losses, 4);
    near_to(back.win_rate.mean, 0.2, 1e-15);
    near_to(back.test.p, 0.5, 0.0);
}

// The same three ratings of a prompt again and again say no more about prompts than once.
static void test_prompts_are_the_units(void **state) {
    (void)state;
    rated_pair once[20], often[100];
    for (uint32_t i = 0; i < 20; i++)
        once[i] = (rated_pair){i, i % 3 == 0 ? 2.0f : 4.0f, 3.0f};
    for (uint32_t i = 0; i < 100; i++)
        often[i] = once[i % 20];
    side_by_side a, b;
    assert_int_equal(side_by_side_compare(once, 20, 20, 2000, 5, &a), STATUS_OK);
    assert_int_equal(side_by_side_compare(often, 100, 20, 2000, 5, &b), STATUS_OK);
    near_to(b.test.p, a.test.p, 0.0);
    near_to(b.win_rate.low, a.win_rate.low, 1e-12);
    near_to(b.win_rate.high, a.win_rate.high, 1e-12);
    near_to(a.win_rate.mean, 13.0 / 20.0, 1e-15);
    assert_true(a.win_rate.low < 13.0 / 20.0 && a.win_rate.high > 13.0 / 20.0);
}

static void test_ties_and_nothing(void **state) {
    (void)state;
    const rated_pair ties[] = {{0, 3, 3}, {1, 5, 5}};
    side_by_side out;
    assert_int_equal(side_by_side_compare(ties, 2, 2, 100, 1, &out), STATUS_OK);
    assert_int_equal(out.ties, 2);
    assert_true(isnan(out.win_rate.mean) && isnan(out.win_rate.low));
    near_to(out.difference.mean, 0.0, 0.0);
    near_to(out.test.p, 1.0, 0.0);
    assert_int_equal(side_by_side_compare(NULL, 0, 5, 100, 1, &out), STATUS_OK);
    assert_int_equal(out.ratings, 0);
    near_to(out.test.p, 1.0, 0.0);
    assert_true(isnan(out.win_rate.mean));
}

static void test_opinions(void **state) {
    (void)state;
    const opinion opinions[] = {{0, 1}, {0, 2}, {0, 3}, {4, 5}};
    interval out;
    assert_int_equal(mean_opinion_score(opinions, 4, 5, 1000, 1, &out), STATUS_OK);
    near_to(out.mean, 11.0 / 4.0, 0.0);
    near_to(out.low, 2.0, 0.0);
    near_to(out.high, 5.0, 0.0);
    assert_int_equal(mean_opinion_score(opinions, 0, 5, 1000, 1, &out), STATUS_OK);
    assert_true(isnan(out.mean));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_prompts_are_the_units),
        cmocka_unit_test(test_ties_and_nothing),
        cmocka_unit_test(test_opinions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
