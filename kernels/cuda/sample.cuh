// Drawing tokens. T: storage of the logits, float or bf16.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// Where a draw stands, as sample_state and sample_position of kernels/operators.h; the state lies on the
// device, so that a captured graph serves every frame of every rollout.
struct draw_state {
    uint64_t seed;
    uint32_t step;
    int32_t frame;
};
struct draw_position {
    const draw_state *state; // [1]
    uint32_t level;
    const uint32_t *samples; // [rows]
};

// As sample_terms.
struct draw_terms {
    float temperature;
    int top_k;
    float top_p;
};

// Tokens [rows] from softmax(logits / temperature), logits [rows, codebook], cut as `terms` say; without cuts
// the same tokens as op_sample draws with AVX-512. log_probabilities [rows]: of the whole distribution, to
// the last bit what log_probability (policy_loss.cuh) gives. At least one token is always left.
template <typename T>
cudaError_t sample(cudaStream_t stream, int64_t rows, int64_t codebook, const T *logits, draw_terms terms,
                   const draw_position &position, int32_t *tokens, float *log_probabilities);

} // namespace cuda_kernels
