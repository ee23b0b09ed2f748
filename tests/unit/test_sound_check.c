// What a listener would complain of: clips made to be clipped, silent, stuck, and histograms of known
// perplexity.
#include "core/sound_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

enum { RATE = 1000, FRAMES = 40, LEVELS = 2, SAMPLES = 1600 }; // 25 frames a second

static void make_varied(float *audio, uint16_t *tokens) {
    for (int i = 0; i < SAMPLES; i++)
        audio[i] = 0.5f * sinf((float)i);
    for (int i = 0; i < FRAMES * LEVELS; i++)
        tokens[i] = (uint16_t)(i * i);
}

static void test_verdicts(void **state) {
    (void)state;
    static float audio[SAMPLES];
    static uint16_t tokens[FRAMES * LEVELS];
    make_varied(audio, tokens);
    sound_check c = sound_check_clip(audio, SAMPLES, 0.5f, RATE, tokens, FRAMES, LEVELS);
    assert_true(!c.clipped && !c.silent && !c.stuck);
    assert_true(fabs(c.rms - 0.5 / sqrt(2.0)) < 1e-3);

    assert_true(sound_check_clip(audio, SAMPLES, 4.1f, RATE, tokens, FRAMES, LEVELS).clipped);
    assert_false(sound_check_clip(audio, SAMPLES, 3.9f, RATE, tokens, FRAMES, LEVELS).clipped);

    make_varied(audio, tokens);
    memset(audio + 100, 0, sizeof(float) * (SAMPLES / 2 + 1));
    c = sound_check_clip(audio, SAMPLES, 0.5f, RATE, tokens, FRAMES, LEVELS);
    assert_true(c.silent && fabs(c.longest_silence - 0.801) < 1e-9);
}

static void test_repeats(void **state) {
    (void)state;
    uint16_t tokens[FRAMES * LEVELS];
    for (int i = 0; i < FRAMES * LEVELS; i++)
        tokens[i] = (uint16_t)(i * i);
    assert_int_equal(sound_check_longest_repeat(tokens, FRAMES, LEVELS, 12), 0);
    // A pattern of three frames from frame 5 on: frames 8 .. 34 repeat what stood three before.
    for (int f = 8; f < 35; f++)
        memcpy(tokens + f * LEVELS, tokens + (f - 3) * LEVELS, sizeof(uint16_t) * LEVELS);
    assert_int_equal(sound_check_longest_repeat(tokens, FRAMES, LEVELS, 12), 27);
    assert_int_equal(sound_check_longest_repeat(tokens, FRAMES, LEVELS, 2), 0);
    assert_true(sound_check_is_stuck(tokens, FRAMES, LEVELS, 25.0));
    assert_false(sound_check_is_stuck(tokens, FRAMES, LEVELS, 5.0)); // half a second is two frames
    tokens[20 * LEVELS + 1]++;                                       // one level of one frame breaks it
    assert_int_equal(sound_check_longest_repeat(tokens, FRAMES, LEVELS, 3), 12);
    assert_false(sound_check_is_stuck(tokens, FRAMES, LEVELS, 25.0));
}

static void test_perplexity(void **state) {
    (void)state;
    const double alike[4] = {5, 5, 5, 5}, one[4] = {0, 9, 0, 0}, none[4] = {0}, half[4] = {3, 0, 3, 0};
    assert_true(fabs(sound_check_perplexity(alike, 4) - 4.0) < 1e-12);
    assert_true(sound_check_perplexity(one, 4) == 1.0);
    assert_true(sound_check_perplexity(none, 4) == 0.0);
    assert_true(fabs(sound_check_perplexity(half, 4) - 2.0) < 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_perplexity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
