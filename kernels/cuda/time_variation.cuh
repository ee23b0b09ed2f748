// How much every channel varies over time, the pathway of variation of the joint embedding. f32, as
// op_time_variation.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// x [batch, sequence, channels]; out [batch, 2, channels]: the logarithms of the variance over the sequence
// and of the mean square of the steps. sequence >= 2.
cudaError_t time_variation(cudaStream_t stream, int batch, int sequence, int64_t channels, float scale,
                           float epsilon, const float *x, float *out);
// out as the forward pass left it; adds to dx [batch, sequence, channels].
cudaError_t time_variation_backward(cudaStream_t stream, int batch, int sequence, int64_t channels,
                                    float scale, const float *x, const float *out, const float *dout,
                                    float *dx);

} // namespace cuda_kernels
