// Attention of one new position over the cache, for large batches of single queries: no tensor cores, the
// cache is read once and each value used once, so the card's memory is the limit.
//
// A block has one head of one sample. LANES lanes hold one key's 16-byte pieces between them, so that a warp
// reads whole rows of neighbouring keys; AHEAD keys of a lane are under way at once. Every group of lanes has
// a softmax of its own over the keys that fall to it; at the end of a chunk of DECODE_CHUNK keys the groups
// are merged, over the lanes of a warp in a tree, then over the warps in order, and the chunk into what came
// before. A chunk's result is the same whoever computes it: with splits > 1 the chunks go to blocks of their
// own, and merge_kernel puts them together in the same order.
//
// rows_kernel does the same for every position of a sequence, from rows of qkv.
//
// The block that reads the last chunk rotates the new key, appends it and the new value to the cache, and
// reads them back from there, so that they are rounded like the others. Traffic: 2 (position + 1) head_dim
// values a head; qkv and out are small beside it.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tile.cuh"

namespace cuda_kernels {

namespace {

constexpr int AHEAD = 4;

// The largest score of some keys, the sum of their weights relative to it, and of their weighted values.
template <int N> struct softmax_part { float top, total, sum[N]; };

template <int N> __device__ __forceinline__ void clear(softmax_part<N> &x) {
    x.top = MASKED;
    x.total = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++)
        x.sum[i] = 0.0f;
}

// Neither side may depend on who holds it: both lanes of an exchange compute the same bits. A part without
// keys (top = MASKED, sums 0) changes nothing.
template <int N> __device__ __forceinline__ void merge(softmax_part<N> &x, const softmax_part<N> &y) {
    const float top = fmaxf(x.top, y.top), a = exp2_approximate(x.top - top),
                b = exp2_approximate(y.top - top);
    x.top = top;
    x.total = x.total * a + y.total * b;
#pragma unroll
    for (int i = 0; i < N; i++)
        x.sum[i] = x.sum[i] * a + y.sum[i] * b;
}

// A value of the new position's rotated query or key.
template <typename T>
__device__ __forceinline__ float rotated(const T *x, int i, int half, const float *cosine,
                                         const float *sine) {
    const int pair = i < half ? i : i - half;
    const float own = to_float(x[i]), other = to_float(x[i < half ? i + half : pair]);
    return i < half ? own * cosine[pair] - other * sine[pair] : own * cosine[pair] + other * sine[pair];
}

template <typename T> struct decode_view {
    const T *keys, *values; // of this head
    int64_t stride;         // from one key to the next
    int head_dim, last;     // keys of the chunk are below `last`
};

__device__ __forceinline__ int position_of(const decode_sizes &s) {
    return s.position + (s.position_on_device != nullptr ? *s.position_on_device : 0);
}

// Keys first .. first + DECODE_CHUNK. D: head_dim rounded up; N values a lane, LANES lanes a key. ONCE:
// nobody reads these keys again soon.
template <int D, int WARPS, bool ONCE, typename T>
__device__ __forceinline__ void reduce_chunk(const decode_view<T> &view, int first,
                                             const float (&query)[PACK<T>], softmax_part<PACK<T>> &part) {
    constexpr int N = PACK<T>, LANES = D / N, GROUPS = WARPS * WARP_LANES / LANES;
    const int group = static_cast<int>(threadIdx.x) / LANES,
              column = static_cast<int>(threadIdx.x) % LANES * N;
    const bool exists = column < view.head_dim;
    const int last = min(first + DECODE_CHUNK, view.last);
    clear(part);
    // All lanes of a warp walk alike, because they shuffle.
    for (int start = first; start < last; start += GROUPS * AHEAD) {
        float key[AHEAD][N], value[AHEAD][N], score[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int at = start + a * GROUPS + group;
#pragma unroll
            for (int i = 0; i < N; i++)
                key[a][i] = value[a][i] = 0.0f;
            if (at < last && exists) {
                read_pack<ONCE>(view.keys + at * view.stride + column, key[a]);
                read_pack<ONCE>(view.values + at * view.stride + column, value[a]);
            }
        }
        float top = part.top;
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            float dot = 0.0f;
#pragma unroll
            for (int i = 0; i < N; i++)
                dot = fmaf(query[i], key[a][i], dot);
#pragma unroll
            for (int bits = LANES / 2; bits > 0; bits /= 2)
                dot += __shfl_xor_sync(WHOLE_WARP, dot, bits);
            score[a] = start + a * GROUPS + group < last ? dot : MASKED;
            top = fmaxf(top, score[a]);
        }
        const float factor = exp2_approximate(part.top - top);
        part.top = top;
        part.total *= factor;
#pragma unroll
        for (int i = 0; i < N; i++)
            part.sum[i] *= factor;
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            // A group that has had no key has top = MASKED, and a weight of 1 for what is none.
            const float weight = score[a] == MASKED ? 0.0f : exp2_approximate(score[a] - top);
            part.total += weight;
#pragma unroll
            for (int i = 0; i < N; i++)
                part.sum[i] = fmaf(weight, value[a][i], part.sum[i]);
        }
    }
}

