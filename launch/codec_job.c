#include "launch/codec_job.h"

#include "data/audio_file.h"
#include "data/publish.h"
#include "data/shard.h"
#include "kernels/memory.h"
#include "launch/codec_file.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_CLIPS = 64, TRAINING_SECONDS = 7200 };

static double wall_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

codec_job_train_options codec_job_train_default(void) {
    return (codec_job_train_options){

        .held_out = 200, .decoded = 32, .settings = codec_train_default()};
}

// Reads up to `most` clips of one side, drawn by the seed. pcm: [count, clip_samples], freed by the caller.
static status read_side(const corpus *corpus, int held_out, size_t most, uint64_t seed, int16_t **pcm,
                        size_t *count) {
    *pcm = NULL;
    *count = 0;
    size_t samples = corpus_get_format(corpus)->clip_samples, *indices;
    TRY(memory_allocate((void **)&indices, corpus_clip_count(corpus) * sizeof *indices, "clip numbers"));
    status result;
    TRY_GOTO(result, corpus_split(corpus, held_out, indices, count), done);
    corpus_shuffle(indices, *count, seed, 0);
    if (*count > most)
        *count = most;
    TRY_GOTO(result, memory_allocate((void **)pcm, *count * samples * sizeof **pcm, "clips"), done);
    for (size_t i = 0; i < *count; i++)
        TRY_GOTO(result, corpus_read_audio(corpus, indices[i], *pcm + i * samples), done);
done:
    memory_free(indices);
    return result;
}

static json_t *real_array(const double *values, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_real(values[i]));
    return array;
}

static json_t *whole_array(const uint32_t *values, size_t count) {
    json_t *array = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_integer(values[i]));
    return array;
}

