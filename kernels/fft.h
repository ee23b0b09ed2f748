// Fourier transform of real signals, eight at a time: lane l of every array is signal l, so each arithmetic
// step is one vector instruction and needs no shuffles. Stockham's self-sorting radix-4 algorithm on the
// half-length complex signal (Van Loan, "Computational frameworks for the fast Fourier transform", 1992).
#pragma once

#include "kernels/status.h"

#include <stddef.h>

enum { FFT_LANES = 8 };

typedef struct fft fft;

// Plans transforms of `length` real samples, a power of two from 8 to 2^20. A plan is read-only afterwards:
// threads share it, each with its own scratch. Free with fft_destroy.
status fft_create(fft **out, size_t length);
void fft_destroy(fft *plan); // NULL is allowed

size_t fft_length(const fft *plan);

// Floats of scratch that a call needs; all arrays of a call are 32-byte aligned and do not overlap.
size_t fft_scratch_floats(const fft *plan);

// out[k] = sum over n of in[n] exp(-2 pi i k n / length).
// signal: [length, FFT_LANES]; spectrum: [length / 2 + 1, 2, FFT_LANES], real then imaginary part.
void fft_forward(const fft *plan, const float *signal, float *spectrum, float *scratch);

// The exact inverse of fft_forward, 1 / length included. The imaginary parts of the first and last bin are
// taken as 0.
void fft_inverse(const fft *plan, const float *spectrum, float *signal, float *scratch);
