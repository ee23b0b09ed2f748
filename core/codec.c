#include "core/codec.h"

#include "core/codec_features.h"
#include "core/griffin_lim.h"
#include "core/kmeans.h"
#include "core/rvq.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

static const float momentum = 0.99f;         // of the phase reconstruction
static const float ceiling = 0.99f;          // of decoded peaks
static const float greatest_log_mel = 10.0f; // no sum of codes may overflow
enum { LIMITER_REACH_PER_SECOND = 200 };

struct codec {
    codec_description description;
    codec_features features;
    codec_tensor tensors[CODEC_TENSORS];
    float *values; // of all tensors
    rvq *acoustic;
    kmeans_index *semantic;
};

const codec_description *codec_describe(const codec *codec) {
    return &codec->description;
}

const codec_config *codec_get_config(const codec *codec) {
    return &codec->features.config;
}

void codec_get_tensors(const codec *codec, codec_tensor *out) {
    memcpy(out, codec->tensors, sizeof codec->tensors);
}

size_t codec_frame_count(const codec *codec, size_t samples) {
    return codec_features_frames(&codec->features, samples);
}

static status copy_tensors(codec *codec, const codec_tensor *tensors) {
    codec_tensor_layout(&codec->features.config, codec->tensors);
    size_t total = 0;
    for (int i = 0; i < CODEC_TENSORS; i++)
        total += codec_tensor_elements(&codec->tensors[i]);
    TRY(memory_allocate((void **)&codec->values, total * sizeof(float), "codec tensors"));
    float *values = codec->values;
    for (int i = 0; i < CODEC_TENSORS; i++) {
        codec_tensor *own = &codec->tensors[i];
        size_t elements = codec_tensor_elements(own);
        if (tensors[i].rank != own->rank || codec_tensor_elements(&tensors[i]) != elements ||
            memcmp(tensors[i].shape, own->shape, (size_t)own->rank * sizeof own->shape[0]) != 0)
            return FAIL("codec tensor '%s' has another shape than the codec's configuration asks for",
                        own->name);
        for (size_t e = 0; e < elements; e++) {
            if (!isfinite(tensors[i].data[e]))
                return FAIL("codec tensor '%s' holds a value that is not finite at element %zu", own->name,
                            e);
        }
        memcpy(values, tensors[i].data, elements * sizeof(float));
        own->data = values;
        values += elements;
    }
    return STATUS_OK;
}

status codec_create(codec **out, const codec_config *config, const codec_tensor *tensors) {
    *out = NULL;
    codec *codec;
    TRY(memory_allocate((void **)&codec, sizeof *codec, "codec"));
    status result;
    TRY_GOTO(result, codec_features_open(&codec->features, config), fail);
    TRY_GOTO(result, copy_tensors(codec, tensors), fail);
    TRY_GOTO(result,
             rvq_create(&codec->acoustic, codec->tensors[CODEC_TENSOR_CODEBOOKS].data, config->dimension,
                        config->acoustic_levels, config->acoustic_codebook, config->greedy_levels,
                        config->beam),
             fail);
    const codec_tensor *centroids = &codec->tensors[CODEC_TENSOR_SEMANTIC_CENTROIDS];
    TRY_GOTO(result,
             kmeans_index_create(&codec->semantic, centroids->data, config->semantic_codebook,
                                 (uint32_t)centroids->shape[1]),
             fail);
    codec_description *description = &codec->description;
    *description = (codec_description){.sample_rate = config->sample_rate,
                                       .frame_samples = config->frame_samples,
                                       .levels = 1 + config->acoustic_levels,
                                       .codebook_size = {config->semantic_codebook}};
    for (uint32_t level = 1; level < description->levels; level++)
        description->codebook_size[level] = config->acoustic_codebook;
    *out = codec;
    return STATUS_OK;
fail:
    codec_destroy(codec);
    return result;
}

void codec_destroy(codec *codec) {
    if (codec == NULL)
        return;
    codec_features_close(&codec->features);
    rvq_destroy(codec->acoustic);
    kmeans_index_destroy(codec->semantic);
    memory_free(codec->values);
    memory_free(codec);
}

static status check_audio(const float *audio, size_t samples) {
    if (samples == 0)
        return FAIL("audio of 0 samples cannot be encoded; give at least 1 sample");
    for (size_t i = 0; i < samples; i++) {
        if (!isfinite(audio[i]))
            return FAIL("sample %zu of %zu is not finite; check the audio", i, samples);
    }
    return STATUS_OK;
}

typedef struct encode_workspace {
    void *features;  // scratch of the features
    float *log_mel;  // [frames, width]
    float *semantic; // [frames, SEMANTIC_FEATURES]
    float *stacked;  // [frames, context * SEMANTIC_FEATURES]
    uint16_t *codes; // [frames]
    float *centred;  // [width]
    float *vector;   // [dimension]
    float *search;   // scratch of the quantiser
} encode_workspace;

