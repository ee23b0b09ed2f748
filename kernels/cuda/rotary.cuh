// Rotary positions (Su et al. 2021) and the cache of keys and values. T: float or bf16. qkv: rows [3, heads,
// head_dim] of queries, keys, values; cosine and sine: [positions, head_dim / 2] f32, as op_rotary_table
// makes them. A cache is [batch, heads, capacity, head_dim].
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// Rotates queries and keys of qkv [batch * sequence, ...] in place, each by its position in its sequence;
// direction -1 undoes it, which is also the gradient.
template <typename T>
cudaError_t rotary_rows(cudaStream_t stream, int64_t rows, int sequence, int heads, int head_dim,
                        const float *cosine, const float *sine, float direction, T *qkv);

// Writes keys and values of the first `positions` rows of every sample, as rotary_rows left them in qkv
// [batch * positions, ...], into the caches.
template <typename T>
cudaError_t fill_cache(cudaStream_t stream, int batch, int positions, int heads, int head_dim, int capacity,
                       const T *qkv, T *key_cache, T *value_cache);

} // namespace cuda_kernels
