// Attention: whole sequences forward and backward, one decoded position, short sequences.
#include "kernels/cuda/attention.cuh"
#include "tests/gpu/bench.cuh"

#include <cstdio>
#include <cstdlib>

using namespace cuda_kernels;

namespace bench {

namespace {

typedef std::vector<std::pair<const char *, int64_t>> shape_names;

shape_names shape_of(int batch, int sequence, int heads, int head_dim) {
    return {{"batch", batch}, {"sequence", sequence}, {"heads", heads}, {"head_dim", head_dim}};
}

template <typename T> void add_training(cases *to, int batch, int sequence, int heads, int head_dim) {
    const int64_t rows = static_cast<int64_t>(batch) * sequence,
                  width = static_cast<int64_t>(heads) * head_dim, sums = rows * heads;
    const attention_sizes sizes = {batch, sequence, heads, head_dim, true, nullptr};
    // Two products of [sequence, sequence] by head_dim, of which half is masked out.
    const double forward = 2.0 * static_cast<double>(rows) * static_cast<double>(width) * sequence;
    to->push_back(
        {"attention_forward", storage_of<T>, shape_of(batch, sequence, heads, head_dim), ceiling::MATRIX,
         forward, "4 B H D S^2 operations, half of them causal", [=](memory &m) -> work {
             const T *qkv = m.random<T>(3 * rows * width);
             T *out = m.empty<T>(rows * width);
             float *log_sum = m.empty<float>(sums);
             return [=](cudaStream_t stream) { return attention_forward(stream, sizes, qkv, out, log_sum); };
         }});
    to->push_back({"attention_backward", storage_of<T>, shape_of(batch, sequence, heads, head_dim),
                   ceiling::MATRIX, 2.5 * forward,
                   "10 B H D S^2 operations, half of them causal (the kernels do 14)",
                   [=](memory &m) -> work {
                       const T *qkv = m.random<T>(3 * rows * width), *dout = m.random<T>(rows * width);
                       T *out = m.empty<T>(rows * width), *dqkv = m.empty<T>(3 * rows * width);
                       float *log_sum = m.empty<float>(sums), *delta = m.empty<float>(sums);
                       const cudaError_t error = attention_forward(nullptr, sizes, qkv, out, log_sum);
                       if (error != cudaSuccess) {
                           fprintf(stderr, "attention_forward failed: %s\n", cudaGetErrorString(error));
                           exit(1);
                       }
                       return [=](cudaStream_t stream) {
                           return attention_backward(stream, sizes, qkv, out, log_sum, dout, dqkv, delta);
                       };
                   }});
}

// The same work as attention_forward, row by row as decoding does it.
template <typename T> void add_rows(cases *to, int batch, int sequence, int heads, int head_dim) {
    const int64_t rows = static_cast<int64_t>(batch) * sequence,
                  width = static_cast<int64_t>(heads) * head_dim;
    const attention_sizes sizes = {batch, sequence, heads, head_dim, true, nullptr};
    to->push_back({"attention_rows", storage_of<T>, shape_of(batch, sequence, heads, head_dim),
                   ceiling::MATRIX, 2.0 * static_cast<double>(rows) * static_cast<double>(width) * sequence,
                   "4 B H D S^2 operations, half of them causal", [=](memory &m) -> work {
                       const T *qkv = m.random<T>(3 * rows * width);
                       T *out = m.empty<T>(rows * width);
                       float *log_sum = m.empty<float>(rows * heads);
                       return [=](cudaStream_t stream) {
                           return attention_rows(stream, sizes, sequence, qkv, out, log_sum);
                       };
                   }});
}

template <typename T> void add_decode(cases *to, const sizes &s, int batch) {
    const int heads = s.heads, head_dim = static_cast<int>(s.width) / s.heads, capacity = s.frames;
    const int64_t width = s.width, cached = static_cast<int64_t>(batch) * capacity * width,
                  table = static_cast<int64_t>(capacity) * head_dim / 2;
    const decode_sizes sizes = {batch, heads, head_dim, capacity, capacity, capacity - 1, nullptr};
    const int splits = decode_splits(sizes, s.multiprocessors);
    to->push_back({"attention_decode", storage_of<T>, shape_of(batch, capacity, heads, head_dim),
                   ceiling::COPY, 2.0 * static_cast<double>(sizeof(T)) * static_cast<double>(cached),
                   "keys and values read", [=](memory &m) -> work {
                       const float *cosine = m.random<float>(table), *sine = m.random<float>(table);
                       T *qkv = m.random<T>(3 * batch * width), *keys = m.random<T>(cached),
                         *values = m.random<T>(cached), *out = m.empty<T>(batch * width);
                       float *partial = m.empty<float>(static_cast<int64_t>(decode_partial_floats(sizes)));
                       return [=](cudaStream_t stream) {
                           return attention_decode(stream, sizes, splits, cosine, sine, qkv, keys, values,
                                                   out, partial);
                       };
                   }});
}

template <typename T> void add_short(cases *to, const sizes &s) {
    const int sequence = s.levels, heads = s.depth_heads,
              head_dim = static_cast<int>(s.depth_width) / s.depth_heads, batch = static_cast<int>(s.rows);
    const int64_t rows = s.rows * sequence, count = rows * s.depth_width, sums = rows * heads,
                  table = static_cast<int64_t>(sequence) * head_dim / 2;
    const attention_sizes sizes = {batch, sequence, heads, head_dim, true, nullptr};
    const double values = static_cast<double>(sizeof(T)) * static_cast<double>(count);
    to->push_back({"attention_short_forward", storage_of<T>, shape_of(batch, sequence, heads, head_dim),
                   ceiling::COPY, 6.0 * values, "q, k, v read; q, k and the result written",
                   [=](memory &m) -> work {
                       const float *cosine = m.random<float>(table), *sine = m.random<float>(table);
                       T *qkv = m.random<T>(3 * count), *out = m.empty<T>(count);
                       float *log_sum = m.empty<float>(sums);
                       return [=](cudaStream_t stream) {
                           return attention_short_forward(stream, sizes, cosine, sine, qkv, out, log_sum);
                       };
                   }});
    to->push_back(
        {"attention_short_backward", storage_of<T>, shape_of(batch, sequence, heads, head_dim), ceiling::COPY,
         7.0 * values, "q, k, v, dout read; dq, dk, dv written", [=](memory &m) -> work {
             const float *cosine = m.random<float>(table), *sine = m.random<float>(table),
                         *log_sum = m.random<float>(sums);
             const T *qkv = m.random<T>(3 * count), *dout = m.random<T>(count);
             T *dqkv = m.empty<T>(3 * count);
             return [=](cudaStream_t stream) {
                 return attention_short_backward(stream, sizes, cosine, sine, qkv, log_sum, dout, dqkv);
             };
         }});
}

} // namespace

void add_attention_cases(cases *to, const sizes &s) {
    for (int head_dim : {64, 128})
        for (int length : s.lengths)
            add_training<bf16>(to, static_cast<int>(s.attention_rows / length), length,
                               static_cast<int>(s.attention_width) / head_dim, head_dim);
    const int head_dim = static_cast<int>(s.width) / s.heads;
    add_training<bf16>(to, s.batch, s.frames, s.heads, head_dim);
    add_training<float>(to, s.batch, s.frames, s.heads, head_dim);
    add_rows<bf16>(to, s.batch, s.frames, s.heads, head_dim);
    for (int batch : {s.decode_batch, s.decode_small}) {
        add_decode<bf16>(to, s, batch);
        add_decode<float>(to, s, batch);
    }
    add_short<bf16>(to, s);
    add_short<float>(to, s);
}

} // namespace bench
