// Every value is read once and written once. Elementwise kernels give each thread one chunk of 16 bytes; sums
// over the columns of a row belong to a warp, sums over rows to a column of a block of 32 x GROUPS threads.
#include "kernels/cuda/rows.cuh"

namespace cuda_kernels {

namespace {

constexpr int THREADS = 256, TEAMS = THREADS / WARP_LANES, GROUPS = 8;
constexpr int64_t ROWS_OF_A_PART = 512;

// The chunk of this thread, and the row and column where it begins.
template <int COUNT> struct place {
    int64_t row, column;
    bool inside;
    __device__ place(int64_t rows, int64_t width) {
        const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * COUNT;
        row = at / width;
        column = at % width;
        inside = row < rows;
    }
};

template <typename T>
__global__ void copy_kernel(int64_t rows, int64_t width, const T *from, int64_t from_stride, T *to,
                            int64_t to_stride, bool accumulate) {
    const place<PACK<T>> at(rows, width);
    if (!at.inside)
        return;
    float value[PACK<T>], before[PACK<T>];
    T *target = to + at.row * to_stride + at.column;
    stream_pack(from + at.row * from_stride + at.column, value);
    if (accumulate) {
        load_pack(target, before);
        for (int i = 0; i < PACK<T>; i++)
            value[i] = before[i] + value[i];
    }
    store_pack(target, value);
}

template <typename T>
__global__ void repeat_kernel(int64_t rows, int64_t repeat, int64_t width, const T *from, T *to) {
    const place<PACK<T>> at(rows, width);
    if (!at.inside)
        return;
    float value[PACK<T>];
    stream_pack(from + at.row * width + at.column, value);
    for (int64_t i = 0; i < repeat; i++)
        store_pack(to + (at.row * repeat + i) * width + at.column, value);
}

template <typename T>
__global__ void sum_repeated_kernel(int64_t rows, int64_t repeat, int64_t width, const T *from, T *to) {
    const place<PACK<T>> at(rows, width);
    if (!at.inside)
        return;
    float sum[PACK<T>], value[PACK<T>];
    stream_pack(from + at.row * repeat * width + at.column, sum);
    for (int64_t r = 1; r < repeat; r++) {
        stream_pack(from + (at.row * repeat + r) * width + at.column, value);
        for (int i = 0; i < PACK<T>; i++)
            sum[i] += value[i];
    }
    store_pack(to + at.row * width + at.column, sum);
}

// Sums rows_of_a_part rows from blockIdx.y's on, each with a weight where there are weights. Thread (c, g) of
// a block adds the rows g, g + GROUPS, ...; the groups are then added in order. out: [gridDim.y, width].
template <typename T>
__global__ void column_sums_kernel(int64_t rows, int64_t width, int64_t rows_of_a_part, const T *x,
                                   const float *weights, float *out, bool accumulate) {
    SHARED(float, sums, [GROUPS][WARP_LANES]);
    const int lane = static_cast<int>(threadIdx.x), group = static_cast<int>(threadIdx.y);
    const int64_t column = static_cast<int64_t>(blockIdx.x) * WARP_LANES + lane,
                  first = blockIdx.y * rows_of_a_part, last = min(first + rows_of_a_part, rows);
    float sum = 0.0f;
    if (column < width)
        for (int64_t row = first + group; row < last; row += GROUPS)
            sum = fmaf(weights != nullptr ? weights[row] : 1.0f, to_float(x[row * width + column]), sum);
    sums[group][lane] = sum;
    __syncthreads(); // all groups have put theirs down
    if (group != 0 || column >= width)
        return;
    for (int g = 1; g < GROUPS; g++)
        sum += sums[g][lane];
    float *to = out + blockIdx.y * width + column;
    *to = accumulate ? *to + sum : sum;
}

template <typename T>
cudaError_t add_columns(cudaStream_t stream, int64_t rows, int64_t width, const T *x, const float *weights,
                        float *out, float *scratch) {
    const dim3 block(WARP_LANES, GROUPS);
    const unsigned parts = blocks_for(rows, ROWS_OF_A_PART), columns = blocks_for(width, WARP_LANES);
    if (parts == 0)
        return cudaSuccess;
    if (parts == 1)
        return launch(column_sums_kernel<T>, dim3(columns), block, 0, stream, rows, width, rows, x, weights,
                      out, true);
    const cudaError_t error = launch(column_sums_kernel<T>, dim3(columns, parts), block, 0, stream, rows,
                                     width, ROWS_OF_A_PART, x, weights, scratch, false);
    return error != cudaSuccess
               ? error
               : launch(column_sums_kernel<float>, dim3(columns), block, 0, stream,
                        static_cast<int64_t>(parts), width, static_cast<int64_t>(parts),
                        static_cast<const float *>(scratch), static_cast<const float *>(nullptr), out, true);
}

// A warp has a row: the sum over its columns of x times y.
template <typename T>
__device__ __forceinline__ float row_product(int64_t width, const T *x, const float *y) {
    float value[PACK<T>], other[PACK<T>], sum = 0.0f;
    for (int64_t column = threadIdx.x % WARP_LANES * PACK<T>; column < width;
         column += WARP_LANES * PACK<T>) {
        load_pack(x + column, value);
        load_pack(y + column, other);
        for (int i = 0; i < PACK<T>; i++)
            sum = fmaf(value[i], other[i], sum);
    }
    return warp_sum(sum);
}

__global__ void advance_kernel(int32_t *counter) {
    ++*counter;
}

__global__ void put_row_kernel(const int32_t *index, int64_t width, const int32_t *from, int32_t *to) {
    const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < width)
        to[*index * width + i] = from[i];
}

__device__ __forceinline__ int64_t row_of_warp() {
    return static_cast<int64_t>(blockIdx.x) * TEAMS + threadIdx.x / WARP_LANES;
}

template <typename T>
__global__ void row_dot_kernel(int64_t rows, int64_t width, const T *x, const float *vector,
                               const float *bias, float *out) {
    const int64_t row = row_of_warp();
    if (row >= rows)
        return;
    const float sum = row_product(width, x + row * width, vector);
    if (threadIdx.x % WARP_LANES == 0)
        out[row] = sum + (bias != nullptr ? bias[0] : 0.0f);
}

template <typename T>
__global__ void outer_kernel(int64_t rows, int64_t width, const float *left, const float *right, T *out) {
    const place<PACK<T>> at(rows, width);
    if (!at.inside)
        return;
    float value[PACK<T>];
    load_pack(right + at.column, value);
    for (int i = 0; i < PACK<T>; i++)
        value[i] *= left[at.row];
    store_pack(out + at.row * width + at.column, value);
}

// One block: every thread adds its share, then the shares in order.
__global__ void sum_kernel(int64_t count, const float *x, float *out) {
    SHARED(float, partial, [TEAMS]);
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x)
        sum += x[i];
    sum = team_sum<TEAMS>(sum, &partial[0]);
    if (threadIdx.x == 0)
        out[0] += sum;
}

