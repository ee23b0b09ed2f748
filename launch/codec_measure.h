// How good a codec is on clips: what its levels describe, which codes they use, which tokens survive
// decoding, and what phase reconstruction costs.
#pragma once

#include "core/codec.h"

#include <stdbool.h>

enum { CODEC_MEASURE_PASSES = 3 };

typedef struct codec_measurement {
    uint32_t levels;   // 1 semantic + acoustic
    double frame_rate; // token frames a second
    uint32_t codebook_size[CODEC_LEVELS_MAX];
    size_t clips, frames; // measured; frames in all
    size_t decoded_clips; // of them decoded, for the survival
    bool held_out;        // clips of captions that were not trained on
    double
        error[CODEC_LEVELS_MAX]; // [levels] mean |log-mel error|, nats, with 0 .. levels - 1 acoustic levels
    double perplexity[CODEC_LEVELS_MAX]; // [levels] of the codes used
    uint32_t used[CODEC_LEVELS_MAX];     // [levels] codes that occur
    uint32_t dead[CODEC_LEVELS_MAX];     // [levels] codes below 1 / dead_share of an even share
    uint32_t dead_share;
    int iterations[CODEC_MEASURE_PASSES];
    double survival[CODEC_MEASURE_PASSES][CODEC_LEVELS_MAX]; // [passes, levels] share of unchanged tokens
    double decode_seconds[CODEC_MEASURE_PASSES];             // of one clip on one core
    double encode_seconds;                                   // of one clip on one core
    double peak;                                             // greatest |sample| decoded
} codec_measurement;

// pcm: [clips, samples], clips >= 1; the first `decoded_clips` of them are also decoded and encoded again.
// Runs on all OpenMP threads; all figures but the seconds are independent of their number.
status codec_measure(const codec *codec, const int16_t *pcm, size_t clips, size_t samples,
                     size_t decoded_clips, codec_measurement *out);
