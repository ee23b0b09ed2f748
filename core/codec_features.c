#include "core/codec_features.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

status codec_features_open(codec_features *features, const codec_config *config) {
    *features = (codec_features){.config = *config};
    TRY(codec_config_check(config));
    status result;
    TRY_GOTO(result,
             stft_create(&features->transform, config->window, config->frame_samples / config->columns),
             fail);
    TRY_GOTO(result,
             mel_bank_create(&features->bank, config->mel_bands, config->window, config->sample_rate,
                             config->mel_low, config->mel_high),
             fail);
    TRY_GOTO(result,
             semantic_create(&features->semantic, config->sample_rate, config->frame_samples, config->columns,
                             config->mel_bands),
             fail);
    return STATUS_OK;
fail:
    codec_features_close(features);
    return result;
}

void codec_features_close(codec_features *features) {
    stft_destroy(features->transform);
    mel_bank_destroy(features->bank);
    semantic_destroy(features->semantic);
    *features = (codec_features){0};
}

size_t codec_features_frames(const codec_features *features, size_t samples) {
    return (samples + features->config.frame_samples - 1) / features->config.frame_samples;
}

typedef struct workspace {
    float *padded;    // [stft_padded_samples]
    float *spectrum;  // [bins, 2, lanes]
    float *magnitude; // [bins, lanes]
    float *mel;       // [bands, lanes]
    float *transform; // scratch of the transform
} workspace;

static workspace carve(arena *arena, const codec_features *features, size_t columns) {
    size_t plane = stft_bins(features->transform) * FFT_LANES * sizeof(float);
    return (workspace){
        .padded = arena_take(arena, stft_padded_samples(features->transform, columns) * sizeof(float)),
        .spectrum = arena_take(arena, 2 * plane),
        .magnitude = arena_take(arena, plane),
        .mel = arena_take(arena, features->config.mel_bands * FFT_LANES * sizeof(float)),
        .transform = arena_take(arena, stft_scratch_floats(features->transform) * sizeof(float)),
    };
}

size_t codec_features_scratch_bytes(const codec_features *features, size_t samples) {
    size_t frames = codec_features_frames(features, samples);
    arena count = {0};
    carve(&count, features, frames * features->config.columns);
    size_t semantic_bytes = semantic_scratch_bytes(features->semantic, frames);
    return count.used > semantic_bytes ? count.used : semantic_bytes;
}

void codec_features_log_mel(const codec_features *features, const float *audio, size_t samples,
                            float *log_mel, void *scratch) {
    const stft *transform = features->transform;
    size_t bands = features->config.mel_bands, bins = stft_bins(transform);
    size_t columns = codec_features_frames(features, samples) * features->config.columns;
    arena views = {.base = scratch, .capacity = codec_features_scratch_bytes(features, samples)};
    workspace work = carve(&views, features, columns);
    memset(work.padded, 0, stft_padded_samples(transform, columns) * sizeof(float));
    memcpy(work.padded + stft_lead(transform), audio, samples * sizeof(float));
    for (size_t first = 0; first < columns; first += FFT_LANES) {
        stft_forward(transform, work.padded, first, work.spectrum, work.transform);
        for (size_t k = 0; k < bins; k++) {
            const float *re = work.spectrum + k * 2 * FFT_LANES, *im = re + FFT_LANES;
            for (size_t lane = 0; lane < FFT_LANES; lane++)
                work.magnitude[k * FFT_LANES + lane] = sqrtf(re[lane] * re[lane] + im[lane] * im[lane]);
        }
        mel_bank_apply(features->bank, work.magnitude, work.mel);
        size_t count = columns - first < FFT_LANES ? columns - first : FFT_LANES;
        for (size_t lane = 0; lane < count; lane++) {
            for (size_t b = 0; b < bands; b++)
                log_mel[(first + lane) * bands + b] =
                    logf(work.mel[b * FFT_LANES + lane] + features->config.log_floor);
        }
    }
}

void codec_features_semantic(const codec_features *features, const float *audio, size_t samples,
                             const float *log_mel, float *out, void *scratch) {
    semantic_extract(features->semantic, audio, samples, log_mel, codec_features_frames(features, samples),
                     out, scratch);
}

void codec_features_project(const float *basis, const float *mean, uint32_t dimension, size_t width,
                            const float *log_mel, float *centred, float *out) {
    for (size_t d = 0; d < width; d++)
        centred[d] = log_mel[d] - mean[d];
    for (uint32_t j = 0; j < dimension; j++) {
        const float *row = basis + j * width;
        float partial[16] = {0};
        size_t d = 0;
        for (; d + 16 <= width; d += 16) {
            for (int i = 0; i < 16; i++)
                partial[i] += row[d + i] * centred[d + i];
        }
        float sum = 0;
        for (; d < width; d++)
            sum += row[d] * centred[d];
        for (int i = 0; i < 8; i++)
            partial[i] += partial[i + 8];
        for (int i = 0; i < 4; i++)
            partial[i] += partial[i + 4];
        out[j] = ((partial[0] + partial[2]) + (partial[1] + partial[3])) + sum;
    }
}