// A thread has one column of one sample: blocks are [columns / 32, batch] of 32 x GROUPS threads.
template <typename T>
__global__ void mean_pool_kernel(int sequence, int64_t width, const int32_t *lengths, const T *x,
                                 float *out) {
    SHARED(float, sums, [GROUPS][WARP_LANES]);
    const int lane = static_cast<int>(threadIdx.x), group = static_cast<int>(threadIdx.y),
              length = lengths != nullptr ? lengths[blockIdx.y] : sequence;
    const int64_t column = static_cast<int64_t>(blockIdx.x) * WARP_LANES + lane;
    const T *from = x + static_cast<int64_t>(blockIdx.y) * sequence * width + column;
    float sum = 0.0f;
    if (column < width)
        for (int s = group; s < length; s += GROUPS)
            sum += to_float(from[s * width]);
    sums[group][lane] = sum;
    __syncthreads(); // all groups have put theirs down
    if (group != 0 || column >= width)
        return;
    for (int g = 1; g < GROUPS; g++)
        sum += sums[g][lane];
    out[blockIdx.y * width + column] = length > 0 ? sum * (1.0f / static_cast<float>(length)) : 0.0f;
}

template <typename T>
__global__ void mean_pool_backward_kernel(int64_t rows, int sequence, int64_t width, const int32_t *lengths,
                                          const float *dout, T *dx) {
    const place<PACK<T>> at(rows, width);
    if (!at.inside)
        return;
    const int64_t sample = at.row / sequence;
    const int length = lengths != nullptr ? lengths[sample] : sequence;
    const bool counts = at.row % sequence < length;
    float value[PACK<T>];
    load_pack(dout + sample * width + at.column, value);
    for (int i = 0; i < PACK<T>; i++)
        value[i] = counts ? value[i] * (1.0f / static_cast<float>(length)) : 0.0f;
    store_pack(dx + at.row * width + at.column, value);
}

