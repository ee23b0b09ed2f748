// Gradient of softmax attention (Dao, "FlashAttention-2", 2023), without atomics: every sum has one owner and
// one order, so two runs give the same bits. The price is that scores and their gradients are computed twice,
// 7 products where 5 would do.
//
//     delta = rowsum(dout * out);  p = exp(scale q k - log_sum);  ds = p * (dout v - delta)
//     dv = p^T dout;  dk = scale ds^T q;  dq = scale ds k
//
// delta_kernel: a warp a row. keys_kernel: a block has 128 keys, a warp 16 of them, and walks over the
// queries that see them; transposed, so that p and ds leave the tensor cores as the operands of the next
// product. queries_kernel: a block has 128 queries and walks over their keys. Both have the next tile on its
// way while one is multiplied; barriers as in the forward pass.
//
// Traffic: q, k, v, out, dout and log_sum once, dq, dk, dv once, and from the second-level cache q and dout
// once for every block of keys, k and v once for every block of queries.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tile.cuh"

namespace cuda_kernels {

namespace {

constexpr int WARPS = 8, THREADS = WARPS * WARP_LANES, OWN = WARPS * 16, STAGES = 2;

// Rows of the tile that a block walks over: registers hold two sums of a warp's 16 rows by so many.
template <int D> constexpr int WALKED = D > 64 ? 32 : 64;

template <typename T>
__global__ void delta_kernel(attention_sizes s, int64_t rows, const T *out, const T *dout, float *delta) {
    const int64_t row =
        static_cast<int64_t>(blockIdx.x) * (blockDim.x / WARP_LANES) + threadIdx.x / WARP_LANES;
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    if (row >= rows) // of (sample, position, head): a whole warp
        return;
    float sum = 0.0f;
    for (int i = lane * PACK<T>; i < s.head_dim; i += WARP_LANES * PACK<T>) {
        float x[PACK<T>], y[PACK<T>];
        load_pack(out + row * s.head_dim + i, x);
        load_pack(dout + row * s.head_dim + i, y);
        for (int j = 0; j < PACK<T>; j++)
            sum = fmaf(x[j], y[j], sum);
    }
    sum = warp_sum(sum);
    const int64_t sample = row / s.heads / s.sequence, position = row / s.heads % s.sequence;
    if (lane == 0)
        delta[(sample * s.heads + row % s.heads) * s.sequence + position] = sum;
}

// Where a block's head lies.
template <typename T> struct head_view {
    const T *q, *k, *v, *dout;
    const float *log_sum, *delta;
    T *dq, *dk, *dv;
    int64_t stride, width; // of rows of qkv and of dout
    int length;            // keys that exist
};

template <typename T>
__device__ head_view<T> view_of(const attention_sizes &s, const T *qkv, const float *log_sum, const T *dout,
                                T *dqkv, const float *delta) {
    const int64_t sample = blockIdx.z, head = blockIdx.y, width = static_cast<int64_t>(s.heads) * s.head_dim;
    const int64_t at = sample * s.sequence * 3 * width + head * s.head_dim,
                  row = (sample * s.heads + head) * s.sequence;
    return {qkv + at,
            qkv + at + width,
            qkv + at + 2 * width,
            dout + sample * s.sequence * width + head * s.head_dim,
            log_sum + row,
            delta + row,
            dqkv + at,
            dqkv + at + width,
            dqkv + at + 2 * width,
            3 * width,
            width,
            s.lengths != nullptr ? s.lengths[sample] : s.sequence};
}

// A warp's 16 rows of sums, times a factor, into rows `first` on.
template <int D, typename T>
__device__ __forceinline__ void store_rows(const float (&sums)[D / 8][4], float factor, T *to, int64_t stride,
                                           int first, int rows, int head_dim) {
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first + lane / 4 + 8 * r;
        if (row >= rows)
            continue;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int column = n * 8 + lane % 4 * 2;
            if (column < head_dim)
                store_pair(to + row * stride + column, sums[n][2 * r] * factor, sums[n][2 * r + 1] * factor);
        }
    }
}

// sums [16, 8 N] of left [16, D] times the transpose of right [8 N, D]; both tiles are in shared memory.
template <int D, int N>
__device__ __forceinline__ void multiply_transposed(float (&sums)[N][4], bf16 *left, int first, bf16 *right) {
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        uint32_t a[4];
        load_left<D>(a, left, first, d * 16);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            uint32_t b[2][2];
            load_right<D>(b, right, n * 16, d * 16);
            mma_m16n8k16_bf16(sums[2 * n], a, b[0], sums[2 * n]);
            mma_m16n8k16_bf16(sums[2 * n + 1], a, b[1], sums[2 * n + 1]);
        }
    }
}

