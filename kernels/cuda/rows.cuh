// Moving, adding and projecting rows, for the model's ends and its pooled vectors. T: float or bf16. Sums run
// in one fixed order.
#pragma once

#include "kernels/cuda/kernel.cuh"

namespace cuda_kernels {

// As op_copy_rows: strides in values, multiples of 16 like the width.
template <typename T>
cudaError_t copy_rows(cudaStream_t stream, int64_t rows, int64_t width, const T *from, int64_t from_stride,
                      T *to, int64_t to_stride, bool accumulate);
// to [rows, repeat, width] = from [rows, width]
template <typename T>
cudaError_t repeat_rows(cudaStream_t stream, int64_t rows, int64_t repeat, int64_t width, const T *from,
                        T *to);
// to [rows, width] = sum over repeat of from [rows, repeat, width]
template <typename T>
cudaError_t sum_repeated(cudaStream_t stream, int64_t rows, int64_t repeat, int64_t width, const T *from,
                         T *to);

// out [width] += column sums of x [rows, width]. scratch: column_sums_scratch_floats; NULL where those are 0.
template <typename T>
cudaError_t column_sums(cudaStream_t stream, int64_t rows, int64_t width, const T *x, float *out,
                        float *scratch);
size_t column_sums_scratch_floats(int64_t rows, int64_t width);

// ++*counter; row *index of to [.., width] = from [width], any 4-byte values.
cudaError_t advance(cudaStream_t stream, int32_t *counter);
cudaError_t put_row(cudaStream_t stream, const int32_t *index, int64_t width, const int32_t *from,
                    int32_t *to);

// out [rows] = x [rows, width] . vector [width] + bias [1]; bias NULL: 0
template <typename T>
cudaError_t row_dot(cudaStream_t stream, int64_t rows, int64_t width, const T *x, const float *vector,
                    const float *bias, float *out);
// dx [rows, width] = dout [rows] vector; dvector [width] and dbias [1] +=; dbias NULL: not wanted. scratch:
// row_dot_backward_scratch_floats.
template <typename T>
cudaError_t row_dot_backward(cudaStream_t stream, int64_t rows, int64_t width, const T *x,
                             const float *vector, const float *dout, T *dx, float *dvector, float *dbias,
                             float *scratch);
size_t row_dot_backward_scratch_floats(int64_t rows, int64_t width);

// out [batch, width] = mean over the first lengths[b] rows of x [batch, sequence, width]; lengths NULL: all.
// A length of 0 gives zeros.
template <typename T>
cudaError_t mean_pool(cudaStream_t stream, int batch, int sequence, int64_t width, const int32_t *lengths,
                      const T *x, float *out);
template <typename T>
cudaError_t mean_pool_backward(cudaStream_t stream, int batch, int sequence, int64_t width,
                               const int32_t *lengths, const float *dout, T *dx);

// out [rows, width] = x / |x|; inverse_norms [rows] = 1 / max(|x|, 1e-12)
cudaError_t normalize_rows(cudaStream_t stream, int64_t rows, int64_t width, const float *x, float *out,
                           float *inverse_norms);
cudaError_t normalize_rows_backward(cudaStream_t stream, int64_t rows, int64_t width, const float *out,
                                    const float *inverse_norms, const float *dout, float *dx);

} // namespace cuda_kernels
