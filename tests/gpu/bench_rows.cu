// Norms, activations, rotation, and what moves or sums rows.
#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/autocorrelation.cuh"
#include "kernels/cuda/contrastive.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/rotary.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/time_variation.cuh"
#include "tests/gpu/bench.cuh"

using namespace cuda_kernels;

namespace bench {

namespace {

constexpr float EPSILON = 1e-5f;

// X: storage of the residual stream, Y: of what products read.
template <typename X, typename Y> void add_rms_norms(cases *to, const sizes &s) {
    const int64_t rows = s.rows, width = s.width, count = rows * width;
    const double values = static_cast<double>(count), x_bytes = sizeof(X), y_bytes = sizeof(Y);
    const char *storage = sizeof(X) == sizeof(Y) ? storage_of<X> : "mixed"; // as the program has them
    const std::vector<std::pair<const char *, int64_t>> shape = {{"rows", rows}, {"width", width}};
    to->push_back({"rms_norm", storage, shape, ceiling::COPY, (3.0 * x_bytes + y_bytes) * values,
                   "x and the residual read, their sum and the result written", [=](memory &m) -> work {
                       const X *x = m.random<X>(count), *added = m.random<X>(count);
                       const float *gain = m.random<float>(width);
                       X *sum = m.empty<X>(count);
                       Y *out = m.empty<Y>(count);
                       float *inverse = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return rms_norm(stream, rows, width, x, added, gain, EPSILON, out, inverse, sum);
                       };
                   }});
    to->push_back(
        {"rms_norm_backward", storage, shape, ceiling::COPY, (3.0 * x_bytes + y_bytes) * values,
         "x, dy and dx read, dx written", [=](memory &m) -> work {
             const X *x = m.random<X>(count);
             const Y *dy = m.random<Y>(count);
             const float *gain = m.random<float>(width), *inverse = m.random<float>(rows);
             X *dx = m.random<X>(count);
             float *dgain = m.random<float>(width),
                   *scratch = m.empty<float>(static_cast<int64_t>(norm_backward_scratch_floats(rows, width)));
             return [=](cudaStream_t stream) {
                 return rms_norm_backward(stream, rows, width, x, gain, inverse, dy, dx, dgain, scratch);
             };
         }});
}

template <typename T> void add_activations(cases *to, const sizes &s) {
    const int64_t rows = s.rows / 2, width = s.feed_forward, count = rows * width;
    const double values = static_cast<double>(sizeof(T)) * static_cast<double>(count);
    const std::vector<std::pair<const char *, int64_t>> shape = {{"rows", rows}, {"width", width}};
    to->push_back({"swiglu", storage_of<T>, shape, ceiling::COPY, 3.0 * values,
                   "gate and up read, one result written", [=](memory &m) -> work {
                       const T *gate_up = m.random<T>(2 * count, 4.0f);
                       T *out = m.empty<T>(count);
                       return [=](cudaStream_t stream) { return swiglu(stream, rows, width, gate_up, out); };
                   }});
    to->push_back({"swiglu_backward", storage_of<T>, shape, ceiling::COPY, 5.0 * values,
                   "gate, up and dout read, two gradients written", [=](memory &m) -> work {
                       const T *gate_up = m.random<T>(2 * count, 4.0f), *dout = m.random<T>(count);
                       T *dgate_up = m.empty<T>(2 * count);
                       return [=](cudaStream_t stream) {
                           return swiglu_backward(stream, rows, width, gate_up, dout, dgate_up);
                       };
                   }});
}

template <typename T> void add_rotation(cases *to, const sizes &s) {
    const int batch = static_cast<int>(s.rows / s.frames), sequence = s.frames, heads = s.heads,
              head_dim = static_cast<int>(s.width) / s.heads;
    const int64_t rows = static_cast<int64_t>(batch) * sequence, count = rows * s.width,
                  table = static_cast<int64_t>(sequence) * head_dim / 2;
    const double values = static_cast<double>(sizeof(T)) * static_cast<double>(count);
    const std::vector<std::pair<const char *, int64_t>> shape = {
        {"batch", batch}, {"sequence", sequence}, {"heads", heads}, {"head_dim", head_dim}};
    to->push_back({"rotary_rows", storage_of<T>, shape, ceiling::COPY, 4.0 * values,
                   "queries and keys read and written", [=](memory &m) -> work {
                       const float *cosine = m.random<float>(table), *sine = m.random<float>(table);
                       T *qkv = m.random<T>(3 * count);
                       return [=](cudaStream_t stream) {
                           return rotary_rows(stream, rows, sequence, heads, head_dim, cosine, sine, 1.0f,
                                              qkv);
                       };
                   }});
    to->push_back({"fill_cache", storage_of<T>, shape, ceiling::COPY, 4.0 * values,
                   "keys and values read and written", [=](memory &m) -> work {
                       const T *qkv = m.random<T>(3 * count);
                       T *keys = m.empty<T>(count), *values_out = m.empty<T>(count);
                       return [=](cudaStream_t stream) {
                           return fill_cache(stream, batch, sequence, heads, head_dim, sequence, qkv, keys,
                                             values_out);
                       };
                   }});
}

template <typename T> void add_moves(cases *to, const sizes &s) {
    const int64_t rows = s.rows, width = s.width, count = rows * width, repeat = s.levels,
                  fewer = rows / repeat, few_count = fewer * width;
    const double values = static_cast<double>(sizeof(T)) * static_cast<double>(count),
                 few_values = static_cast<double>(sizeof(T)) * static_cast<double>(few_count);
    const std::vector<std::pair<const char *, int64_t>> shape = {{"rows", rows}, {"width", width}},
                                                        many = {{"rows", fewer},
                                                                {"repeat", repeat},
                                                                {"width", width}};
    to->push_back({"copy_rows", storage_of<T>, shape, ceiling::COPY, 2.0 * values, "read and written",
                   [=](memory &m) -> work {
                       const T *from = m.random<T>(count);
                       T *out = m.empty<T>(count);
                       return [=](cudaStream_t stream) {
                           return copy_rows(stream, rows, width, from, width, out, width, false);
                       };
                   }});
    to->push_back(
        {"repeat_rows", storage_of<T>, many, ceiling::COPY, few_values * static_cast<double>(repeat + 1),
         "read once, written for each repetition", [=](memory &m) -> work {
             const T *from = m.random<T>(few_count);
             T *out = m.empty<T>(few_count * repeat);
             return [=](cudaStream_t stream) { return repeat_rows(stream, fewer, repeat, width, from, out); };
         }});
    to->push_back(
        {"sum_repeated", storage_of<T>, many, ceiling::COPY, few_values * static_cast<double>(repeat + 1),
         "read for each repetition, written once", [=](memory &m) -> work {
             const T *from = m.random<T>(few_count * repeat);
             T *out = m.empty<T>(few_count);
             return
                 [=](cudaStream_t stream) { return sum_repeated(stream, fewer, repeat, width, from, out); };
         }});
    to->push_back(
        {"column_sums", storage_of<T>, shape, ceiling::COPY, values, "read", [=](memory &m) -> work {
             const T *x = m.random<T>(count);
             float *out = m.random<float>(width),
                   *scratch = m.empty<float>(static_cast<int64_t>(column_sums_scratch_floats(rows, width)));
             return [=](cudaStream_t stream) { return column_sums(stream, rows, width, x, out, scratch); };
         }});
    to->push_back({"row_dot", storage_of<T>, shape, ceiling::COPY, values, "x read", [=](memory &m) -> work {
                       const T *x = m.random<T>(count);
                       const float *vector = m.random<float>(width), *bias = m.random<float>(1);
                       float *out = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return row_dot(stream, rows, width, x, vector, bias, out);
                       };
                   }});
    to->push_back(
        {"row_dot_backward", storage_of<T>, shape, ceiling::COPY, 2.0 * values, "x read, dx written",
         [=](memory &m) -> work {
             const T *x = m.random<T>(count);
             const float *vector = m.random<float>(width), *dout = m.random<float>(rows);
             T *dx = m.empty<T>(count);
             float *dvector = m.random<float>(width), *dbias = m.random<float>(1),
                   *scratch =
                       m.empty<float>(static_cast<int64_t>(row_dot_backward_scratch_floats(rows, width)));
             return [=](cudaStream_t stream) {
                 return row_dot_backward(stream, rows, width, x, vector, dout, dx, dvector, dbias, scratch);
             };
         }});
    const int batch = static_cast<int>(rows / s.frames), sequence = s.frames;
    const std::vector<std::pair<const char *, int64_t>> pooled = {
        {"batch", batch}, {"sequence", sequence}, {"width", width}};
    to->push_back(
        {"mean_pool", storage_of<T>, pooled, ceiling::COPY, values, "x read", [=](memory &m) -> work {
             const T *x = m.random<T>(count);
             float *out = m.empty<float>(batch * width);
             return [=](cudaStream_t stream) {
                 return mean_pool(stream, batch, sequence, width, nullptr, x, out);
             };
         }});
    to->push_back({"mean_pool_backward", storage_of<T>, pooled, ceiling::COPY, values, "dx written",
                   [=](memory &m) -> work {
                       const float *dout = m.random<float>(batch * width);
                       T *dx = m.empty<T>(count);
                       return [=](cudaStream_t stream) {
                           return mean_pool_backward(stream, batch, sequence, width, nullptr, dout, dx);
                       };
                   }});
}

