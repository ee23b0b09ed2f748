#include "data/audio_file.h"
#include "data/shard.h"
#include "launch/codec_file.h"
#include "launch/codec_job.h"
#include "tests/unit/scratch.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <cmocka.h>

enum { RATE = 16000, SAMPLES = RATE, CLIPS = 70, FRAMES = 25, LEVELS = 4, CODES = 32 };

static void compose(uint32_t clip, int16_t *pcm) {
    philox_stream random = {.key = 21, .purpose = clip};
    double hertz = 0;
    for (size_t t = 0; t < SAMPLES; t++) {
        if (t % (SAMPLES / 4) == 0)
            hertz = 200.0 * exp2(philox_next_below(&random, 24) / 12.0);
        double age = (double)(t % (SAMPLES / 4)) / RATE;
        pcm[t] = (int16_t)(8000.0 * exp(-5.0 * age) * sin(2 * M_PI * hertz * age) +
                           300.0 * (philox_next_uniform(&random) - 0.5));
    }
}

static void make_corpus(const char *folder, uint32_t rate) {
    static int16_t pcm[SAMPLES];
    shard_format format = {.kind = SHARD_AUDIO, .sample_rate = rate, .clip_samples = SAMPLES};
    shard_writer *writer;
    assert_int_equal(shard_writer_create(&writer, folder, "clips", &format, 40, 0), STATUS_OK);
    for (uint32_t i = 0; i < CLIPS; i++) {
        char id[32], caption[32];
        snprintf(id, sizeof id, "clip/%u", i);
        snprintf(caption, sizeof caption, "piece number %u", i);
        compose(i, pcm);
        shard_clip clip = {.id = id, .caption = caption, .attributes = "{}", .source = "test", .audio = pcm};
        assert_int_equal(shard_writer_add(writer, &clip), STATUS_OK);
    }
    assert_int_equal(shard_writer_finish(writer), STATUS_OK);
}

static codec_job_train_options small_options(const char *output) {
    codec_job_train_options options = codec_job_train_default();
    options.corpus = scratch_path("corpus");
    options.output = output;
    options.settings.config.acoustic_levels = LEVELS - 1;
    options.settings.config.acoustic_codebook = options.settings.config.semantic_codebook = CODES;
    options.settings.config.dimension = 24;
    options.settings.iterations = 5;
    options.decoded = 4;
    return options;
}

static int setup(void **state) {
    if (scratch_setup(state) != 0)
        return -1;
    make_corpus(scratch_path("corpus"), RATE);
    codec_job_train_options options = small_options(scratch_path("codec.safetensors"));
    options.report = scratch_path("report.json");
    codec_job_train_result result;
    return codec_job_train(&options, &result) == STATUS_OK ? 0 : -1;
}

static void test_report(void **state) {
    (void)state;
    json_error_t error;
    json_t *report = json_load_file(scratch_path("report.json"), 0, &error);
    assert_non_null(report);
    assert_true(json_is_true(json_object_get(report, "held_out")));
    const json_t *errors = json_object_get(report, "error_nats");
    assert_int_equal(json_array_size(errors), LEVELS);
    for (size_t i = 1; i < LEVELS; i++)
        assert_true(json_real_value(json_array_get(errors, i)) <
                    json_real_value(json_array_get(errors, i - 1)));
    assert_int_equal(json_array_size(json_object_get(report, "decoding")), CODEC_MEASURE_PASSES);
    json_decref(report);
}

static void test_training_is_repeatable(void **state) {
    (void)state;
    codec_job_train_options options = small_options(scratch_path("again.safetensors"));
    codec_job_train_result result;
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
    assert_int_equal(codec_job_train(&options, &result), STATUS_OK);
#ifdef _OPENMP
    omp_set_num_threads(2);
#endif
    size_t first_count, again_count;
    char *first = scratch_read(scratch_path("codec.safetensors"), &first_count);
    char *again = scratch_read(scratch_path("again.safetensors"), &again_count);
    assert_int_equal(first_count, again_count);
    assert_memory_equal(first, again, first_count);
    free(first);
    free(again);
}

