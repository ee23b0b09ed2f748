#include "launch/codec_measure.h"

#include "core/codec_train.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { DEAD_SHARE = 20, BLOCK_CLIPS = 16 };

// Processor time of the calling thread: other work on the machine does not count.
static double thread_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// What one clip contributes, so that sums can be taken in the order of the clips.
typedef struct clip_result {
    status outcome;
    double error[CODEC_LEVELS_MAX]; // sums over values
    double survived[CODEC_MEASURE_PASSES][CODEC_LEVELS_MAX];
    double decode_seconds[CODEC_MEASURE_PASSES], encode_seconds, peak;
} clip_result;

// Shapes that all clips share.
typedef struct shape {
    size_t samples, frames, levels, values; // values: log-mel of a clip
} shape;

typedef struct workspace {
    float *audio;             // [frames * frame_samples]
    float *truth, *described; // [values]
    uint16_t *again;          // [frames, levels]
} workspace;

static workspace carve(arena *arena, const shape *shape, size_t frame_samples) {
    return (workspace){
        .audio = arena_take(arena, shape->frames * frame_samples * sizeof(float)),
        .truth = arena_take(arena, shape->values * sizeof(float)),
        .described = arena_take(arena, shape->values * sizeof(float)),
        .again = arena_take(arena, shape->frames * shape->levels * sizeof(uint16_t)),
    };
}

static status measure_clip(const codec *codec, const int16_t *pcm, const shape *shape, const int *iterations,
                           bool decode, workspace *work, uint16_t *tokens, clip_result *out) {
    memset(out, 0, sizeof *out);
    codec_from_pcm(pcm, shape->samples, work->audio);
    double start = thread_seconds();
    TRY(codec_encode(codec, work->audio, shape->samples, tokens));
    out->encode_seconds = thread_seconds() - start;
    TRY(codec_analyse(codec, work->audio, shape->samples, work->truth));
    for (uint32_t levels = 1; levels <= shape->levels; levels++) {
        TRY(codec_describe_tokens(codec, tokens, shape->frames, levels, work->described));
        double sum = 0;
        for (size_t i = 0; i < shape->values; i++)
            sum += fabsf(work->described[i] - work->truth[i]);
        out->error[levels - 1] = sum;
    }
    size_t decoded = shape->frames * codec_describe(codec)->frame_samples;
    for (int pass = 0; pass < CODEC_MEASURE_PASSES && decode; pass++) {
        start = thread_seconds();
        TRY(codec_decode(codec, tokens, shape->frames, iterations[pass], work->audio));
        out->decode_seconds[pass] = thread_seconds() - start;
        for (size_t t = 0; t < decoded; t++)
            out->peak = fmax(out->peak, fabsf(work->audio[t]));
        TRY(codec_encode(codec, work->audio, decoded, work->again));
        for (size_t i = 0; i < shape->frames * shape->levels; i++)
            out->survived[pass][i % shape->levels] += tokens[i] == work->again[i];
    }
    return STATUS_OK;
}

static status count_codes(const uint16_t *tokens, size_t frames, codec_measurement *out) {
    for (uint32_t level = 0; level < out->levels; level++) {
        uint32_t size = out->codebook_size[level];
        uint64_t *uses;
        TRY(memory_allocate((void **)&uses, size * sizeof *uses, "code counts"));
        for (size_t f = 0; f < frames; f++)
            uses[tokens[f * out->levels + level]]++;
        double entropy = 0;
        for (uint32_t code = 0; code < size; code++) {
            double share = (double)uses[code] / (double)frames;
            entropy -= uses[code] > 0 ? share * log(share) : 0;
            out->used[level] += uses[code] > 0;
            out->dead[level] += uses[code] * size * DEAD_SHARE < frames;
        }
        out->perplexity[level] = exp(entropy);
        memory_free(uses);
    }
    return STATUS_OK;
}

static void add_results(const clip_result *results, const shape *shape, codec_measurement *out) {
    double clips = (double)out->clips, decoded = (double)out->decoded_clips;
    for (size_t clip = 0; clip < out->clips; clip++) {
        const clip_result *result = &results[clip];
        out->encode_seconds += result->encode_seconds / clips;
        out->peak = fmax(out->peak, result->peak);
        for (uint32_t level = 0; level < out->levels; level++)
            out->error[level] += result->error[level] / (double)shape->values / clips;
        for (int pass = 0; pass < CODEC_MEASURE_PASSES && clip < out->decoded_clips; pass++) {
            out->decode_seconds[pass] += result->decode_seconds[pass] / decoded;
            for (uint32_t level = 0; level < out->levels; level++)
                out->survival[pass][level] += result->survived[pass][level] / (double)shape->frames / decoded;
        }
    }
}

status codec_measure(const codec *codec, const int16_t *pcm, size_t clips, size_t samples,
                     size_t decoded_clips, codec_measurement *out) {
    static const int iterations[CODEC_MEASURE_PASSES] = {CODEC_ITERATIONS_MEASURE, 12,
                                                         CODEC_ITERATIONS_LISTEN};
    const codec_description *description = codec_describe(codec);
    const codec_config *config = codec_get_config(codec);
    shape shape = {
        .samples = samples, .frames = codec_frame_count(codec, samples), .levels = description->levels};
    shape.values = shape.frames * config->columns * config->mel_bands;
    *out = (codec_measurement){.levels = description->levels,
                               .frame_rate = (double)description->sample_rate / description->frame_samples,
                               .clips = clips,
                               .frames = clips * shape.frames,
                               .decoded_clips = decoded_clips < clips ? decoded_clips : clips,
                               .dead_share = DEAD_SHARE};
    memcpy(out->codebook_size, description->codebook_size, sizeof out->codebook_size);
    memcpy(out->iterations, iterations, sizeof iterations);
    arena one = {0};
    carve(&one, &shape, description->frame_samples);
    char *scratch = NULL;
    clip_result *results = NULL;
    uint16_t *tokens = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&scratch, BLOCK_CLIPS * one.used, "codec measuring scratch"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&results, clips * sizeof *results, "codec measurements"), done);
    TRY_GOTO(
        result,
        memory_allocate((void **)&tokens, out->frames * shape.levels * sizeof *tokens, "measured tokens"),
        done);
#pragma omp parallel for schedule(dynamic)
    for (size_t slot = 0; slot < BLOCK_CLIPS; slot++) {
        arena views = {.base = scratch + slot * one.used, .capacity = one.used};
        workspace work = carve(&views, &shape, description->frame_samples);
        for (size_t clip = slot; clip < clips; clip += BLOCK_CLIPS)
            results[clip].outcome =
                measure_clip(codec, pcm + clip * samples, &shape, iterations, clip < out->decoded_clips,
                             &work, tokens + clip * shape.frames * shape.levels, &results[clip]);
    }
    for (size_t clip = 0; clip < clips; clip++) {
        if (results[clip].outcome != STATUS_OK) {
            result = FAIL("clip %zu of %zu could not be encoded and decoded", clip, clips);
            goto done;
        }
    }
    add_results(results, &shape, out);
    TRY_GOTO(result, count_codes(tokens, out->frames, out), done);
done:
    memory_free(scratch);
    memory_free(results);
    memory_free(tokens);
    return result;
}
