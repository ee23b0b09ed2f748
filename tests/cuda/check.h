// What the tests of the kernels share: buffers, comparison with the CPU's operators, running a kernel in
// every order of threads and blocks, and a report of the largest error of each kernel.
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
#include "tests/as_activations.h"
}

#include "kernels/cuda/kernel.cuh"
#include "kernels/philox.h"
#include "tests/cuda/runner.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace check {

typedef cuda_kernels::bf16 bf16;

// Random numbers of a test: others with another MUSICRL_TEST_SEED.
inline philox_stream random_numbers(uint64_t salt = 0) {
    const char *seed = getenv("MUSICRL_TEST_SEED");
    philox_stream numbers = {};
    numbers.key = salt + (seed != nullptr ? strtoull(seed, nullptr, 10) << 32 : 0);
    return numbers;
}

// The largest error of every comparison so far, as a share of what is allowed.
struct finding {
    int64_t values;
    double share;
};
inline std::map<std::string, finding> &findings() {
    static std::map<std::string, finding> all;
    return all;
}
inline void record(const std::string &what, double error, double allowed) {
    finding &f = findings()[what];
    f.values++;
    if (error != 0.0) // NaN too
        f.share = error == error && allowed > 0.0 ? std::fmax(f.share, error / allowed) : INFINITY;
}

// Group set-up and tear-down of every test program: exit status 77 where kernels cannot run, and the report.
inline int begin(void **) {
    if (runner::why_not() != nullptr) {
        printf("skipped: %s\n", runner::why_not());
        exit(77);
    }
    return 0;
}
inline int report(void **) {
    for (const auto &[what, f] : findings())
        printf("kernel %-40s %s, error at most %.2f of the bound, %lld values\n", what.c_str(),
               f.share <= 1.0 ? "ok" : "FAIL", f.share, static_cast<long long>(f.values));
    return 0;
}

// "swiglu bf16"
template <typename T> std::string named(const char *kernel) {
    return std::string(kernel) + (sizeof(T) == 2 ? " bf16" : " f32");
}
template <typename X, typename Y> std::string named(const char *kernel) {
    return std::string(kernel) +
           (sizeof(X) == sizeof(Y) ? sizeof(X) == 2 ? " bf16" : " f32" : " f32 to bf16");
}

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

inline float value_of(float x) {
    return x;
}
inline float value_of(bf16 x) {
    return __bfloat162float(x);
}
template <typename T> T as(float x);
template <> inline float as<float>(float x) {
    return x;
}
template <> inline bf16 as<bf16>(float x) {
    return __float2bfloat16_rn(x);
}
template <typename T> float rounded(float x) {
    return value_of(as<T>(x));
}

// Values between -scale and scale that T can hold.
template <typename T>
std::vector<float> random_values(philox_stream *numbers, int64_t count, float scale = 2.0f) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float &x : out)
        x = rounded<T>(scale * (2.0f * philox_next_uniform(numbers) - 1.0f));
    return out;
}

template <typename T> std::vector<T> stored(const std::vector<float> &x) {
    std::vector<T> out(x.size());
    for (size_t i = 0; i < x.size(); i++)
        out[i] = as<T>(x[i]);
    return out;
}

template <typename T> std::vector<float> plain(const std::vector<T> &x) {
    std::vector<float> out(x.size());
    for (size_t i = 0; i < x.size(); i++)
        out[i] = value_of(x[i]);
    return out;
}

// By how much a value of T may differ from the f32 result that it should be: half a unit in its last place
// (an eighth bit for bf16) beside what sums in another order may differ.
template <typename T> double tolerance(double of_sums) {
    return (sizeof(T) == 2 ? 0x1p-8 : 0.0) + of_sums;
}

// Where kernels can reach it; a const buffer is an input.
template <typename T> class buffer {
  public:
    explicit buffer(const std::vector<T> &values)
        : count(values.size()), at(static_cast<T *>(runner::allocate(count * sizeof(T)))) {
        runner::upload(at, values.data(), count * sizeof(T));
    }
    buffer(buffer &&other) : count(other.count), at(std::exchange(other.at, nullptr)) {
    }
    ~buffer() {
        runner::release(at);
    }
    buffer(const buffer &) = delete;
    buffer &operator=(const buffer &) = delete;
    T *data() {
        return at;
    }
    const T *data() const {
        return at;
    }
    std::vector<T> fetch() const {
        std::vector<T> values(count);
        runner::download(values.data(), at, count * sizeof(T));
        return values;
    }

  private:
    size_t count;
    T *at;
};

// |found - wanted| <= tolerance * (1 + |wanted|) for every element; NaN fails unless wanted.
inline void expect_close(const std::string &what, const std::vector<float> &found,
                         const std::vector<float> &wanted, double tolerance) {
    assert_int_equal(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); i++) {
        const double f = static_cast<double>(found[i]), w = static_cast<double>(wanted[i]),
                     allowed = tolerance * (1.0 + std::fabs(w));
        const bool same = found[i] == wanted[i] || (found[i] != found[i] && wanted[i] != wanted[i]);
        record(what, same ? 0.0 : std::fabs(f - w), allowed);
        if (!same && !(std::fabs(f - w) <= allowed))
            fail_msg("%s: element %zu of %zu is %.9g, wanted is %.9g", what.c_str(), i, found.size(), f, w);
    }
}

// The largest error of `found` is at most twice that of `baseline`, the CPU's result, beside one rounding.
inline void expect_no_worse(const std::string &what, const std::vector<float> &found,
                            const std::vector<float> &baseline, const std::vector<double> &exact) {
    double error = 0.0, allowed = 0.0;
    assert_int_equal(found.size(), exact.size());
    for (size_t i = 0; i < exact.size(); i++) {
        assert_true(std::isfinite(found[i]));
        error = std::fmax(error, std::fabs(static_cast<double>(found[i]) - exact[i]));
        allowed = std::fmax(allowed, 2.0 * std::fabs(static_cast<double>(baseline[i]) - exact[i]));
        allowed = std::fmax(allowed, 0x1p-24 * std::fabs(exact[i]));
    }
    record(what, error, allowed);
    if (error > allowed)
        fail_msg("%s: the largest error is %.3g, the CPU's allows %.3g", what.c_str(), error, allowed);
}

inline void expect_success(cudaError_t error) {
    if (error != cudaSuccess)
        fail_msg("%s", cudaGetErrorString(error));
}

template <typename T> bool same_bytes(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Runs `run` on copies of `outputs`, a tuple of vectors, once.
template <typename... T, typename Run>
std::tuple<std::vector<T>...> once(const std::tuple<std::vector<T>...> &outputs, Run run) {
    return std::apply(
        [&](const auto &...values) {
            std::tuple<buffer<T>...> out(buffer<T>{values}...);
            expect_success(std::apply([&](auto &...buffers) { return run(buffers.data()...); }, out));
            if (const char *wrong = runner::wait())
                fail_msg("%s", wrong);
            return std::apply(
                [](const auto &...buffers) { return std::tuple<std::vector<T>...>(buffers.fetch()...); },
                out);
        },
        outputs);
}

// The same in each order of threads and blocks; success and equal bits are wanted. Returns what it left.
template <typename... T, typename Run>
std::tuple<std::vector<T>...> in_every_order(const std::tuple<std::vector<T>...> &outputs, Run run,
                                             int runs = runner::RUNS) {
    runner::choose_run(0);
    const std::tuple<std::vector<T>...> first = once(outputs, run);
    for (int i = 1; i < runs; i++) {
        runner::choose_run(i);
        const std::tuple<std::vector<T>...> out = once(outputs, run);
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
