#include "core/hearing.h"

#include "core/detector.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmocka.h>

enum { RATE = 16000, SAMPLES = 3 * RATE };

static hearing *subject;
static void *scratch;
static float *features;
static float audio[SAMPLES];

static int setup(void **state) {
    (void)state;
    if (hearing_create(&subject, RATE, SAMPLES) != STATUS_OK ||
        memory_allocate(&scratch, hearing_scratch_bytes(subject), "scratch") != STATUS_OK)
        return -1;
    features = malloc(sizeof(float) * hearing_feature_count(subject));
    return features == NULL ? -1 : 0;
}

static int teardown(void **state) {
    (void)state;
    hearing_destroy(subject);
    memory_free(scratch);
    free(features);
    return 0;
}

static float hear(heard_measure measure) {
    float measures[HEARD_MEASURES];
    hearing_extract(subject, audio, features, measures, scratch);
    return measures[measure];
}

// A decaying note of some harmonics, added to `audio`.
static void add_note(double start, double seconds, double hertz, double loudness) {
    const size_t first = (size_t)(start * RATE), last = (size_t)((start + seconds) * RATE);
    for (size_t t = first; t < last && t < SAMPLES; t++) {
        const double age = (double)(t - first) / RATE;
        double value = 0.0;
        for (int h = 1; h <= 4; h++)
            value += sin(2.0 * M_PI * hertz * h * age) / h;
        audio[t] += (float)(loudness * exp(-3.0 * age) * fmin(1.0, age * 200.0) * value);
    }
}

static double semitones(int steps) {
    return 261.63 * exp2(steps / 12.0);
}

// Notes of a scale, two a second.
static void play_melody(void) {
    static const int steps[] = {0, 4, 7, 12, 9, 5, 2, 7};
    memset(audio, 0, sizeof audio);
    for (int i = 0; i < 6; i++)
        add_note(0.5 * i, 0.6, semitones(steps[i]), 0.2);
}

static void add_noise(float level, uint32_t seed) {
    philox_stream draws = {.key = seed, .purpose = 1};
    for (size_t t = 0; t < SAMPLES; t++)
        audio[t] += level * (philox_next_uniform(&draws) - 0.5f);
}

static void test_noise_is_heard(void **state) {
    (void)state;
    float before = -1.0f;
    for (int i = 0; i < 5; i++) {
        play_melody();
        add_noise(i == 0 ? 0.0f : 0.01f * (float)(1 << (2 * i)), 3);
        const float now = hear(HEARD_NOISE);
        assert_true(now > before);
        before = now;
    }
    memset(audio, 0, sizeof audio);
    add_noise(0.3f, 4);
    assert_true(hear(HEARD_NOISE) > 0.9f);
}

static void test_limit_is_heard(void **state) {
    (void)state;
    play_melody();
    const float before = hear(HEARD_CLIPPING);
    for (size_t t = 0; t < SAMPLES; t++)
        audio[t] = fminf(fmaxf(20.0f * audio[t], -0.3f), 0.3f);
    assert_true(hear(HEARD_CLIPPING) < 0.6f * before);
}

static void test_low_pass_is_heard(void **state) {
    (void)state;
    play_melody();
    add_noise(0.02f, 5);
    const float before = hear(HEARD_BANDWIDTH);
    float low = 0.0f, lower = 0.0f;
    for (size_t t = 0; t < SAMPLES; t++) {
        low += 0.2f * (audio[t] - low);
        lower += 0.2f * (low - lower);
        audio[t] = lower;
    }
    assert_true(hear(HEARD_BANDWIDTH) < before - 0.3f);
}

