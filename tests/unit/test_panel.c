#include "core/panel.h"

#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CAPTIONS = 24, GROUP = 4, CLIPS = CAPTIONS * GROUP };

static heard_clip clips[CLIPS];
static wanted_attributes wanted[CLIPS];
static panel_calibration calibration;

static heard_clip random_clip(philox_stream *draws) {
    heard_clip clip = {0};
    for (int a = 0; a < HEARD_ATTRIBUTES; a++) {
        float sum = 0.0f;
        for (int k = 0; k < heard_attribute_classes[a]; k++) {
            clip.probability[a][k] = philox_next_uniform(draws) + 1e-3f;
            sum += clip.probability[a][k];
        }
        for (int k = 0; k < heard_attribute_classes[a]; k++)
            clip.probability[a][k] /= sum;
    }
    for (int m = 0; m < HEARD_MEASURES; m++)
        clip.measure[m] = philox_next_uniform(draws);
    return clip;
}

static panel_calibration blank_calibration(void) {
    panel_calibration out = {0};
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        out.reliability[a] = a == HEARD_MODE ? 0.0f : 0.8f;
    for (int m = 0; m < HEARD_MEASURES; m++)
        out.ramp[m] =
            (panel_ramp){.bad = m % 2 == 0 ? 0.0f : 1.0f, .good = m % 2 == 0 ? 1.0f : 0.0f, .weight = 1.0f};
    for (int i = 0; i < PANEL_ALARMS; i++)
        out.alarm[i] = (panel_alarm){1.5f, 2.0f};
    return out;
}

static int setup(void **state) {
    (void)state;
    philox_stream draws = {.key = 12, .purpose = 1};
    for (int i = 0; i < CLIPS; i++) {
        clips[i] = random_clip(&draws);
        if (i % GROUP == 0)
            for (int a = 0; a < HEARD_ATTRIBUTES; a++)
                wanted[i].value[a] =
                    (int8_t)((int)philox_next_below(&draws, (uint32_t)heard_attribute_classes[a] + 1) - 1);
        else
            wanted[i] = wanted[i - 1];
    }
    calibration = blank_calibration();
    return panel_calibrate(&calibration, clips, wanted, CLIPS, GROUP, clips, CLIPS, 0.6) == STATUS_OK ? 0
                                                                                                      : -1;
}

static size_t all_pairs(panel_pair *out) {
    size_t count = 0;
    for (int first = 0; first < CLIPS; first += GROUP)
        for (int a = first; a < first + GROUP; a++)
            for (int b = a + 1; b < first + GROUP; b++)
                out[count++] = (panel_pair){&wanted[a], &clips[a], &clips[b]};
    return count;
}

static panel *draw_panel(uint64_t seed, int count) {
    panel *out;
    assert_int_equal(panel_create(&out, &calibration, seed, count), STATUS_OK);
    return out;
}

static void test_agreement_is_reached(void **state) {
    (void)state;
    assert_true(fabs(calibration.agreement - 0.6) < 1e-6);
    panel_pair pairs[CLIPS * GROUP];
    const size_t count = all_pairs(pairs);
    panel *p = draw_panel(99, 200);
    double agreement, ceiling;
    panel_agreement(p, pairs, count, &agreement, &ceiling);
    assert_true(fabs(agreement - 0.6) < 0.02); // other listeners than the scale was set with
    assert_true(fabs(ceiling - calibration.ceiling) < 0.02);
    // The share of equal choices among drawn votes of two listeners.
    size_t both = 0, same = 0;
    for (uint32_t l = 0; l + 1 < 200; l++)
        for (size_t i = 0; i < count; i++) {
            const panel_vote one = panel_compare(p, l, pairs[i].wanted, pairs[i].a, pairs[i].b, i);
            const panel_vote two = panel_compare(p, l + 1, pairs[i].wanted, pairs[i].a, pairs[i].b, i);
            if (one <= VOTE_B && two <= VOTE_B) {
                both++;
                same += one == two;
            }
        }
    assert_true(fabs((double)same / (double)both - 0.6) < 0.03);
    panel_destroy(p);
}

