// The parts of an evaluation that can be had without models: the paper's figures by name, verdicts over
// ratings.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernels/memory.h"
#include "launch/evaluate_parts.h"

#include <math.h>
#include <string.h>

static void near_to(double found, double wanted, double tolerance) {
    if (!(fabs(found - wanted) <= tolerance))
        fail_msg("%.12g, wanted %.12g", found, wanted);
}

static void test_paper(void **state) {
    (void)state;
    near_to(evaluate_paper_win_rate("r", "base"), 0.83, 0.0);
    near_to(evaluate_paper_win_rate("base", "r"), 0.17, 1e-15);
    near_to(evaluate_paper_win_rate("MusicRL-RU", "MusicLM"), 0.87, 0.0);
    near_to(evaluate_paper_win_rate("U", "musicrl-r"), 0.54, 0.0);
    near_to(evaluate_paper_win_rate("u", "ru"), 0.38, 1e-15);
    assert_true(isnan(evaluate_paper_win_rate("r", "r")));
    assert_true(isnan(evaluate_paper_win_rate("dpo", "base")));
    assert_true(isnan(evaluate_paper_win_rate("rl", "base")));
}

// Three models; raters compare the second and third with the first, and one of them the two.
static void test_verdict(void **state) {
    (void)state;
    static evaluation e;
    static comparison pairs[3] = {{.a = 1, .b = 0}, {.a = 2, .b = 0}, {.a = 2, .b = 1}};
    e.model_count = 3;
    e.comparisons = pairs;
    e.comparison_count = 3;
    e.prompts.count = 4;
    static const struct {
        int pair, a, b;
        uint32_t prompt;
    } ratings[] = {{0, 5, 3, 0}, {0, 4, 4, 1}, {0, 2, 3, 1}, {1, 1, 2, 3}, {1, 5, 2, 3}, {2, 3, 3, 2}};
    for (size_t i = 0; i < sizeof ratings / sizeof ratings[0]; i++) {
        comparison *c = &pairs[ratings[i].pair];
        assert_int_equal(evaluate_add_rating(c, ratings[i].prompt, ratings[i].a, ratings[i].b), STATUS_OK);
        assert_int_equal(evaluate_add_opinion(&e.models[c->a], ratings[i].prompt, ratings[i].a), STATUS_OK);
        assert_int_equal(evaluate_add_opinion(&e.models[c->b], ratings[i].prompt, ratings[i].b), STATUS_OK);
    }
    assert_int_equal(evaluate_judge(&e), STATUS_OK);
    static const size_t wins[] = {2, 1, 1};
    static const double means[] = {(3 + 4 + 3 + 2 + 2) / 5.0, (5 + 4 + 2 + 3) / 4.0, (1 + 5 + 3) / 3.0};
    for (int m = 0; m < 3; m++) {
        assert_int_equal(e.models[m].wins, wins[m]);
        near_to(e.models[m].mean_opinion.mean, means[m], 1e-15);
    }
    assert_int_equal(pairs[0].result.prompts, 2);
    near_to(pairs[0].result.win_rate.mean, 0.5, 0.0);
    near_to(pairs[0].result.difference.mean, (2.0 - 0.5) / 2.0, 0.0);
    near_to(pairs[1].result.difference.mean, 1.0, 0.0); // one prompt, -1 and +3
    assert_true(isnan(pairs[2].result.win_rate.mean));
    // More than the lists hold at first.
    for (uint32_t i = 0; i < 3000; i++)
        assert_int_equal(evaluate_add_rating(&pairs[2], i % 4, 1 + (int)(i % 5), 3), STATUS_OK);
    assert_int_equal(pairs[2].count, 3001);
    near_to((double)pairs[2].ratings[3000].a, 1.0 + 2999 % 5, 0.0);
    for (int i = 0; i < 3; i++) {
        evaluate_model_release(&e.models[i]);
        memory_free(pairs[i].ratings);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paper),
        cmocka_unit_test(test_verdict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