static void test_gaps_and_silence_are_heard(void **state) {
    (void)state;
    play_melody();
    assert_true(hear(HEARD_DROPOUTS) == 0.0f);
    for (int gap = 0; gap < 3; gap++)
        memset(audio + RATE / 4 + gap * RATE, 0, sizeof(float) * RATE / 12);
    assert_true(fabsf(hear(HEARD_DROPOUTS) - 1.0f) < 0.01f);
    play_melody();
    const float before = hear(HEARD_SILENCE);
    memset(audio + SAMPLES / 2, 0, sizeof(float) * SAMPLES / 2);
    assert_true(before < 0.1f);
    assert_true(fabsf(hear(HEARD_SILENCE) - 0.5f) < 0.05f);
}

static void test_loops_are_heard(void **state) {
    (void)state;
    play_melody();
    const float playing = hear(HEARD_STUCK), moving = hear(HEARD_MOVEMENT);
    const size_t loop = RATE / 5;
    for (size_t t = loop; t < SAMPLES; t++)
        audio[t] = audio[t - loop];
    assert_true(playing < 0.5f);
    assert_true(hear(HEARD_STUCK) > 0.9f);
    assert_true(hear(HEARD_MOVEMENT) < 0.3f * moving);
}

static void test_glitches_are_heard(void **state) {
    (void)state;
    play_melody();
    const float before = hear(HEARD_GLITCHES);
    philox_stream draws = {.key = 9, .purpose = 2};
    for (size_t frame = 3; frame < SAMPLES / 640; frame += 5)
        for (size_t t = frame * 640; t < (frame + 1) * 640; t++)
            audio[t] = 0.5f * (philox_next_uniform(&draws) - 0.5f);
    assert_true(hear(HEARD_GLITCHES) > 2.0f * before);
}

// Clicks, each some milliseconds off its beat.
static void play_clicks(double beats_per_minute, double off, uint32_t seed) {
    philox_stream draws = {.key = seed, .purpose = 6};
    memset(audio, 0, sizeof audio);
    const double beat = 60.0 / beats_per_minute, first = 0.5 * beat * (double)philox_next_uniform(&draws);
    for (double at = first; at < 3.0; at += beat) {
        const double moved = at + off * ((double)philox_next_uniform(&draws) - 0.5);
        add_note(fmax(moved, 0.0), 0.1, semitones(12 + (int)philox_next_below(&draws, 12)), 0.3);
    }
    add_noise(0.002f, seed);
}

static void test_rhythm_is_heard(void **state) {
    (void)state;
    play_clicks(120.0, 0.0, 1);
    const float even = hear(HEARD_REGULARITY);
    play_clicks(120.0, 0.45, 1);
    assert_true(even > 0.7f);
    assert_true(hear(HEARD_REGULARITY) < 0.7f * even);
}

static void test_tempo_is_detected(void **state) {
    (void)state;
    enum { CLIPS = 90, HELD_OUT = 30, CLASSES = 3 };
    static const double slowest[CLASSES] = {62.0, 100.0, 146.0}, range[CLASSES] = {14.0, 16.0, 22.0};
    const size_t width = hearing_feature_count(subject);
    float *all = malloc(sizeof(float) * width * (CLIPS + HELD_OUT)), *mean = malloc(sizeof(float) * width),
          *scale = malloc(sizeof(float) * width), *weights = calloc((width + 1) * CLASSES, sizeof(float)),
          *standard = malloc(sizeof(float) * width);
    int8_t labels[CLIPS + HELD_OUT], guesses[CLIPS + HELD_OUT];
    float measures[HEARD_MEASURES];
    philox_stream draws = {.key = 5, .purpose = 5};
    for (int i = 0; i < CLIPS + HELD_OUT; i++) {
        labels[i] = (int8_t)(i % CLASSES);
        play_clicks(slowest[i % CLASSES] + range[i % CLASSES] * (double)philox_next_uniform(&draws), 0.01,
                    (uint32_t)i);
        hearing_extract(subject, audio, all + (size_t)i * width, measures, scratch);
    }
    detector_target target = {CLASSES, labels, weights};
    detector_standardise(all, CLIPS, width, mean, scale);
    assert_int_equal(detector_fit(all, CLIPS, width, mean, scale, &target, 1, 0.02f, 40), STATUS_OK);
    for (int i = 0; i < CLIPS + HELD_OUT; i++) {
        float probability[CLASSES];
        detector_apply_standard(all + (size_t)i * width, width, mean, scale, standard);
        detector_apply(standard, width, weights, CLASSES, probability);
        assert_true(fabsf(probability[0] + probability[1] + probability[2] - 1.0f) < 1e-5f);
        guesses[i] = probability[1] > probability[0] ? 1 : 0;
        if (probability[2] > probability[guesses[i]])
            guesses[i] = 2;
    }
    assert_true(detector_measure(guesses + CLIPS, labels + CLIPS, HELD_OUT, CLASSES).accuracy >= 0.85);
    free(all);
    free(mean);
    free(scale);
    free(weights);
    free(standard);
}

