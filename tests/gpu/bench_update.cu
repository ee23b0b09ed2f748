// The optimiser's step.
#include "kernels/cuda/update.cuh"
#include "tests/gpu/bench.cuh"

using namespace cuda_kernels;

namespace bench {

void add_update_cases(cases *to, const sizes &s) {
    const int64_t count = s.parameters;
    const double values = static_cast<double>(count);
    const std::vector<std::pair<const char *, int64_t>> shape = {{"parameters", count}};
    to->push_back({"sum_squares", "f32", shape, ceiling::COPY, 4.0 * values, "read", [=](memory &m) -> work {
                       const float *x = m.random<float>(count);
                       double *out = m.empty<double>(1),
                              *scratch = m.empty<double>(
                                  static_cast<int64_t>(sum_squares_scratch_bytes(count) / sizeof(double)));
                       return
                           [=](cudaStream_t stream) { return sum_squares(stream, count, x, out, scratch); };
                   }});
    to->push_back({"all_finite", "f32", shape, ceiling::COPY, 4.0 * values, "read", [=](memory &m) -> work {
                       const float *x = m.random<float>(count);
                       int32_t *out = m.empty<int32_t>(1);
                       return [=](cudaStream_t stream) { return all_finite(stream, count, x, out); };
                   }});
    to->push_back({"adamw", "f32", shape, ceiling::COPY, 28.0 * values,
                   "gradient, parameter and two moments read, the last three written",
                   [=](memory &m) -> work {
                       const adamw_terms terms = {1e-5f, 0.9f, 0.99f, 1e-8f, 0.01f, 1.0f, 10.0f, 100.0f};
                       const float *gradient = m.random<float>(count, 1e-3f);
                       float *parameter = m.random<float>(count), *first = m.random<float>(count, 1e-3f),
                             *second = m.random<float>(count, 1e-6f, true);
                       return [=](cudaStream_t stream) {
                           return adamw(stream, count, terms, gradient, parameter, first, second);
                       };
                   }});
    to->push_back(
        {"scale", "f32", shape, ceiling::COPY, 8.0 * values, "read and written", [=](memory &m) -> work {
             float *x = m.random<float>(count);
             return [=](cudaStream_t stream) { return scale(stream, count, 1.0f, x); };
         }});
    // The second slot of a tree.
    to->push_back({"add_slot", "f32", shape, ceiling::COPY, 12.0 * values,
                   "the values and one kept sum read, their sum written", [=](memory &m) -> work {
                       float *partial = m.random<float>(count), *x = m.random<float>(count, 1e-3f);
                       return [=](cudaStream_t stream) {
                           return add_slot(stream, count, 1, false, count, partial, x);
                       };
                   }});
    to->push_back({"round_to_bf16", "f32", shape, ceiling::COPY, 6.0 * values, "read, written as bf16",
                   [=](memory &m) -> work {
                       const float *x = m.random<float>(count);
                       bf16 *out = m.empty<bf16>(count);
                       return [=](cudaStream_t stream) { return round_to_bf16(stream, count, x, out); };
                   }});
}

} // namespace bench