// Merges the groups of a block; the first LANES lanes hold the result.
template <int LANES, int WARPS, int N> __device__ __forceinline__ void merge_groups(softmax_part<N> &part) {
#pragma unroll
    for (int bits = LANES; bits < WARP_LANES; bits *= 2) {
        softmax_part<N> other;
        other.top = __shfl_xor_sync(WHOLE_WARP, part.top, bits);
        other.total = __shfl_xor_sync(WHOLE_WARP, part.total, bits);
#pragma unroll
        for (int i = 0; i < N; i++)
            other.sum[i] = __shfl_xor_sync(WHOLE_WARP, part.sum[i], bits);
        merge(part, other);
    }
    if (WARPS == 1)
        return;
    SHARED(float, parts, [WARPS][LANES][N + 2]);
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES,
              lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    __syncthreads(); // the chunk before has been read
    if (lane < LANES) {
        parts[warp][lane][0] = part.top;
        parts[warp][lane][1] = part.total;
#pragma unroll
        for (int i = 0; i < N; i++)
            parts[warp][lane][2 + i] = part.sum[i];
    }
    __syncthreads();
    if (warp > 0 || lane >= LANES)
        return;
    for (int w = 1; w < WARPS; w++) {
        softmax_part<N> other;
        other.top = parts[w][lane][0];
        other.total = parts[w][lane][1];
#pragma unroll
        for (int i = 0; i < N; i++)
            other.sum[i] = parts[w][lane][2 + i];
        merge(part, other);
    }
}

