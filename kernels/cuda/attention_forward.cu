// Softmax attention of whole sequences without the matrix of scores in memory (Dao, "FlashAttention-2",
// 2023).
//
// A block has 128 queries of one head, a warp 16 of them; it walks over tiles of 64 keys, of which the next
// is on its way from memory while this one is multiplied (two stages). Scores and output sums stay in
// registers; a row's largest score so far scales both. Tiles of keys that no query of the block sees are not
// visited, and only a tile that some row sees in part is masked. Of a head the blocks with the most keys
// start first.
//
// Traffic: each query, output and log-sum once; keys and values once for every block of queries, mostly from
// the second-level cache. Barriers: one before a stage is read (all threads' copies have arrived), one after
// it (all have read it) before it is overwritten.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_tile.cuh"

namespace cuda_kernels {

namespace {

constexpr int WARPS = 8, THREADS = WARPS * WARP_LANES, QUERIES = WARPS * 16, KEYS = 64, STAGES = 2;

template <int D> constexpr size_t FORWARD_SHARED = sizeof(bf16) * D *(QUERIES + 2 * STAGES * KEYS);

// One tile of keys: scores, softmax, output sums. limits: keys that this lane's two rows see.
template <int D>
__device__ __forceinline__ void attend_tile(const uint32_t (&q)[D / 16][4], bf16 *keys, bf16 *values,
                                            int first_key, const int (&limits)[2], bool masked, float scale,
                                            float (&top)[2], float (&total)[2], float (&sums)[D / 8][4]) {
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    float scores[KEYS / 8][4] = {};
#pragma unroll
    for (int d = 0; d < D / 16; d++)
#pragma unroll
        for (int n = 0; n < KEYS / 16; n++) {
            uint32_t b[2][2];
            load_right<D>(b, keys, n * 16, d * 16);
            mma_m16n8k16_bf16(scores[2 * n], q[d], b[0], scores[2 * n]);
            mma_m16n8k16_bf16(scores[2 * n + 1], q[d], b[1], scores[2 * n + 1]);
        }
    float highest[2] = {top[0], top[1]};
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int key = first_key + n * 8 + lane % 4 * 2 + i % 2;
            scores[n][i] = masked && key >= limits[i / 2] ? MASKED : scores[n][i] * scale;
            highest[i / 2] = fmaxf(highest[i / 2], scores[n][i]);
        }
    float factor[2], part[2] = {0.0f, 0.0f};
#pragma unroll
    for (int r = 0; r < 2; r++) {
        highest[r] = quad_maximum(highest[r]);
        factor[r] = exp2_approximate(top[r] - highest[r]);
        top[r] = highest[r];
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            scores[n][i] = exp2_approximate(scores[n][i] - top[i / 2]);
            part[i / 2] += scores[n][i];
        }
#pragma unroll
    for (int r = 0; r < 2; r++)
        total[r] = fmaf(total[r], factor[r], part[r]); // of this lane's columns
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[n][i] *= factor[i / 2];
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t p[4];
        left_of_sums(p, scores[2 * k], scores[2 * k + 1]);
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[2][2];
            load_right_plain<D>(b, values, k * 16, n * 16);
            mma_m16n8k16_bf16(sums[2 * n], p, b[0], sums[2 * n]);
            mma_m16n8k16_bf16(sums[2 * n + 1], p, b[1], sums[2 * n + 1]);
        }
    }
}