static status write_report(const char *path, const codec_job_train_result *result, const char *codec_path) {
    const codec_measurement *m = &result->measurement;
    json_t *passes = json_array();
    for (int pass = 0; pass < CODEC_MEASURE_PASSES; pass++) {
        json_t *one = json_object();
        json_object_set_new(one, "iterations", json_integer(m->iterations[pass]));
        json_object_set_new(one, "seconds_per_clip", json_real(m->decode_seconds[pass]));
        json_object_set_new(one, "survival", real_array(m->survival[pass], m->levels));
        json_array_append_new(passes, one);
    }
    json_t *report = json_object();
    json_object_set_new(report, "codec", json_string(codec_path));
    json_object_set_new(report, "identity", json_string(result->identity));
    json_object_set_new(report, "clips_trained", json_integer((json_int_t)result->clips));
    json_object_set_new(report, "train_seconds", json_real(result->train_seconds));
    json_object_set_new(report, "clips_measured", json_integer((json_int_t)m->clips));
    json_object_set_new(report, "clips_decoded", json_integer((json_int_t)m->decoded_clips));
    json_object_set_new(report, "held_out", json_boolean(m->held_out));
    json_object_set_new(report, "levels", json_integer(m->levels));
    json_object_set_new(report, "codebook_size", whole_array(m->codebook_size, m->levels));
    json_object_set_new(report, "error_nats", real_array(m->error, m->levels));
    json_object_set_new(report, "perplexity", real_array(m->perplexity, m->levels));
    json_object_set_new(report, "used_codes", whole_array(m->used, m->levels));
    json_object_set_new(report, "dead_codes", whole_array(m->dead, m->levels));
    json_object_set_new(report, "dead_below_share_of_even_use", json_real(1.0 / m->dead_share));
    json_object_set_new(report, "encode_seconds_per_clip", json_real(m->encode_seconds));
    json_object_set_new(report, "decoded_peak", json_real(m->peak));
    json_object_set_new(report, "decoding", passes);
    char *text = json_dumps(report, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(report);
    if (text == NULL)
        return FAIL("the report %s could not be put into words; is the codec path UTF-8?", path);
    status written = publish_file(path, text, strlen(text));
    free(text);
    return written;
}

static status check_writable(const char *path, int replace) {
    publisher *probe;
    TRY(publish_check_place(path, replace));
    TRY(publish_open(&probe, path));
    publish_abort(probe);
    return STATUS_OK;
}

status codec_job_train(const codec_job_train_options *options, codec_job_train_result *out) {
    *out = (codec_job_train_result){0};
    corpus *corpus;
    TRY(corpus_open(&corpus, options->corpus, SHARD_AUDIO));
    const shard_format *format = corpus_get_format(corpus);
    codec_train_settings settings = options->settings;
    settings.config.sample_rate = format->sample_rate;
    int16_t *training = NULL, *measured = NULL;
    size_t measured_count = 0;
    codec *codec = NULL;
    status result;
    TRY_GOTO(result, codec_config_check(&settings.config), done);
    size_t most = options->clips;
    if (most == 0)
        most = 1 + (size_t)TRAINING_SECONDS * format->sample_rate / format->clip_samples;
    // A path that cannot be written, or may not be, is found before the training, not after it.
    TRY_GOTO(result, check_writable(options->output, options->replace), done);
    if (options->report != NULL)
        TRY_GOTO(result, check_writable(options->report, 1), done);
    TRY_GOTO(result, read_side(corpus, 0, most, settings.seed, &training, &out->clips), done);
    TRY_GOTO(result, read_side(corpus, 1, options->held_out, settings.seed, &measured, &measured_count),
             done);
    const size_t vectors = out->clips * (format->clip_samples / settings.config.frame_samples);
    const uint32_t largest = settings.config.acoustic_codebook > settings.config.semantic_codebook
                                 ? settings.config.acoustic_codebook
                                 : settings.config.semantic_codebook;
    if (vectors < largest) {
        result =
            FAIL("%s has %zu clips, %zu of them on the training side (one caption in ten is held out) with "
                 "%zu frames, and a codebook of %u wants as many at least; add clips, or lower --codebook "
                 "and --semantic-codebook",
                 options->corpus, corpus_clip_count(corpus), out->clips, vectors, largest);
        goto done;
    }
    double start = wall_seconds();
    result = codec_train(&codec, &settings, training, out->clips, format->clip_samples);
    if (result != STATUS_OK) {
        result = status_prefix(result, "training a codec on %s: ", options->corpus);
        goto done;
    }
    out->train_seconds = wall_seconds() - start;
    // A corpus too small to hold captions out is measured on what it was trained on, and says so.
    bool held_out = measured_count > 0;
    TRY_GOTO(result,
             codec_measure(codec, held_out ? measured : training, held_out ? measured_count : out->clips,
                           format->clip_samples, options->decoded, &out->measurement),
             done);
    out->measurement.held_out = held_out;
    TRY_GOTO(result, codec_identify(codec, out->identity), done);
    TRY_GOTO(result, codec_save(codec, options->output), done);
    if (options->report != NULL)
        TRY_GOTO(result, write_report(options->report, out, options->output), done);
done:
    codec_destroy(codec);
    memory_free(training);
    memory_free(measured);
    corpus_close(corpus);
    return result;
}

static status token_format(const codec *codec, size_t samples, shard_format *out) {
    const codec_description *description = codec_describe(codec);
    *out = (shard_format){.kind = SHARD_TOKENS,
                          .sample_rate = description->sample_rate,
                          .clip_samples = (uint32_t)samples,
                          .frames = (uint32_t)codec_frame_count(codec, samples),
                          .frame_rate = (double)description->sample_rate / description->frame_samples,
                          .levels = description->levels};
    memcpy(out->codebook_size, description->codebook_size, description->levels * sizeof(uint32_t));
    return codec_identify(codec, out->codec);
}

// Buffers of a block of clips.
typedef struct block_buffers {
    int16_t *pcm;     // [BLOCK_CLIPS, samples]
    float *audio;     // [BLOCK_CLIPS, samples]
    uint16_t *tokens; // [BLOCK_CLIPS, frames, levels]
    status *outcome;  // [BLOCK_CLIPS]
} block_buffers;

static block_buffers carve_block(arena *arena, size_t samples, size_t tokens) {
    return (block_buffers){
        .pcm = arena_take(arena, BLOCK_CLIPS * samples * sizeof(int16_t)),
        .audio = arena_take(arena, BLOCK_CLIPS * samples * sizeof(float)),
        .tokens = arena_take(arena, BLOCK_CLIPS * tokens * sizeof(uint16_t)),
        .outcome = arena_take(arena, BLOCK_CLIPS * sizeof(status)),
    };
}

static status encode_block(const codec *codec, const corpus *corpus, size_t first, size_t count,
                           const block_buffers *block, shard_writer *writer) {
    size_t samples = corpus_get_format(corpus)->clip_samples;
    size_t stride = codec_frame_count(codec, samples) * codec_describe(codec)->levels;
    for (size_t i = 0; i < count; i++)
        TRY(corpus_read_audio(corpus, first + i, block->pcm + i * samples));
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < count; i++) {
        codec_from_pcm(block->pcm + i * samples, samples, block->audio + i * samples);
        block->outcome[i] =
            codec_encode(codec, block->audio + i * samples, samples, block->tokens + i * stride);
    }
    for (size_t i = 0; i < count; i++) {
        shard_clip clip;
        TRY(corpus_read_strings(corpus, first + i, &clip));
        // Messages belong to threads: encode again here to have this clip's.
        if (block->outcome[i] != STATUS_OK &&
            codec_encode(codec, block->audio + i * samples, samples, block->tokens + i * stride) != STATUS_OK)
            return status_prefix(STATUS_FAILED, "encoding clip '%s': ", clip.id);
        clip.tokens = block->tokens + i * stride;
        TRY(shard_writer_add(writer, &clip));
    }
    return STATUS_OK;
}