template <int N, typename T>
__device__ __forceinline__ void store_result(const softmax_part<N> &part, T *out) {
    const float factor = 1.0f / part.total;
    float row[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        row[i] = part.sum[i] * factor;
    store_pack(out, row);
}

// blockIdx: chunks (one where not split), heads, samples.
template <int D, int WARPS, typename T>
__global__ void __launch_bounds__(WARPS *WARP_LANES)
    decode_kernel(decode_sizes s, float scale, const float *cosine, const float *sine, T *qkv, T *key_cache,
                  T *value_cache, T *out, float *partial) {
    constexpr int N = PACK<T>, LANES = D / N;
    static_assert(LANES <= WARP_LANES, "one key lies within a warp");
    const int position = position_of(s);
    const int chunks = position / DECODE_CHUNK + 1, chunk = static_cast<int>(blockIdx.x);
    const bool split = gridDim.x > 1;
    if (split && chunk >= chunks)
        return;
    const bool appends = !split || chunk + 1 == chunks;
    const int64_t width = static_cast<int64_t>(s.heads) * s.head_dim,
                  pair = static_cast<int64_t>(blockIdx.z) * s.heads + blockIdx.y,
                  at = pair * s.capacity * s.head_dim;
    T *q = qkv + static_cast<int64_t>(blockIdx.z) * 3 * width + blockIdx.y * s.head_dim, *k = q + width;
    T *keys = key_cache + at, *values = value_cache + at;
    const int half = s.head_dim / 2, thread = static_cast<int>(threadIdx.x), column = thread % LANES * N;
    cosine += static_cast<int64_t>(position) * half;
    sine += static_cast<int64_t>(position) * half;

    float query[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        query[i] = column < s.head_dim ? rotated(q, column + i, half, cosine, sine) : 0.0f;
    if (appends) {
        float key[N];
#pragma unroll
        for (int i = 0; i < N; i++)
            key[i] = column < s.head_dim ? rotated(k, column + i, half, cosine, sine) : 0.0f;
        if (thread < LANES && column < s.head_dim) {
            const int64_t row = static_cast<int64_t>(position) * s.head_dim + column;
            float value[N];
            load_pack(k + width + column, value);
            store_pack(keys + row, key);
            store_pack(values + row, value);
        }
        __syncthreads(); // the row is in the cache, and everyone has read k, and q where not split
        if (thread < LANES && column < s.head_dim)
            store_pack(k + column, key);
    }
    // Where the work is split, others may still read q: the kernel that merges stores it.
    if (!split && thread < LANES && column < s.head_dim)
        store_pack(q + column, query);
#pragma unroll
    for (int i = 0; i < N; i++)
        query[i] = to_float(from_float<T>(query[i])) * scale; // as stored

    const decode_view<T> view = {keys, values, s.head_dim, s.head_dim, position + 1};
    softmax_part<N> all, part;
    clear(all);
    for (int c = split ? chunk : 0; c < (split ? chunk + 1 : chunks); c++) {
        reduce_chunk<D, WARPS, true>(view, c * DECODE_CHUNK, query, part);
        merge_groups<LANES, WARPS>(part);
        merge(all, part);
    }
    if (thread >= LANES)
        return;
    if (!split) {
        if (column < s.head_dim)
            store_result(all, out + pair * s.head_dim + column);
        return;
    }
    float *to = partial + ((pair * gridDim.x + chunk) * LANES + thread) * (N + 2);
    to[0] = all.top;
    to[1] = all.total;
#pragma unroll
    for (int i = 0; i < N; i++)
        to[2 + i] = all.sum[i];
}

// blockIdx: heads of all samples, and within each its positions from the last one on: blocks that run
// together read the same keys, from the second-level cache.
template <int D, int WARPS, typename T>
__global__ void __launch_bounds__(WARPS *WARP_LANES)
    rows_kernel(attention_sizes s, float scale, const T *qkv, T *out, float *log_sum) {
    constexpr int N = PACK<T>, LANES = D / N;
    const unsigned length = static_cast<unsigned>(s.sequence), pair = blockIdx.x / length;
    const int position = s.sequence - 1 - static_cast<int>(blockIdx.x % length),
              thread = static_cast<int>(threadIdx.x), column = thread % LANES * N;
    const int64_t width = static_cast<int64_t>(s.heads) * s.head_dim, stride = 3 * width,
                  sample = pair / static_cast<unsigned>(s.heads),
                  head = pair % static_cast<unsigned>(s.heads), row = sample * s.sequence + position;
    const T *q = qkv + sample * s.sequence * stride + head * s.head_dim;
    float query[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        query[i] = 0.0f;
    if (column < s.head_dim)
        load_pack(q + position * stride + column, query);
#pragma unroll
    for (int i = 0; i < N; i++)
        query[i] *= scale;
    const decode_view<T> view = {q + width, q + 2 * width, stride, s.head_dim, position + 1};
    softmax_part<N> all, part;
    clear(all);
    for (int first = 0; first <= position; first += DECODE_CHUNK) {
        reduce_chunk<D, WARPS, false>(view, first, query, part);
        merge_groups<LANES, WARPS>(part);
        merge(all, part);
    }
    if (thread >= LANES)
        return;
    if (thread == 0 && log_sum != nullptr)
        log_sum[static_cast<int64_t>(pair) * s.sequence + position] = (all.top + log2f(all.total)) * LN_2;
    if (column < s.head_dim)
        store_result(all, out + row * width + head * s.head_dim + column);
}

// A warp a head: merges the chunks in order, and rotates the query in qkv.
template <int D, typename T>
__global__ void merge_kernel(decode_sizes s, int splits, const float *cosine, const float *sine, T *qkv,
                             const float *partial, T *out) {
    constexpr int N = PACK<T>, LANES = D / N;
    const int position = position_of(s);
    const int64_t pair = static_cast<int64_t>(blockIdx.y) * s.heads + blockIdx.x;
    const int lane = static_cast<int>(threadIdx.x), column = lane * N, half = s.head_dim / 2;
    const bool exists = lane < LANES && column < s.head_dim;
    T *q = qkv + static_cast<int64_t>(blockIdx.y) * 3 * s.heads * s.head_dim + blockIdx.x * s.head_dim;
    cosine += static_cast<int64_t>(position) * half;
    sine += static_cast<int64_t>(position) * half;
    float query[N];
    for (int i = 0; i < N; i++)
        query[i] = exists ? rotated(q, column + i, half, cosine, sine) : 0.0f;
    __syncwarp(); // every lane has read its pair
    if (!exists)
        return;
    store_pack(q + column, query);
    softmax_part<N> all, part;
    clear(all);
    for (int c = 0; c <= position / DECODE_CHUNK; c++) {
        const float *from = partial + ((pair * splits + c) * LANES + lane) * (N + 2);
        part.top = from[0];
        part.total = from[1];
        for (int i = 0; i < N; i++)
            part.sum[i] = from[2 + i];
        merge(all, part);
    }
    store_result(all, out + pair * s.head_dim + column);
}

int chunks_of(const decode_sizes &s) {
    return (s.capacity + DECODE_CHUNK - 1) / DECODE_CHUNK;
}

template <int D, int WARPS, typename T>
cudaError_t decode_of(cudaStream_t stream, const decode_sizes &s, int splits, const float *cosine,
                      const float *sine, T *qkv, T *key_cache, T *value_cache, T *out, float *partial) {
    const unsigned blocks = splits > 1 ? static_cast<unsigned>(chunks_of(s)) : 1;
    const dim3 grid(blocks, static_cast<unsigned>(s.heads), static_cast<unsigned>(s.batch));
    // Scores in units of which exp2 makes weights.
    const float scale = LOG2_E / sqrtf(static_cast<float>(s.head_dim));
    const cudaError_t error = launch(decode_kernel<D, WARPS, T>, grid, WARPS * WARP_LANES, 0, stream, s,
                                     scale, cosine, sine, qkv, key_cache, value_cache, out, partial);
    if (error != cudaSuccess || blocks == 1)
        return error;
    return launch(merge_kernel<D, T>, dim3(grid.y, grid.z), WARP_LANES, 0, stream, s,
                  static_cast<int>(blocks), cosine, sine, qkv, partial, out);
}

template <int D, typename T>
cudaError_t decode_with(cudaStream_t stream, const decode_sizes &s, int splits, const float *cosine,
                        const float *sine, T *qkv, T *key_cache, T *value_cache, T *out, float *partial) {
    // A short cache leaves more than one warp idle; the choice depends on nothing that varies in a run.
    return s.longest <= DECODE_ONE_WARP
               ? decode_of<D, 1>(stream, s, splits, cosine, sine, qkv, key_cache, value_cache, out, partial)
               : decode_of<D, 4>(stream, s, splits, cosine, sine, qkv, key_cache, value_cache, out, partial);
}

template <int D, int WARPS, typename T>
cudaError_t rows_of(cudaStream_t stream, const attention_sizes &s, const T *qkv, T *out, float *log_sum) {
    const unsigned grid =
        static_cast<unsigned>(s.batch) * static_cast<unsigned>(s.heads) * static_cast<unsigned>(s.sequence);
    return launch(rows_kernel<D, WARPS, T>, grid, WARPS * WARP_LANES, 0, stream, s,
                  LOG2_E / sqrtf(static_cast<float>(s.head_dim)), qkv, out, log_sum);
}

template <int D, typename T>
cudaError_t rows_with(cudaStream_t stream, const attention_sizes &s, int longest, const T *qkv, T *out,
                      float *log_sum) {
    return longest <= DECODE_ONE_WARP ? rows_of<D, 1>(stream, s, qkv, out, log_sum)
                                      : rows_of<D, 4>(stream, s, qkv, out, log_sum);
}

} // namespace

size_t decode_partial_floats(const decode_sizes &s) {
    // head_dim rounded up to what a kernel is made for; two values beside each lane's pieces of 4.
    const size_t dim = s.head_dim <= 32 ? 32 : s.head_dim <= 64 ? 64 : 128;
    return static_cast<size_t>(s.batch) * static_cast<size_t>(s.heads) * static_cast<size_t>(chunks_of(s)) *
           (dim / 4 * 6);
}

// Eight blocks of four warps keep a multiprocessor's share of the memory busy; with fewer the chip is better
// filled by chunks.
int decode_splits(const decode_sizes &s, int multiprocessors) {
    return s.batch * s.heads >= 8 * multiprocessors ? 1 : chunks_of(s);
}

template <typename T>
cudaError_t attention_decode(cudaStream_t stream, const decode_sizes &s, int splits, const float *cosine,
                             const float *sine, T *qkv, T *key_cache, T *value_cache, T *out,
                             float *partial) {
    if (s.head_dim > HEAD_DIM_MAX)
        return cudaErrorInvalidValue;
    if (s.head_dim <= 32)
        return decode_with<32>(stream, s, splits, cosine, sine, qkv, key_cache, value_cache, out, partial);
    if (s.head_dim <= 64)
        return decode_with<64>(stream, s, splits, cosine, sine, qkv, key_cache, value_cache, out, partial);
    return decode_with<128>(stream, s, splits, cosine, sine, qkv, key_cache, value_cache, out, partial);
}

template <typename T>
cudaError_t attention_rows(cudaStream_t stream, const attention_sizes &s, int longest, const T *qkv, T *out,
                           float *log_sum) {
    if (!s.causal || s.head_dim > HEAD_DIM_MAX)
        return cudaErrorInvalidValue;
    if (s.head_dim <= 32)
        return rows_with<32>(stream, s, longest, qkv, out, log_sum);
    if (s.head_dim <= 64)
        return rows_with<64>(stream, s, longest, qkv, out, log_sum);
    return rows_with<128>(stream, s, longest, qkv, out, log_sum);
}

template cudaError_t attention_decode(cudaStream_t, const decode_sizes &, int, const float *, const float *,
                                      float *, float *, float *, float *, float *);
template cudaError_t attention_decode(cudaStream_t, const decode_sizes &, int, const float *, const float *,
                                      bf16 *, bf16 *, bf16 *, bf16 *, float *);
template cudaError_t attention_rows(cudaStream_t, const attention_sizes &, int, const float *, float *,
                                    float *);
template cudaError_t attention_rows(cudaStream_t, const attention_sizes &, int, const bf16 *, bf16 *,
                                    float *);

} // namespace cuda_kernels
