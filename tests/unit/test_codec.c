#include "core/code_embedding.h"
#include "core/codec.h"
#include "core/codec_train.h"
#include "core/griffin_lim.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmocka.h>

enum { RATE = 16000, CLIPS = 60, HELD_OUT = 6, SAMPLES = 2 * RATE, FRAMES = 50, LEVELS = 7 };

static int16_t *music; // [CLIPS + HELD_OUT, SAMPLES]
static codec *subject;

static void set_threads(int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}

// Decaying harmonic notes of a scale over a bass, with bursts of noise on the beat.
static void compose(uint32_t piece, int16_t *out) {
    static const int scale[] = {0, 2, 4, 5, 7, 9, 11};
    philox_stream random = {.key = 77, .purpose = piece};
    static float mix[SAMPLES];
    memset(mix, 0, sizeof mix);
    uint32_t harmonics = 1 + philox_next_below(&random, 6), key = philox_next_below(&random, 12);
    for (size_t start = 0; start < SAMPLES; start += RATE / 4) {
        double pitch =
            48 + (double)key + scale[philox_next_below(&random, 7)] + 12 * philox_next_below(&random, 2);
        double hertz = 440.0 * exp2((pitch - 69.0) / 12.0),
               loudness = 0.05 + 0.1 * philox_next_uniform(&random);
        for (size_t t = start; t < SAMPLES; t++) {
            double age = (double)(t - start) / RATE, value = 0;
            for (uint32_t h = 1; h <= harmonics; h++)
                value += sin(2 * M_PI * hertz * h * age) / h;
            mix[t] += (float)(loudness * exp(-4.0 * age) * fmin(1.0, age * 200.0) * value);
            if (age < 0.05 && piece % 2 == 0)
                mix[t] += (float)(0.1 * (1.0 - age / 0.05)) * (philox_next_uniform(&random) - 0.5f);
        }
    }
    for (size_t t = 0; t < SAMPLES; t++)
        out[t] = (int16_t)lrintf(32767.0f * fmaxf(-1.0f, fminf(1.0f, mix[t])));
}

static codec_train_settings small_settings(void) {
    codec_train_settings settings = codec_train_default();
    settings.config.acoustic_codebook = settings.config.semantic_codebook = 64;
    settings.config.dimension = 48;
    settings.iterations = 6;
    return settings;
}

static int setup(void **state) {
    (void)state;
    music = malloc((CLIPS + HELD_OUT) * SAMPLES * sizeof *music);
    if (music == NULL)
        return -1;
    for (uint32_t clip = 0; clip < CLIPS + HELD_OUT; clip++)
        compose(clip, music + (size_t)clip * SAMPLES);
    codec_train_settings settings = small_settings();
    return codec_train(&subject, &settings, music, CLIPS, SAMPLES) == STATUS_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    codec_destroy(subject);
    free(music);
    return 0;
}

static const float *held_out(int clip) {
    static float audio[SAMPLES];
    codec_from_pcm(music + (size_t)(CLIPS + clip) * SAMPLES, SAMPLES, audio);
    return audio;
}

static void test_training_ignores_threads(void **state) {
    (void)state;
    codec_train_settings settings = small_settings();
    codec_tensor a[CODEC_TENSORS], b[CODEC_TENSORS];
    codec_get_tensors(subject, a);
    for (int threads = 1; threads <= 2; threads++) {
        codec *again;
        set_threads(threads);
        assert_int_equal(codec_train(&again, &settings, music, CLIPS, SAMPLES), STATUS_OK);
        codec_get_tensors(again, b);
        for (int i = 0; i < CODEC_TENSORS; i++)
            assert_memory_equal(a[i].data, b[i].data, codec_tensor_elements(&a[i]) * sizeof(float));
        codec_destroy(again);
    }
}

static void test_error_falls_with_levels(void **state) {
    (void)state;
    const codec_config *config = codec_get_config(subject);
    size_t values = (size_t)FRAMES * config->columns * config->mel_bands;
    float *truth = malloc(values * sizeof *truth), *described = malloc(values * sizeof *truth);
    double error[LEVELS + 1] = {0};
    for (int clip = 0; clip < HELD_OUT; clip++) {
        uint16_t tokens[FRAMES * LEVELS];
        const float *audio = held_out(clip);
        assert_int_equal(codec_encode(subject, audio, SAMPLES, tokens), STATUS_OK);
        assert_int_equal(codec_analyse(subject, audio, SAMPLES, truth), STATUS_OK);
        for (uint32_t levels = 1; levels <= LEVELS; levels++) {
            assert_int_equal(codec_describe_tokens(subject, tokens, FRAMES, levels, described), STATUS_OK);
            for (size_t i = 0; i < values; i++)
                error[levels] += fabs((double)truth[i] - described[i]) / (double)values / HELD_OUT;
        }
    }
    for (uint32_t levels = 2; levels <= LEVELS; levels++)
        assert_true(error[levels] < error[levels - 1]);
    assert_true(error[LEVELS] < 0.6 * error[1]);
    free(truth);
    free(described);
}

