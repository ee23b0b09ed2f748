// The optimiser's step.
#include "tests/cuda/check.h"

#include "kernels/cuda/update.cuh"

using namespace cuda_kernels;
using namespace check;

namespace {

const int64_t counts[] = {1, 3, 4, 37, 1024, 16384, 16387, 70001};

void test_sum_squares(void **) {
    const cpu device;
    for (int64_t count : counts) {
        philox_stream numbers = random_numbers();
        std::vector<float> x = random_values<float>(&numbers, count, 1e3f);
        const double wanted = op_sum_squares(device, static_cast<size_t>(count), x.data());
        const buffer<float> given(x);
        const auto found = in_every_order(
            std::make_tuple(poisoned<double>(1), poisoned<double>(static_cast<int64_t>(
                                                     sum_squares_scratch_bytes(count) / sizeof(double)))),
            [&](double *out, double *scratch) {
                return sum_squares(nullptr, count, given.data(), out, scratch);
            });
        const double sum = std::get<0>(found)[0];
        record("sum_squares f32", std::fabs(sum - wanted), 1e-13 * wanted);
        assert_true(std::fabs(sum - wanted) <= 1e-13 * wanted);
        for (float bad : {INFINITY, NAN, 0.0f}) {
            x[static_cast<size_t>(count - 1)] = bad;
            const buffer<float> last(x);
            const auto finite = in_every_order(std::make_tuple(poisoned<int32_t>(1)), [&](int32_t *out) {
                return all_finite(nullptr, count, last.data(), out);
            });
            const bool right = std::get<0>(finite)[0] == (bad == 0.0f);
            record("all_finite f32", right ? 0.0 : 1.0, 0.0);
            assert_true(right);
        }
    }
    const auto nothing =
        once(std::make_tuple(std::vector<double>(1, 1.0), std::vector<int32_t>(1, -1)),
             [](double *sum, int32_t *finite) {
                 const cudaError_t error = sum_squares(nullptr, 0, nullptr, sum, nullptr);
                 return error != cudaSuccess ? error : all_finite(nullptr, 0, nullptr, finite);
             });
    assert_true(std::get<0>(nothing)[0] == 0.0 && std::get<1>(nothing)[0] == 1);
}

// Three updates: to the last bit what the CPU does.
void test_adamw(void **) {
    const cpu device;
    for (int64_t count : counts)
        for (float gradient_scale : {1.0f, 0.37f}) {
            philox_stream numbers = random_numbers();
            std::vector<float> parameter = random_values<float>(&numbers, count), first(parameter.size()),
                               second(parameter.size());
            std::vector<float> wanted = parameter, wanted_first = first, wanted_second = second;
            adamw_step step = {};
            step.learning_rate = 1e-2f;
            step.beta1 = 0.9f;
            step.beta2 = 0.99f;
            step.epsilon = 1e-8f;
            step.weight_decay = 0.1f;
            step.gradient_scale = gradient_scale;
            for (step.step = 1; step.step <= 3; step.step++) {
                const auto correction = [&](float beta) {
                    return static_cast<float>(
                        1.0 / (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(step.step))));
                };
                const adamw_terms terms = {step.learning_rate,
                                           step.beta1,
                                           step.beta2,
                                           step.epsilon,
                                           step.weight_decay,
                                           gradient_scale,
                                           correction(step.beta1),
                                           correction(step.beta2)};
                const std::vector<float> gradient = random_values<float>(&numbers, count);
                const buffer<float> given(gradient);
                const auto after = in_every_order(
                    std::make_tuple(parameter, first, second), [&](float *p, float *m, float *v) {
                        return adamw(nullptr, count, terms, given.data(), p, m, v);
                    });
                parameter = std::get<0>(after);
                first = std::get<1>(after);
                second = std::get<2>(after);
                op_adamw(device, static_cast<size_t>(count), &step, gradient.data(), wanted.data(),
                         wanted_first.data(), wanted_second.data());
                const bool same = same_bytes(parameter, wanted) && same_bytes(first, wanted_first) &&
                                  same_bytes(second, wanted_second);
                record("adamw f32", same ? 0.0 : 1.0, 0.0);
                assert_true(same);
            }
            const buffer<float> last(parameter);
            const auto rounded = once(std::make_tuple(poisoned<bf16>(count)), [&](bf16 *to) {
                return round_to_bf16(nullptr, count, last.data(), to);
            });
            const bool same = same_bytes(std::get<0>(rounded), stored<bf16>(parameter));
            record("round_to_bf16", same ? 0.0 : 1.0, 0.0);
            assert_true(same);
        }
}

void test_scale(void **) {
    const cpu device;
    for (int64_t count : counts) {
        philox_stream numbers = random_numbers();
        const std::vector<float> x = random_values<float>(&numbers, count);
        std::vector<float> wanted = x;
        op_scale(device, wanted.size(), 0.3f, wanted.data());
        const auto found = in_every_order(std::make_tuple(x),
                                          [&](float *values) { return scale(nullptr, count, 0.3f, values); });
        record("scale f32", same_bytes(std::get<0>(found), wanted) ? 0.0 : 1.0, 0.0);
        assert_true(same_bytes(std::get<0>(found), wanted));
    }
}

// The fourth of eight slots completes two subtrees and is kept as a third; the last completes all.
void test_add_slot(void **) {
    const cpu device;
    for (int64_t count : counts)
        for (bool keep : {true, false}) {
            philox_stream numbers = random_numbers();
            const int depth = keep ? 2 : 3;
            const int64_t stride = (count + 15) / 16 * 16;
            const std::vector<float> values = random_values<float>(&numbers, count);
            std::vector<float> partial = random_values<float>(&numbers, 3 * stride);
            if (keep)
                for (int64_t i = 0; i < count; i++)
                    partial[static_cast<size_t>(2 * stride + i)] = NAN;
            std::vector<float> wanted = values, wanted_partial = partial;
            op_add_slot(device, wanted.size(), depth, keep, static_cast<size_t>(stride),
                        wanted_partial.data(), wanted.data());
            const auto found =
                in_every_order(std::make_tuple(values, partial), [&](float *sum, float *partial_sums) {
                    return add_slot(nullptr, count, depth, keep, stride, partial_sums, sum);
                });
            const bool same =
                same_bytes(std::get<0>(found), wanted) && same_bytes(std::get<1>(found), wanted_partial);
            record("add_slot f32", same ? 0.0 : 1.0, 0.0);
            assert_true(same);
        }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {cmocka_unit_test(test_sum_squares), cmocka_unit_test(test_adamw),
                                cmocka_unit_test(test_scale), cmocka_unit_test(test_add_slot)};
    return cmocka_run_group_tests(tests, begin, report);
}