static void test_agreement_and_ceiling_by_brute_force(void **state) {
    (void)state;
    enum { LISTENERS = 9 };
    panel_pair pairs[CLIPS * GROUP];
    const size_t count = all_pairs(pairs);
    panel *p = draw_panel(5, LISTENERS);
    double agreement, ceiling, both = 0.0, best = 0.0;
    panel_agreement(p, pairs, count, &agreement, &ceiling);
    for (size_t i = 0; i < count; i++) {
        double chosen[LISTENERS], share = 0.0;
        for (uint32_t l = 0; l < LISTENERS; l++) {
            chosen[l] = panel_preference_probability(p, l, pairs[i].wanted, pairs[i].a, pairs[i].b);
            share += chosen[l] / LISTENERS;
        }
        for (int a = 0; a < LISTENERS; a++)
            for (int b = 0; b < LISTENERS; b++)
                if (a != b)
                    both += (chosen[a] * chosen[b] + (1.0 - chosen[a]) * (1.0 - chosen[b])) /
                            (LISTENERS * (LISTENERS - 1));
        best += share > 0.5 ? share : 1.0 - share;
        assert_true(fabs(panel_choice(p, pairs[i].wanted, pairs[i].a, pairs[i].b) - share) < 1e-12);
    }
    assert_true(fabs(agreement - both / (double)count) < 1e-12);
    assert_true(fabs(ceiling - best / (double)count) < 1e-12);
    panel_destroy(p);
}

static void test_votes_are_deterministic(void **state) {
    (void)state;
    panel *p = draw_panel(1, 16), *same = draw_panel(1, 16), *other = draw_panel(2, 16);
    int different = 0, repeated = 0;
    for (uint64_t i = 0; i < 400; i++) {
        const uint32_t l = (uint32_t)(i % 16);
        const int a = (int)(i % CLIPS), b = (int)((i * 7 + 1) % CLIPS);
        const panel_vote vote = panel_compare(p, l, &wanted[a], &clips[a], &clips[b], i);
        assert_int_equal(vote, panel_compare(same, l, &wanted[a], &clips[a], &clips[b], i));
        assert_int_equal(panel_rate(p, l, &wanted[a], &clips[a], i),
                         panel_rate(same, l, &wanted[a], &clips[a], i));
        different += vote != panel_compare(other, l, &wanted[a], &clips[a], &clips[b], i);
        repeated += vote != panel_compare(p, l, &wanted[a], &clips[a], &clips[b], i + 1000);
        assert_true(panel_utility(p, l, &wanted[a], &clips[a]) !=
                    panel_utility(other, l, &wanted[a], &clips[a]));
    }
    assert_true(different > 40);
    assert_true(repeated > 40);
    panel_destroy(p);
    panel_destroy(same);
    panel_destroy(other);
}

static void test_likelihood_of_votes(void **state) {
    (void)state;
    enum { DRAWS = 20000 };
    panel *p = draw_panel(4, 1);
    double probability[PANEL_VOTES], sum = 0.0;
    panel_vote_probabilities(p, 0, &wanted[0], &clips[0], &clips[1], probability);
    const double d = panel_utility(p, 0, &wanted[0], &clips[0]) - panel_utility(p, 0, &wanted[0], &clips[1]);
    const double z = exp(d / 2) + exp(-d / 2) + PANEL_TIE;
    assert_true(fabs(probability[VOTE_A] - exp(d / 2) / z) < 1e-12);
    assert_true(fabs(probability[VOTE_B] - exp(-d / 2) / z) < 1e-12);
    assert_true(fabs(probability[VOTE_A] / (probability[VOTE_A] + probability[VOTE_B]) -
                     panel_preference_probability(p, 0, &wanted[0], &clips[0], &clips[1])) < 1e-12);
    int count[PANEL_VOTES] = {0};
    for (uint64_t i = 0; i < DRAWS; i++)
        count[panel_compare(p, 0, &wanted[0], &clips[0], &clips[1], i << 20)]++;
    for (int v = 0; v < PANEL_VOTES; v++) {
        sum += probability[v];
        const double deviation = sqrt(probability[v] * (1.0 - probability[v]) / DRAWS);
        assert_true(fabs((double)count[v] / DRAWS - probability[v]) < 4.0 * deviation);
    }
    assert_true(fabs(sum - 1.0) < 1e-12);
    // The same votes the other way round.
    double swapped[PANEL_VOTES];
    panel_vote_probabilities(p, 0, &wanted[0], &clips[1], &clips[0], swapped);
    assert_true(fabs(swapped[VOTE_A] - probability[VOTE_B]) < 1e-12);
    assert_true(fabs(swapped[VOTE_TIE] - probability[VOTE_TIE]) < 1e-12);
    panel_destroy(p);
}

