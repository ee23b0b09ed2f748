#include "launch/listeners.h"

#include "core/codec_train.h"
#include "data/safetensors.h"
#include "kernels/philox.h"
#include "launch/codec_file.h"
#include "launch/listeners_parts.h"
#include "tests/unit/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmocka.h>

enum {
    RATE = 16000,
    SAMPLES = RATE,
    CLIPS = 40,
    FRAMES = 25,
    CODEC_LEVELS = 4,
    LEVELS = 3,
    CODES = 16,
    HEARD = 6
};

static codec *subject, *stranger;
static listeners *fitted;
static uint16_t tokens[HEARD * FRAMES * LEVELS];

static codec *train(uint64_t seed) {
    static int16_t pcm[CLIPS * SAMPLES];
    philox_stream draws = {.key = seed, .purpose = 1};
    double hertz = 0;
    for (size_t t = 0; t < CLIPS * SAMPLES; t++) {
        if (t % (SAMPLES / 4) == 0)
            hertz = 200.0 * exp2(philox_next_below(&draws, 24) / 12.0);
        const double age = (double)(t % (SAMPLES / 4)) / RATE;
        pcm[t] = (int16_t)(9000.0 * exp(-5.0 * age) * sin(2 * M_PI * hertz * age) +
                           300.0 * ((double)philox_next_uniform(&draws) - 0.5));
    }
    codec_train_settings settings = codec_train_default();
    settings.config.acoustic_levels = CODEC_LEVELS - 1;
    settings.config.acoustic_codebook = settings.config.semantic_codebook = CODES;
    settings.config.dimension = 24;
    settings.iterations = 3;
    codec *out;
    return codec_train(&out, &settings, pcm, CLIPS, SAMPLES) == STATUS_OK ? out : NULL;
}

// Any detectors and a calibration that could be one.
static void fill(listeners *l) {
    philox_stream draws = {.key = 3, .purpose = 3};
    for (size_t d = 0; d < l->width; d++) {
        l->mean[d] = philox_next_uniform(&draws);
        l->scale[d] = 0.5f;
    }
    for (int a = 0; a < HEARD_ATTRIBUTES; a++) {
        l->calibration.reliability[a] = 0.1f * (float)(a % 8);
        for (size_t i = 0; i < (l->width + 1) * (size_t)heard_attribute_classes[a]; i++)
            l->detector[a][i] = 0.02f * (philox_next_uniform(&draws) - 0.5f);
    }
    for (int m = 0; m < HEARD_MEASURES; m++)
        l->calibration.ramp[m] = (panel_ramp){(float)m, (float)m + 0.5f, 0.5f};
    for (int i = 0; i < PANEL_ALARMS; i++)
        l->calibration.alarm[i] = (panel_alarm){0.5f, 0.75f};
    for (int p = 0; p < PANEL_PARTS; p++)
        l->calibration.part[p] = (panel_spread){0.25, 0.125 * (p + 1)};
    l->calibration.overall = (panel_spread){-0.5, 1.5};
    l->calibration.quality = (panel_spread){0.5, 2.5};
    l->calibration.scale = 0.7;
    l->calibration.agreement = 0.6;
    l->calibration.ceiling = 0.69;
}

static int setup(void **state) {
    char identity[DIGEST_HEX];
    if (scratch_setup(state) != 0)
        return -1;
    subject = train(1);
    stranger = train(2);
    if (subject == NULL || stranger == NULL || codec_identify(subject, identity) != STATUS_OK ||
        listeners_create(&fitted, identity, RATE, SAMPLES, FRAMES, LEVELS) != STATUS_OK)
        return -1;
    fill(fitted);
    philox_stream draws = {.key = 4, .purpose = 4};
    for (int i = 0; i < HEARD * FRAMES * LEVELS; i++)
        tokens[i] = (uint16_t)philox_next_below(&draws, CODES);
    return listeners_save(fitted, scratch_path("listeners.safetensors"));
}

static int teardown(void **state) {
    codec_destroy(subject);
    codec_destroy(stranger);
    listeners_destroy(fitted);
    return scratch_teardown(state);
}

