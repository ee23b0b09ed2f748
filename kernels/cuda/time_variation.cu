// A thread has one channel of one sample and walks the sequence; neighbouring channels lie side by side in
// memory, so that a warp reads whole lines. The sequence is read two times forward (mean, then squares) and
// two times backward, all but the first from the caches.
#include "kernels/cuda/time_variation.cuh"

namespace cuda_kernels {

namespace {

constexpr int THREADS = 128;

__device__ __forceinline__ float mean_over_time(int sequence, int64_t channels, const float *at) {
    float sum = 0.0f;
    for (int t = 0; t < sequence; t++)
        sum += at[t * channels];
    return sum * (1.0f / static_cast<float>(sequence));
}

// Blocks [channels / THREADS, batch].
__global__ void forward_kernel(int sequence, int64_t channels, float scale, float epsilon, const float *x,
                               float *out) {
    const int64_t channel = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (channel >= channels)
        return;
    const float *at = x + static_cast<int64_t>(blockIdx.y) * sequence * channels + channel;
    float *to = out + static_cast<int64_t>(blockIdx.y) * 2 * channels + channel;
    const float mean = mean_over_time(sequence, channels, at);
    float around = 0.0f, along = 0.0f;
    for (int t = 0; t < sequence; t++) {
        const float off = at[t * channels] - mean;
        around = fmaf(off, off, around);
        if (t + 1 < sequence) {
            const float step = at[(t + 1) * channels] - at[t * channels];
            along = fmaf(step, step, along);
        }
    }
    to[0] = logf(scale / static_cast<float>(sequence) * around + epsilon);
    to[channels] = logf(scale / static_cast<float>(sequence - 1) * along + epsilon);
}

// As cpu_op_time_variation_backward says it. Blocks [channels / THREADS, batch].
__global__ void backward_kernel(int sequence, int64_t channels, float scale, const float *x, const float *out,
                                const float *dout, float *dx) {
    const int64_t channel = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (channel >= channels)
        return;
    const int64_t first = static_cast<int64_t>(blockIdx.y) * sequence * channels + channel,
                  row = static_cast<int64_t>(blockIdx.y) * 2 * channels + channel;
    const float *at = x + first;
    float *to = dx + first;
    const float weight = 2.0f * scale / static_cast<float>(sequence) * dout[row] * expf(-out[row]);
    const float slope =
        2.0f * scale / static_cast<float>(sequence - 1) * dout[row + channels] * expf(-out[row + channels]);
    const float mean = mean_over_time(sequence, channels, at);
    for (int t = 0; t < sequence; t++) {
        const float own = at[t * channels];
        float bend = t > 0 ? own - at[(t - 1) * channels] : 0.0f;
        if (t + 1 < sequence)
            bend += own - at[(t + 1) * channels];
        to[t * channels] += weight * (own - mean) + slope * bend;
    }
}

} // namespace

cudaError_t time_variation(cudaStream_t stream, int batch, int sequence, int64_t channels, float scale,
                           float epsilon, const float *x, float *out) {
    return launch(forward_kernel, dim3(blocks_for(channels, THREADS), static_cast<unsigned>(batch)), THREADS,
                  0, stream, sequence, channels, scale, epsilon, x, out);
}

cudaError_t time_variation_backward(cudaStream_t stream, int batch, int sequence, int64_t channels,
                                    float scale, const float *x, const float *out, const float *dout,
                                    float *dx) {
    return launch(backward_kernel, dim3(blocks_for(channels, THREADS), static_cast<unsigned>(batch)), THREADS,
                  0, stream, sequence, channels, scale, x, out, dout, dx);
}

} // namespace cuda_kernels
