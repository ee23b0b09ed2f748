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

// Three updates, the second with a gradient that is not finite: to the last bit what the CPU does.
void test_adamw(void **) {
    const cpu device;
    for (int64_t count : counts)
        for (float clip : {0.0f, 1.5f}) {
            philox_stream numbers = random_numbers();
            const adamw_terms terms = {1e-2f, 0.9f, 0.99f, 1e-8f, 0.1f};
            std::vector<float> parameter = random_values<float>(&numbers, count), first(parameter.size()),
                               second(parameter.size());
            std::vector<float> wanted = parameter, wanted_first = first, wanted_second = second;
            std::vector<update_state> state(1);
            memset(static_cast<void *>(state.data()), 0, sizeof state[0]);
            std::vector<bf16> copy = poisoned<bf16>(count);
            int64_t updates = 0;
            for (int round = 0; round < 3; round++) {
                std::vector<float> gradient = random_values<float>(&numbers, count);
                if (round == 1)
                    gradient[static_cast<size_t>(count / 2)] = NAN;
                const buffer<float> given(gradient);
                const auto prepared = once(
                    std::make_tuple(state, poisoned<double>(1),
                                    poisoned<double>(static_cast<int64_t>(sum_squares_scratch_bytes(count) /
                                                                          sizeof(double)))),
                    [&](update_state *to, double *norm, double *scratch) {
                        const cudaError_t error = sum_squares(nullptr, count, given.data(), norm, scratch);
                        return error != cudaSuccess
                                   ? error
                                   : update_prepare(nullptr, norm, clip, terms.beta1, terms.beta2, to);
                    });
                state = std::get<0>(prepared);
                const double sum = std::get<1>(prepared)[0];
                const buffer<update_state> state_given(state);
                const auto after = in_every_order(std::make_tuple(parameter, first, second, copy),
                                                  [&](float *p, float *m, float *v, bf16 *r) {
                                                      return adamw(nullptr, count, terms, state_given.data(),
                                                                   given.data(), p, m, v, r);
                                                  });
                parameter = std::get<0>(after);
                first = std::get<1>(after);
                second = std::get<2>(after);
                copy = std::get<3>(after);
                if (round != 1) {
                    adamw_step step = {};
                    step.learning_rate = terms.learning_rate;
                    step.beta1 = terms.beta1;
                    step.beta2 = terms.beta2;
                    step.epsilon = terms.epsilon;
                    step.weight_decay = terms.weight_decay;
                    step.step = ++updates;
                    const double norm = std::sqrt(sum);
                    step.gradient_scale = clip > 0.0f && norm > static_cast<double>(clip)
                                              ? static_cast<float>(static_cast<double>(clip) / norm)
                                              : 1.0f;
                    op_adamw(device, static_cast<size_t>(count), &step, gradient.data(), wanted.data(),
                             wanted_first.data(), wanted_second.data());
                }
                assert_int_equal(state[0].step, updates);
                assert_int_equal(state[0].skipped, round > 0);
                const bool same = same_bytes(parameter, wanted) && same_bytes(first, wanted_first) &&
                                  same_bytes(second, wanted_second);
                record("adamw f32", same ? 0.0 : 1.0, 0.0);
                assert_true(same);
                assert_true(same_bytes(copy, stored<bf16>(parameter)));
            }
            const buffer<float> last(parameter);
            const auto again = once(std::make_tuple(poisoned<bf16>(count)),
                                    [&](bf16 *to) { return round_to_bf16(nullptr, count, last.data(), to); });
            record("round_to_bf16", same_bytes(std::get<0>(again), copy) ? 0.0 : 1.0, 0.0);
            assert_true(same_bytes(std::get<0>(again), copy));
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