static void survival(int iterations, double kept[LEVELS]) {
    memset(kept, 0, LEVELS * sizeof *kept);
    static float audio[SAMPLES];
    for (int clip = 0; clip < HELD_OUT; clip++) {
        uint16_t tokens[FRAMES * LEVELS], again[FRAMES * LEVELS];
        assert_int_equal(codec_encode(subject, held_out(clip), SAMPLES, tokens), STATUS_OK);
        assert_int_equal(codec_decode(subject, tokens, FRAMES, iterations, audio), STATUS_OK);
        assert_int_equal(codec_encode(subject, audio, SAMPLES, again), STATUS_OK);
        for (size_t i = 0; i < FRAMES * LEVELS; i++)
            kept[i % LEVELS] += (tokens[i] == again[i]) / (double)(FRAMES * HELD_OUT);
    }
}

static void test_tokens_survive_decoding(void **state) {
    (void)state;
    double measured[LEVELS], listened[LEVELS], measured_mean = 0, listened_mean = 0;
    survival(CODEC_ITERATIONS_MEASURE, measured);
    survival(CODEC_ITERATIONS_LISTEN, listened);
    for (int level = 1; level < LEVELS; level++) {
        measured_mean += measured[level] / (LEVELS - 1);
        listened_mean += listened[level] / (LEVELS - 1);
    }
    assert_true(measured[1] >= 0.90);
    assert_true(measured[3] >= 0.65);
    assert_true(measured_mean >= 0.60);
    assert_true(listened_mean > measured_mean);
}

// The decoded clip has the loudness and the spectrum of what was encoded.
static void test_decoded_audio_resembles(void **state) {
    (void)state;
    static float audio[SAMPLES];
    uint16_t tokens[FRAMES * LEVELS];
    const codec_config *config = codec_get_config(subject);
    size_t values = (size_t)FRAMES * config->columns * config->mel_bands;
    float *before = malloc(values * sizeof *before), *after = malloc(values * sizeof *before);
    for (int clip = 0; clip < HELD_OUT; clip++) {
        const float *original = held_out(clip);
        assert_int_equal(codec_encode(subject, original, SAMPLES, tokens), STATUS_OK);
        assert_int_equal(codec_decode(subject, tokens, FRAMES, CODEC_ITERATIONS_LISTEN, audio), STATUS_OK);
        double energy = 0, decoded_energy = 0, distance = 0;
        for (size_t t = 0; t < SAMPLES; t++) {
            energy += original[t] * original[t];
            decoded_energy += audio[t] * audio[t];
            assert_true(fabsf(audio[t]) <= 1.0f);
        }
        assert_true(decoded_energy > 0.5 * energy && decoded_energy < 2.0 * energy);
        assert_int_equal(codec_analyse(subject, original, SAMPLES, before), STATUS_OK);
        assert_int_equal(codec_analyse(subject, audio, SAMPLES, after), STATUS_OK);
        for (size_t i = 0; i < values; i++)
            distance += fabs((double)before[i] - after[i]) / (double)values;
        assert_true(distance < 0.6);
    }
    free(before);
    free(after);
}

static void test_limiter(void **state) {
    (void)state;
    static float audio[4000], kept[4000];
    void *scratch = malloc(12 * 4000);
    for (size_t t = 0; t < 4000; t++)
        kept[t] = audio[t] = 0.5f * sinf(0.1f * (float)t);
    limit_peaks(audio, 4000, 80, 0.9f, scratch);
    assert_memory_equal(audio, kept, sizeof audio);
    audio[0] = 3.0f;
    audio[1000] = -7.0f;
    audio[3999] = 1.5f;
    limit_peaks(audio, 4000, 80, 0.9f, scratch);
    for (size_t t = 0; t < 4000; t++)
        assert_true(fabsf(audio[t]) <= 0.9f);
    assert_true(fabsf(audio[1000]) > 0.89f && audio[1000] < 0);
    assert_true(fabsf(audio[500] - kept[500]) < 1e-6f);
    assert_true(fabsf(audio[990]) < 0.2f * 0.5f); // the gain falls ahead of the peak
    free(scratch);
}

