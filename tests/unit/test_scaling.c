// The model of scaling against sums by hand, and the roles that it chooses.
#include "launch/scaling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void near(double found, double wanted) {
    if (fabs(found - wanted) > 1e-9 * (1.0 + fabs(wanted)))
        fail_msg("%.12g, wanted %.12g", found, wanted);
}

static const scaling_parts parts = {.rollout = {0.5, 0.01},
                                    .reward = {0.0, 0.002},
                                    .learn = {0.1, 0.03},
                                    .update = 0.04,
                                    .latency = 1e-3,
                                    .bandwidth = 1e6,
                                    .gradient_bytes = 2e4,
                                    .weight_bytes = 1e4,
                                    .rollout_bytes = 100,
                                    .score_bytes = 50,
                                    .row_bytes = 10};

static void test_fit(void **state) {
    (void)state;
    scaling_line line = scaling_fit(10, 3.0, 40, 6.0);
    near(line.sample, 0.1);
    near(line.fixed, 2.0);
    line = scaling_fit(10, 1.0, 40, 8.0); // more than proportional: nothing is fixed
    near(line.fixed, 0.0);
    near(line.sample, 0.2);
    line = scaling_fit(10, 5.0, 40, 4.0); // noise
    near(line.sample, 0.0);
    near(line.fixed, 4.0);
}

static void test_collectives(void **state) {
    (void)state;
    near(scaling_all_reduce(&parts, 1, 1e9), 0.0);
    near(scaling_all_reduce(&parts, 2, 1e6), 2e-3 + 1.0);
    near(scaling_all_reduce(&parts, 8, 1e6), 6e-3 + 2.0 * 7 / 8);
    near(scaling_broadcast(&parts, 0, 1e6), 0.0);
    near(scaling_broadcast(&parts, 3, 1e6), 2e-3 + 1.0);
}

static void test_colocated(void **state) {
    (void)state;
    scaling_layout layout = scaling_colocated(1, 40);
    scaling_cost cost = scaling_predict(&parts, &layout);
    near(cost.step, 0.5 + 0.4 + 0.08 + 0.1 + 1.2 + 0.04);
    near(cost.share_bytes, 0.0);
    near(cost.rollout_share, 0.9 / cost.step);
    layout = scaling_colocated(4, 40);
    cost = scaling_predict(&parts, &layout);
    const double sums = 4e-3 + 1.5 * 2e4 / 1e6 + 3 * (4e-3 + 1.5 * 400 / 1e6);
    near(cost.share, sums);
    near(cost.share_bytes, 1.5 * (2e4 + 3 * 400));
    near(cost.step, 0.5 + 0.1 + 0.02 + 0.1 + 0.3 + 0.04 + sums);
    layout.sharded = true;
    near(scaling_predict(&parts, &layout).update, 0.01);
    layout = scaling_colocated(4, 40);
    layout.crowding = 2.0; // on two cores
    near(scaling_predict(&parts, &layout).step, 2.0 * (0.5 + 0.1 + 0.02 + 0.1 + 0.3 + 0.04) + sums);
}

static void test_split(void **state) {
    (void)state;
    scaling_layout layout = {.ranks = 7, .rollouts = 4, .rewards = 1, .learners = 2, .batch = 40};
    scaling_cost cost = scaling_predict(&parts, &layout);
    const double messages = 2e-3 + 40 * 250 / 1e6, weights = 3e-3 + 1e4 / 1e6;
    const double sums = 2e-3 + 2e4 / 1e6 + 3 * (2e-3 + 400 / 1e6);
    near(cost.rollout, 0.6);
    near(cost.reward, 0.08);
    near(cost.learn, 0.7);
    near(cost.share, sums);
    near(cost.transfer, messages + weights);
    near(cost.transfer_bytes, 40 * 250 + 4e4);
    near(cost.step, 0.6 + 0.08 + 0.7 + 0.04 + sums + messages + weights);
    layout.overlapped = true; // learning takes longest
    near(scaling_predict(&parts, &layout).step, 0.7 + 0.04 + sums + messages);
    layout.learners = 8; // now sampling does
    cost = scaling_predict(&parts, &layout);
    near(cost.step, 0.6 + weights + messages);
}

static void test_roles(void **state) {
    (void)state;
    scaling_layout best = scaling_recommend(&parts, 4, 40, 8, false);
    assert_true(best.colocated && best.ranks == 4 && best.learners == 4);
    // No number of learners may be 16 with 8 slots, nor may 7 ranks be colocated.
    assert_int_equal(scaling_recommend(&parts, 16, 64, 8, false).ranks, 0);
    assert_int_equal(scaling_recommend(&parts, 7, 56, 8, false).ranks, 0);
    // Sampling has a long fixed part, which a split hides behind learning.
    scaling_parts slow = parts;
    slow.rollout.fixed = 5.0;
    best = scaling_recommend(&slow, 16, 64 * 16, 64, true);
    assert_false(best.colocated);
    assert_int_equal(best.rollouts + best.rewards + best.learners, 16);
    assert_true((best.learners & (best.learners - 1)) == 0);
    assert_true(best.batch % best.rollouts == 0 && best.batch % best.rewards == 0);
    const scaling_layout all = scaling_colocated(16, 64 * 16);
    assert_true(scaling_predict(&slow, &best).step < scaling_predict(&slow, &all).step);
    // Nothing does better by the same model.
    for (int learners = 1; learners < 16; learners *= 2)
        for (int rewards = 1; rewards < 16 - learners; rewards++) {
            const scaling_layout other = {.ranks = 16,
                                          .rollouts = 16 - learners - rewards,
                                          .rewards = rewards,
                                          .learners = learners,
                                          .overlapped = true,
                                          .batch = 64 * 16};
            if (other.batch % other.rollouts == 0 && other.batch % rewards == 0)
                assert_true(scaling_predict(&slow, &other).step >= scaling_predict(&slow, &best).step);
        }
    // Without a fixed part there is nothing to hide.
    slow.rollout.fixed = slow.learn.fixed = 0.0;
    slow.latency = 0.0;
    slow.bandwidth = 1e15;
    slow.update = 0.0;
    assert_true(scaling_recommend(&slow, 16, 64 * 16, 64, true).colocated);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fit),   cmocka_unit_test(test_collectives), cmocka_unit_test(test_colocated),
        cmocka_unit_test(test_split), cmocka_unit_test(test_roles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
