// Short-time Fourier transform with a Hann window, eight columns at a time (kernels/fft.h). Column c of a
// clip is centred on sample c * hop + hop / 2, so that a token frame of several columns is centred on its
// samples.
//
// Audio is handed over padded: zeros before and after the clip, so that every column of a block of eight lies
// inside. Column c covers padded[c * hop, c * hop + window); the clip starts at padded[stft_lead()].
#pragma once

#include "kernels/fft.h"
#include "kernels/status.h"

#include <stddef.h>

typedef struct stft stft;

// window: samples, a power of two; hop: samples, at most window / 2. Read-only afterwards, shared by threads.
status stft_create(stft **out, size_t window, size_t hop);
void stft_destroy(stft *plan); // NULL is allowed

size_t stft_bins(const stft *plan); // window / 2 + 1
size_t stft_hop(const stft *plan);
size_t stft_lead(const stft *plan); // zeros before the clip
// Length of a padded clip of `columns` columns; `columns` is rounded up to whole blocks of FFT_LANES.
size_t stft_padded_samples(const stft *plan, size_t columns);
size_t stft_scratch_floats(const stft *plan); // scratch of each call below, 32-byte aligned

// The spectrum of columns first .. first + FFT_LANES - 1. Scaled so that a sine of amplitude 1 has magnitude
// 1 in its bin. spectrum: [bins, 2, FFT_LANES], real and imaginary part.
void stft_forward(const stft *plan, const float *padded, size_t first, float *spectrum, float *scratch);

// Adds the windowed inverse transforms of `count` <= FFT_LANES columns to `padded`. Dividing by
// stft_window_energy afterwards gives the least-squares signal (Griffin and Lim, 1984).
void stft_add_inverse(const stft *plan, const float *spectrum, size_t first, size_t count, float *padded,
                      float *scratch);

// energy[n] = sum over columns of the squared window at padded sample n. energy: [stft_padded_samples].
void stft_window_energy(const stft *plan, size_t columns, float *energy);
