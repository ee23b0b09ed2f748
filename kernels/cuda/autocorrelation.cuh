// Normalised autocorrelation of every channel over time, the rhythm's pathway of reward models. f32, as
// op_autocorrelation.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// x [batch, sequence, channels] is centred in place; out [batch, lags, channels], lag 1 first;
// inverse_energies [batch, channels]. lags < sequence.
cudaError_t autocorrelation(cudaStream_t stream, int batch, int sequence, int64_t channels, int lags,
                            float epsilon, float *x, float *out, float *inverse_energies);
// dx [batch, sequence, channels] with respect to the values before centring; x, out, inverse_energies as the
// forward pass left them. weighted: scratch [batch, channels].
cudaError_t autocorrelation_backward(cudaStream_t stream, int batch, int sequence, int64_t channels, int lags,
                                     const float *x, const float *out, const float *inverse_energies,
                                     const float *dout, float *dx, float *weighted);

} // namespace cuda_kernels
