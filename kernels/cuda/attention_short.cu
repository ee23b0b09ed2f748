// Attention of very short causal sequences, as the depth transformer has them: a warp has one head of one
// sample from reading qkv to writing the results, in its own part of shared memory, so that qkv, out and
// their gradients cross the memory once and nothing else does. Arithmetic is f32 throughout; so short a
// product is no work for tensor cores. Barriers are those of a warp, between lanes that write a part of
// shared memory and lanes that read it.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tile.cuh"

namespace cuda_kernels {

namespace {

// Rows are padded by 16 bytes, so that neighbouring rows start in different banks.
constexpr int PADDING = 4, WARPS_MOST = 4;

__host__ __device__ __forceinline__ int row_floats(const attention_sizes &s) {
    return s.head_dim + PADDING;
}

// Floats of a warp: `arrays` of [sequence, head_dim], then `squares` of [sequence, SHORT_SEQUENCE].
__host__ __device__ __forceinline__ int warp_floats(const attention_sizes &s, int arrays, int squares) {
    return s.sequence * (arrays * row_floats(s) + squares * SHORT_SEQUENCE);
}

template <typename T> __device__ __forceinline__ void store_shared(float *to, const float (&x)[PACK<T>]) {
#pragma unroll
    for (int i = 0; i < PACK<T>; i += 4)
        *reinterpret_cast<float4 *>(to + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
}

// One array of a head into shared memory; rows of `from` are `stride` apart.
template <typename T>
__device__ __forceinline__ void stage(const attention_sizes &s, float *to, const T *from, int64_t stride) {
    constexpr int N = PACK<T>;
    const int units = s.head_dim / N, lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    for (int i = lane; i < s.sequence * units; i += WARP_LANES) {
        float x[N];
        load_pack(from + i / units * stride + i % units * N, x);
        store_shared<T>(to + i / units * row_floats(s) + i % units * N, x);
    }
}

template <typename T>
__device__ __forceinline__ void unstage(const attention_sizes &s, const float *from, T *to, int64_t stride) {
    constexpr int N = PACK<T>;
    const int units = s.head_dim / N, lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    for (int i = lane; i < s.sequence * units; i += WARP_LANES) {
        float x[N];
#pragma unroll
        for (int j = 0; j < N; j++)
            x[j] = from[i / units * row_floats(s) + i % units * N + j];
        store_pack(to + i / units * stride + i % units * N, x);
    }
}

__device__ __forceinline__ float dot_rows(const float *x, const float *y, int count) {
    float sum = 0.0f;
    for (int i = 0; i < count; i += 4) {
        const float4 a = *reinterpret_cast<const float4 *>(x + i),
                     b = *reinterpret_cast<const float4 *>(y + i);
        sum = fmaf(a.x, b.x, sum);
        sum = fmaf(a.y, b.y, sum);
        sum = fmaf(a.z, b.z, sum);
        sum = fmaf(a.w, b.w, sum);
    }
    return sum;
}

// This warp's head: where its rows of qkv begin, and its part of shared memory.
struct short_head {
    int64_t pair, rows; // (sample, head); first row of the sample
    int head;
    bool exists;
};

__device__ __forceinline__ short_head head_of(const attention_sizes &s) {
    const int64_t pair =
        static_cast<int64_t>(blockIdx.x) * (blockDim.x / WARP_LANES) + threadIdx.x / WARP_LANES;
    return {pair, pair / s.heads * s.sequence, static_cast<int>(pair % s.heads),
            pair < static_cast<int64_t>(s.batch) * s.heads};
}

template <typename T>
__global__ void short_forward_kernel(attention_sizes s, float scale, const float *cosine, const float *sine,
                                     T *qkv, T *out, float *log_sum) {
    SHARED_DYNAMIC(float, shared);
    const short_head h = head_of(s);
    if (!h.exists) // a whole warp
        return;
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES, half = s.head_dim / 2,
              stride = row_floats(s);
    const int64_t width = static_cast<int64_t>(s.heads) * s.head_dim;
    float *q = shared + threadIdx.x / WARP_LANES * warp_floats(s, 3, 1), *k = q + s.sequence * stride,
          *v = k + s.sequence * stride, *p = v + s.sequence * stride;
    T *rows = qkv + h.rows * 3 * width + h.head * s.head_dim;
    stage(s, q, rows, 3 * width);
    stage(s, k, rows + width, 3 * width);
    stage(s, v, rows + 2 * width, 3 * width);
    __syncwarp();
    for (int i = lane; i < 2 * s.sequence * half; i += WARP_LANES) {
        // Queries and keys lie behind each other.
        const int row = i / half, column = i % half, at = row % s.sequence * half + column;
        float *x = q + row * stride + column;
        const float a = x[0], b = x[half], c = cosine[at], t = sine[at];
        // As the rows of qkv keep them.
        x[0] = to_float(from_float<T>(a * c - b * t));
        x[half] = to_float(from_float<T>(b * c + a * t));
    }
    __syncwarp();
    unstage(s, q, rows, 3 * width);
    unstage(s, k, rows + width, 3 * width);
    for (int i = lane; i < s.sequence * s.sequence; i += WARP_LANES) {
        const int row = i / s.sequence, key = i % s.sequence;
        if (key <= row)
            p[row * SHORT_SEQUENCE + key] =
                dot_rows(q + row * stride, k + key * stride, s.head_dim) * (scale * LOG2_E);
    }
    __syncwarp();
    if (lane < s.sequence) {
        float *row = p + lane * SHORT_SEQUENCE, top = row[0], total = 0.0f;
        for (int key = 1; key <= lane; key++)
            top = fmaxf(top, row[key]);
        for (int key = 0; key <= lane; key++) {
            row[key] = exp2_approximate(row[key] - top);
            total += row[key];
        }
        for (int key = 0; key <= lane; key++)
            row[key] /= total;
        if (log_sum != nullptr)
            log_sum[h.pair * s.sequence + lane] = (top + log2f(total)) * LN_2;
    }
    __syncwarp();
    constexpr int N = PACK<T>;
    const int units = s.head_dim / N;
    for (int i = lane; i < s.sequence * units; i += WARP_LANES) {
        const int row = i / units, column = i % units * N;
        float sum[N] = {};
        for (int key = 0; key <= row; key++)
#pragma unroll
            for (int j = 0; j < N; j++)
                sum[j] = fmaf(p[row * SHORT_SEQUENCE + key], v[key * stride + column + j], sum[j]);
        store_pack(out + (h.rows + row) * width + h.head * s.head_dim + column, sum);
    }
}

template <typename T>
__global__ void short_backward_kernel(attention_sizes s, float scale, const float *cosine, const float *sine,
                                      const T *qkv, const float *log_sum, const T *dout, T *dqkv) {
    SHARED_DYNAMIC(float, shared);
    const short_head h = head_of(s);
    if (!h.exists) // a whole warp
        return;
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES, half = s.head_dim / 2,
              stride = row_floats(s);
    const int64_t width = static_cast<int64_t>(s.heads) * s.head_dim,
                  at = h.rows * 3 * width + h.head * s.head_dim;
    float *q = shared + threadIdx.x / WARP_LANES * warp_floats(s, 4, 2), *k = q + s.sequence * stride,
          *v = k + s.sequence * stride, *g = v + s.sequence * stride, *p = g + s.sequence * stride,
          *ds = p + s.sequence * SHORT_SEQUENCE;
    stage(s, q, qkv + at, 3 * width);
    stage(s, k, qkv + at + width, 3 * width);
    stage(s, v, qkv + at + 2 * width, 3 * width);
    stage(s, g, dout + h.rows * width + h.head * s.head_dim, width);
    __syncwarp();
    for (int i = lane; i < s.sequence * s.sequence; i += WARP_LANES) {
        const int row = i / s.sequence, key = i % s.sequence;
        if (key > row)
            continue;
        const float score = dot_rows(q + row * stride, k + key * stride, s.head_dim);
        p[row * SHORT_SEQUENCE + key] =
            exp2_approximate((score * scale - log_sum[h.pair * s.sequence + row]) * LOG2_E);
        ds[row * SHORT_SEQUENCE + key] = dot_rows(g + row * stride, v + key * stride, s.head_dim);
    }
    __syncwarp();
    if (lane < s.sequence) {
        // The sum of dout * out over the head, from what is at hand.
        float *weights = p + lane * SHORT_SEQUENCE, *row = ds + lane * SHORT_SEQUENCE, delta = 0.0f;
        for (int key = 0; key <= lane; key++)
            delta = fmaf(weights[key], row[key], delta);
        for (int key = 0; key <= lane; key++)
            row[key] = weights[key] * (row[key] - delta) * scale;
    }
    __syncwarp();
    for (int i = lane; i < s.sequence * half; i += WARP_LANES) {
        const int row = i / half, column = i % half;
        float dq[2] = {0.0f, 0.0f}, dk[2] = {0.0f, 0.0f};
        for (int key = 0; key <= row; key++)
#pragma unroll
            for (int j = 0; j < 2; j++)
                dq[j] = fmaf(ds[row * SHORT_SEQUENCE + key], k[key * stride + column + j * half], dq[j]);
        for (int query = row; query < s.sequence; query++)
#pragma unroll
            for (int j = 0; j < 2; j++)
                dk[j] = fmaf(ds[query * SHORT_SEQUENCE + row], q[query * stride + column + j * half], dk[j]);
        // Turned back by the angle of the position.
        const float c = cosine[row * half + column], t = sine[row * half + column];
        T *to = dqkv + at + row * 3 * width + column;
        to[0] = from_float<T>(dq[0] * c + dq[1] * t);
        to[half] = from_float<T>(dq[1] * c - dq[0] * t);
        to[width] = from_float<T>(dk[0] * c + dk[1] * t);
        to[width + half] = from_float<T>(dk[1] * c - dk[0] * t);
    }
    constexpr int N = PACK<T>;
    const int units = s.head_dim / N;
    for (int i = lane; i < s.sequence * units; i += WARP_LANES) {
        const int key = i / units, column = i % units * N;
        float sum[N] = {};
        for (int row = key; row < s.sequence; row++)
#pragma unroll
            for (int j = 0; j < N; j++)
                sum[j] = fmaf(p[row * SHORT_SEQUENCE + key], g[row * stride + column + j], sum[j]);
        store_pack(dqkv + at + key * 3 * width + 2 * width + column, sum);
    }
}

// As many warps as fit into the shared memory that every launch may have.
int warps_of(size_t bytes_of_a_warp) {
    const int fit = static_cast<int>(SHARED_WITHOUT_ASKING / bytes_of_a_warp);
    return fit < 1 ? 1 : fit < WARPS_MOST ? fit : WARPS_MOST;
}

bool is_short(const attention_sizes &s) {
    return s.sequence <= SHORT_SEQUENCE && s.causal;
}

unsigned blocks_of(const attention_sizes &s, int warps) {
    return static_cast<unsigned>((static_cast<int64_t>(s.batch) * s.heads + warps - 1) / warps);
}

} // namespace

template <typename T>
cudaError_t attention_short_forward(cudaStream_t stream, const attention_sizes &s, const float *cosine,
                                    const float *sine, T *qkv, T *out, float *log_sum) {
    if (!is_short(s))
        return cudaErrorInvalidValue;
    const size_t bytes = sizeof(float) * static_cast<size_t>(warp_floats(s, 3, 1));
    const int warps = warps_of(bytes);
    return launch(short_forward_kernel<T>, blocks_of(s, warps), static_cast<unsigned>(warps * WARP_LANES),
                  bytes * static_cast<size_t>(warps), stream, s, 1.0f / sqrtf(static_cast<float>(s.head_dim)),
                  cosine, sine, qkv, out, log_sum);
}

template <typename T>
cudaError_t attention_short_backward(cudaStream_t stream, const attention_sizes &s, const float *cosine,
                                     const float *sine, const T *qkv, const float *log_sum, const T *dout,
                                     T *dqkv) {
    if (!is_short(s))
        return cudaErrorInvalidValue;
    const size_t bytes = sizeof(float) * static_cast<size_t>(warp_floats(s, 4, 2));
    const int warps = warps_of(bytes);
    return launch(short_backward_kernel<T>, blocks_of(s, warps), static_cast<unsigned>(warps * WARP_LANES),
                  bytes * static_cast<size_t>(warps), stream, s, 1.0f / sqrtf(static_cast<float>(s.head_dim)),
                  cosine, sine, qkv, log_sum, dout, dqkv);
}

template cudaError_t attention_short_forward(cudaStream_t, const attention_sizes &, const float *,
                                             const float *, float *, float *, float *);
template cudaError_t attention_short_forward(cudaStream_t, const attention_sizes &, const float *,
                                             const float *, bf16 *, bf16 *, float *);
template cudaError_t attention_short_backward(cudaStream_t, const attention_sizes &, const float *,
                                              const float *, const float *, const float *, const float *,
                                              float *);
template cudaError_t attention_short_backward(cudaStream_t, const attention_sizes &, const float *,
                                              const float *, const bf16 *, const float *, const bf16 *,
                                              bf16 *);

} // namespace cuda_kernels
