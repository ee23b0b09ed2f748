// Mel filter bank: overlapping triangles, evenly spaced on the mel scale m = 1127 ln(1 + f / 700)
// (O'Shaughnessy, "Speech communication", 1987), each of height 1 at its centre.
#pragma once

#include "kernels/fft.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mel_bank mel_bank;

// window: samples of the transform; low, high: Hz, the outer corners of the first and last triangle. A band
// too narrow to hold a bin takes the two nearest ones. Read-only afterwards, shared by threads.
status mel_bank_create(mel_bank **out, uint32_t bands, size_t window, uint32_t sample_rate, float low,
                       float high);
void mel_bank_destroy(mel_bank *bank); // NULL is allowed

uint32_t mel_bank_bands(const mel_bank *bank);
size_t mel_bank_bins(const mel_bank *bank); // window / 2 + 1

// mel[b] = sum over bins of weight[b, k] magnitude[k]. magnitude: [bins, FFT_LANES], mel: [bands, FFT_LANES].
void mel_bank_apply(const mel_bank *bank, const float *magnitude, float *mel);

// gain[k] = weighted mean over bands of ratio[b], weights weight[b, k]: the multiplicative update of
// Lee and Seung ("Learning the parts of objects", 1999) for a magnitude whose mel is off by `ratio`; 0 at
// bins that no band covers. ratio: [bands, FFT_LANES], gain: [bins, FFT_LANES].
void mel_bank_spread(const mel_bank *bank, const float *ratio, float *gain);