// What a repeated frame counts and keeps: too small for anything but the time that starting a kernel takes.
void add_frame_steps(cases *to, const sizes &s) {
    const int64_t width = static_cast<int64_t>(s.decode_batch) * s.levels, frames = s.frames;
    to->push_back(
        {"advance", "i32", {}, ceiling::COPY, 8.0, "a counter read and written", [=](memory &m) -> work {
             int32_t *counter = m.filled(std::vector<int32_t>(1, 0));
             return [=](cudaStream_t stream) { return advance(stream, counter); };
         }});
    to->push_back({"put_row",
                   "i32",
                   {{"width", width}},
                   ceiling::COPY,
                   8.0 * static_cast<double>(width),
                   "read and written",
                   [=](memory &m) -> work {
                       const int32_t *index = m.filled(std::vector<int32_t>(1, 1)),
                                     *from = m.indices(width, s.codebook);
                       int32_t *kept = m.empty<int32_t>(frames * width);
                       return [=](cudaStream_t stream) { return put_row(stream, index, width, from, kept); };
                   }});
}

void add_embedding_parts(cases *to, const sizes &s) {
    const int64_t rows = s.rows, width = s.width, count = rows * width;
    const double values = 4.0 * static_cast<double>(count);
    const std::vector<std::pair<const char *, int64_t>> shape = {{"rows", rows}, {"width", width}};
    to->push_back({"normalize_rows", "f32", shape, ceiling::COPY, 2.0 * values,
                   "x read (its second time from the caches), the result written", [=](memory &m) -> work {
                       const float *x = m.random<float>(count);
                       float *out = m.empty<float>(count), *inverse = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return normalize_rows(stream, rows, width, x, out, inverse);
                       };
                   }});
    to->push_back({"normalize_rows_backward", "f32", shape, ceiling::COPY, 3.0 * values,
                   "the result and dout read, dx written", [=](memory &m) -> work {
                       const float *out = m.random<float>(count), *inverse = m.random<float>(rows),
                                   *dout = m.random<float>(count);
                       float *dx = m.empty<float>(count);
                       return [=](cudaStream_t stream) {
                           return normalize_rows_backward(stream, rows, width, out, inverse, dout, dx);
                       };
                   }});
    const int batch = static_cast<int>(rows / s.frames), sequence = s.frames, lags = sequence / 8;
    const int64_t channels = 32, signals = static_cast<int64_t>(batch) * sequence * channels,
                  results = static_cast<int64_t>(batch) * lags * channels;
    const std::vector<std::pair<const char *, int64_t>> lagged = {
        {"batch", batch}, {"sequence", sequence}, {"channels", channels}, {"lags", lags}};
    to->push_back({"autocorrelation", "f32", lagged, ceiling::NONE, 2.0 * static_cast<double>(signals) * lags,
                   "a product and a sum for each lag", [=](memory &m) -> work {
                       float *x = m.random<float>(signals), *out = m.empty<float>(results),
                             *energies = m.empty<float>(batch * channels);
                       return [=](cudaStream_t stream) {
                           return autocorrelation(stream, batch, sequence, channels, lags, 1e-5f, x, out,
                                                  energies);
                       };
                   }});
    to->push_back(
        {"autocorrelation_backward", "f32", lagged, ceiling::NONE, 4.0 * static_cast<double>(signals) * lags,
         "two products and sums for each lag", [=](memory &m) -> work {
             const float *x = m.random<float>(signals), *out = m.random<float>(results),
                         *energies = m.random<float>(batch * channels), *dout = m.random<float>(results);
             float *dx = m.empty<float>(signals), *weighted = m.empty<float>(batch * channels);
             return [=](cudaStream_t stream) {
                 return autocorrelation_backward(stream, batch, sequence, channels, lags, x, out, energies,
                                                 dout, dx, weighted);
             };
         }});
    const int64_t parts = static_cast<int64_t>(batch) * 2 * s.width,
                  heard = static_cast<int64_t>(batch) * sequence * s.width;
    const double heard_bytes = 4.0 * static_cast<double>(heard);
    const std::vector<std::pair<const char *, int64_t>> varied = {
        {"batch", batch}, {"sequence", sequence}, {"channels", s.width}};
    to->push_back(
        {"time_variation", "f32", varied, ceiling::COPY, heard_bytes, "x read", [=](memory &m) -> work {
             const float *x = m.random<float>(heard);
             float *out = m.empty<float>(parts);
             return [=](cudaStream_t stream) {
                 return time_variation(stream, batch, sequence, s.width, 3.0f, 1e-2f, x, out);
             };
         }});
    to->push_back({"time_variation_backward", "f32", varied, ceiling::COPY, 3.0 * heard_bytes,
                   "x and dx read, dx written", [=](memory &m) -> work {
                       const float *x = m.random<float>(heard), *out = m.random<float>(parts),
                                   *dout = m.random<float>(parts);
                       float *dx = m.random<float>(heard);
                       return [=](cudaStream_t stream) {
                           return time_variation_backward(stream, batch, sequence, s.width, 3.0f, x, out,
                                                          dout, dx);
                       };
                   }});
    const int64_t pairs = s.decode_batch / 2, output = s.width / 8;
    to->push_back(
        {"contrastive_loss",
         "f32",
         {{"rows", pairs}, {"width", output}},
         ceiling::NONE,
         6.0 * static_cast<double>(pairs * pairs * output),
         "three products of the rows",
         [=](memory &m) -> work {
             const float *a = m.random<float>(pairs * output, 0.1f),
                         *b = m.random<float>(pairs * output, 0.1f);
             float *da = m.empty<float>(pairs * output), *db = m.empty<float>(pairs * output),
                   *dscale = m.empty<float>(1);
             double *loss = m.empty<double>(1),
                    *scratch = m.empty<double>(
                        static_cast<int64_t>(contrastive_scratch_bytes(pairs) / sizeof(double)) + 1);
             return [=](cudaStream_t stream) {
                 return contrastive_loss(stream, pairs, output, a, b, 7.0f, da, db, dscale, loss, scratch);
             };
         }});
}

} // namespace

void add_row_cases(cases *to, const sizes &s) {
    add_rms_norms<float, bf16>(to, s);
    add_rms_norms<bf16, bf16>(to, s);
    add_rms_norms<float, float>(to, s);
    add_activations<bf16>(to, s);
    add_activations<float>(to, s);
    add_rotation<bf16>(to, s);
    add_rotation<float>(to, s);
    add_moves<bf16>(to, s);
    add_frame_steps(to, s);
    add_embedding_parts(to, s);
}

} // namespace bench
