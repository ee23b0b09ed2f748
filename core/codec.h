// Codec: audio <-> tokens. A frame holds one semantic token and `acoustic_levels` acoustic tokens, coarse
// first. The interface is that of any codec with its own decoder: native (residual vector quantisation of
// log-mel, Griffin-Lim) today.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum { CODEC_LEVELS_MAX = 16 };

typedef struct codec codec;

typedef struct codec_description {
    uint32_t sample_rate;                     // Hz
    uint32_t frame_samples;                   // audio samples a token frame
    uint32_t levels;                          // 1 semantic + acoustic levels
    uint32_t codebook_size[CODEC_LEVELS_MAX]; // [levels]
} codec_description;

const codec_description *codec_describe(const codec *codec);

// Frames of a clip of `samples` samples.
size_t codec_frame_count(const codec *codec, size_t samples);

// audio: [samples], mono, nominally within [-1, 1]; tokens: [codec_frame_count(samples), levels].
// Thread-safe on one codec. The result does not depend on threads.
status codec_encode(const codec *codec, const float *audio, size_t samples, uint16_t *tokens);

// tokens: [frames, levels]; audio: [frames * frame_samples], limited to [-1, 1]. `iterations` of phase
// reconstruction: few for measuring, more for listening (codec_listening_iterations).
status codec_decode(const codec *codec, const uint16_t *tokens, size_t frames, int iterations, float *audio);

enum { CODEC_ITERATIONS_MEASURE = 6, CODEC_ITERATIONS_LISTEN = 32 };

void codec_destroy(codec *codec); // NULL is allowed