// All codes at their loudest still decode within the limit.
static void test_limit_holds_for_any_tokens(void **state) {
    (void)state;
    enum { COUNT = 9 };
    uint16_t tokens[COUNT * LEVELS];
    static float audio[COUNT * 640];
    philox_stream random = {.key = 5};
    for (int trial = 0; trial < 20; trial++) {
        for (size_t i = 0; i < COUNT * LEVELS; i++)
            tokens[i] = (uint16_t)philox_next_below(&random, 64);
        assert_int_equal(codec_decode(subject, tokens, COUNT, 3, audio), STATUS_OK);
        for (size_t t = 0; t < COUNT * 640; t++)
            assert_true(fabsf(audio[t]) <= 1.0f);
    }
}

static void test_lengths(void **state) {
    (void)state;
    assert_int_equal(codec_frame_count(subject, 0), 0);
    assert_int_equal(codec_frame_count(subject, 1), 1);
    assert_int_equal(codec_frame_count(subject, 640), 1);
    assert_int_equal(codec_frame_count(subject, 641), 2);
    static float audio[SAMPLES];
    static const size_t lengths[] = {1, 639, 640, 641, 1920, 5000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        uint16_t tokens[FRAMES * LEVELS];
        size_t frames = codec_frame_count(subject, lengths[i]);
        assert_int_equal(codec_encode(subject, held_out(0), lengths[i], tokens), STATUS_OK);
        audio[frames * 640] = 42.0f;
        assert_int_equal(codec_decode(subject, tokens, frames, 3, audio), STATUS_OK);
        assert_true(audio[frames * 640] == 42.0f);
    }
}

static void test_silence(void **state) {
    (void)state;
    static float silence[SAMPLES], audio[SAMPLES];
    uint16_t tokens[FRAMES * LEVELS];
    memset(silence, 0, sizeof silence);
    assert_int_equal(codec_encode(subject, silence, SAMPLES, tokens), STATUS_OK);
    assert_int_equal(codec_decode(subject, tokens, FRAMES, 6, audio), STATUS_OK);
    for (size_t t = 0; t < SAMPLES; t++)
        assert_true(fabsf(audio[t]) < 0.05f);
    // A codec that has heard nothing but silence.
    codec_train_settings settings = small_settings();
    int16_t *quiet = calloc(4 * SAMPLES, sizeof *quiet);
    codec *deaf;
    assert_int_equal(codec_train(&deaf, &settings, quiet, 4, SAMPLES), STATUS_OK);
    assert_int_equal(codec_encode(deaf, silence, SAMPLES, tokens), STATUS_OK);
    assert_int_equal(codec_decode(deaf, tokens, FRAMES, 6, audio), STATUS_OK);
    for (size_t t = 0; t < SAMPLES; t++)
        assert_true(fabsf(audio[t]) < 1e-3f);
    codec_destroy(deaf);
    free(quiet);
}

// Tables that start from the codes keep the codes' distances, and a frame's sum is that of its vectors.
static void test_embeddings_start_from_codes(void **state) {
    (void)state;
    enum { WIDTH = 512 };
    codec_tensor tensors[CODEC_TENSORS];
    codec_get_tensors(subject, tensors);
    const codec_tensor *acoustic = &tensors[CODEC_TENSOR_CODEBOOKS];
    const size_t count = (size_t)acoustic->shape[1], dimension = (size_t)acoustic->shape[2];
    parameter_list list = {0};
    size_t offset[3];
    for (int level = 0; level < 3; level++) {
        char name[PARAMETER_NAME_MAX];
        snprintf(name, sizeof name, "table.%d.weight", level);
        assert_int_equal(parameter_list_add(&list, name, codec_describe(subject)->codebook_size[level], WIDTH,
                                            INITIALISE_ZEROS, 0.0f, &offset[level]),
                         STATUS_OK);
    }
    float *values = calloc(list.size, sizeof *values);
    assert_int_equal(code_embedding_start(subject, 5, &list, "table", 3, 0.3f, values), STATUS_OK);
    double squares = 0.0;
    for (size_t i = 0; i < (size_t)codec_describe(subject)->codebook_size[0] * WIDTH; i++)
        squares += (double)values[offset[0] + i] * (double)values[offset[0] + i];
    assert_true(fabs(sqrt(squares / codec_describe(subject)->codebook_size[0] / WIDTH) - 0.3) < 0.05);
    // Squared distances of rows over those of vectors: one factor for all pairs of both acoustic levels, to
    // about sqrt(2 / WIDTH).
    double ratio = 0.0;
    int pairs = 0;
    for (size_t i = 1; i < count; i++) {
        const float *a = acoustic->data, *b = acoustic->data + (count + i) * dimension;
        const float *x = values + offset[1], *y = values + offset[2] + i * WIDTH;
        double vectors = 0.0, rows = 0.0;
        for (size_t d = 0; d < dimension; d++)
            vectors += pow((double)(a[d] - b[d]), 2.0);
        for (size_t w = 0; w < WIDTH; w++)
            rows += pow((double)(x[w] - y[w]), 2.0);
        if (vectors < 1e-9)
            continue;
        ratio = pairs++ == 0 ? rows / vectors : ratio;
        assert_true(fabs(rows / vectors / ratio - 1.0) < 0.5);
    }
    assert_true(pairs > 0);
    list.items[2].rows++;
    assert_int_equal(code_embedding_start(subject, 5, &list, "table", 3, 0.3f, values), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "table.2.weight"));
    free(values);
    parameter_list_release(&list);
}