template <int D, typename T>
__global__ void __launch_bounds__(THREADS)
    forward_kernel(attention_sizes s, float scale, const T *qkv, T *out, float *log_sum) {
    SHARED_DYNAMIC(bf16, shared);
    bf16 *query_tile = shared;
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES,
              lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int sample = static_cast<int>(blockIdx.z), head = static_cast<int>(blockIdx.y);
    const int64_t width = static_cast<int64_t>(s.heads) * s.head_dim, stride = 3 * width;
    const int first_query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * QUERIES;
    const T *q = qkv + sample * s.sequence * stride + head * s.head_dim, *k = q + width, *v = k + width;
    const int length = s.lengths != nullptr ? s.lengths[sample] : s.sequence;
    const int last_query = min(first_query + QUERIES, s.sequence) - 1;
    const int keys = s.causal ? last_query + 1 : length, tiles = (keys + KEYS - 1) / KEYS;

    const auto load_keys = [&](int tile) {
        bf16 *to = shared + D * (QUERIES + 2 * KEYS * (tile % STAGES));
        load_tile<D, KEYS, THREADS>(to, k, stride, tile * KEYS, s.sequence, s.head_dim);
        load_tile<D, KEYS, THREADS>(to + D * KEYS, v, stride, tile * KEYS, s.sequence, s.head_dim);
    };
    load_tile<D, QUERIES, THREADS>(query_tile, q, stride, first_query, s.sequence, s.head_dim);
    load_keys(0);
    cp_async_commit();

    const int rows[2] = {first_query + warp * 16 + lane / 4, first_query + warp * 16 + lane / 4 + 8};
    int limits[2];
    for (int r = 0; r < 2; r++)
        limits[r] = s.causal ? min(rows[r], s.sequence - 1) + 1 : length;
    uint32_t fragments[D / 16][4];
    float top[2] = {MASKED, MASKED}, total[2] = {0.0f, 0.0f}, sums[D / 8][4] = {};
    for (int tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles)
            load_keys(tile + 1);
        cp_async_commit();
        cp_async_wait<1>();
        __syncthreads();
        if (tile == 0) {
#pragma unroll
            for (int d = 0; d < D / 16; d++)
                load_left<D>(fragments[d], query_tile, warp * 16, d * 16);
        }
        bf16 *stage = shared + D * (QUERIES + 2 * KEYS * (tile % STAGES));
        // Rows of this warp see at least the keys of its first row.
        const int seen = s.causal ? first_query + warp * 16 + 1 : length;
        attend_tile<D>(fragments, stage, stage + D * KEYS, tile * KEYS, limits, (tile + 1) * KEYS > seen,
                       scale * LOG2_E, top, total, sums);
        __syncthreads();
    }

#pragma unroll
    for (int r = 0; r < 2; r++) {
        total[r] = quad_sum(total[r]);
        if (rows[r] >= s.sequence)
            continue;
        if (log_sum != nullptr && lane % 4 == 0)
            log_sum[(static_cast<int64_t>(sample) * s.heads + head) * s.sequence + rows[r]] =
                (top[r] + log2f(total[r])) * LN_2;
        const float factor = 1.0f / total[r];
        T *row = out + (static_cast<int64_t>(sample) * s.sequence + rows[r]) * width + head * s.head_dim;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int column = n * 8 + lane % 4 * 2;
            if (column < s.head_dim)
                store_pair(row + column, sums[n][2 * r] * factor, sums[n][2 * r + 1] * factor);
        }
    }
}

template <int D, typename T>
cudaError_t forward_of(cudaStream_t stream, const attention_sizes &s, const T *qkv, T *out, float *log_sum) {
    const dim3 grid(static_cast<unsigned>((s.sequence + QUERIES - 1) / QUERIES),
                    static_cast<unsigned>(s.heads), static_cast<unsigned>(s.batch));
    return launch(forward_kernel<D, T>, grid, THREADS, FORWARD_SHARED<D>, stream, s,
                  1.0f / sqrtf(static_cast<float>(s.head_dim)), qkv, out, log_sum);
}

} // namespace

template <typename T>
cudaError_t attention_forward(cudaStream_t stream, const attention_sizes &s, const T *qkv, T *out,
                              float *log_sum) {
    if (s.head_dim > HEAD_DIM_MAX)
        return cudaErrorInvalidValue;
    if (s.head_dim <= 32)
        return forward_of<32>(stream, s, qkv, out, log_sum);
    if (s.head_dim <= 64)
        return forward_of<64>(stream, s, qkv, out, log_sum);
    return forward_of<128>(stream, s, qkv, out, log_sum);
}

template cudaError_t attention_forward(cudaStream_t, const attention_sizes &, const float *, float *,
                                       float *);
template cudaError_t attention_forward(cudaStream_t, const attention_sizes &, const bf16 *, bf16 *, float *);

} // namespace cuda_kernels
