// Embeddings of tokens and their gradient. T: storage of tables and rows, float or bf16.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

constexpr int TABLES_MAX = 20; // EMBEDDING_TABLES_MAX

template <typename T> struct embedding_tables {
    int count;
    const T *table[TABLES_MAX];       // [entries, width] each
    const int32_t *index[TABLES_MAX]; // [rows] each; negative: adds nothing
};

// out [rows, width] (+)= sum over tables of table[t][index[t][row]], as op_embedding_sum.
template <typename T>
cudaError_t embedding_sum(cudaStream_t stream, int64_t rows, int64_t width, const embedding_tables<T> &tables,
                          T *out, bool accumulate);

// dtable [entries, width] += the rows of dout [rows, width] that looked up each entry, as
// op_embedding_backward, added in the same order whatever the card does meanwhile. scratch:
// embedding_backward_scratch_bytes, aligned to 16.
template <typename T>
cudaError_t embedding_backward(cudaStream_t stream, int64_t rows, int64_t entries, int64_t width,
                               const int32_t *index, const T *dout, float *dtable, void *scratch);
size_t embedding_backward_scratch_bytes(int64_t rows, int64_t entries, int64_t width);

} // namespace cuda_kernels