// One projection for all levels of a prefix: a sum of rows is the projection of the sum of the codes.
static void test_prefix_starts_from_codes(void **state) {
    (void)state;
    enum { PREFIX = 3, ENTRIES = 8, DIMENSION = 4, WIDTH = 512 };
    float codebooks[PREFIX * ENTRIES * DIMENSION];
    philox_stream draws = {.key = 9};
    for (size_t i = 0; i < sizeof codebooks / sizeof codebooks[0]; i++)
        codebooks[i] = (philox_next_uniform(&draws) - 0.5f) / (float)(1 + i / (ENTRIES * DIMENSION));
    // The sums of code 1 and of code 2 of all levels are made equal.
    for (size_t d = 0; d < DIMENSION; d++) {
        float difference = 0.0f;
        for (size_t level = 0; level < PREFIX; level++)
            difference += codebooks[(level * ENTRIES + 1) * DIMENSION + d] -
                          codebooks[(level * ENTRIES + 2) * DIMENSION + d];
        codebooks[2 * DIMENSION + d] += difference;
    }
    parameter_list list = {0};
    size_t offset;
    assert_int_equal(parameter_list_add(&list, "prefix.embedding.weight", PREFIX * ENTRIES, WIDTH,
                                        INITIALISE_ZEROS, 0.0f, &offset),
                     STATUS_OK);
    float *values = calloc(list.size, sizeof *values);
    assert_int_equal(
        code_embedding_start_prefix(codebooks, PREFIX, ENTRIES, DIMENSION, 5, &list, 0.7f, values),
        STATUS_OK);
    double squares = 0.0;
    for (size_t i = 0; i < PREFIX * ENTRIES * WIDTH; i++)
        squares += (double)values[offset + i] * (double)values[offset + i];
    assert_true(fabs(sqrt(squares / ENTRIES / WIDTH) / 0.7 - 1.0) < 0.2);
    for (size_t w = 0; w < WIDTH; w++) {
        float first = 0.0f, second = 0.0f;
        for (size_t level = 0; level < PREFIX; level++) {
            first += values[offset + (level * ENTRIES + 1) * WIDTH + w];
            second += values[offset + (level * ENTRIES + 2) * WIDTH + w];
        }
        assert_true(fabsf(first - second) < 1e-5f);
    }
    assert_int_equal(
        code_embedding_start_prefix(codebooks, PREFIX, ENTRIES - 1, DIMENSION, 5, &list, 0.7f, values),
        STATUS_FAILED);
    assert_non_null(strstr(status_message(), "3 levels of 7 codes"));
    free(values);
    parameter_list_release(&list);
}

static void test_same_from_arrays(void **state) {
    (void)state;
    codec_tensor tensors[CODEC_TENSORS];
    codec_get_tensors(subject, tensors);
    codec *copy;
    assert_int_equal(codec_create(&copy, codec_get_config(subject), tensors), STATUS_OK);
    uint16_t a[FRAMES * LEVELS], b[FRAMES * LEVELS];
    assert_int_equal(codec_encode(subject, held_out(1), SAMPLES, a), STATUS_OK);
    assert_int_equal(codec_encode(copy, held_out(1), SAMPLES, b), STATUS_OK);
    assert_memory_equal(a, b, sizeof a);
    codec_destroy(copy);
    tensors[CODEC_TENSOR_BASIS].shape[0]++;
    assert_int_equal(codec_create(&copy, codec_get_config(subject), tensors), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "'basis'"));
    assert_null(copy);
}

