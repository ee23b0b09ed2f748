// Rows of logits in training: log-probabilities, the policy's loss and its gradient, cross-entropy. T:
// storage of the logits, float or bf16; results f32. Codebooks are multiples of 16, at most CODEBOOK_MAX
// (softmax.cuh). A logit of -inf is a token that does not exist.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// As op_log_probability; a token outside of the codebook gives NaN.
template <typename T>
cudaError_t log_probability(cudaStream_t stream, int64_t rows, int64_t codebook, const T *logits,
                            float temperature, const int32_t *tokens, float *out);

// As op_importance.
cudaError_t importance(cudaStream_t stream, int64_t rows, const float *scored, const float *sampled,
                       const float *advantages, float cap, float clip, float *ratios, float *weighed);

// As policy_loss_terms of kernels/operators.h.
struct policy_terms {
    float temperature, policy_weight, kl_weight, entropy_weight;
};

// As op_policy_loss: log-probability of the action, entropy, exact KL(policy || reference) of every row; the
// gradient overwrites logits. reference NULL: KL 0.
template <typename T>
cudaError_t policy_loss(cudaStream_t stream, int64_t rows, int64_t codebook, T *logits, const T *reference,
                        const int32_t *actions, const float *advantages, policy_terms terms,
                        float *log_probabilities, float *entropies, float *kls);

// As op_cross_entropy: losses [rows]; with weight != 0 the gradient times weight overwrites the logits.
template <typename T>
cudaError_t cross_entropy(cudaStream_t stream, int64_t rows, int64_t codebook, T *logits,
                          const int32_t *targets, float weight, float *losses);

} // namespace cuda_kernels