// Of random ratings, each of a clip and of the same clip changed: how much the mean falls.
static double fall_of_ratings(heard_clip (*change)(heard_clip), int quality) {
    panel *p = draw_panel(6, 32);
    double fall = 0.0;
    enum { COUNT = 2000 };
    for (uint64_t i = 0; i < COUNT; i++) {
        const heard_clip clip = clips[i % CLIPS], changed = change(clip);
        const uint32_t l = (uint32_t)(i % 32);
        const wanted_attributes *promise = &wanted[i % CLIPS];
        const int before = quality ? panel_rate_quality(p, l, &clip, i) : panel_rate(p, l, promise, &clip, i);
        const int after =
            quality ? panel_rate_quality(p, l, &changed, i) : panel_rate(p, l, promise, &changed, i);
        assert_in_range(before, 1, 5);
        assert_true(after <= before); // the same random numbers
        fall += (double)(before - after) / COUNT;
    }
    panel_destroy(p);
    return fall;
}

static heard_clip noisy(heard_clip clip) {
    clip.measure[HEARD_NOISE] = 0.0f; // bad in this calibration
    return clip;
}

static heard_clip silent(heard_clip clip) {
    clip.measure[HEARD_SILENCE] = 2.0f;
    return clip;
}

static heard_clip stuck(heard_clip clip) {
    clip.measure[HEARD_STUCK] = 2.0f;
    return clip;
}

static void test_bad_sound_is_rated_lower(void **state) {
    (void)state;
    assert_true(fall_of_ratings(noisy, 1) > 0.2);
    assert_true(fall_of_ratings(noisy, 0) > 0.02);
    assert_true(fall_of_ratings(silent, 1) > 1.5);
    assert_true(fall_of_ratings(silent, 0) > 1.5);
    assert_true(fall_of_ratings(stuck, 0) > 1.5);
}

// A collapsed clip cannot win by any extreme of its measures, even by a perfect match.
static void test_collapse_cannot_win(void **state) {
    (void)state;
    panel *p = draw_panel(7, 64);
    heard_clip fake = {0};
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        if (wanted[0].value[a] >= 0)
            fake.probability[a][wanted[0].value[a]] = 1.0f;
    for (int m = 0; m < HEARD_MEASURES; m++)
        fake.measure[m] = calibration.ramp[m].good;
    heard_clip perfect = fake;
    fake.measure[HEARD_SILENCE] = 2.0f;
    for (uint32_t l = 0; l < 64; l++) {
        double worst = INFINITY;
        for (int i = 0; i < CLIPS; i++)
            worst = fmin(worst, panel_utility(p, l, &wanted[0], &clips[i]));
        assert_true(panel_utility(p, l, &wanted[0], &perfect) > worst);
        assert_true(panel_utility(p, l, &wanted[0], &fake) < worst);
    }
    panel_destroy(p);
}

// What cannot be heard has no weight, and neither has what is not promised.
static void test_unreliable_attributes_have_no_weight(void **state) {
    (void)state;
    panel *p = draw_panel(8, 8);
    for (int i = 0; i < CLIPS; i++) {
        heard_clip changed = clips[i];
        memset(changed.probability[HEARD_MODE], 0, sizeof changed.probability[HEARD_MODE]);
        for (int a = 0; a < HEARD_ATTRIBUTES; a++)
            if (wanted[i].value[a] < 0)
                changed.probability[a][0] = 0.5f;
        for (uint32_t l = 0; l < 8; l++)
            assert_true(panel_utility(p, l, &wanted[i], &changed) ==
                        panel_utility(p, l, &wanted[i], &clips[i]));
    }
    panel_destroy(p);
}

static void test_wrong_use_is_refused(void **state) {
    (void)state;
    panel *p;
    assert_int_equal(panel_create(&p, &calibration, 1, 0), STATUS_FAILED);
    assert_null(p);
    panel_calibration c = blank_calibration();
    assert_int_equal(panel_calibrate(&c, clips, wanted, CLIPS, GROUP, clips, CLIPS, 0.999), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "listeners.agreement"));
    assert_int_equal(panel_calibrate(&c, clips, wanted, CLIPS, 5, clips, CLIPS, 0.6), STATUS_FAILED);
    assert_int_equal(panel_calibrate(&c, clips, wanted, CLIPS, 1, clips, CLIPS, 0.6), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "groups of 1"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agreement_is_reached),
        cmocka_unit_test(test_agreement_and_ceiling_by_brute_force),
        cmocka_unit_test(test_votes_are_deterministic),
        cmocka_unit_test(test_likelihood_of_votes),
        cmocka_unit_test(test_bad_sound_is_rated_lower),
        cmocka_unit_test(test_collapse_cannot_win),
        cmocka_unit_test(test_unreliable_attributes_have_no_weight),
        cmocka_unit_test(test_wrong_use_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