static encode_workspace carve_encode(arena *arena, const codec *codec, size_t samples) {
    const codec_config *config = codec_get_config(codec);
    size_t frames = codec_frame_count(codec, samples);
    size_t width = (size_t)config->columns * config->mel_bands;
    size_t context = 2 * (size_t)config->semantic_radius + 1;
    return (encode_workspace){
        .features = arena_take(arena, codec_features_scratch_bytes(&codec->features, samples)),
        .log_mel = arena_take(arena, frames * width * sizeof(float)),
        .semantic = arena_take(arena, frames * SEMANTIC_FEATURES * sizeof(float)),
        .stacked = arena_take(arena, frames * context * SEMANTIC_FEATURES * sizeof(float)),
        .codes = arena_take(arena, frames * sizeof(uint16_t)),
        .centred = arena_take(arena, width * sizeof(float)),
        .vector = arena_take(arena, config->dimension * sizeof(float)),
        .search = arena_take(arena, rvq_scratch_floats(codec->acoustic) * sizeof(float)),
    };
}

status codec_encode(const codec *codec, const float *audio, size_t samples, uint16_t *tokens) {
    const codec_config *config = codec_get_config(codec);
    TRY(check_audio(audio, samples));
    size_t frames = codec_frame_count(codec, samples), levels = codec->description.levels;
    size_t width = (size_t)config->columns * config->mel_bands;
    arena count = {0};
    carve_encode(&count, codec, samples);
    void *block;
    TRY(memory_allocate(&block, count.used, "codec encoder scratch"));
    arena views = {.base = block, .capacity = count.used};
    encode_workspace work = carve_encode(&views, codec, samples);
    codec_features_log_mel(&codec->features, audio, samples, work.log_mel, work.features);
    codec_features_semantic(&codec->features, audio, samples, work.log_mel, work.semantic, work.features);
    semantic_stack(work.semantic, frames, codec->tensors[CODEC_TENSOR_SEMANTIC_MEAN].data,
                   codec->tensors[CODEC_TENSOR_SEMANTIC_SCALE].data, config->semantic_radius, work.stacked);
    kmeans_index_assign(codec->semantic, work.stacked, frames, work.codes, NULL);
    for (size_t f = 0; f < frames; f++) {
        tokens[f * levels] = work.codes[f];
        codec_features_project(codec->tensors[CODEC_TENSOR_BASIS].data,
                               codec->tensors[CODEC_TENSOR_MEAN].data, config->dimension, width,
                               work.log_mel + f * width, work.centred, work.vector);
        rvq_encode(codec->acoustic, work.vector, tokens + f * levels + 1, work.search);
    }
    memory_free(block);
    return STATUS_OK;
}

status codec_analyse(const codec *codec, const float *audio, size_t samples, float *log_mel) {
    TRY(check_audio(audio, samples));
    void *scratch;
    TRY(memory_allocate(&scratch, codec_features_scratch_bytes(&codec->features, samples),
                        "codec analysis scratch"));
    codec_features_log_mel(&codec->features, audio, samples, log_mel, scratch);
    memory_free(scratch);
    return STATUS_OK;
}

static status check_tokens(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels) {
    const codec_description *description = &codec->description;
    if (levels == 0 || levels > description->levels)
        return FAIL_USAGE("%u levels of tokens are to be decoded; the codec has %u", levels,
                          description->levels);
    for (size_t f = 0; f < frames; f++) {
        for (uint32_t level = 0; level < levels; level++) {
            uint16_t token = tokens[f * description->levels + level];
            if (token >= description->codebook_size[level])
                return FAIL(
                    "token %u at frame %zu, level %u is outside its codebook of %u codes; were the tokens "
                    "made with another codec?",
                    token, f, level, description->codebook_size[level]);
        }
    }
    return STATUS_OK;
}

// log_mel: [width] of one frame; vector: [dimension] scratch.
static void expand_frame(const codec *codec, const uint16_t *tokens, uint32_t levels, float *vector,
                         float *log_mel) {
    const codec_config *config = codec_get_config(codec);
    size_t width = (size_t)config->columns * config->mel_bands;
    rvq_decode(codec->acoustic, tokens + 1, levels - 1, vector);
    memcpy(log_mel, codec->tensors[CODEC_TENSOR_MEAN].data, width * sizeof *log_mel);
    for (uint32_t j = 0; j < config->dimension; j++) {
        const float *row = codec->tensors[CODEC_TENSOR_BASIS].data + j * width;
        for (size_t d = 0; d < width; d++)
            log_mel[d] += vector[j] * row[d];
    }
}