static void test_file_keeps_everything(void **state) {
    (void)state;
    listeners *loaded;
    assert_int_equal(listeners_load(&loaded, scratch_path("listeners.safetensors")), STATUS_OK);
    assert_int_equal(listeners_frames(loaded), FRAMES);
    assert_int_equal(listeners_levels(loaded), LEVELS);
    assert_string_equal(listeners_codec(loaded), listeners_codec(fitted));
    assert_memory_equal(listeners_calibration(loaded), listeners_calibration(fitted),
                        sizeof(panel_calibration));
    heard_clip before[HEARD], after[HEARD];
    assert_int_equal(listeners_hear(fitted, subject, tokens, HEARD, FRAMES, LEVELS, LEVELS, before),
                     STATUS_OK);
    assert_int_equal(listeners_hear(loaded, subject, tokens, HEARD, FRAMES, LEVELS, LEVELS, after),
                     STATUS_OK);
    assert_memory_equal(before, after, sizeof before);
    listeners_destroy(loaded);
}

static void test_a_clip_is_heard_alone(void **state) {
    (void)state;
    heard_clip together[HEARD], alone;
#ifdef _OPENMP
    omp_set_num_threads(3);
#endif
    assert_int_equal(listeners_hear(fitted, subject, tokens, HEARD, FRAMES, LEVELS, LEVELS, together),
                     STATUS_OK);
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
    static uint16_t wide[FRAMES * CODEC_LEVELS];
    static float audio[SAMPLES];
    for (int i = 0; i < HEARD; i++) {
        // In frames of all levels, of which the deepest is not looked at.
        for (int f = 0; f < FRAMES; f++)
            for (int l = 0; l < CODEC_LEVELS; l++)
                wide[f * CODEC_LEVELS + l] = l < LEVELS ? tokens[(i * FRAMES + f) * LEVELS + l] : CODES - 1;
        assert_int_equal(listeners_hear(fitted, subject, wide, 1, FRAMES, CODEC_LEVELS, LEVELS, &alone),
                         STATUS_OK);
        assert_memory_equal(&alone, &together[i], sizeof alone);
        // The same from the sound itself.
        assert_int_equal(
            codec_decode_coarse(subject, wide, FRAMES, LEVELS, CODEC_ITERATIONS_MEASURE, audio, NULL),
            STATUS_OK);
        assert_int_equal(listeners_hear_audio(fitted, audio, SAMPLES, RATE, &alone), STATUS_OK);
        assert_memory_equal(&alone, &together[i], sizeof alone);
    }
}

static void test_other_clips_are_refused(void **state) {
    (void)state;
    heard_clip out;
    assert_int_equal(listeners_hear(fitted, stranger, tokens, 1, FRAMES, LEVELS, LEVELS, &out),
                     STATUS_FAILED);
    assert_non_null(strstr(status_message(), listeners_codec(fitted)));
    assert_non_null(strstr(status_message(), "musicrl reward listeners"));
    assert_int_equal(listeners_hear(fitted, subject, tokens, 1, FRAMES - 1, LEVELS, LEVELS, &out),
                     STATUS_FAILED);
    assert_non_null(strstr(status_message(), "24"));
    assert_int_equal(listeners_hear(fitted, subject, tokens, 1, FRAMES, LEVELS, LEVELS - 1, &out),
                     STATUS_FAILED);
    static float audio[SAMPLES];
    assert_int_equal(listeners_hear_audio(fitted, audio, SAMPLES, 8000, &out), STATUS_FAILED);
    assert_int_equal(listeners_hear_audio(fitted, audio, SAMPLES - 1, RATE, &out), STATUS_FAILED);
    uint16_t broken[FRAMES * LEVELS];
    memcpy(broken, tokens, sizeof broken);
    broken[7 * LEVELS + 1] = CODES;
    assert_int_equal(listeners_hear(fitted, subject, broken, 1, FRAMES, LEVELS, LEVELS, &out), STATUS_FAILED);
}

