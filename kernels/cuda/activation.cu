// One chunk of 16 bytes a thread: each value is read once and written once. Traffic of swiglu: 3 values for
// each of its outputs; backward 5.
#include "kernels/cuda/activation.cuh"

namespace cuda_kernels {

namespace {

constexpr int THREADS = 256;

__device__ __forceinline__ float sigmoid(float x) {
    return 1.0f / (1.0f + expf(-x));
}

// The column of gate and up where this thread's chunk begins; at < 0: none.
template <int COUNT> struct gated_place {
    int64_t at, gate;
    __device__ gated_place(int64_t rows, int64_t width) {
        at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * COUNT;
        const int64_t row = at / width;
        gate = 2 * row * width + at % width;
        if (row >= rows)
            at = -1;
    }
};

template <typename T> __global__ void swiglu_kernel(int64_t rows, int64_t width, const T *gate_up, T *out) {
    const gated_place<PACK<T>> place(rows, width);
    if (place.at < 0)
        return;
    float gate[PACK<T>], up[PACK<T>];
    stream_pack(gate_up + place.gate, gate);
    stream_pack(gate_up + place.gate + width, up);
#pragma unroll
    for (int i = 0; i < PACK<T>; i++)
        gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
    store_pack(out + place.at, gate);
}

template <typename T>
__global__ void swiglu_backward_kernel(int64_t rows, int64_t width, const T *gate_up, const T *dout,
                                       T *dgate_up) {
    const gated_place<PACK<T>> place(rows, width);
    if (place.at < 0)
        return;
    float gate[PACK<T>], up[PACK<T>], d[PACK<T>];
    load_pack(gate_up + place.gate, gate);
    load_pack(gate_up + place.gate + width, up);
    stream_pack(dout + place.at, d);
#pragma unroll
    for (int i = 0; i < PACK<T>; i++) {
        const float g = gate[i], s = sigmoid(g);
        gate[i] = d[i] * up[i] * s * (1.0f + g * (1.0f - s));
        up[i] = d[i] * g * s;
    }
    store_pack(dgate_up + place.gate, gate);
    store_pack(dgate_up + place.gate + width, up);
}

} // namespace

template <typename T>
cudaError_t swiglu(cudaStream_t stream, int64_t rows, int64_t width, const T *gate_up, T *out) {
    return launch(swiglu_kernel<T>, blocks_for(rows * width / PACK<T>, THREADS), THREADS, 0, stream, rows,
                  width, gate_up, out);
}

template <typename T>
cudaError_t swiglu_backward(cudaStream_t stream, int64_t rows, int64_t width, const T *gate_up, const T *dout,
                            T *dgate_up) {
    return launch(swiglu_backward_kernel<T>, blocks_for(rows * width / PACK<T>, THREADS), THREADS, 0, stream,
                  rows, width, gate_up, dout, dgate_up);
}

#define INSTANTIATE(T)                                                                                       \
    template cudaError_t swiglu(cudaStream_t, int64_t, int64_t, const T *, T *);                             \
    template cudaError_t swiglu_backward(cudaStream_t, int64_t, int64_t, const T *, const T *, T *)
INSTANTIATE(float);
INSTANTIATE(bf16);

} // namespace cuda_kernels
