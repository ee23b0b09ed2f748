// Normalisation of rows, forward and backward, against the CPU's operators.
#include "tests/cuda/check.h"

#include "kernels/cuda/norm.cuh"

using namespace cuda_kernels;
using namespace check;

namespace {

// Off and on the edges of a lane's chunk, of a warp's row and of what one warp holds.
const int64_t widths[] = {16, 48, 240, 256, 272, 512, 1008, 1024, 1040, 2064};
constexpr float EPSILON = 1e-5f;

template <typename X, typename Y> void check_rms(int64_t rows, int64_t width, bool residual) {
    const cpu device;
    philox_stream numbers = random_numbers(static_cast<uint64_t>(rows * 10000 + width));
    const int64_t count = rows * width;
    const std::vector<float> x = random_values<X>(&numbers, count), added = random_values<X>(&numbers, count),
                             gain = random_values<float>(&numbers, width),
                             dy = random_values<Y>(&numbers, count), dx = random_values<X>(&numbers, count),
                             dgain = random_values<float>(&numbers, width);
    std::vector<float> sum = x;
    for (size_t i = 0; residual && i < sum.size(); i++)
        sum[i] = rounded<X>(x[i] + added[i]);
    std::vector<float> out(x.size()), copy(x.size()), inverse(static_cast<size_t>(rows)),
        wanted_dx = dx, wanted_dgain = dgain;
    op_rms_norm(device, rows, width, sum.data(), gain.data(), EPSILON, as_activations(out.data()),
                inverse.data(), copy.data());
    op_rms_norm_backward(device, rows, width, sum.data(), gain.data(), inverse.data(),
                         as_activations(dy.data()), wanted_dx.data(), wanted_dgain.data());

    const buffer<X> x_stored(stored<X>(x)), added_stored(stored<X>(added));
    const buffer<float> gains(gain), inverses(inverse);
    const auto forward = in_every_order(
        std::make_tuple(poisoned<Y>(count), poisoned<float>(rows), poisoned<X>(count)),
        [&](Y *to, float *r, X *s) {
            return rms_norm(nullptr, rows, width, x_stored.data(), residual ? added_stored.data() : nullptr,
                            gains.data(), EPSILON, to, r, s);
        });
    expect_close(named<X, Y>("rms_norm"), plain(std::get<0>(forward)), out, tolerance<Y>(2e-6));
    expect_close(named<X, Y>("rms_norm inverse_rms"), std::get<1>(forward), inverse, 1e-6);
    expect_close(named<X, Y>("rms_norm sum"), plain(std::get<2>(forward)), sum, 0.0);
    // What is not wanted is not written.
    const auto alone = once(std::make_tuple(poisoned<Y>(count)), [&](Y *to) {
        return rms_norm(nullptr, rows, width, x_stored.data(), residual ? added_stored.data() : nullptr,
                        gains.data(), EPSILON, to, nullptr, static_cast<X *>(nullptr));
    });
    assert_true(same_bytes(std::get<0>(alone), std::get<0>(forward)));

    const buffer<X> sum_stored(stored<X>(sum));
    const buffer<Y> dy_stored(stored<Y>(dy));
    const auto backward = in_every_order(
        std::make_tuple(stored<X>(dx), dgain,
                        poisoned<float>(static_cast<int64_t>(norm_backward_scratch_floats(rows, width)))),
        [&](X *to, float *g, float *scratch) {
            return rms_norm_backward(nullptr, rows, width, sum_stored.data(), gains.data(), inverses.data(),
                                     dy_stored.data(), to, g, scratch);
        });
    expect_close(named<X, Y>("rms_norm_backward"), plain(std::get<0>(backward)), wanted_dx,
                 tolerance<X>(5e-6));
    // A sum of `rows` terms, each of order 1, rounds by as much as their number.
    expect_close(named<X, Y>("rms_norm_backward dgain"), std::get<1>(backward), wanted_dgain,
                 1e-6 * std::sqrt(static_cast<double>(rows)) + 1e-6);
}

template <typename X, typename Y> void check_all() {
    for (int64_t width : widths)
        for (int64_t rows : {1, 5, 67})
            if (rows < 67 || width == 48 || width == 1040)
                check_rms<X, Y>(rows, width, rows == 5);
}

void test_f32(void **) {
    check_all<float, float>();
}

void test_bf16(void **) {
    check_all<bf16, bf16>();
}

void test_mixed(void **) {
    check_all<float, bf16>();
}

// A row's bits do not depend on the rows around it.
void test_alone(void **) {
    philox_stream numbers = random_numbers();
    const int64_t rows = 13, width = 176;
    const buffer<bf16> x(stored<bf16>(random_values<bf16>(&numbers, rows * width)));
    const buffer<float> gain(random_values<float>(&numbers, width));
    const auto normed = [&](int64_t first, int64_t count) {
        return std::get<0>(once(std::make_tuple(poisoned<bf16>(count * width)), [&](bf16 *to) {
            return rms_norm(nullptr, count, width, x.data() + first * width,
                            static_cast<const bf16 *>(nullptr), gain.data(), EPSILON, to, nullptr,
                            static_cast<bf16 *>(nullptr));
        }));
    };
    const std::vector<bf16> together = normed(0, rows);
    for (int64_t row = 0; row < rows; row++)
        assert_memory_equal(normed(row, 1).data(), together.data() + row * width,
                            static_cast<size_t>(width) * sizeof(bf16));
}

void test_limits(void **) {
    float *const none = nullptr;
    std::vector<float> x(32);
    for (int64_t width : {int64_t{0}, int64_t{8}, int64_t{24}, NORM_WIDTH_MAX + 16})
        assert_int_equal(rms_norm(nullptr, 1, width, x.data(), none, x.data(), EPSILON, x.data(), none, none),
                         cudaErrorInvalidValue);
    assert_int_equal(rms_norm(nullptr, 0, 16, none, none, none, EPSILON, none, none, none), cudaSuccess);
    assert_int_equal(rms_norm_backward(nullptr, 0, 16, none, none, none, none, none, none, none),
                     cudaSuccess);
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),   cmocka_unit_test(test_bf16),   cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_alone), cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, begin, report);
}
