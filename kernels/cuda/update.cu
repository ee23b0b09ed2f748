// AdamW reads gradient, parameter and both moments once and writes the last three: 28 bytes a parameter. The
// norm reads the gradient once. A slot of gradients reads each partial sum that it
// completes once and is written once, or twice.
#include "kernels/cuda/update.cuh"

namespace cuda_kernels {

namespace {

constexpr int THREADS = 256, WARPS = THREADS / WARP_LANES;
constexpr int64_t CHUNK_VALUES = 16384; // of one partial sum, whatever the card

__device__ __forceinline__ double warp_sum_double(double x) {
#pragma unroll
    for (int bits = WARP_LANES / 2; bits > 0; bits /= 2)
        x += __shfl_xor_sync(WHOLE_WARP, x, bits);
    return x;
}

// Of the whole block, in thread 0.
__device__ __forceinline__ double block_sum_double(double x, double *partial) {
    x = warp_sum_double(x);
    if (threadIdx.x % WARP_LANES == 0)
        partial[threadIdx.x / WARP_LANES] = x;
    __syncthreads(); // all warps have put theirs down
    if (threadIdx.x == 0)
        for (int i = 1; i < WARPS; i++)
            x += partial[i];
    return x;
}

__global__ void scale_kernel(int64_t count, float factor, float *x) {
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x)
        x[i] *= factor;
}

__global__ void add_slot_kernel(int64_t count, int depth, bool keep, int64_t stride, float *partial,
                                float *values) {
    const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (at + 4 <= count) {
        float sum[4], added[4];
        load_pack(values + at, sum);
        for (int level = 0; level < depth; level++) {
            stream_pack(partial + level * stride + at, added);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[i] = added[i] + sum[i];
        }
        store_pack(values + at, sum);
        if (keep)
            store_pack(partial + depth * stride + at, sum);
        return;
    }
    for (int64_t i = at; i < count; i++) {
        float sum = values[i];
        for (int level = 0; level < depth; level++)
            sum = partial[level * stride + i] + sum;
        values[i] = sum;
        if (keep)
            partial[depth * stride + i] = sum;
    }
}

__global__ void squares_kernel(int64_t count, const float *x, double *sums) {
    SHARED(double, partial, [WARPS]);
    const int64_t first = blockIdx.x * CHUNK_VALUES, last = min(first + CHUNK_VALUES, count);
    double sum = 0.0;
    for (int64_t at = first + threadIdx.x * 4; at < last; at += THREADS * 4) {
        if (at + 4 <= last) {
            float value[4];
            stream_pack(x + at, value);
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum = fma(static_cast<double>(value[i]), static_cast<double>(value[i]), sum);
        } else {
            for (int64_t i = at; i < last; i++)
                sum = fma(static_cast<double>(x[i]), static_cast<double>(x[i]), sum);
        }
    }
    sum = block_sum_double(sum, &partial[0]);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = sum;
}

// One block.
__global__ void add_kernel(int64_t count, const double *sums, double *out) {
    SHARED(double, partial, [WARPS]);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        sum += sums[i];
    sum = block_sum_double(sum, &partial[0]);
    if (threadIdx.x == 0)
        out[0] = sum;
}

__global__ void finite_kernel(int64_t count, const float *x, int32_t *out) {
    bool bad = false;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x)
        bad |= (__float_as_uint(x[i]) & 0x7F800000u) == 0x7F800000u;
    if (__syncthreads_or(bad) && threadIdx.x == 0)
        *out = 0; // whoever writes, writes this
}

__global__ void set_kernel(int32_t value, int32_t *out) {
    *out = value;
}

__device__ __forceinline__ void update_value(const adamw_terms &t, float gradient, float &parameter,
                                             float &first, float &second) {
    const float g = gradient * t.scale;
    first = t.beta1 * first + (1.0f - t.beta1) * g;
    second = t.beta2 * second + (1.0f - t.beta2) * g * g;
    const float step = first * t.correction1 / (sqrtf(second * t.correction2) + t.epsilon);
    parameter -= t.learning_rate * (step + t.weight_decay * parameter);
}

__global__ void adamw_kernel(int64_t count, adamw_terms terms, const float *gradient, float *parameter,
                             float *first, float *second) {
    const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (at >= count)
        return;
    if (at + 4 <= count) {
        float g[4], p[4], m[4], v[4];
        stream_pack(gradient + at, g);
        stream_pack(parameter + at, p);
        stream_pack(first + at, m);
        stream_pack(second + at, v);
#pragma unroll
        for (int i = 0; i < 4; i++)
            update_value(terms, g[i], p[i], m[i], v[i]);
        store_pack(parameter + at, p);
        store_pack(first + at, m);
        store_pack(second + at, v);
        return;
    }
    for (int64_t i = at; i < count; i++)
        update_value(terms, gradient[i], parameter[i], first[i], second[i]);
}

__global__ void round_kernel(int64_t count, const float *x, bf16 *rounded) {
    const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
    if (at + 4 <= count) {
        float value[4];
        stream_pack(x + at, value);
        store_pack(rounded + at, value);
        return;
    }
    for (int64_t i = at; i < count; i++)
        rounded[i] = from_float<bf16>(x[i]);
}

} // namespace

cudaError_t scale(cudaStream_t stream, int64_t count, float factor, float *x) {
    return launch(scale_kernel, blocks_for(count, THREADS * 4), THREADS, 0, stream, count, factor, x);
}

cudaError_t add_slot(cudaStream_t stream, int64_t count, int depth, bool keep, int64_t stride, float *partial,
                     float *values) {
    return launch(add_slot_kernel, blocks_for(count, THREADS * 4), THREADS, 0, stream, count, depth, keep,
                  stride, partial, values);
}

cudaError_t sum_squares(cudaStream_t stream, int64_t count, const float *x, double *out, double *scratch) {
    const unsigned chunks = blocks_for(count, CHUNK_VALUES);
    cudaError_t error = launch(squares_kernel, chunks, THREADS, 0, stream, count, x, scratch);
    if (error == cudaSuccess)
        error = launch(add_kernel, 1, THREADS, 0, stream, static_cast<int64_t>(chunks),
                       static_cast<const double *>(scratch), out);
    return error;
}

size_t sum_squares_scratch_bytes(int64_t count) {
    return sizeof(double) * blocks_for(count, CHUNK_VALUES);
}

cudaError_t all_finite(cudaStream_t stream, int64_t count, const float *x, int32_t *out) {
    const unsigned blocks = blocks_for(count, THREADS * 16);
    cudaError_t error = launch(set_kernel, 1, 1, 0, stream, 1, out);
    if (error == cudaSuccess)
        error = launch(finite_kernel, blocks, THREADS, 0, stream, count, x, out);
    return error;
}

cudaError_t adamw(cudaStream_t stream, int64_t count, const adamw_terms &terms, const float *gradient,
                  float *parameter, float *first, float *second) {
    return launch(adamw_kernel, blocks_for(count, THREADS * 4), THREADS, 0, stream, count, terms, gradient,
                  parameter, first, second);
}

cudaError_t round_to_bf16(cudaStream_t stream, int64_t count, const float *x, bf16 *rounded) {
    return launch(round_kernel, blocks_for(count, THREADS * 4), THREADS, 0, stream, count, x, rounded);
}

} // namespace cuda_kernels