static void test_coarse_levels(void **state) {
    (void)state;
    static float coarse[SAMPLES], fine[SAMPLES];
    uint16_t tokens[FRAMES * LEVELS];
    assert_int_equal(codec_encode(subject, held_out(2), SAMPLES, tokens), STATUS_OK);
    assert_int_equal(codec_decode(subject, tokens, FRAMES, 3, fine), STATUS_OK);
    for (size_t f = 0; f < FRAMES; f++)
        tokens[f * LEVELS + 5] = 60000; // not looked at
    assert_int_equal(codec_decode_coarse(subject, tokens, FRAMES, 4, 3, coarse, NULL), STATUS_OK);
    assert_memory_not_equal(coarse, fine, sizeof fine);
}

// What is told of the loudest sample is from before the limiter, which hides it.
static void test_loudest(void **state) {
    (void)state;
    static float audio[SAMPLES];
    uint16_t tokens[FRAMES * LEVELS] = {0};
    float loudest = 0.0f, limited = 0.0f;
    // Level after level, of some codes the one that makes the clip loudest.
    for (size_t level = 0; level < LEVELS; level++) {
        uint16_t best = 0;
        loudest = 0.0f;
        for (uint16_t code = 0; code < 32; code++) {
            float found;
            for (size_t f = 0; f < FRAMES; f++)
                tokens[f * LEVELS + level] = code;
            assert_int_equal(codec_decode_coarse(subject, tokens, FRAMES, LEVELS, 3, audio, &found),
                             STATUS_OK);
            if (found > loudest) {
                loudest = found;
                best = code;
            }
        }
        for (size_t f = 0; f < FRAMES; f++)
            tokens[f * LEVELS + level] = best;
    }
    assert_int_equal(codec_decode_coarse(subject, tokens, FRAMES, LEVELS, 3, audio, &loudest), STATUS_OK);
    for (size_t t = 0; t < SAMPLES; t++)
        limited = fmaxf(limited, fabsf(audio[t]));
    assert_true(limited < 1.0f && loudest > 1.0f);
}

static void test_bad_input(void **state) {
    (void)state;
    static float audio[SAMPLES];
    uint16_t tokens[FRAMES * LEVELS] = {0};
    assert_int_equal(codec_encode(subject, audio, 0, tokens), STATUS_FAILED);
    audio[99] = NAN;
    assert_int_equal(codec_encode(subject, audio, SAMPLES, tokens), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "sample 99 "));
    assert_int_equal(codec_decode(subject, tokens, 0, 6, audio), STATUS_FAILED);
    assert_int_equal(codec_decode(subject, tokens, FRAMES, -1, audio), STATUS_USAGE);
    assert_int_equal(codec_decode_coarse(subject, tokens, FRAMES, 8, 6, audio, NULL), STATUS_USAGE);
    tokens[3 * LEVELS + 2] = 64;
    assert_int_equal(codec_decode(subject, tokens, FRAMES, 6, audio), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "frame 3, level 2"));
    codec *none;
    codec_train_settings settings = small_settings();
    assert_int_equal(codec_train(&none, &settings, music, 0, SAMPLES), STATUS_FAILED);
    assert_int_equal(codec_train(&none, &settings, music, 1, SAMPLES), STATUS_FAILED); // 50 frames, 64 codes
    assert_non_null(strstr(status_message(), "64 clusters"));
    settings.config.window = 1000;
    assert_int_equal(codec_train(&none, &settings, music, CLIPS, SAMPLES), STATUS_USAGE);
    assert_non_null(strstr(status_message(), "window is 1000"));
    settings = small_settings();
    settings.config.acoustic_levels = CODEC_LEVELS_MAX;
    assert_int_equal(codec_train(&none, &settings, music, CLIPS, SAMPLES), STATUS_USAGE);
    assert_non_null(strstr(status_message(), "acoustic_levels is 16"));
    assert_null(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_ignores_threads),
        cmocka_unit_test(test_error_falls_with_levels),
        cmocka_unit_test(test_tokens_survive_decoding),
        cmocka_unit_test(test_decoded_audio_resembles),
        cmocka_unit_test(test_limiter),
        cmocka_unit_test(test_limit_holds_for_any_tokens),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_embeddings_start_from_codes),
        cmocka_unit_test(test_prefix_starts_from_codes),
        cmocka_unit_test(test_same_from_arrays),
        cmocka_unit_test(test_coarse_levels),
        cmocka_unit_test(test_loudest),
        cmocka_unit_test(test_bad_input),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
