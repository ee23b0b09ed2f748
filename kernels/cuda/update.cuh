// The optimiser's step.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// x [count] *= factor, as op_scale.
cudaError_t scale(cudaStream_t stream, int64_t count, float factor, float *x);

// One slot of a balanced tree of sums, as op_add_slot.
cudaError_t add_slot(cudaStream_t stream, int64_t count, int depth, bool keep, int64_t stride, float *partial,
                     float *values);

// out [1] = sum of squares in double over fixed chunks, as op_sum_squares. scratch:
// sum_squares_scratch_bytes.
cudaError_t sum_squares(cudaStream_t stream, int64_t count, const float *x, double *out, double *scratch);
size_t sum_squares_scratch_bytes(int64_t count);

// out [1] = 1 where every value is finite, otherwise 0.
cudaError_t all_finite(cudaStream_t stream, int64_t count, const float *x, int32_t *out);

struct adamw_terms {
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    float scale;                    // of the gradient
    float correction1, correction2; // 1 / (1 - beta^step)
};
// Decoupled weight decay (Loshchilov & Hutter 2019), as op_adamw to the last bit. Buffers aligned to 16
// bytes, any count.
cudaError_t adamw(cudaStream_t stream, int64_t count, const adamw_terms &terms, const float *gradient,
                  float *parameter, float *first, float *second);

// rounded [count] = x, for the products; aligned to 8 bytes.
cudaError_t round_to_bf16(cudaStream_t stream, int64_t count, const float *x, bf16 *rounded);

} // namespace cuda_kernels