static void test_everything_is_finite(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        for (size_t t = 0; t < SAMPLES; t++)
            audio[t] = kind == 0 ? 0.0f : kind == 1 ? 1.0f : kind == 2 ? (t % 2 == 0 ? 1.0f : -1.0f) : 1e-30f;
        float measures[HEARD_MEASURES];
        hearing_extract(subject, audio, features, measures, scratch);
        for (size_t i = 0; i < hearing_feature_count(subject); i++)
            assert_true(isfinite(features[i]));
        for (int m = 0; m < HEARD_MEASURES; m++)
            assert_true(isfinite(measures[m]));
    }
}

static void test_lengths_and_rates(void **state) {
    (void)state;
    hearing *other;
    assert_int_equal(hearing_create(&other, RATE, RATE - 1), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "a second or more"));
    assert_int_equal(hearing_create(&other, 4000, 8000), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "4000"));
    // One that no hop divides.
    const uint32_t rates[] = {8000, 22050, 48000};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        const size_t samples = rates[i] + 777;
        assert_int_equal(hearing_create(&other, rates[i], samples), STATUS_OK);
        void *memory;
        float *sound = calloc(samples, sizeof(float)), measures[HEARD_MEASURES];
        float *out = malloc(sizeof(float) * hearing_feature_count(other));
        assert_int_equal(memory_allocate(&memory, hearing_scratch_bytes(other), "scratch"), STATUS_OK);
        sound[samples - 1] = 1.0f;
        hearing_extract(other, sound, out, measures, memory);
        assert_true(measures[HEARD_SILENCE] > 0.9f);
        memory_free(memory);
        free(sound);
        free(out);
        hearing_destroy(other);
    }
}

// Two normal clouds and a third label that the features do not tell.
static void test_fit_is_the_optimum(void **state) {
    (void)state;
    enum { COUNT = 200, WIDTH = 150, CLASSES = 3 }; // more columns than two blocks of the factor
    float values[COUNT * WIDTH], mean[WIDTH], scale[WIDTH], weights[(WIDTH + 1) * CLASSES];
    int8_t labels[COUNT];
    philox_stream draws = {.key = 8, .purpose = 8};
    for (int i = 0; i < COUNT; i++) {
        labels[i] = (int8_t)philox_next_below(&draws, CLASSES);
        for (int d = 0; d < WIDTH; d++)
            values[i * WIDTH + d] =
                d == 4 ? 2.0f : philox_next_uniform(&draws) + (labels[i] == d ? 0.5f : 0.0f);
        if (i % 10 == 0)
            labels[i] = -1;
    }
    const float penalty = 0.05f;
    detector_target target = {CLASSES, labels, weights};
    detector_standardise(values, COUNT, WIDTH, mean, scale);
    assert_true(scale[4] == 0.0f);
    assert_int_equal(detector_fit(values, COUNT, WIDTH, mean, scale, &target, 1, penalty, 300), STATUS_OK);
    double gradient[(WIDTH + 1) * CLASSES] = {0};
    for (int i = 0; i < COUNT; i++) {
        float x[WIDTH + 1], probability[CLASSES];
        if (labels[i] < 0)
            continue;
        detector_apply_standard(values + i * WIDTH, WIDTH, mean, scale, x);
        x[WIDTH] = 1.0f;
        detector_apply(x, WIDTH, weights, CLASSES, probability);
        for (int d = 0; d <= WIDTH; d++)
            for (int k = 0; k < CLASSES; k++)
                gradient[d * CLASSES + k] +=
                    (double)x[d] * ((double)probability[k] - (labels[i] == k)) / COUNT;
    }
    for (int j = 0; j < (WIDTH + 1) * CLASSES; j++) {
        const double penalised = j < WIDTH * CLASSES ? (double)(penalty * weights[j]) : 0.0;
        assert_true(fabs(gradient[j] + penalised) < 1e-4);
    }
}

