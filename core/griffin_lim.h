// Audio from a mel spectrogram: fast Griffin-Lim (Perraudin, Balazs and Sondergaard, "A fast Griffin-Lim
// algorithm", 2013) whose target magnitudes are not fixed beforehand: every iteration corrects the magnitudes
// that the signal has by the ratio of wanted to present mel. A mel spectrogram has fewer numbers than the
// audio, so that a signal with very nearly this mel exists, and the iterations go there.
#pragma once

#include "core/mel.h"
#include "core/stft.h"
#include "kernels/memory.h"

typedef struct griffin_lim_settings {
    int iterations; // at least 0
    float momentum; // 0: plain Griffin-Lim
} griffin_lim_settings;

// Bytes of scratch for a clip of `columns` columns.
size_t griffin_lim_scratch_bytes(const stft *transform, const mel_bank *bank, size_t columns);

// mel: [ceil(columns / FFT_LANES), bands, FFT_LANES] wanted mel magnitudes, 0 beyond `columns`;
// padded: [stft_padded_samples(columns)] receives the audio (see stft.h). scratch: 64-byte aligned.
void griffin_lim(const stft *transform, const mel_bank *bank, const float *mel, size_t columns,
                 const griffin_lim_settings *settings, float *padded, void *scratch);

// Look-ahead peak limiter: wherever |audio| would exceed `ceiling`, the gain falls and rises smoothly over
// `reach` samples around the peak. Audio that stays below is untouched. audio: [samples], samples < 2^32;
// scratch: 12 bytes a sample.
void limit_peaks(float *audio, size_t samples, size_t reach, float ceiling, void *scratch);