status codec_describe_tokens(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels,
                             float *log_mel) {
    const codec_config *config = codec_get_config(codec);
    TRY(check_tokens(codec, tokens, frames, levels));
    float *vector;
    TRY(memory_allocate((void **)&vector, config->dimension * sizeof *vector, "codec frame"));
    for (size_t f = 0; f < frames; f++)
        expand_frame(codec, tokens + f * codec->description.levels, levels, vector,
                     log_mel + f * config->columns * config->mel_bands);
    memory_free(vector);
    return STATUS_OK;
}

typedef struct decode_workspace {
    float *vector;  // [dimension]
    float *log_mel; // [columns, bands] of one frame
    float *mel;     // [blocks, bands, lanes]
    float *padded;  // [stft_padded_samples]
    void *limiter;  // scratch of the limiter
    void *phase;    // scratch of the phase reconstruction
} decode_workspace;

static decode_workspace carve_decode(arena *arena, const codec *codec, size_t frames) {
    const codec_config *config = codec_get_config(codec);
    size_t columns = frames * config->columns, blocks = (columns + FFT_LANES - 1) / FFT_LANES;
    size_t width = (size_t)config->columns * config->mel_bands;
    const stft *transform = codec->features.transform;
    return (decode_workspace){
        .vector = arena_take(arena, config->dimension * sizeof(float)),
        .log_mel = arena_take(arena, width * sizeof(float)),
        .mel = arena_take(arena, blocks * config->mel_bands * FFT_LANES * sizeof(float)),
        .padded = arena_take(arena, stft_padded_samples(transform, columns) * sizeof(float)),
        .limiter = arena_take(arena, 12 * frames * config->frame_samples),
        .phase = arena_take(arena, griffin_lim_scratch_bytes(transform, codec->features.bank, columns)),
    };
}

size_t codec_decode_scratch_bytes(const codec *codec, size_t frames) {
    arena count = {0};
    carve_decode(&count, codec, frames);
    return count.used;
}

status codec_decode_into(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels,
                         int iterations, float *audio, float *loudest, void *scratch) {
    const codec_config *config = codec_get_config(codec);
    if (frames == 0)
        return FAIL("0 frames of tokens cannot be decoded; give at least 1 frame");
    if (iterations < 0 || iterations > CODEC_ITERATIONS_MAX)
        return FAIL_USAGE("%d iterations of phase reconstruction were asked for; 0 to %d are possible",
                          iterations, CODEC_ITERATIONS_MAX);
    TRY(check_tokens(codec, tokens, frames, levels));
    size_t bands = config->mel_bands, samples = frames * config->frame_samples;
    arena views = {.base = scratch, .capacity = codec_decode_scratch_bytes(codec, frames)};
    memset(scratch, 0, views.capacity);
    decode_workspace work = carve_decode(&views, codec, frames);
    for (size_t f = 0; f < frames; f++) {
        expand_frame(codec, tokens + f * codec->description.levels, levels, work.vector, work.log_mel);
        for (size_t i = 0; i < config->columns; i++) {
            size_t column = f * config->columns + i;
            float *out = work.mel + column / FFT_LANES * bands * FFT_LANES + column % FFT_LANES;
            for (size_t b = 0; b < bands; b++)
                out[b * FFT_LANES] = fmaxf(0.0f, expf(fminf(work.log_mel[i * bands + b], greatest_log_mel)) -
                                                     config->log_floor);
        }
    }
    griffin_lim_settings settings = {.iterations = iterations, .momentum = momentum};
    griffin_lim(codec->features.transform, codec->features.bank, work.mel, frames * config->columns,
                &settings, work.padded, work.phase);
    memcpy(audio, work.padded + stft_lead(codec->features.transform), samples * sizeof *audio);
    if (loudest != NULL) {
        *loudest = 0.0f;
        for (size_t i = 0; i < samples; i++)
            *loudest = fmaxf(*loudest, fabsf(audio[i]));
    }
    limit_peaks(audio, samples, config->sample_rate / LIMITER_REACH_PER_SECOND, ceiling, work.limiter);
    return STATUS_OK;
}

status codec_decode_coarse(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels,
                           int iterations, float *audio, float *loudest) {
    void *scratch;
    TRY(memory_allocate(&scratch, codec_decode_scratch_bytes(codec, frames) + 1, "codec decoder scratch"));
    status result = codec_decode_into(codec, tokens, frames, levels, iterations, audio, loudest, scratch);
    memory_free(scratch);
    return result;
}

status codec_decode(const codec *codec, const uint16_t *tokens, size_t frames, int iterations, float *audio) {
    return codec_decode_coarse(codec, tokens, frames, codec->description.levels, iterations, audio, NULL);
}
