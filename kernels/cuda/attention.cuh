// Attention on the card. The contract is that of the CPU operators (kernels/operators.h) but for storage: T
// is f32 or bf16, products are taken of values rounded to bf16, sums and softmax are f32. What a kernel adds
// up it adds in one order, which depends on no other row, sample or head.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// head_dim: a multiple of 16 up to 128. Rows of 3 * heads * head_dim values: queries, keys, values.
struct attention_sizes {
    int batch, sequence, heads, head_dim;
    bool causal;
    const int32_t *lengths; // [batch] keys that exist, or NULL
};
constexpr int HEAD_DIM_MAX = 128;

// qkv [batch * sequence, 3 * width] with queries and keys rotated; out [batch * sequence, width]; log_sum
// [batch, heads, sequence] or NULL.
template <typename T>
cudaError_t attention_forward(cudaStream_t stream, const attention_sizes &sizes, const T *qkv, T *out,
                              float *log_sum);

// dqkv: with respect to the rotated queries and keys; every element is written. delta: scratch, [batch,
// heads, sequence].
template <typename T>
cudaError_t attention_backward(cudaStream_t stream, const attention_sizes &sizes, const T *qkv, const T *out,
                               const float *log_sum, const T *dout, T *dqkv, float *delta);

// Causal attention of every row as attention_decode adds it up from a cache, to the last bit for the same
// `longest`, so that scoring gives what sampling gave. qkv, out, log_sum: as attention_forward. Without
// tensor cores: every row reads the keys and values before it again, from the second-level cache.
template <typename T>
cudaError_t attention_rows(cudaStream_t stream, const attention_sizes &sizes, int longest, const T *qkv,
                           T *out, float *log_sum);

// Sequences of up to SHORT_SEQUENCE positions, causal: rotation, attention, and all of it backward in one
// kernel each; no scratch. Forward rotates queries and keys of qkv in place; backward gives the gradient with
// respect to the values before rotation. cosine, sine: [positions, head_dim / 2].
constexpr int SHORT_SEQUENCE = 16;
template <typename T>
cudaError_t attention_short_forward(cudaStream_t stream, const attention_sizes &sizes, const float *cosine,
                                    const float *sine, T *qkv, T *out, float *log_sum);
template <typename T>
cudaError_t attention_short_backward(cudaStream_t stream, const attention_sizes &sizes, const float *cosine,
                                     const float *sine, const T *qkv, const float *log_sum, const T *dout,
                                     T *dqkv);

// One position of a batch, qkv [batch, 3 * width]: rotates it (in qkv too), appends its key and value to the
// caches [batch, heads, capacity, head_dim] and attends to positions 0 .. position.
struct decode_sizes {
    int batch, heads, head_dim, capacity;
    int longest; // up to DECODE_ONE_WARP: one warp a head, otherwise four, whose sums go another way
    int position;
    const int32_t *position_on_device; // [1], added to position: a captured graph is launched again and again
};
// Keys are reduced in chunks of DECODE_CHUNK, which are merged in their order, by one block or, with splits >
// 1, by several: the bits are the same. partial: decode_partial_floats, needed where splits > 1.
constexpr int DECODE_CHUNK = 512, DECODE_ONE_WARP = 32;
template <typename T>
cudaError_t attention_decode(cudaStream_t stream, const decode_sizes &sizes, int splits, const float *cosine,
                             const float *sine, T *qkv, T *key_cache, T *value_cache, T *out, float *partial);
size_t decode_partial_floats(const decode_sizes &sizes);
// 1 where batch x heads alone fills `multiprocessors`, otherwise one block a chunk.
int decode_splits(const decode_sizes &sizes, int multiprocessors);

} // namespace cuda_kernels