static status encode_corpus(const codec *codec, const codec_job_encode_options *options, size_t *clips,
                            size_t *frames) {
    corpus *corpus;
    TRY(corpus_open(&corpus, options->corpus, SHARD_AUDIO));
    const shard_format *audio = corpus_get_format(corpus);
    shard_format format;
    shard_writer *writer = NULL;
    void *memory = NULL;
    int lock = -1;
    size_t total = corpus_clip_count(corpus);
    status result;
    if (audio->sample_rate != codec_describe(codec)->sample_rate) {
        result =
            FAIL("the corpus %s has %u samples a second, the codec %s wants %u; import it at that rate",
                 options->corpus, audio->sample_rate, options->codec, codec_describe(codec)->sample_rate);
        goto done;
    }
    TRY_GOTO(result, token_format(codec, audio->clip_samples, &format), done);
    arena sizes = {0};
    carve_block(&sizes, audio->clip_samples, (size_t)format.frames * format.levels);
    TRY_GOTO(result, memory_allocate(&memory, sizes.used, "block of clips"), done);
    arena views = {.base = memory, .capacity = sizes.used};
    block_buffers block = carve_block(&views, audio->clip_samples, (size_t)format.frames * format.levels);
    TRY_GOTO(result, publish_lock_folder(options->output, &lock), done);
    TRY_GOTO(result,
             shard_writer_create(&writer, options->output, "tokens", &format, options->clips_per_shard,
                                 options->replace),
             done);
    if (options->progress != NULL)
        options->progress(options->context, 0, total);
    for (size_t first = 0; first < total; first += BLOCK_CLIPS) {
        size_t count = total - first < BLOCK_CLIPS ? total - first : BLOCK_CLIPS;
        TRY_GOTO(result, encode_block(codec, corpus, first, count, &block, writer), done);
        if (options->progress != NULL)
            options->progress(options->context, first + count, total);
    }
    result = shard_writer_finish(writer);
    writer = NULL;
    *clips = total;
    *frames = total * format.frames;
done:
    shard_writer_abort(writer);
    publish_unlock_folder(lock);
    memory_free(memory);
    corpus_close(corpus);
    return result;
}

