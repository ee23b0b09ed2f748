// Blocks of 32 channels x GROUPS; neighbouring channels lie side by side in memory. A thread has a lag (or,
// backward, a time) of one channel and walks the other index; the sequence is read from the caches, once for
// each lag: sequence * lags multiply-adds a channel, which at the sizes of reward models is little work.
#include "kernels/cuda/autocorrelation.cuh"

namespace cuda_kernels {

namespace {

constexpr int GROUPS = 8;

// Sum of the groups' values of one channel, in order; the same in all of them.
__device__ __forceinline__ float group_sum(float x, float (*sums)[WARP_LANES]) {
    __syncthreads(); // the last sum has been read
    sums[threadIdx.y][threadIdx.x] = x;
    __syncthreads(); // all groups have put theirs down
    x = sums[0][threadIdx.x];
    for (int g = 1; g < GROUPS; g++)
        x += sums[g][threadIdx.x];
    return x;
}

// Takes the mean over the sequence from x, after multiplying by factors [batch, channels] where there are
// any; inverse_energies may be NULL.
__global__ void centre_kernel(int sequence, int64_t channels, float epsilon, const float *factors, float *x,
                              float *inverse_energies) {
    SHARED(float, sums, [GROUPS][WARP_LANES]);
    const int64_t channel = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    const bool inside = channel < channels;
    float *at = x + static_cast<int64_t>(blockIdx.y) * sequence * channels + channel;
    const float factor = factors != nullptr && inside ? factors[blockIdx.y * channels + channel] : 1.0f;
    float sum = 0.0f, energy = 0.0f;
    for (int t = static_cast<int>(threadIdx.y); t < sequence && inside; t += GROUPS)
        sum += at[t * channels] * factor;
    const float mean = group_sum(sum, sums) * (1.0f / static_cast<float>(sequence));
    for (int t = static_cast<int>(threadIdx.y); t < sequence && inside; t += GROUPS) {
        const float value = at[t * channels] * factor - mean;
        at[t * channels] = value;
        energy = fmaf(value, value, energy);
    }
    if (inverse_energies == nullptr)
        return;
    energy = group_sum(energy, sums);
    if (inside && threadIdx.y == 0)
        inverse_energies[blockIdx.y * channels + channel] =
            1.0f / (energy + static_cast<float>(sequence) * epsilon);
}

// Blocks [channels / 32, lags / GROUPS, batch].
__global__ void lag_kernel(int sequence, int64_t channels, int lags, const float *x,
                           const float *inverse_energies, float *out) {
    const int64_t channel = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    const int lag = static_cast<int>(blockIdx.y * GROUPS + threadIdx.y) + 1;
    if (channel >= channels || lag > lags)
        return;
    const float *at = x + static_cast<int64_t>(blockIdx.z) * sequence * channels + channel;
    float sum = 0.0f;
    for (int t = 0; t + lag < sequence; t++)
        sum = fmaf(at[t * channels], at[(t + lag) * channels], sum);
    out[(static_cast<int64_t>(blockIdx.z) * lags + lag - 1) * channels + channel] =
        sum * inverse_energies[blockIdx.z * channels + channel];
}

// weighted [batch, channels] = sum over lags of dout out. Blocks [channels / 32, batch] of 32 threads.
__global__ void weighted_kernel(int64_t channels, int lags, const float *out, const float *dout,
                                float *weighted) {
    const int64_t channel = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    if (channel >= channels)
        return;
    float sum = 0.0f;
    for (int lag = 0; lag < lags; lag++) {
        const int64_t at = (static_cast<int64_t>(blockIdx.y) * lags + lag) * channels + channel;
        sum = fmaf(dout[at], out[at], sum);
    }
    weighted[blockIdx.y * channels + channel] = sum;
}

// With e the energy and r_l = s_l / e: d r_l / d x_t = (x_{t + l} + x_{t - l} - 2 r_l x_t) / e; without the
// last factor. Blocks [channels / 32, sequence / GROUPS, batch].
__global__ void gradient_kernel(int sequence, int64_t channels, int lags, const float *x,
                                const float *weighted, const float *dout, float *dx) {
    const int64_t channel = static_cast<int64_t>(blockIdx.x) * WARP_LANES + threadIdx.x;
    const int t = static_cast<int>(blockIdx.y * GROUPS + threadIdx.y);
    if (channel >= channels || t >= sequence)
        return;
    const int64_t first = static_cast<int64_t>(blockIdx.z) * sequence;
    const float *at = x + first * channels + channel;
    const float *d = dout + static_cast<int64_t>(blockIdx.z) * lags * channels + channel;
    float sum = -2.0f * weighted[blockIdx.z * channels + channel] * at[t * channels];
    for (int lag = 1; lag <= lags; lag++) {
        float neighbours = t + lag < sequence ? at[(t + lag) * channels] : 0.0f;
        if (t >= lag)
            neighbours += at[(t - lag) * channels];
        sum = fmaf(d[(lag - 1) * channels], neighbours, sum);
    }
    dx[(first + t) * channels + channel] = sum;
}

} // namespace

cudaError_t autocorrelation(cudaStream_t stream, int batch, int sequence, int64_t channels, int lags,
                            float epsilon, float *x, float *out, float *inverse_energies) {
    const unsigned across = blocks_for(channels, WARP_LANES), samples = static_cast<unsigned>(batch);
    const dim3 block(WARP_LANES, GROUPS);
    cudaError_t error = launch(centre_kernel, dim3(across, samples), block, 0, stream, sequence, channels,
                               epsilon, static_cast<const float *>(nullptr), x, inverse_energies);
    if (error == cudaSuccess)
        error = launch(lag_kernel, dim3(across, blocks_for(lags, GROUPS), samples), block, 0, stream,
                       sequence, channels, lags, static_cast<const float *>(x),
                       static_cast<const float *>(inverse_energies), out);
    return error;
}

cudaError_t autocorrelation_backward(cudaStream_t stream, int batch, int sequence, int64_t channels, int lags,
                                     const float *x, const float *out, const float *inverse_energies,
                                     const float *dout, float *dx, float *weighted) {
    const unsigned across = blocks_for(channels, WARP_LANES), samples = static_cast<unsigned>(batch);
    const dim3 block(WARP_LANES, GROUPS);
    cudaError_t error = launch(weighted_kernel, dim3(across, samples), WARP_LANES, 0, stream, channels, lags,
                               out, dout, weighted);
    if (error == cudaSuccess)
        error = launch(gradient_kernel, dim3(across, blocks_for(sequence, GROUPS), samples), block, 0, stream,
                       sequence, channels, lags, x, static_cast<const float *>(weighted), dout, dx);
    if (error == cudaSuccess)
        error = launch(centre_kernel, dim3(across, samples), block, 0, stream, sequence, channels, 0.0f,
                       inverse_energies, dx, static_cast<float *>(nullptr));
    return error;
}

} // namespace cuda_kernels