// sums [16, D] += weights [16, 8 N] times right [8 N, D].
template <int D, int N>
__device__ __forceinline__ void multiply_plain(float (&sums)[D / 8][4], const float (&weights)[N][4],
                                               bf16 *right) {
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[4];
        left_of_sums(a, weights[2 * k], weights[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[2][2];
            load_right_plain<D>(b, right, k * 16, n * 16);
            mma_m16n8k16_bf16(sums[2 * n], a, b[0], sums[2 * n]);
            mma_m16n8k16_bf16(sums[2 * n + 1], a, b[1], sums[2 * n + 1]);
        }
    }
}

template <int D>
constexpr size_t KEYS_SHARED = sizeof(bf16) * D *(2 * OWN + 2 * STAGES * WALKED<D>)+sizeof(float) *
                               2 * STAGES *WALKED<D>;

template <int D, typename T>
__global__ void __launch_bounds__(THREADS)
    keys_kernel(attention_sizes s, float scale, const T *qkv, const float *log_sum, const T *dout, T *dqkv,
                const float *delta) {
    constexpr int N = WALKED<D>;
    SHARED_DYNAMIC(bf16, shared);
    const head_view<T> h = view_of(s, qkv, log_sum, dout, dqkv, delta);
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES,
              lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int first_key = static_cast<int>(blockIdx.x) * OWN;
    bf16 *key_tile = shared, *value_tile = shared + D * OWN, *walked = value_tile + D * OWN;
    float *rows = reinterpret_cast<float *>(walked + 2 * STAGES * N * D); // log-sum and delta of the queries
    const int first_tile = s.causal ? first_key / N : 0;
    // Keys that do not exist have no part in anything.
    const int tiles = first_key < h.length ? (s.sequence + N - 1) / N : first_tile;

    const auto load_queries = [&](int tile) {
        bf16 *to = walked + 2 * N * D * (tile % STAGES);
        load_tile<D, N, THREADS>(to, h.q, h.stride, tile * N, s.sequence, s.head_dim);
        load_tile<D, N, THREADS>(to + N * D, h.dout, h.width, tile * N, s.sequence, s.head_dim);
        const int i = static_cast<int>(threadIdx.x), query = tile * N + i;
        if (i < N) {
            float *row = rows + 2 * N * (tile % STAGES) + i;
            row[0] = query < s.sequence ? h.log_sum[query] * LOG2_E : 0.0f;
            row[N] = query < s.sequence ? h.delta[query] : 0.0f;
        }
    };
    load_tile<D, OWN, THREADS>(key_tile, h.k, h.stride, first_key, s.sequence, s.head_dim);
    load_tile<D, OWN, THREADS>(value_tile, h.v, h.stride, first_key, s.sequence, s.head_dim);
    if (first_tile < tiles)
        load_queries(first_tile);
    cp_async_commit();
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int tile = first_tile; tile < tiles; tile++) {
        if (tile + 1 < tiles)
            load_queries(tile + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        bf16 *queries = walked + 2 * N * D * (tile % STAGES), *gradients = queries + N * D;
        const float *row = rows + 2 * N * (tile % STAGES);
        float p[N / 8][4] = {}, ds[N / 8][4] = {};
        multiply_transposed<D, N / 8>(p, key_tile, warp * 16, queries);
        multiply_transposed<D, N / 8>(ds, value_tile, warp * 16, gradients);
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int column = n * 8 + lane % 4 * 2 + i % 2, query = tile * N + column,
                          key = first_key + warp * 16 + lane / 4 + i / 2 * 8;
                const bool seen = query < s.sequence && key < h.length && (!s.causal || key <= query);
                p[n][i] = seen ? exp2_approximate(fmaf(p[n][i], scale * LOG2_E, -row[column])) : 0.0f;
                ds[n][i] = p[n][i] * (ds[n][i] - row[N + column]);
            }
        multiply_plain<D, N / 8>(dv, p, gradients);
        multiply_plain<D, N / 8>(dk, ds, queries);
        __syncthreads();
    }
    cp_async_wait<0>();
    store_rows<D>(dk, scale, h.dk, h.stride, first_key + warp * 16, s.sequence, s.head_dim);
    store_rows<D>(dv, 1.0f, h.dv, h.stride, first_key + warp * 16, s.sequence, s.head_dim);
}

template <int D> constexpr size_t QUERIES_SHARED = sizeof(bf16) * D *(2 * OWN + 2 * STAGES * WALKED<D>);

