// What the tests of the kernels share: buffers, comparison with the CPU's operators, and running a kernel in
// every order of threads and blocks.
#pragma once

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>

// The header lacks this.
extern "C" {
#include <cmocka.h>
}

extern "C" {
#include "kernels/memory.h"
#include "kernels/operators.h"
}

#include "kernels/cuda/kernel.cuh"
#include "kernels/philox.h"

#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

namespace check {

typedef cuda_kernels::bf16 bf16;

// A device of the CPU for the operators that kernels are compared with.
class cpu {
  public:
    cpu() {
        if (device_create(&own, 1) != STATUS_OK)
            fail_msg("%s", status_message());
    }
    ~cpu() {
        device_destroy(own);
    }
    cpu(const cpu &) = delete;
    cpu &operator=(const cpu &) = delete;
    operator device *() const {
        return own;
    }

  private:
    device *own = nullptr;
};

// All bits set: NaN, and a negative index. What a kernel should write starts so.
template <typename T> std::vector<T> poisoned(int64_t count) {
    std::vector<T> out(static_cast<size_t>(count));
    if (count > 0)
        memset(static_cast<void *>(out.data()), 0xFF, out.size() * sizeof(T));
    return out;
}

inline float rounded(float x, const float *) {
    return x;
}
inline float rounded(float x, const bf16 *) {
    return __bfloat162float(__float2bfloat16_rn(x));
}

// Values between -scale and scale that T can hold.
template <typename T>
std::vector<float> random_values(philox_stream *numbers, int64_t count, float scale = 2.0f) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float &x : out)
        x = rounded(scale * (2.0f * philox_next_uniform(numbers) - 1.0f), static_cast<const T *>(nullptr));
    return out;
}

template <typename T> std::vector<T> stored(const std::vector<float> &x) {
    std::vector<T> out(x.size());
    for (size_t i = 0; i < x.size(); i++)
        out[i] = cuda_kernels::from_float<T>(x[i]);
    return out;
}

template <typename T> std::vector<float> plain(const std::vector<T> &x) {
    std::vector<float> out(x.size());
    for (size_t i = 0; i < x.size(); i++)
        out[i] = cuda_kernels::to_float(x[i]);
    return out;
}

// By how much a value of T may differ from the f32 result that it should be: half a unit in its last place
// (an eighth bit for bf16) beside what sums in another order may differ.
template <typename T> double tolerance(double of_sums) {
    return (sizeof(T) == 2 ? 0x1p-8 : 0.0) + of_sums;
}

// |found - wanted| <= tolerance * (1 + |wanted|) for every element; NaN fails unless wanted.
inline void expect_close(const char *what, const std::vector<float> &found, const std::vector<float> &wanted,
                         double tolerance) {
    assert_int_equal(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); i++) {
        const double f = static_cast<double>(found[i]), w = static_cast<double>(wanted[i]);
        if (found[i] == wanted[i] || (found[i] != found[i] && wanted[i] != wanted[i]))
            continue;
        if (!(std::fabs(f - w) <= tolerance * (1.0 + std::fabs(w))))
            fail_msg("%s: element %zu of %zu is %.9g, wanted is %.9g", what, i, found.size(), f, w);
    }
}

// The largest error of `found` is at most twice that of `baseline`, the CPU's result, beside one rounding.
inline void expect_no_worse(const char *what, const std::vector<float> &found,
                            const std::vector<float> &baseline, const std::vector<double> &exact) {
    double error = 0.0, allowed = 0.0;
    assert_int_equal(found.size(), exact.size());
    for (size_t i = 0; i < exact.size(); i++) {
        assert_true(std::isfinite(found[i]));
        error = std::fmax(error, std::fabs(static_cast<double>(found[i]) - exact[i]));
        allowed = std::fmax(allowed, 2.0 * std::fabs(static_cast<double>(baseline[i]) - exact[i]));
        allowed = std::fmax(allowed, 0x1p-24 * std::fabs(exact[i]));
    }
    if (error > allowed)
        fail_msg("%s: the largest error is %.3g, the CPU's allows %.3g", what, error, allowed);
}

inline void expect_success(cudaError_t error) {
    if (error != cudaSuccess)
        fail_msg("%s", cudaGetErrorString(error));
}

template <typename T> bool same_bytes(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Runs `run` on copies of `outputs`, a tuple of vectors, with threads and blocks in each order; success and
// equal bits are wanted. Returns what it left.
template <typename... T, typename Run>
std::tuple<std::vector<T>...> in_every_order(const std::tuple<std::vector<T>...> &outputs, Run run) {
    std::tuple<std::vector<T>...> first;
    for (shim::schedule order :
         {shim::schedule::FORWARD, shim::schedule::BACKWARD, shim::schedule::SHUFFLED}) {
        std::tuple<std::vector<T>...> out = outputs;
        shim::set_schedule(order, 11);
        expect_success(std::apply([&](auto &...vectors) { return run(vectors.data()...); }, out));
        if (order == shim::schedule::FORWARD)
            first = out;
        const bool same = std::apply(
            [&](const auto &...a) {
                return std::apply([&](const auto &...b) { return (same_bytes(a, b) && ...); }, out);
            },
            first);
        if (!same)
            fail_msg("the result depends on the order in which threads run");
    }
    return first;
}

} // namespace check
