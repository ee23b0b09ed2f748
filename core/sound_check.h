// What a listener would complain of, measured on one clip: its tokens, or its decoded audio.
#pragma once

#include <stddef.h>
#include <stdint.h>

// 12 dB above full scale: more than the limiter takes back unheard. Clips of the demonstration's models
// reach 3.8.
#define SOUND_CHECK_LOUDEST 4.0f

typedef struct sound_check {
    double peak;            // of full scale, before the decoder's limiter
    double rms;             // of full scale
    double longest_silence; // seconds below -60 dBFS
    double longest_repeat;  // seconds over which the token frames repeat a pattern of at most half a second
    int clipped, silent,
        stuck; // verdicts: a peak beyond SOUND_CHECK_LOUDEST; silence, repeat over half of the clip
} sound_check;
// audio: [samples]; loudest: its greatest |sample| before the decoder's limiter (core/codec.h); tokens:
// [frames, levels] of the same clip.
sound_check sound_check_clip(const float *audio, size_t samples, float loudest, uint32_t sample_rate,
                             const uint16_t *tokens, size_t frames, size_t levels);

// The longest run of frames, in frames, that repeats what stood some period of at most `longest_period`
// frames before, all levels alike. tokens: [frames, levels].
size_t sound_check_longest_repeat(const uint16_t *tokens, size_t frames, size_t levels,
                                  size_t longest_period);
// Whether that covers more than half of the clip, for periods of at most half a second. frame_rate: Hz.
int sound_check_is_stuck(const uint16_t *tokens, size_t frames, size_t levels, double frame_rate);

// Perplexity exp(entropy) of a histogram of codes: between 1 (one code is used) and `size` (all alike); 0 of
// an empty one. counts: [size].
double sound_check_perplexity(const double *counts, size_t size);