static void test_other_files_are_refused(void **state) {
    (void)state;
    listeners *loaded;
    assert_int_equal(listeners_load(&loaded, scratch_path("nothing")), STATUS_FAILED);
    assert_int_equal(codec_save(subject, scratch_path("codec.safetensors")), STATUS_OK);
    assert_int_equal(listeners_load(&loaded, scratch_path("codec.safetensors")), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "no file of listeners"));
    assert_null(loaded);
    const float weight = fitted->detector[HEARD_LEAD][5];
    fitted->detector[HEARD_LEAD][5] = NAN;
    assert_int_equal(listeners_save(fitted, scratch_path("nan.safetensors")), STATUS_OK);
    fitted->detector[HEARD_LEAD][5] = weight;
    assert_int_equal(listeners_load(&loaded, scratch_path("nan.safetensors")), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "detector.lead"));
    fitted->calibration.scale = -1.0;
    assert_int_equal(listeners_save(fitted, scratch_path("scale.safetensors")), STATUS_OK);
    fitted->calibration.scale = 0.7;
    assert_int_equal(listeners_load(&loaded, scratch_path("scale.safetensors")), STATUS_FAILED);
    // A file that was cut short.
    size_t count;
    char *bytes = scratch_read(scratch_path("listeners.safetensors"), &count);
    assert_int_equal(scratch_write(scratch_path("cut.safetensors"), bytes, count / 2), 0);
    free(bytes);
    assert_int_equal(listeners_load(&loaded, scratch_path("cut.safetensors")), STATUS_FAILED);
}

static void test_promises_are_read(void **state) {
    (void)state;
    wanted_attributes wanted;
    assert_int_equal(
        listeners_wanted("{\"seconds\": 5, \"tempo_bpm\": 72, \"tempo\": \"slow\", \"metre\": \"3/4\", "
                         "\"beats_per_bar\": 3, \"key\": \"B major\", \"tonic\": 11, \"mode\": \"major\", "
                         "\"lead\": \"flute\", \"accompaniment\": \"bass\", \"drums\": \"kit\", "
                         "\"articulation\": null, \"recording\": \"clean\"}",
                         &wanted),
        STATUS_OK);
    const int8_t expected[HEARD_ATTRIBUTES] = {0, 1, 11, 0, 12, 4, 1, -1, -1, -1, -1};
    assert_memory_equal(wanted.value, expected, sizeof expected);
    // What a caption leaves unsaid is true, but not promised.
    static const char part[] = "{\"tempo\": \"slow\", \"metre\": \"3/4\", \"lead\": \"flute\", "
                               "\"articulation\": null, \"said\": [\"lead\", \"articulation\"]}";
    assert_int_equal(listeners_wanted(part, &wanted), STATUS_OK);
    const int8_t said[HEARD_ATTRIBUTES] = {-1, -1, -1, -1, 12, -1, -1, -1, -1, -1, -1};
    assert_memory_equal(wanted.value, said, sizeof said);
    assert_int_equal(listeners_truth(part, &wanted), STATUS_OK);
    const int8_t truth[HEARD_ATTRIBUTES] = {0, 1, -1, -1, 12, -1, -1, -1, -1, -1, -1};
    assert_memory_equal(wanted.value, truth, sizeof truth);
    assert_int_equal(listeners_wanted("{\"lead\": \"flute\", \"said\": []}", &wanted), STATUS_OK);
    assert_int_equal(wanted.value[HEARD_LEAD], -1);
    assert_int_equal(listeners_wanted("{}", &wanted), STATUS_OK);
    for (int a = 0; a < HEARD_ATTRIBUTES; a++)
        assert_int_equal(wanted.value[a], -1);
    static const struct {
        const char *record, *part;
    } wrong[] = {
        {"{\"temppo\": \"slow\"}", "'tempo'"},
        {"{\"lead\": \"fluet\"}", "'flute'"},
        {"{\"lead\": 3}", "'lead'"},
        {"{\"tonic\": 12}", "from 0 to 11"},
        {"{\"tonic\": \"C\"}", "'tonic'"},
        {"{\"said\": \"lead\"}", "no list"},
        {"{\"said\": [\"leed\"]}", "'lead'"},
        {"{\"said\": [3]}", "no text"},
        {"[1]", "no JSON object"},
        {"{\"lead\": \"flute\"", "no JSON object"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(listeners_wanted(wrong[i].record, &wanted), STATUS_FAILED);
        assert_non_null(strstr(status_message(), wrong[i].part));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_keeps_everything),   cmocka_unit_test(test_a_clip_is_heard_alone),
        cmocka_unit_test(test_other_clips_are_refused), cmocka_unit_test(test_other_files_are_refused),
        cmocka_unit_test(test_promises_are_read),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