static status encode_file(const codec *codec, const codec_job_encode_options *options, size_t *clips,
                          size_t *frames) {
    float *audio;
    size_t samples;
    TRY(audio_file_read(options->audio, codec_describe(codec)->sample_rate, &audio, &samples));
    const char *slash = strrchr(options->audio, '/'), *name = slash == NULL ? options->audio : slash + 1;
    shard_format format;
    shard_writer *writer = NULL;
    uint16_t *tokens = NULL;
    int lock = -1;
    status result;
    if (samples > UINT32_MAX) {
        result = FAIL("%s has %zu samples; at most %u fit into one clip, cut it", options->audio, samples,
                      UINT32_MAX);
        goto done;
    }
    TRY_GOTO(result,
             audio_normalise(audio, samples, codec_describe(codec)->sample_rate, AUDIO_LOUDNESS_TARGET, NULL),
             done);
    TRY_GOTO(result, token_format(codec, samples, &format), done);
    TRY_GOTO(
        result,
        memory_allocate((void **)&tokens, (size_t)format.frames * format.levels * sizeof *tokens, "tokens"),
        done);
    result = codec_encode(codec, audio, samples, tokens);
    if (result != STATUS_OK) {
        result = status_prefix(result, "encoding %s: ", options->audio);
        goto done;
    }
    TRY_GOTO(result, publish_lock_folder(options->output, &lock), done);
    TRY_GOTO(result, shard_writer_create(&writer, options->output, "tokens", &format, 1, options->replace),
             done);
    shard_clip clip = {.id = name,
                       .caption = options->caption == NULL ? name : options->caption,
                       .attributes = "{}",
                       .source = options->audio,
                       .tokens = tokens};
    TRY_GOTO(result, shard_writer_add(writer, &clip), done);
    result = shard_writer_finish(writer);
    writer = NULL;
    *clips = 1;
    *frames = format.frames;
done:
    shard_writer_abort(writer);
    publish_unlock_folder(lock);
    memory_free(tokens);
    memory_free(audio);
    return result;
}

status codec_job_encode(const codec_job_encode_options *options, size_t *clips, size_t *frames) {
    codec *codec;
    TRY(codec_load(&codec, options->codec));
    status result = options->corpus != NULL ? encode_corpus(codec, options, clips, frames)
                                            : encode_file(codec, options, clips, frames);
    codec_destroy(codec);
    return result;
}

// FOLDER/NUMBER-ID.wav, with whatever could trouble a file system replaced.
static status wav_path(const char *folder, size_t number, const char *id, char *out, size_t capacity) {
    int length = snprintf(out, capacity, "%s/%06zu-%.100s.wav", folder, number, id);
    if (length < 0 || (size_t)length >= capacity)
        return FAIL("the path of clip %zu in %s is too long", number, folder);
    for (char *c = out + strlen(folder) + 1; *c != '\0'; c++) {
        int plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
                    *c == '-' || *c == '.' || *c == '_';
        *c = plain ? *c : '_';
    }
    return STATUS_OK;
}

// Clips may have fewer levels than the codec. Spreads frames of [levels] over frames of [all], from the back,
// as both lie in one buffer.
static void spread_levels(uint16_t *tokens, size_t frames, size_t levels, size_t all) {
    for (size_t f = frames; levels < all && f-- > 0;) {
        memmove(tokens + f * all, tokens + f * levels, sizeof *tokens * levels);
        memset(tokens + f * all + levels, 0, sizeof *tokens * (all - levels));
    }
}

// tokens: room for the codec's levels.
static status decode_clip(const codec *codec, const codec_job_decode_options *options, const corpus *corpus,
                          size_t number, uint16_t *tokens, float *audio) {
    const shard_format *format = corpus_get_format(corpus);
    uint32_t levels = options->levels == 0 ? format->levels : options->levels;
    char path[PATH_MAX];
    shard_clip clip;
    TRY(corpus_read_strings(corpus, number, &clip));
    TRY(corpus_read_tokens(corpus, number, tokens));
    spread_levels(tokens, format->frames, format->levels, codec_describe(codec)->levels);
    status result =
        codec_decode_coarse(codec, tokens, format->frames, levels, options->iterations, audio, NULL);
    if (result != STATUS_OK)
        return status_prefix(result, "decoding clip '%s': ", clip.id);
    TRY(wav_path(options->output, number, clip.id, path, sizeof path));
    // The silence that filled the last frame is not part of the clip.
    size_t samples = (size_t)format->frames * codec_describe(codec)->frame_samples;
    if (format->clip_samples > 0 && format->clip_samples < samples)
        samples = format->clip_samples;
    return audio_file_write(path, audio, samples, format->sample_rate);
}