static void test_fit_ignores_threads(void **state) {
    (void)state;
#ifdef _OPENMP
    enum { COUNT = 64, WIDTH = 70, TARGETS = 3 };
    static float values[COUNT * WIDTH], mean[WIDTH], scale[WIDTH], weights[2][TARGETS][(WIDTH + 1) * 4];
    static int8_t labels[TARGETS][COUNT];
    philox_stream draws = {.key = 8, .purpose = 9};
    for (int i = 0; i < COUNT * WIDTH; i++)
        values[i] = philox_next_uniform(&draws);
    for (int i = 0; i < TARGETS * COUNT; i++)
        labels[i / COUNT][i % COUNT] = (int8_t)philox_next_below(&draws, 4);
    detector_standardise(values, COUNT, WIDTH, mean, scale);
    for (int run = 0; run < 2; run++) {
        detector_target targets[TARGETS];
        for (int t = 0; t < TARGETS; t++)
            targets[t] = (detector_target){4, labels[t], weights[run][t]};
        omp_set_num_threads(run == 0 ? 1 : 3);
        assert_int_equal(detector_fit(values, COUNT, WIDTH, mean, scale, targets, TARGETS, 0.1f, 10),
                         STATUS_OK);
    }
    assert_memory_equal(weights[0], weights[1], sizeof weights[0]);
#endif
}

static void test_kappa(void **state) {
    (void)state;
    // 20 both yes, 5 yes / no, 10 no / yes, 15 both no: the textbook table, kappa 0.4.
    int8_t guesses[52], labels[52];
    for (int i = 0; i < 50; i++) {
        guesses[i] = i < 25;
        labels[i] = i < 20 || (i >= 25 && i < 35);
    }
    guesses[50] = guesses[51] = 0;
    labels[50] = labels[51] = -1;
    const detector_score score = detector_measure(guesses, labels, 52, 2);
    assert_int_equal(score.count, 50);
    assert_true(fabs(score.accuracy - 0.7) < 1e-12);
    assert_true(fabs(score.chance - 0.5) < 1e-12);
    assert_true(fabs(score.kappa - 0.4) < 1e-12);
    assert_true(score.error > 0.1 && score.error < 0.15);
    assert_int_equal(detector_measure(guesses, labels + 50, 2, 2).count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_is_heard),
        cmocka_unit_test(test_limit_is_heard),
        cmocka_unit_test(test_low_pass_is_heard),
        cmocka_unit_test(test_gaps_and_silence_are_heard),
        cmocka_unit_test(test_loops_are_heard),
        cmocka_unit_test(test_glitches_are_heard),
        cmocka_unit_test(test_rhythm_is_heard),
        cmocka_unit_test(test_tempo_is_detected),
        cmocka_unit_test(test_everything_is_finite),
        cmocka_unit_test(test_lengths_and_rates),
        cmocka_unit_test(test_fit_is_the_optimum),
        cmocka_unit_test(test_fit_ignores_threads),
        cmocka_unit_test(test_kappa),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
