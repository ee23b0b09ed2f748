// From audio to what the native codec quantises: log-mel columns and semantic features.
#pragma once

#include "core/codec.h"
#include "core/mel.h"
#include "core/semantic.h"
#include "core/stft.h"

typedef struct codec_features {
    codec_config config;
    stft *transform;    // of the log-mel columns
    mel_bank *bank;     // of the log-mel columns
    semantic *semantic; // of the semantic features
} codec_features;

// Checks `config`. Read-only afterwards, shared by threads. On failure nothing is held.
status codec_features_open(codec_features *features, const codec_config *config);
void codec_features_close(codec_features *features); // a zeroed one is allowed

size_t codec_features_frames(const codec_features *features, size_t samples);
size_t codec_features_scratch_bytes(const codec_features *features, size_t samples);

// audio: [samples]; log_mel: [frames, columns, mel_bands] nats; scratch: 64-byte aligned.
void codec_features_log_mel(const codec_features *features, const float *audio, size_t samples,
                            float *log_mel, void *scratch);

// Semantic features of the same clip. log_mel: as above; out: [frames, SEMANTIC_FEATURES].
void codec_features_semantic(const codec_features *features, const float *audio, size_t samples,
                             const float *log_mel, float *out, void *scratch);

// out[j] = basis[j] . (log_mel - mean). basis: [dimension, width], log_mel, mean: [width], centred: [width]
// scratch, out: [dimension].
void codec_features_project(const float *basis, const float *mean, uint32_t dimension, size_t width,
                            const float *log_mel, float *centred, float *out);