template <int D, typename T>
__global__ void __launch_bounds__(THREADS)
    queries_kernel(attention_sizes s, float scale, const T *qkv, const float *log_sum, const T *dout, T *dqkv,
                   const float *delta) {
    constexpr int N = WALKED<D>;
    SHARED_DYNAMIC(bf16, shared);
    const head_view<T> h = view_of(s, qkv, log_sum, dout, dqkv, delta);
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES,
              lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int first_query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * OWN;
    bf16 *query_tile = shared, *gradient_tile = shared + D * OWN, *walked = gradient_tile + D * OWN;
    const int last_query = min(first_query + OWN, s.sequence) - 1;
    const int keys = s.causal ? last_query + 1 : h.length, tiles = (keys + N - 1) / N;

    const auto load_keys = [&](int tile) {
        bf16 *to = walked + 2 * N * D * (tile % STAGES);
        load_tile<D, N, THREADS>(to, h.k, h.stride, tile * N, s.sequence, s.head_dim);
        load_tile<D, N, THREADS>(to + N * D, h.v, h.stride, tile * N, s.sequence, s.head_dim);
    };
    load_tile<D, OWN, THREADS>(query_tile, h.q, h.stride, first_query, s.sequence, s.head_dim);
    load_tile<D, OWN, THREADS>(gradient_tile, h.dout, h.width, first_query, s.sequence, s.head_dim);
    load_keys(0);
    cp_async_commit();
    int limits[2];
    float log_sums[2], deltas[2];
    for (int r = 0; r < 2; r++) {
        const int query = min(first_query + warp * 16 + lane / 4 + 8 * r, s.sequence - 1);
        limits[r] = s.causal ? query + 1 : h.length;
        log_sums[r] = h.log_sum[query] * LOG2_E;
        deltas[r] = h.delta[query];
    }
    float dq[D / 8][4] = {};
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles)
            load_keys(tile + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        bf16 *key_tile = walked + 2 * N * D * (tile % STAGES), *value_tile = key_tile + N * D;
        float p[N / 8][4] = {}, ds[N / 8][4] = {};
        multiply_transposed<D, N / 8>(p, query_tile, warp * 16, key_tile);
        multiply_transposed<D, N / 8>(ds, gradient_tile, warp * 16, value_tile);
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = tile * N + n * 8 + lane % 4 * 2 + i % 2;
                const float weight = key < limits[i / 2]
                                         ? exp2_approximate(fmaf(p[n][i], scale * LOG2_E, -log_sums[i / 2]))
                                         : 0.0f;
                ds[n][i] = weight * (ds[n][i] - deltas[i / 2]);
            }
        multiply_plain<D, N / 8>(dq, ds, key_tile);
        __syncthreads();
    }
    store_rows<D>(dq, scale, h.dq, h.stride, first_query + warp * 16, s.sequence, s.head_dim);
}

template <int D, typename T>
cudaError_t backward_of(cudaStream_t stream, const attention_sizes &s, const T *qkv, const float *log_sum,
                        const T *dout, T *dqkv, const float *delta) {
    const dim3 grid(static_cast<unsigned>((s.sequence + OWN - 1) / OWN), static_cast<unsigned>(s.heads),
                    static_cast<unsigned>(s.batch));
    const float scale = 1.0f / sqrtf(static_cast<float>(s.head_dim));
    const cudaError_t error = launch(keys_kernel<D, T>, grid, THREADS, KEYS_SHARED<D>, stream, s, scale, qkv,
                                     log_sum, dout, dqkv, delta);
    return error != cudaSuccess ? error
                                : launch(queries_kernel<D, T>, grid, THREADS, QUERIES_SHARED<D>, stream, s,
                                         scale, qkv, log_sum, dout, dqkv, delta);
}

} // namespace

template <typename T>
cudaError_t attention_backward(cudaStream_t stream, const attention_sizes &s, const T *qkv, const T *out,
                               const float *log_sum, const T *dout, T *dqkv, float *delta) {
    if (s.head_dim > HEAD_DIM_MAX)
        return cudaErrorInvalidValue;
    const int64_t rows = static_cast<int64_t>(s.batch) * s.sequence * s.heads;
    const cudaError_t error = launch(delta_kernel<T>, static_cast<unsigned>((rows + 7) / 8), 8 * WARP_LANES,
                                     0, stream, s, rows, out, dout, delta);
    if (error != cudaSuccess)
        return error;
    if (s.head_dim <= 32)
        return backward_of<32>(stream, s, qkv, log_sum, dout, dqkv, delta);
    if (s.head_dim <= 64)
        return backward_of<64>(stream, s, qkv, log_sum, dout, dqkv, delta);
    return backward_of<128>(stream, s, qkv, log_sum, dout, dqkv, delta);
}

template cudaError_t attention_backward(cudaStream_t, const attention_sizes &, const float *, const float *,
                                        const float *, const float *, float *, float *);
template cudaError_t attention_backward(cudaStream_t, const attention_sizes &, const bf16 *, const bf16 *,
                                        const float *, const bf16 *, bf16 *, float *);

} // namespace cuda_kernels