__global__ void normalize_kernel(int64_t rows, int64_t width, const float *x, float *out,
                                 float *inverse_norms) {
    const int64_t row = row_of_warp();
    if (row >= rows)
        return;
    const float norm = sqrtf(row_product(width, x + row * width, x + row * width));
    const float inverse = 1.0f / fmaxf(norm, 1e-12f);
    if (threadIdx.x % WARP_LANES == 0)
        inverse_norms[row] = inverse;
    for (int64_t column = threadIdx.x % WARP_LANES * 4; column < width; column += WARP_LANES * 4) {
        float value[4];
        load_pack(x + row * width + column, value);
        for (int i = 0; i < 4; i++)
            value[i] *= inverse;
        store_pack(out + row * width + column, value);
    }
}

__global__ void normalize_backward_kernel(int64_t rows, int64_t width, const float *out,
                                          const float *inverse_norms, const float *dout, float *dx) {
    const int64_t row = row_of_warp();
    if (row >= rows)
        return;
    const float along = row_product(width, out + row * width, dout + row * width);
    for (int64_t column = threadIdx.x % WARP_LANES * 4; column < width; column += WARP_LANES * 4) {
        float value[4], gradient[4];
        load_pack(out + row * width + column, value);
        load_pack(dout + row * width + column, gradient);
        for (int i = 0; i < 4; i++)
            gradient[i] = (gradient[i] - along * value[i]) * inverse_norms[row];
        store_pack(dx + row * width + column, gradient);
    }
}

template <typename T> unsigned chunk_blocks(int64_t rows, int64_t width) {
    return blocks_for(rows * width / PACK<T>, THREADS);
}

} // namespace

template <typename T>
cudaError_t copy_rows(cudaStream_t stream, int64_t rows, int64_t width, const T *from, int64_t from_stride,
                      T *to, int64_t to_stride, bool accumulate) {
    return launch(copy_kernel<T>, chunk_blocks<T>(rows, width), THREADS, 0, stream, rows, width, from,
                  from_stride, to, to_stride, accumulate);
}

template <typename T>
cudaError_t repeat_rows(cudaStream_t stream, int64_t rows, int64_t repeat, int64_t width, const T *from,
                        T *to) {
    return launch(repeat_kernel<T>, chunk_blocks<T>(rows, width), THREADS, 0, stream, rows, repeat, width,
                  from, to);
}

template <typename T>
cudaError_t sum_repeated(cudaStream_t stream, int64_t rows, int64_t repeat, int64_t width, const T *from,
                         T *to) {
    return launch(sum_repeated_kernel<T>, chunk_blocks<T>(rows, width), THREADS, 0, stream, rows, repeat,
                  width, from, to);
}

cudaError_t advance(cudaStream_t stream, int32_t *counter) {
    return launch(advance_kernel, 1, 1, 0, stream, counter);
}

cudaError_t put_row(cudaStream_t stream, const int32_t *index, int64_t width, const int32_t *from,
                    int32_t *to) {
    return launch(put_row_kernel, blocks_for(width, THREADS), THREADS, 0, stream, index, width, from, to);
}

template <typename T>
cudaError_t column_sums(cudaStream_t stream, int64_t rows, int64_t width, const T *x, float *out,
                        float *scratch) {
    return add_columns(stream, rows, width, x, nullptr, out, scratch);
}

