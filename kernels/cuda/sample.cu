// A warp draws one row, which it holds in registers and reads once. Tokens are cut without a sort: the logit
// of the last token kept is built bit by bit, from counts (top-k) or sums of probability (top-p) of the
// logits at least as high, 32 passes over registers. The draw inverts the distribution function exactly as
// the CPU does with AVX-512: the same exponential, sixteen interleaved chains for the sum, then sixteen
// tokens at a time. Traffic: the logits once, 12 bytes a row.
#include "kernels/cuda/sample.cuh"

#include "kernels/cuda/softmax.cuh"
#include "kernels/philox.h"

namespace cuda_kernels {

namespace {

constexpr int TEAMS = 4, THREADS = TEAMS * WARP_LANES, CPU_LANES = 16;

// exp as kernels/cpu/vector_math.h computes it, bit for bit; its comments say how.
__device__ __forceinline__ float cpu_exponential(float x) {
    const bool small = x < -87.0f;
    x = x > 88.0f ? 88.0f : small ? 0.0f : x;
    const float magic = 0x1.8p23f;
    const float shifted = fmaf(x, 0x1.715476p+0f, magic), n = shifted - magic;
    float r = fmaf(n, -0x1.62e400p-1f, x);
    r = fmaf(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.6c16c2p-10f;
    p = fmaf(p, r, 0x1.111112p-7f);
    p = fmaf(p, r, 0x1.555556p-5f);
    p = fmaf(p, r, 0x1.555556p-3f);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    const unsigned exponent = (__float_as_uint(shifted) - __float_as_uint(magic)) << 23;
    return small ? 0.0f : __uint_as_float(__float_as_uint(p) + exponent);
}

// Orders floats as unsigned numbers.
__device__ __forceinline__ unsigned ordered(float x) {
    const unsigned bits = __float_as_uint(x);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The highest threshold with reaches(threshold) true, which must be monotone and true of 0; all lanes agree.
template <typename Reaches> __device__ __forceinline__ unsigned highest(Reaches reaches) {
    unsigned threshold = 0;
    for (int bit = 31; bit >= 0; bit--) {
        const unsigned candidate = threshold | 1u << bit;
        if (reaches(candidate))
            threshold = candidate;
    }
    return threshold;
}

// Sets the probabilities of what is cut to 0.
template <typename T, int CHUNKS>
__device__ __forceinline__ void cut(softmax_row<T, CHUNKS> &row, const draw_terms &terms, int codebook) {
    constexpr int COUNT = PACK<T>;
    const auto keep = [&](unsigned threshold) {
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                if (ordered(row.z[chunk][i]) < threshold)
                    row.exponentials[chunk][i] = 0.0f;
    };
    const auto share_above = [&](unsigned threshold) {
        float sum = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                sum += ordered(row.z[chunk][i]) >= threshold ? row.exponentials[chunk][i] : 0.0f;
        return warp_sum(sum);
    };
    if (terms.top_k > 0 && terms.top_k < codebook)
        keep(highest([&](unsigned threshold) {
            int count = 0;
#pragma unroll
            for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
                for (int i = 0; i < COUNT; i++)
                    count += ordered(row.z[chunk][i]) >= threshold;
            return __reduce_add_sync(WHOLE_WARP, count) >= terms.top_k;
        }));
    if (terms.top_p > 0.0f && terms.top_p < 1.0f) {
        const float wanted = terms.top_p * share_above(0);
        keep(highest([&](unsigned threshold) {
            const float share = share_above(threshold);
            return share >= wanted && share > 0.0f;
        }));
    }
}

// Shared memory of one row: its weights and the sums of sixteen of them, aligned to 16 bytes.
__device__ __host__ __forceinline__ int shared_floats(int codebook) {
    return codebook + (codebook / CPU_LANES + 3) / 4 * 4;
}

// Sum of sixteen values in a balanced tree.
__device__ __forceinline__ float tree_sum(const float *x) {
    float part[CPU_LANES / 2];
#pragma unroll
    for (int i = 0; i < CPU_LANES / 2; i++)
        part[i] = x[i] + x[i + CPU_LANES / 2];
#pragma unroll
    for (int width = CPU_LANES / 4; width > 0; width /= 2)
#pragma unroll
        for (int i = 0; i < width; i++)
            part[i] += part[i + width];
    return part[0];
}

// As the CPU's sample: weight [codebook] are the probabilities times their sum, block_sum [codebook / 16]
// those of sixteen tokens.
__device__ int find_token(int codebook, const float *weight, const float *block_sum, float target) {
    float before = 0.0f;
    int last = 0; // the last token of probability above 0: rounding may leave the target past the end
    for (int at = 0; at < codebook; at += CPU_LANES) {
        const float sum = block_sum[at / CPU_LANES];
        if (before + sum <= target && at + CPU_LANES < codebook) {
            before += sum;
            if (sum > 0.0f)
                last = at;
            continue;
        }
        for (int token = at; token < at + CPU_LANES; token++) {
            before += weight[token];
            if (weight[token] > 0.0f)
                last = token;
            if (before > target)
                return token;
        }
    }
    while (last + 1 < codebook && !(weight[last] > 0.0f))
        last++;
    return last;
}

template <typename T, int CHUNKS>
__global__ void __launch_bounds__(THREADS)
    sample_kernel(int64_t rows, int codebook, const T *logits, float inverse_temperature, draw_terms terms,
                  draw_position position, int32_t *tokens, float *log_probabilities) {
    constexpr int COUNT = PACK<T>;
    SHARED_DYNAMIC(float, shared);
    const int warp = static_cast<int>(threadIdx.x) / WARP_LANES,
              lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    const int64_t row = static_cast<int64_t>(blockIdx.x) * TEAMS + warp;
    float *weight = shared + warp * shared_floats(codebook), *block_sum = weight + codebook;
    if (row >= rows)
        return;
    softmax_row<T, CHUNKS> policy;
    policy.read(codebook, logits + row * codebook, inverse_temperature);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            policy.exponentials[chunk][i] = cpu_exponential(policy.z[chunk][i] - policy.maximum);
    cut(policy, terms, codebook);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
        if (policy.column(chunk) < codebook)
            store_pack(weight + policy.column(chunk), policy.exponentials[chunk]);
    __syncwarp(); // all weights of the row lie there
    for (int block = lane; block < codebook / CPU_LANES; block += WARP_LANES)
        block_sum[block] = tree_sum(weight + block * CPU_LANES);
    float sum = 0.0f; // lanes 16 .. 31 repeat what lanes 0 .. 15 do
    for (int at = lane % CPU_LANES; at < codebook; at += CPU_LANES)
        sum += weight[at];
#pragma unroll
    for (int bits = CPU_LANES / 2; bits > 0; bits /= 2)
        sum += __shfl_xor_sync(WHOLE_WARP, sum, bits);
    __syncwarp(); // the block sums too
    int token = 0;
    if (lane == 0) {
        const draw_state state = *position.state;
        const philox_block random = philox(state.seed, state.step, position.samples[row],
                                           static_cast<uint32_t>(state.frame), position.level);
        token = find_token(codebook, weight, block_sum, philox_uniform(random.word[0]) * sum);
        tokens[row] = token;
    }
    token = __shfl_sync(WHOLE_WARP, token, 0);
    const float value = policy.log_probability(codebook, token);
    if (lane == 0)
        log_probabilities[row] = value;
}

} // namespace

template <typename T>
cudaError_t sample(cudaStream_t stream, int64_t rows, int64_t codebook, const T *logits, draw_terms terms,
                   const draw_position &position, int32_t *tokens, float *log_probabilities) {
    const size_t shared =
        sizeof(float) * TEAMS * static_cast<size_t>(shared_floats(static_cast<int>(codebook)));
    return choose_chunks<T>(codebook, [&](auto chunks) {
        return launch(sample_kernel<T, decltype(chunks)::value>, blocks_for(rows, TEAMS), THREADS, shared,
                      stream, rows, static_cast<int>(codebook), logits, 1.0f / terms.temperature, terms,
                      position, tokens, log_probabilities);
    });
}

template cudaError_t sample(cudaStream_t, int64_t, int64_t, const float *, draw_terms, const draw_position &,
                            int32_t *, float *);
template cudaError_t sample(cudaStream_t, int64_t, int64_t, const bf16 *, draw_terms, const draw_position &,
                            int32_t *, float *);

} // namespace cuda_kernels
