// A thread rotates one chunk of pairs (i, i + head_dim / 2): two accesses of 16 bytes in and out, one value
// of the table for each pair, which the caches serve. Traffic: queries and keys read and written once; keys
// and values read once and written once into the caches. Where one position is decoded, attention_decode does
// both.
#include "kernels/cuda/rotary.cuh"

namespace cuda_kernels {

namespace {

constexpr int THREADS = 256;

// Head dimensions are multiples of 16, so that their halves hold whole chunks of 8.
template <typename T>
__global__ void rotary_kernel(int64_t rows, int sequence, int heads, int head_dim, const float *cosine,
                              const float *sine, float direction, T *qkv) {
    const int half = head_dim / 2, chunks = half / PACK<T>;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, pair = at / chunks;
    const int64_t row = pair / (2 * heads), head = pair % (2 * heads); // keys follow the queries
    const int i = static_cast<int>(at % chunks) * PACK<T>;
    if (row >= rows)
        return;
    const int64_t angle = row % sequence * half + i;
    T *x = qkv + (row * 3 * heads + head) * head_dim + i;
    float a[PACK<T>], b[PACK<T>], c[PACK<T>], s[PACK<T>];
    load_pack(x, a);
    load_pack(x + half, b);
    load_pack(cosine + angle, c);
    load_pack(sine + angle, s);
#pragma unroll
    for (int k = 0; k < PACK<T>; k++) {
        const float first = a[k], second = b[k], turn = direction * s[k];
        a[k] = first * c[k] - second * turn;
        b[k] = second * c[k] + first * turn;
    }
    store_pack(x, a);
    store_pack(x + half, b);
}

template <typename T>
__global__ void fill_kernel(int batch, int positions, int heads, int head_dim, int capacity, const T *qkv,
                            T *key_cache, T *value_cache) {
    const int chunks = head_dim / PACK<T>;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, all = at / chunks;
    const int64_t row = all / (2 * heads), sample = row / positions, position = row % positions;
    const int part = static_cast<int>(all % (2 * heads)) / heads, head = static_cast<int>(all % heads);
    const int i = static_cast<int>(at % chunks) * PACK<T>;
    if (sample >= batch)
        return;
    float value[PACK<T>];
    stream_pack(qkv + ((row * 3 + 1 + part) * heads + head) * head_dim + i, value);
    store_pack((part == 0 ? key_cache : value_cache) +
                   ((sample * heads + head) * capacity + position) * head_dim + i,
               value);
}

} // namespace

template <typename T>
cudaError_t rotary_rows(cudaStream_t stream, int64_t rows, int sequence, int heads, int head_dim,
                        const float *cosine, const float *sine, float direction, T *qkv) {
    return launch(rotary_kernel<T>, blocks_for(rows * heads * head_dim / PACK<T>, THREADS), THREADS, 0,
                  stream, rows, sequence, heads, head_dim, cosine, sine, direction, qkv);
}

template <typename T>
cudaError_t fill_cache(cudaStream_t stream, int batch, int positions, int heads, int head_dim, int capacity,
                       const T *qkv, T *key_cache, T *value_cache) {
    const int64_t chunks = static_cast<int64_t>(batch) * positions * 2 * heads * head_dim / PACK<T>;
    return launch(fill_kernel<T>, blocks_for(chunks, THREADS), THREADS, 0, stream, batch, positions, heads,
                  head_dim, capacity, qkv, key_cache, value_cache);
}

#define INSTANTIATE(T)                                                                                       \
    template cudaError_t rotary_rows(cudaStream_t, int64_t, int, int, int, const float *, const float *,     \
                                     float, T *);                                                            \
    template cudaError_t fill_cache(cudaStream_t, int, int, int, int, int, const T *, T *, T *)
INSTANTIATE(float);
INSTANTIATE(bf16);

} // namespace cuda_kernels
