// Trains the native codec on clips.
#pragma once

#include "core/codec.h"

typedef struct codec_train_settings {
    codec_config config;
    uint32_t iterations; // of each k-means
    uint32_t frames;     // most frames to train on; if the clips have more, evenly spaced ones are taken
    uint64_t seed;
} codec_train_settings;

codec_train_settings codec_train_default(void);

// audio: [clips, samples] mono PCM at config.sample_rate, in memory at once; together at least as many frames
// as the largest codebook has codes. Uses all OpenMP threads; the result does not depend on how many. The
// caller frees the codec with codec_destroy.
status codec_train(codec **out, const codec_train_settings *settings, const int16_t *audio, size_t clips,
                   size_t samples);

// PCM to the [-1, 1) of codec_encode. pcm, audio: [samples].
void codec_from_pcm(const int16_t *pcm, size_t samples, float *audio);