static void test_load_gives_the_same_codec(void **state) {
    (void)state;
    codec *loaded, *copy;
    char identity[DIGEST_HEX], copied[DIGEST_HEX];
    assert_int_equal(codec_load(&loaded, scratch_path("codec.safetensors")), STATUS_OK);
    assert_int_equal(codec_get_config(loaded)->acoustic_codebook, CODES);
    assert_true(codec_get_config(loaded)->log_floor == 1e-3f);
    assert_int_equal(codec_save(loaded, scratch_path("copy.safetensors")), STATUS_OK);
    assert_int_equal(codec_load(&copy, scratch_path("copy.safetensors")), STATUS_OK);
    assert_int_equal(codec_identify(loaded, identity), STATUS_OK);
    assert_int_equal(codec_identify(copy, copied), STATUS_OK);
    assert_string_equal(identity, copied);
    codec_destroy(loaded);
    codec_destroy(copy);
}

static void test_corpus_there_and_back(void **state) {
    (void)state;
    codec_job_encode_options encode = {.codec = scratch_path("codec.safetensors"),
                                       .corpus = scratch_path("corpus"),
                                       .output = scratch_path("tokens"),
                                       .clips_per_shard = 30};
    size_t clips, frames;
    assert_int_equal(codec_job_encode(&encode, &clips, &frames), STATUS_OK);
    assert_int_equal(clips, CLIPS);
    assert_int_equal(frames, CLIPS * FRAMES);
    corpus *tokens;
    assert_int_equal(corpus_open(&tokens, encode.output, SHARD_TOKENS), STATUS_OK);
    const shard_format *format = corpus_get_format(tokens);
    assert_int_equal(format->levels, LEVELS);
    assert_int_equal(format->frames, FRAMES);
    assert_int_equal(corpus_shard_count(tokens), 3);
    // The tokens are those of the codec, clip by clip, and the strings travelled with them.
    codec *codec;
    assert_int_equal(codec_load(&codec, encode.codec), STATUS_OK);
    static int16_t pcm[SAMPLES];
    static float audio[SAMPLES];
    for (uint32_t i = 0; i < CLIPS; i += 23) {
        uint16_t stored[FRAMES * LEVELS], fresh[FRAMES * LEVELS];
        shard_clip clip;
        assert_int_equal(corpus_read_tokens(tokens, i, stored), STATUS_OK);
        assert_int_equal(corpus_read_strings(tokens, i, &clip), STATUS_OK);
        compose(i, pcm);
        codec_from_pcm(pcm, SAMPLES, audio);
        assert_int_equal(codec_encode(codec, audio, SAMPLES, fresh), STATUS_OK);
        assert_memory_equal(stored, fresh, sizeof fresh);
        char caption[32];
        snprintf(caption, sizeof caption, "piece number %u", i);
        assert_string_equal(clip.caption, caption);
    }
    codec_destroy(codec);
    corpus_close(tokens);

    const size_t wanted[] = {69, 3};
    size_t written;
    codec_job_decode_options decode = {.codec = encode.codec,
                                       .tokens = encode.output,
                                       .clips = wanted,
                                       .clip_count = 2,
                                       .output = scratch_path("wav"),
                                       .iterations = 3};
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_OK);
    assert_int_equal(written, 2);
    float *wave;
    size_t count;
    assert_int_equal(audio_file_read(scratch_path("wav/000069-clip_69.wav"), RATE, &wave, &count), STATUS_OK);
    assert_int_equal(count, SAMPLES);
    memory_free(wave);
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_FAILED);
    assert_int_equal(written, 0);
    assert_non_null(
        strstr(status_message(), "wav/000069-clip_69.wav is there already; choose another folder"));
    decode.replace = true;
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_OK);

    const size_t beyond[] = {70};
    decode.clips = beyond;
    decode.clip_count = 1;
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "clips 0 to 69"));
    // Tokens of one codec are not decoded with another.
    codec_job_train_options other = small_options(scratch_path("other.safetensors"));
    other.settings.seed = 2;
    codec_job_train_result result;
    assert_int_equal(codec_job_train(&other, &result), STATUS_OK);
    other.replace = 1;
    assert_int_equal(codec_job_train(&other, &result), STATUS_OK);
    decode.codec = other.output;
    decode.clip_count = 0;
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "give the codec that made them"));
}

