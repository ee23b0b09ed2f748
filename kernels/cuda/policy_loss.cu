// A warp has a row, or two rows of the same codes, in registers: logits are read once, the gradient is
// written once where they lay. Traffic of the policy's loss: 3 values a code (2 without a reference) and 20
// bytes a row.
#include "kernels/cuda/policy_loss.cuh"

#include "kernels/cuda/softmax.cuh"

namespace cuda_kernels {

namespace {

constexpr int TEAMS = 4, THREADS = TEAMS * WARP_LANES;

__device__ __forceinline__ int64_t row_of_warp() {
    return static_cast<int64_t>(blockIdx.x) * TEAMS + threadIdx.x / WARP_LANES;
}

__device__ __forceinline__ bool is_first_lane() {
    return threadIdx.x % WARP_LANES == 0;
}

template <typename T, int CHUNKS>
__global__ void __launch_bounds__(THREADS)
    log_probability_kernel(int64_t rows, int codebook, const T *logits, float inverse_temperature,
                           const int32_t *tokens, float *out) {
    const int64_t row = row_of_warp();
    if (row >= rows)
        return;
    softmax_row<T, CHUNKS> policy;
    policy.read(codebook, logits + row * codebook, inverse_temperature);
    const float value = policy.log_probability(codebook, tokens[row]);
    if (is_first_lane())
        out[row] = value;
}

// A code of probability 0 adds nothing and has no gradient, also where its logarithm is not finite.
template <typename T, int CHUNKS>
__global__ void __launch_bounds__(THREADS)
    policy_loss_kernel(int64_t rows, int codebook, T *logits, const T *reference, const int32_t *actions,
                       const float *advantages, float inverse_temperature, policy_terms terms,
                       float *log_probabilities, float *entropies, float *kls) {
    constexpr int COUNT = PACK<T>;
    const int64_t row = row_of_warp();
    if (row >= rows)
        return;
    softmax_row<T, CHUNKS> policy;
    policy.read(codebook, logits + row * codebook, inverse_temperature);
    const int action = actions[row];
    const float log_probability = policy.log_probability(codebook, action);
    const float shift = policy.maximum + policy.log_sum, inverse_sum = 1.0f / policy.sum;
    // From here on z is log p, the exponentials are p.
    float entropy = 0.0f, kl = 0.0f;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            policy.z[chunk][i] -= shift;
            policy.exponentials[chunk][i] *= inverse_sum;
            if (policy.exponentials[chunk][i] > 0.0f)
                entropy = fmaf(policy.exponentials[chunk][i], policy.z[chunk][i], entropy);
        }
    entropy = -warp_sum(entropy);
    // The reference's row becomes log p - log q.
    softmax_row<T, CHUNKS> base;
    if (reference != nullptr) {
        base.read(codebook, reference + row * codebook, inverse_temperature);
        const float base_shift = base.maximum + base.log_sum;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                base.z[chunk][i] = policy.z[chunk][i] - (base.z[chunk][i] - base_shift);
                if (policy.exponentials[chunk][i] > 0.0f)
                    kl = fmaf(policy.exponentials[chunk][i], base.z[chunk][i], kl);
            }
        kl = warp_sum(kl);
    }
    if (is_first_lane()) {
        log_probabilities[row] = log_probability;
        entropies[row] = entropy;
        kls[row] = kl;
    }
    // With respect to z_a, all times 1 / T: policy w A (p_a - [a == action]); KL w p_a (log p_a - log q_a -
    // KL); entropy w p_a (log p_a + entropy).
    const float weight = terms.policy_weight * advantages[row];
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        if (policy.column(chunk) >= codebook)
            continue;
        float gradient[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float p = policy.exponentials[chunk][i];
            float inner = weight + terms.entropy_weight * (policy.z[chunk][i] + entropy);
            if (reference != nullptr)
                inner += terms.kl_weight * (base.z[chunk][i] - kl);
            gradient[i] = p > 0.0f ? p * inner * inverse_temperature : 0.0f;
            if (policy.column(chunk) + i == action)
                gradient[i] -= weight * inverse_temperature;
        }
        store_pack(logits + row * codebook + policy.column(chunk), gradient);
    }
}

