// Gated activations between the products of a feed-forward part. T: float or bf16.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// gate_up: [rows, 2 * width], gate first; out: [rows, width] = silu(gate) * up (Shazeer 2020). As op_swiglu.
template <typename T>
cudaError_t swiglu(cudaStream_t stream, int64_t rows, int64_t width, const T *gate_up, T *out);
// dgate_up may be gate_up.
template <typename T>
cudaError_t swiglu_backward(cudaStream_t stream, int64_t rows, int64_t width, const T *gate_up, const T *dout,
                            T *dgate_up);

} // namespace cuda_kernels