// Clips of a policy have fewer levels than the codec; they sound like the same levels of full clips.
static void test_decode_fewer_levels(void **state) {
    (void)state;
    enum { FEWER = LEVELS - 1 };
    corpus *full;
    assert_int_equal(corpus_open(&full, scratch_path("tokens"), SHARD_TOKENS), STATUS_OK);
    shard_format format = *corpus_get_format(full);
    format.levels = FEWER;
    shard_writer *writer;
    assert_int_equal(shard_writer_create(&writer, scratch_path("fewer"), "clips", &format, 8, 0), STATUS_OK);
    for (size_t i = 0; i < 3; i++) {
        uint16_t tokens[FRAMES * LEVELS], kept[FRAMES * FEWER];
        shard_clip clip;
        assert_int_equal(corpus_read_tokens(full, i, tokens), STATUS_OK);
        assert_int_equal(corpus_read_strings(full, i, &clip), STATUS_OK);
        for (size_t f = 0; f < FRAMES; f++)
            memcpy(kept + f * FEWER, tokens + f * LEVELS, sizeof *kept * FEWER);
        clip.tokens = kept;
        assert_int_equal(shard_writer_add(writer, &clip), STATUS_OK);
    }
    assert_int_equal(shard_writer_finish(writer), STATUS_OK);
    corpus_close(full);
    const size_t wanted[] = {0, 2};
    size_t written;
    codec_job_decode_options decode = {.codec = scratch_path("codec.safetensors"),
                                       .tokens = scratch_path("fewer"),
                                       .clips = wanted,
                                       .clip_count = 2,
                                       .output = scratch_path("wav-fewer"),
                                       .iterations = 3};
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_OK);
    decode.tokens = scratch_path("tokens");
    decode.output = scratch_path("wav-full");
    decode.levels = FEWER;
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_OK);
    for (size_t i = 0; i < 2; i++) {
        char name[64];
        size_t fewer_size, full_size;
        snprintf(name, sizeof name, "wav-fewer/%06zu-clip_%zu.wav", wanted[i], wanted[i]);
        char *fewer = scratch_read(scratch_path(name), &fewer_size);
        snprintf(name, sizeof name, "wav-full/%06zu-clip_%zu.wav", wanted[i], wanted[i]);
        char *from_full = scratch_read(scratch_path(name), &full_size);
        assert_non_null(fewer);
        assert_non_null(from_full);
        assert_int_equal(fewer_size, full_size);
        assert_memory_equal(fewer, from_full, full_size);
        free(fewer);
        free(from_full);
    }
    decode.tokens = scratch_path("fewer");
    decode.levels = LEVELS;
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_USAGE);
    assert_non_null(strstr(status_message(), "ask for at most that many"));
}

static void test_audio_file(void **state) {
    (void)state;
    static int16_t pcm[SAMPLES];
    compose(5, pcm);
    assert_int_equal(audio_file_write_pcm(scratch_path("song.wav"), pcm, 9000, RATE), STATUS_OK);
    codec_job_encode_options encode = {.codec = scratch_path("codec.safetensors"),
                                       .audio = scratch_path("song.wav"),
                                       .output = scratch_path("song-tokens"),
                                       .clips_per_shard = 1000};
    size_t clips, frames, written, count;
    assert_int_equal(codec_job_encode(&encode, &clips, &frames), STATUS_OK);
    assert_int_equal(frames, 15);
    codec_job_decode_options decode = {
        .codec = encode.codec, .tokens = encode.output, .output = scratch_path("song-wav"), .iterations = 3};
    assert_int_equal(codec_job_decode(&decode, &written), STATUS_OK);
    float *wave;
    assert_int_equal(audio_file_read(scratch_path("song-wav/000000-song.wav.wav"), RATE, &wave, &count),
                     STATUS_OK);
    assert_int_equal(count, 9000);
    memory_free(wave);
}

