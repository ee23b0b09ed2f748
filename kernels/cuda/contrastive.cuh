// The contrastive loss of the joint embedding. f32, as op_contrastive_loss.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// The symmetric contrastive loss of matching rows a, b [rows, width] (CLIP, Radford et al. 2021). loss [1] in
// double and dscale [1] lie on the device; da, db [rows, width] are overwritten. scratch:
// contrastive_scratch_bytes, aligned to 16.
cudaError_t contrastive_loss(cudaStream_t stream, int64_t rows, int64_t width, const float *a, const float *b,
                             float scale, float *da, float *db, float *dscale, double *loss, void *scratch);
size_t contrastive_scratch_bytes(int64_t rows);

} // namespace cuda_kernels
