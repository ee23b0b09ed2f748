// Normalisation of rows, with the residual sum before it. X: storage of the residual stream, Y: of what the
// products read; <float, float>, <float, bf16> and <bf16, bf16> exist. Widths are multiples of 16, at most
// NORM_WIDTH_MAX. A row's bits do not depend on the rows around it.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

constexpr int64_t NORM_WIDTH_MAX = 8192;

// s = x + added (added NULL: x), as stored in X; out [rows, width] = s * r * gain [width], r = 1 /
// sqrt(mean(s^2) + epsilon). sum [rows, width] receives s, inverse_rms [rows] r; NULL if not wanted. sum may
// be x.
template <typename X, typename Y>
cudaError_t rms_norm(cudaStream_t stream, int64_t rows, int64_t width, const X *x, const X *added,
                     const float *gain, float epsilon, Y *out, float *inverse_rms, X *sum);
// dx [rows, width] += ..., dgain [width] += ...; x: s of the forward pass. scratch:
// norm_backward_scratch_floats.
template <typename X, typename Y>
cudaError_t rms_norm_backward(cudaStream_t stream, int64_t rows, int64_t width, const X *x, const float *gain,
                              const float *inverse_rms, const Y *dy, X *dx, float *dgain, float *scratch);

size_t norm_backward_scratch_floats(int64_t rows, int64_t width);

} // namespace cuda_kernels