size_t column_sums_scratch_floats(int64_t rows, int64_t width) {
    const unsigned parts = blocks_for(rows, ROWS_OF_A_PART);
    return parts > 1 ? parts * static_cast<size_t>(width) : 0;
}

template <typename T>
cudaError_t row_dot(cudaStream_t stream, int64_t rows, int64_t width, const T *x, const float *vector,
                    const float *bias, float *out) {
    return launch(row_dot_kernel<T>, blocks_for(rows, TEAMS), THREADS, 0, stream, rows, width, x, vector,
                  bias, out);
}

template <typename T>
cudaError_t row_dot_backward(cudaStream_t stream, int64_t rows, int64_t width, const T *x,
                             const float *vector, const float *dout, T *dx, float *dvector, float *dbias,
                             float *scratch) {
    cudaError_t error = add_columns(stream, rows, width, x, dout, dvector, scratch);
    if (error == cudaSuccess)
        error = launch(outer_kernel<T>, chunk_blocks<T>(rows, width), THREADS, 0, stream, rows, width, dout,
                       vector, dx);
    if (error == cudaSuccess && dbias != nullptr)
        error = launch(sum_kernel, 1, THREADS, 0, stream, rows, dout, dbias);
    return error;
}

size_t row_dot_backward_scratch_floats(int64_t rows, int64_t width) {
    return column_sums_scratch_floats(rows, width);
}

template <typename T>
cudaError_t mean_pool(cudaStream_t stream, int batch, int sequence, int64_t width, const int32_t *lengths,
                      const T *x, float *out) {
    return launch(mean_pool_kernel<T>, dim3(blocks_for(width, WARP_LANES), static_cast<unsigned>(batch)),
                  dim3(WARP_LANES, GROUPS), 0, stream, sequence, width, lengths, x, out);
}

template <typename T>
cudaError_t mean_pool_backward(cudaStream_t stream, int batch, int sequence, int64_t width,
                               const int32_t *lengths, const float *dout, T *dx) {
    const int64_t rows = static_cast<int64_t>(batch) * sequence;
    return launch(mean_pool_backward_kernel<T>, chunk_blocks<T>(rows, width), THREADS, 0, stream, rows,
                  sequence, width, lengths, dout, dx);
}

cudaError_t normalize_rows(cudaStream_t stream, int64_t rows, int64_t width, const float *x, float *out,
                           float *inverse_norms) {
    return launch(normalize_kernel, blocks_for(rows, TEAMS), THREADS, 0, stream, rows, width, x, out,
                  inverse_norms);
}

cudaError_t normalize_rows_backward(cudaStream_t stream, int64_t rows, int64_t width, const float *out,
                                    const float *inverse_norms, const float *dout, float *dx) {
    return launch(normalize_backward_kernel, blocks_for(rows, TEAMS), THREADS, 0, stream, rows, width, out,
                  inverse_norms, dout, dx);
}

#define INSTANTIATE(T)                                                                                       \
    template cudaError_t copy_rows(cudaStream_t, int64_t, int64_t, const T *, int64_t, T *, int64_t, bool);  \
    template cudaError_t repeat_rows(cudaStream_t, int64_t, int64_t, int64_t, const T *, T *);               \
    template cudaError_t sum_repeated(cudaStream_t, int64_t, int64_t, int64_t, const T *, T *);              \
    template cudaError_t column_sums(cudaStream_t, int64_t, int64_t, const T *, float *, float *);           \
    template cudaError_t row_dot(cudaStream_t, int64_t, int64_t, const T *, const float *, const float *,    \
                                 float *);                                                                   \
    template cudaError_t row_dot_backward(cudaStream_t, int64_t, int64_t, const T *, const float *,          \
                                          const float *, T *, float *, float *, float *);                    \
    template cudaError_t mean_pool(cudaStream_t, int, int, int64_t, const int32_t *, const T *, float *);    \
    template cudaError_t mean_pool_backward(cudaStream_t, int, int, int64_t, const int32_t *, const float *, \
                                            T *)
INSTANTIATE(float);
INSTANTIATE(bf16);

} // namespace cuda_kernels
