#include "tests/gpu/bench.cuh"

#include "kernels/philox.h"

#include <cstdio>
#include <cstdlib>

namespace bench {

namespace {

constexpr int THREADS = 256;

// Four values a thread: one block of Philox.
template <typename T>
__global__ void fill_kernel(int64_t count, uint64_t seed, float low, float high, T *out) {
    const int64_t quarter = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const philox_block words =
        philox(seed, static_cast<uint32_t>(quarter), static_cast<uint32_t>(quarter >> 32), 0, 0);
    for (int i = 0; i < 4; i++)
        if (4 * quarter + i < count)
            out[4 * quarter + i] =
                cuda_kernels::from_float<T>(low + (high - low) * philox_uniform(words.word[i]));
}

__global__ void index_kernel(int64_t count, uint64_t seed, uint32_t below, int32_t *out) {
    const int64_t quarter = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const philox_block words =
        philox(seed, static_cast<uint32_t>(quarter), static_cast<uint32_t>(quarter >> 32), 0, 0);
    for (int i = 0; i < 4; i++)
        if (4 * quarter + i < count)
            out[4 * quarter + i] = static_cast<int32_t>(static_cast<uint64_t>(words.word[i]) * below >> 32);
}

void must(cudaError_t error) {
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "filling a buffer failed: %s\n", cudaGetErrorString(error));
    exit(1);
}

unsigned blocks_of(int64_t count) {
    return cuda_kernels::blocks_for((count + 3) / 4, THREADS);
}

} // namespace

void *memory::take(size_t bytes) {
    taken.push_back(runner::allocate(bytes));
    return taken.back();
}

memory::~memory() {
    for (void *pointer : taken)
        runner::release(pointer);
}

template <typename T> T *memory::random(int64_t count, float scale, bool positive) {
    T *out = empty<T>(count);
    must(cuda_kernels::launch(fill_kernel<T>, blocks_of(count), THREADS, 0, nullptr, count, next_seed++,
                              positive ? 0.0f : -scale, scale, out));
    return out;
}
template float *memory::random(int64_t, float, bool);
template bf16 *memory::random(int64_t, float, bool);

int32_t *memory::indices(int64_t count, int64_t below) {
    int32_t *out = empty<int32_t>(count);
    must(cuda_kernels::launch(index_kernel, blocks_of(count), THREADS, 0, nullptr, count, next_seed++,
                              static_cast<uint32_t>(below), out));
    return out;
}

std::string config_of(const kernel_case &c) {
    std::string text = c.storage;
    for (const auto &[name, value] : c.shape)
        text += std::string(", ") + name + " " + std::to_string(value);
    return text;
}

sizes medium_sizes(int multiprocessors) {
    sizes s = {};
    s.rows = 64 * 1500;
    s.width = 1024;
    s.feed_forward = 2752;
    s.heads = 16;
    s.depth_width = 512;
    s.depth_heads = 8;
    s.levels = 4;
    s.codebook = 1024;
    s.logit_rows = 4 * s.rows;
    s.parameters = 343861760; // of medium.yaml
    s.batch = 16;
    s.frames = 1500;
    s.decode_batch = 256;
    s.decode_small = 8;
    s.attention_rows = 32768;
    s.attention_width = 2048;
    s.lengths = {2048, 4096, 8192, 16384};
    s.multiprocessors = multiprocessors;
    return s;
}

sizes smallest_sizes() {
    sizes s = {};
    s.rows = 70;
    s.width = 128;
    s.feed_forward = 64;
    s.heads = 2;
    s.depth_width = 64;
    s.depth_heads = 1;
    s.levels = 4;
    s.codebook = 48;
    s.logit_rows = 9;
    s.parameters = 20000;
    s.batch = 2;
    s.frames = 40;
    s.decode_batch = 6;
    s.decode_small = 1;
    s.attention_rows = 140;
    s.attention_width = 128;
    s.lengths = {70};
    s.multiprocessors = 4;
    return s;
}

} // namespace bench