template <typename T, int CHUNKS>
__global__ void __launch_bounds__(THREADS)
    cross_entropy_kernel(int64_t rows, int codebook, T *logits, const int32_t *targets, float weight,
                         float *losses) {
    constexpr int COUNT = PACK<T>;
    const int64_t row = row_of_warp();
    if (row >= rows)
        return;
    softmax_row<T, CHUNKS> policy;
    policy.read(codebook, logits + row * codebook, 1.0f);
    const int target = targets[row];
    const float value = policy.log_probability(codebook, target);
    if (is_first_lane())
        losses[row] = -value;
    if (weight == 0.0f)
        return;
    const float factor = weight / policy.sum;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        if (policy.column(chunk) >= codebook)
            continue;
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            policy.exponentials[chunk][i] =
                policy.exponentials[chunk][i] * factor - (policy.column(chunk) + i == target ? weight : 0.0f);
        store_pack(logits + row * codebook + policy.column(chunk), policy.exponentials[chunk]);
    }
}

__global__ void importance_kernel(int64_t rows, const float *scored, const float *sampled,
                                  const float *advantages, float cap, float clip, float *ratios,
                                  float *weighed) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= rows)
        return;
    const float ratio = expf(scored[row] - sampled[row]), advantage = advantages[row];
    const bool clipped = clip > 0.0f && ((advantage > 0.0f && ratio > 1.0f + clip) ||
                                         (advantage < 0.0f && ratio < 1.0f - clip));
    ratios[row] = ratio;
    weighed[row] = advantage * (clipped ? 0.0f : ratio < cap ? ratio : cap);
}

} // namespace

cudaError_t importance(cudaStream_t stream, int64_t rows, const float *scored, const float *sampled,
                       const float *advantages, float cap, float clip, float *ratios, float *weighed) {
    return launch(importance_kernel, blocks_for(rows, 256), 256, 0, stream, rows, scored, sampled, advantages,
                  cap, clip, ratios, weighed);
}

template <typename T>
cudaError_t log_probability(cudaStream_t stream, int64_t rows, int64_t codebook, const T *logits,
                            float temperature, const int32_t *tokens, float *out) {
    return choose_chunks<T>(codebook, [&](auto chunks) {
        return launch(log_probability_kernel<T, decltype(chunks)::value>, blocks_for(rows, TEAMS), THREADS, 0,
                      stream, rows, static_cast<int>(codebook), logits, 1.0f / temperature, tokens, out);
    });
}

template <typename T>
cudaError_t policy_loss(cudaStream_t stream, int64_t rows, int64_t codebook, T *logits, const T *reference,
                        const int32_t *actions, const float *advantages, policy_terms terms,
                        float *log_probabilities, float *entropies, float *kls) {
    return choose_chunks<T>(codebook, [&](auto chunks) {
        return launch(policy_loss_kernel<T, decltype(chunks)::value>, blocks_for(rows, TEAMS), THREADS, 0,
                      stream, rows, static_cast<int>(codebook), logits, reference, actions, advantages,
                      1.0f / terms.temperature, terms, log_probabilities, entropies, kls);
    });
}

template <typename T>
cudaError_t cross_entropy(cudaStream_t stream, int64_t rows, int64_t codebook, T *logits,
                          const int32_t *targets, float weight, float *losses) {
    return choose_chunks<T>(codebook, [&](auto chunks) {
        return launch(cross_entropy_kernel<T, decltype(chunks)::value>, blocks_for(rows, TEAMS), THREADS, 0,
                      stream, rows, static_cast<int>(codebook), logits, targets, weight, losses);
    });
}

#define INSTANTIATE(T)                                                                                       \
    template cudaError_t log_probability(cudaStream_t, int64_t, int64_t, const T *, float, const int32_t *,  \
                                         float *);                                                           \
    template cudaError_t policy_loss(cudaStream_t, int64_t, int64_t, T *, const T *, const int32_t *,        \
                                     const float *, policy_terms, float *, float *, float *);                \
    template cudaError_t cross_entropy(cudaStream_t, int64_t, int64_t, T *, const int32_t *, float, float *)
INSTANTIATE(float);
INSTANTIATE(bf16);

} // namespace cuda_kernels
