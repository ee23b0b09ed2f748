// Bad recordings: each kind does what it says, by how much it says, and the same every time.
#include "data/recording.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { RATE = 16000, SAMPLES = 2 * RATE };

static float tone[SAMPLES], heard[SAMPLES], again[SAMPLES];

static void play(double frequency, float amplitude) {
    for (int i = 0; i < SAMPLES; i++)
        tone[i] = amplitude * (float)sin(2.0 * 3.14159265358979 * frequency * i / RATE);
    memcpy(heard, tone, sizeof tone);
}

static void damage(recording kind, float severity, float *audio) {
    philox_stream draws = {.key = 7, .purpose = 1};
    recording_damage(kind, severity, RATE, audio, SAMPLES, &draws);
}

static double level(const float *audio) {
    double sum = 0.0;
    for (int i = 0; i < SAMPLES; i++)
        sum += (double)audio[i] * (double)audio[i];
    return sqrt(sum / SAMPLES);
}

// The part of `audio` along the tone.
static double tone_level(const float *audio) {
    double product = 0.0, square = 0.0;
    for (int i = 0; i < SAMPLES; i++) {
        product += (double)audio[i] * (double)tone[i];
        square += (double)tone[i] * (double)tone[i];
    }
    return product / sqrt(square * SAMPLES);
}

static void test_noise(void **state) {
    (void)state;
    for (int severity = 0; severity <= 1; severity++) {
        play(440.0, 0.2f);
        damage(RECORDING_NOISY, (float)severity, heard);
        const double tonal = tone_level(heard), all = level(heard);
        const double ratio = 20.0 * log10(tonal / sqrt(all * all - tonal * tonal));
        assert_true(fabs(ratio - (severity ? 3.0 : 20.0)) < 0.2);
        assert_true(fabs(all / level(tone) - 1.0) < 0.001);
    }
}

// Two second-order sections: 6 dB down at the cutoff, 24 dB an octave above it.
static void test_low_pass(void **state) {
    (void)state;
    const double frequencies[] = {50.0, 500.0, 1000.0};
    double gain[3];
    for (int i = 0; i < 3; i++) { // a mix, as the level of a single tone is restored
        play(frequencies[i], 0.1f);
        for (int j = 0; j < SAMPLES; j++)
            heard[j] += 0.1f * (float)sin(2.0 * 3.14159265358979 * 20.0 * j / RATE);
        damage(RECORDING_MUFFLED, 1.0f, heard);
        const double low = sqrt(fmax(level(heard) * level(heard) - pow(tone_level(heard), 2.0), 1e-12));
        gain[i] = 20.0 * log10(fabs(tone_level(heard)) / low);
    }
    assert_true(fabs(gain[0]) < 3.0);   // passes
    assert_true(gain[2] < -20.0);       // an octave above
    assert_true(gain[0] > gain[1] + 3); // at the cutoff, phase apart
}

static void test_limit(void **state) {
    (void)state;
    play(440.0, 0.2f);
    damage(RECORDING_DISTORTED, 1.0f, heard);
    double peak = 0.0;
    int at_peak = 0;
    for (int i = 0; i < SAMPLES; i++)
        peak = fmax(peak, fabs((double)heard[i]));
    for (int i = 0; i < SAMPLES; i++)
        at_peak += fabs((double)heard[i]) > 0.999 * peak;
    assert_true(at_peak > SAMPLES * 9 / 10); // 24 dB over: nearly a square wave
    assert_true(fabs(level(heard) / level(tone) - 1.0) < 0.001);
}

static void test_gaps(void **state) {
    (void)state;
    double silent[2];
    for (int severity = 0; severity <= 1; severity++) {
        play(440.0, 0.2f);
        damage(RECORDING_BROKEN, (float)severity, heard);
        int zeros = 0;
        for (int i = 0; i < SAMPLES; i++) {
            zeros += heard[i] == 0.0f && tone[i] != 0.0f;
            assert_true(heard[i] == 0.0f || heard[i] == tone[i]);
        }
        silent[severity] = (double)zeros / RATE;
    }
    assert_true(silent[0] >= 0.02 && silent[0] <= 0.16); // one gap
    assert_true(silent[1] > silent[0] && silent[1] <= 5 * 0.16);
}

static void test_repeats_and_stays_in_range(void **state) {
    (void)state;
    for (recording kind = RECORDING_CLEAN; kind < RECORDINGS; kind++) {
        play(440.0, 0.95f);
        memcpy(again, tone, sizeof tone);
        damage(kind, 0.8f, heard);
        damage(kind, 0.8f, again);
        assert_memory_equal(heard, again, sizeof heard);
        for (int i = 0; i < SAMPLES; i++)
            assert_true(fabsf(heard[i]) <= 1.0f);
        assert_int_equal(memcmp(heard, tone, sizeof tone) == 0, kind == RECORDING_CLEAN);
    }
    memset(heard, 0, sizeof heard); // silence stays silence
    damage(RECORDING_DISTORTED, 1.0f, heard);
    assert_true(level(heard) == 0.0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_low_pass),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_repeats_and_stays_in_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