static void test_damaged_codec(void **state) {
    (void)state;
    size_t count;
    char *bytes = scratch_read(scratch_path("codec.safetensors"), &count);
    const char *damaged = scratch_path("damaged.safetensors");
    codec *codec;
    bytes[count - 1000] ^= 4;
    assert_int_equal(scratch_write(damaged, bytes, count), 0);
    assert_int_equal(codec_load(&codec, damaged), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "damaged.safetensors"));
    assert_null(codec);
    bytes[count - 1000] ^= 4;
    char *setting = strstr(bytes + 8, "mel_bands");
    assert_non_null(setting);
    setting[0] = 'n';
    assert_int_equal(scratch_write(damaged, bytes, count), 0);
    assert_int_equal(codec_load(&codec, damaged), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "damaged.safetensors is damaged: its digest is"));
    strstr(bytes + 8, "musicrl.digest")[0] = 'n'; // and not sealed
    assert_int_equal(scratch_write(damaged, bytes, count), 0);
    assert_int_equal(codec_load(&codec, damaged), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "'mel_bands'"));
    assert_int_equal(scratch_write(damaged, bytes, count / 2), 0);
    assert_int_equal(codec_load(&codec, damaged), STATUS_FAILED);
    assert_int_equal(codec_load(&codec, scratch_path("missing.safetensors")), STATUS_FAILED);
    free(bytes);
}

static void test_bad_requests(void **state) {
    (void)state;
    codec_job_train_result result;
    codec_job_train_options options = small_options("/nonexistent/folder/codec.safetensors");
    assert_int_equal(codec_job_train(&options, &result), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/folder"));
    options = small_options(scratch_path("large.safetensors"));
    options.settings.config.acoustic_codebook = 60000;
    assert_int_equal(codec_job_train(&options, &result), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "a codebook of 60000 wants as many at least"));
    assert_int_not_equal(access(options.output, F_OK), 0);
    // A codec that is there already, which tokens may have been made with, stays.
    size_t count, count_after;
    char *before = scratch_read(scratch_path("codec.safetensors"), &count);
    options = small_options(scratch_path("codec.safetensors"));
    options.settings.seed = 3;
    assert_int_equal(codec_job_train(&options, &result), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "codec.safetensors is there already; choose another name, or"));
    char *after = scratch_read(scratch_path("codec.safetensors"), &count_after);
    assert_int_equal(count, count_after);
    assert_memory_equal(before, after, count);
    free(before);
    free(after);
    options = small_options(scratch_path("corpus"));
    options.replace = 1;
    assert_int_equal(codec_job_train(&options, &result), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "corpus is a folder, a file is wanted"));
    make_corpus(scratch_path("slow"), 8000);
    size_t clips, frames;
    codec_job_encode_options encode = {.codec = scratch_path("codec.safetensors"),
                                       .corpus = scratch_path("slow"),
                                       .output = scratch_path("slow-tokens"),
                                       .clips_per_shard = 30};
    assert_int_equal(codec_job_encode(&encode, &clips, &frames), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "8000 samples a second"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_training_is_repeatable),
        cmocka_unit_test(test_load_gives_the_same_codec),
        cmocka_unit_test(test_corpus_there_and_back),
        cmocka_unit_test(test_decode_fewer_levels),
        cmocka_unit_test(test_audio_file),
        cmocka_unit_test(test_damaged_codec),
        cmocka_unit_test(test_bad_requests),
    };
    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
