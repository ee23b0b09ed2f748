// One row of logits in the registers of a warp, for all kernels that take its softmax: sampling and scoring
// get their log-probabilities from the same instructions in the same order, and agree to the last bit.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

constexpr int64_t CODEBOOK_MAX = 2048;

// CHUNKS chunks of every lane: lane l has the values (c * 32 + l) * COUNT + i. z: logits / T, -inf past the
// end; exponentials: exp(z - maximum), in f32 as they were read.
template <typename T, int CHUNKS> struct softmax_row {
    static constexpr int COUNT = PACK<T>;
    float z[CHUNKS][COUNT], exponentials[CHUNKS][COUNT];
    float maximum, sum, log_sum; // log_sum: log of sum

    __device__ static int column(int chunk) {
        return (chunk * WARP_LANES + static_cast<int>(threadIdx.x) % WARP_LANES) * COUNT;
    }

    __device__ __forceinline__ void read(int codebook, const T *logits, float inverse_temperature) {
        maximum = -INFINITY;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const bool inside = column(chunk) < codebook;
            if (inside)
                stream_pack(logits + column(chunk), z[chunk]);
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                z[chunk][i] = inside ? z[chunk][i] * inverse_temperature : -INFINITY;
                maximum = fmaxf(maximum, z[chunk][i]);
            }
        }
        maximum = warp_maximum(maximum);
        sum = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                exponentials[chunk][i] = expf(z[chunk][i] - maximum);
                sum += exponentials[chunk][i];
            }
        sum = warp_sum(sum);
        log_sum = logf(sum);
    }

    // The logarithm of a token's probability; the same in all lanes. A token outside of the codebook: NaN.
    __device__ __forceinline__ float log_probability(int codebook, int token) const {
        float own = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                if (column(chunk) + i == token)
                    own = z[chunk][i] - maximum - log_sum;
        own = __shfl_sync(WHOLE_WARP, own, token / COUNT % WARP_LANES);
        return token >= 0 && token < codebook ? own : NAN;
    }
};

// Calls action(chunks) with the fewest chunks that hold a row, as a compile-time constant.
template <typename T, typename Action> cudaError_t choose_chunks(int64_t codebook, Action action) {
    constexpr int MOST = static_cast<int>(CODEBOOK_MAX) / (WARP_LANES * PACK<T>);
    if (codebook < 16 || codebook % 16 != 0 || codebook > CODEBOOK_MAX)
        return cudaErrorInvalidValue;
    if (codebook > CODEBOOK_MAX / 2)
        return action(std::integral_constant<int, MOST>());
    if (codebook > CODEBOOK_MAX / 4)
        return action(std::integral_constant<int, MOST / 2>());
    return action(std::integral_constant<int, MOST / 4>());
}

} // namespace cuda_kernels
