// The optimiser's step, without the host: the gradient's norm, clipping and the skipping of bad gradients are
// decided on the device.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// What the kernels of one update hand on, on the device. Zeroed before the first; step lives on.
struct update_state {
    int64_t step;                   // updates done, counting this one
    int64_t skipped;                // updates left out because the gradient was not finite
    double norm;                    // of the gradient
    float scale;                    // of the gradient; 0 where this update is left out
    float correction1, correction2; // 1 / (1 - beta^step)
    int32_t skip;
};

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

// Fills *state for the update with a gradient of this sum of squares [1]: scaled to the norm `clip` if that
// is above 0 and exceeded, left out where the norm is not finite.
cudaError_t update_prepare(cudaStream_t stream, const double *sum, float clip, float beta1, float beta2,
                           update_state *state);

struct adamw_terms {
    float learning_rate, beta1, beta2, epsilon, weight_decay;
};
// Decoupled weight decay (Loshchilov & Hutter 2019) with the scale and corrections of *state, as op_adamw to
// the last bit. rounded [count]: the new parameter in bf16, for the products; NULL if not wanted. Buffers
// aligned to 16 bytes (rounded: 8), any count.
cudaError_t adamw(cudaStream_t stream, int64_t count, const adamw_terms &terms, const update_state *state,
                  const float *gradient, float *parameter, float *first, float *second, bf16 *rounded);

// The same rounding for a first copy: rounded [count] = x.
cudaError_t round_to_bf16(cudaStream_t stream, int64_t count, const float *x, bf16 *rounded);

} // namespace cuda_kernels