static status check_tokens_fit(const codec *codec, const codec_job_decode_options *options,
                               const corpus *corpus) {
    const shard_format *format = corpus_get_format(corpus);
    char identity[DIGEST_HEX];
    TRY(codec_identify(codec, identity));
    if (strcmp(identity, format->codec) != 0)
        return FAIL("the tokens %s were made with the codec %s, but %s is %s; give the codec that made them",
                    options->tokens, format->codec, options->codec, identity);
    if (format->levels > codec_describe(codec)->levels)
        return FAIL("the tokens %s have %u levels, the codec %s has %u; give the codec that made them",
                    options->tokens, format->levels, options->codec, codec_describe(codec)->levels);
    if (options->levels > format->levels)
        return FAIL_USAGE("%u levels were asked for, the tokens %s have %u; ask for at most that many",
                          options->levels, options->tokens, format->levels);
    for (size_t i = 0; i < options->clip_count; i++) {
        if (options->clips[i] >= corpus_clip_count(corpus))
            return FAIL("clip %zu was asked for, but %s has clips 0 to %zu", options->clips[i],
                        options->tokens, corpus_clip_count(corpus) - 1);
    }
    return STATUS_OK;
}

static size_t clip_number(const codec_job_decode_options *options, size_t i) {
    return options->clip_count == 0 ? i : options->clips[i];
}

// Before anything is decoded.
static status check_files_are_new(const codec_job_decode_options *options, const corpus *corpus,
                                  size_t total) {
    for (size_t i = 0; i < total && !options->replace; i++) {
        char path[PATH_MAX];
        shard_clip clip;
        TRY(corpus_read_strings(corpus, clip_number(options, i), &clip));
        TRY(wav_path(options->output, clip_number(options, i), clip.id, path, sizeof path));
        if (access(path, F_OK) == 0)
            return FAIL("%s is there already; choose another folder, or replace it with --replace", path);
    }
    return STATUS_OK;
}

status codec_job_decode(const codec_job_decode_options *options, size_t *written) {
    *written = 0;
    codec *codec;
    TRY(codec_load(&codec, options->codec));
    corpus *corpus = NULL;
    uint16_t *tokens = NULL;
    float *audio = NULL;
    status result;
    TRY_GOTO(result, corpus_open(&corpus, options->tokens, SHARD_TOKENS), done);
    TRY_GOTO(result, check_tokens_fit(codec, options, corpus), done);
    TRY_GOTO(result, publish_make_folder(options->output), done);
    const shard_format *format = corpus_get_format(corpus);
    size_t frames = format->frames;
    TRY_GOTO(
        result,
        memory_allocate((void **)&tokens, frames * codec_describe(codec)->levels * sizeof *tokens, "tokens"),
        done);
    TRY_GOTO(result,
             memory_allocate((void **)&audio, frames * codec_describe(codec)->frame_samples * sizeof *audio,
                             "decoded audio"),
             done);
    size_t total = options->clip_count == 0 ? corpus_clip_count(corpus) : options->clip_count;
    TRY_GOTO(result, check_files_are_new(options, corpus, total), done);
    if (options->progress != NULL)
        options->progress(options->context, 0, total);
    for (size_t i = 0; i < total; i++) {
        TRY_GOTO(result, decode_clip(codec, options, corpus, clip_number(options, i), tokens, audio), done);
        *written = i + 1;
        if (options->progress != NULL)
            options->progress(options->context, i + 1, total);
    }
done:
    memory_free(audio);
    memory_free(tokens);
    corpus_close(corpus);
    codec_destroy(codec);
    return result;
}
