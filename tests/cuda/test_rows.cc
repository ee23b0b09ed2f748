// Rows moved, added, projected and pooled; what is heard over time and the contrastive loss.
#include "tests/cuda/check.h"

#include "kernels/cuda/autocorrelation.cuh"
#include "kernels/cuda/contrastive.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/time_variation.cuh"

using namespace cuda_kernels;
using namespace check;

namespace {

const int64_t widths[] = {16, 48, 272, 1040};

template <typename T> void check_moves(int64_t rows, int64_t width) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const int64_t from_stride = width + 16, to_stride = width + 32, repeat = 3;
    const std::vector<float> from = random_values<T>(&numbers, rows * from_stride),
                             to = random_values<T>(&numbers, rows * to_stride),
                             many = random_values<T>(&numbers, rows * repeat * width);
    const buffer<T> input(stored<T>(from)), input_many(stored<T>(many));
    for (bool accumulate : {false, true}) {
        std::vector<float> wanted = to;
        op_copy_rows(device, rows, width, from.data(), from_stride, wanted.data(), to_stride, accumulate);
        const auto found = in_every_order(std::make_tuple(stored<T>(to)), [&](T *out) {
            return copy_rows(nullptr, rows, width, input.data(), from_stride, out, to_stride, accumulate);
        });
        expect_close(named<T>("copy_rows"), plain(std::get<0>(found)), wanted, tolerance<T>(0.0));
    }
    std::vector<float> wanted(static_cast<size_t>(rows * repeat * width));
    op_repeat_rows(device, rows, repeat, width, from.data(), wanted.data());
    const auto repeated = in_every_order(std::make_tuple(poisoned<T>(rows * repeat * width)), [&](T *out) {
        return repeat_rows(nullptr, rows, repeat, width, input.data(), out);
    });
    expect_close(named<T>("repeat_rows"), plain(std::get<0>(repeated)), wanted, 0.0);
    wanted.resize(static_cast<size_t>(rows * width));
    op_sum_repeated(device, rows, repeat, width, many.data(), wanted.data());
    const auto sums = in_every_order(std::make_tuple(poisoned<T>(rows * width)), [&](T *out) {
        return sum_repeated(nullptr, rows, repeat, width, input_many.data(), out);
    });
    expect_close(named<T>("sum_repeated"), plain(std::get<0>(sums)), wanted, tolerance<T>(1e-7));
}

template <typename T> void check_sums(int64_t rows, int64_t width) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const std::vector<float> x = random_values<T>(&numbers, rows * width),
                             vector = random_values<float>(&numbers, width),
                             before = random_values<float>(&numbers, width),
                             dout = random_values<float>(&numbers, rows);
    const buffer<T> input(stored<T>(x));
    const float bias = 0.25f;
    const buffer<float> along(vector), biases(std::vector<float>(1, bias)), douts(dout);
    const double order = 1e-6 * std::sqrt(static_cast<double>(rows)) + 1e-6; // of sums over rows
    std::vector<float> wanted = before;
    op_column_sums(device, rows, width, x.data(), wanted.data());
    const auto columns = in_every_order(
        std::make_tuple(before,
                        poisoned<float>(static_cast<int64_t>(column_sums_scratch_floats(rows, width)))),
        [&](float *out, float *scratch) {
            return column_sums(nullptr, rows, width, input.data(), out, scratch);
        });
    expect_close(named<T>("column_sums"), std::get<0>(columns), wanted, order);

    wanted.resize(static_cast<size_t>(rows));
    for (bool biased : {true, false}) {
        op_row_dot(device, rows, width, x.data(), vector.data(), biased ? &bias : nullptr, wanted.data());
        const auto dots = in_every_order(std::make_tuple(poisoned<float>(rows)), [&](float *out) {
            return row_dot(nullptr, rows, width, input.data(), along.data(), biased ? biases.data() : nullptr,
                           out);
        });
        expect_close(named<T>("row_dot"), std::get<0>(dots), wanted, 1e-5);
    }

    std::vector<float> dx(x.size()), dvector = before, dbias(1, 0.5f);
    op_row_dot_backward(device, rows, width, x.data(), vector.data(), dout.data(), dx.data(), dvector.data(),
                        dbias.data());
    const auto backward = in_every_order(
        std::make_tuple(poisoned<T>(rows * width), before, std::vector<float>(1, 0.5f),
                        poisoned<float>(static_cast<int64_t>(row_dot_backward_scratch_floats(rows, width)))),
        [&](T *to, float *v, float *b, float *scratch) {
            return row_dot_backward(nullptr, rows, width, input.data(), along.data(), douts.data(), to, v, b,
                                    scratch);
        });
    expect_close(named<T>("row_dot_backward"), plain(std::get<0>(backward)), dx, tolerance<T>(0.0));
    expect_close(named<T>("row_dot_backward dvector"), std::get<1>(backward), dvector, order);
    expect_close(named<T>("row_dot_backward dbias"), std::get<2>(backward), dbias, order);
    // Without a bias the rest is the same.
    const auto unbiased = once(std::make_tuple(poisoned<T>(rows * width), before, std::get<3>(backward)),
                               [&](T *to, float *v, float *scratch) {
                                   return row_dot_backward(nullptr, rows, width, input.data(), along.data(),
                                                           douts.data(), to, v, nullptr, scratch);
                               });
    assert_true(same_bytes(std::get<0>(unbiased), std::get<0>(backward)) &&
                same_bytes(std::get<1>(unbiased), std::get<1>(backward)));

    if (sizeof(T) == 2)
        return;
    std::vector<float> normed(x.size()), inverse(static_cast<size_t>(rows));
    const std::vector<float> d = random_values<float>(&numbers, rows * width);
    op_normalize_rows(device, rows, width, x.data(), normed.data(), inverse.data());
    const buffer<float> plain_x(x), d_given(d), normed_given(normed), inverse_given(inverse);
    const auto unit = in_every_order(
        std::make_tuple(poisoned<float>(rows * width), poisoned<float>(rows)),
        [&](float *out, float *r) { return normalize_rows(nullptr, rows, width, plain_x.data(), out, r); });
    expect_close("normalize_rows f32", std::get<0>(unit), normed, 1e-6);
    expect_close("normalize_rows inverse_norms f32", std::get<1>(unit), inverse, 1e-6);
    op_normalize_rows_backward(device, rows, width, normed.data(), inverse.data(), d.data(), dx.data());
    const auto back = in_every_order(std::make_tuple(poisoned<float>(rows * width)), [&](float *to) {
        return normalize_rows_backward(nullptr, rows, width, normed_given.data(), inverse_given.data(),
                                       d_given.data(), to);
    });
    expect_close("normalize_rows_backward f32", std::get<0>(back), dx, 1e-6);
}

template <typename T> void check_pool(int batch, int sequence, int64_t width, bool has_lengths) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const int64_t count = batch * sequence * width;
    const std::vector<float> x = random_values<T>(&numbers, count),
                             dout = random_values<float>(&numbers, batch * width);
    std::vector<int32_t> lengths;
    for (int b = 0; b < batch; b++)
        lengths.push_back(1 + b * 5 % sequence);
    const buffer<int32_t> lengths_given(lengths);
    const int32_t *on_cpu = has_lengths ? lengths.data() : nullptr,
                  *given = has_lengths ? lengths_given.data() : nullptr;
    const buffer<T> input(stored<T>(x));
    const buffer<float> douts(dout);
    std::vector<float> wanted(dout.size()), dx(x.size());
    op_mean_pool(device, batch, sequence, width, on_cpu, x.data(), wanted.data());
    const auto pooled = in_every_order(std::make_tuple(poisoned<float>(batch * width)), [&](float *out) {
        return mean_pool(nullptr, batch, sequence, width, given, input.data(), out);
    });
    expect_close(named<T>("mean_pool"), std::get<0>(pooled), wanted, 1e-6);
    op_mean_pool_backward(device, batch, sequence, width, on_cpu, dout.data(), dx.data());
    const auto back = in_every_order(std::make_tuple(poisoned<T>(count)), [&](T *to) {
        return mean_pool_backward(nullptr, batch, sequence, width, given, douts.data(), to);
    });
    expect_close(named<T>("mean_pool_backward"), plain(std::get<0>(back)), dx, tolerance<T>(1e-7));
}

void test_moves(void **) {
    for (int64_t width : widths)
        for (int64_t rows : {1, 13}) {
            check_moves<float>(rows, width);
            check_moves<bf16>(rows, width);
        }
}

void test_sums(void **) {
    for (int64_t width : widths)
        for (int64_t rows : {1, 13, 1100})
            if (rows < 1000 || width == 48) {
                check_sums<float>(rows, width);
                check_sums<bf16>(rows, width);
            }
}

void test_pool(void **) {
    for (int sequence : {1, 9, 33})
        for (int64_t width : {16, 272}) {
            check_pool<float>(3, sequence, width, true);
            check_pool<bf16>(2, sequence, width, true);
            check_pool<float>(1, sequence, width, false);
        }
    // No frame at all: zeros.
    const buffer<int32_t> none(std::vector<int32_t>(1));
    const buffer<float> x(poisoned<float>(32)), dout(std::vector<float>(16, 1.0f));
    const auto pooled = once(std::make_tuple(poisoned<float>(16)), [&](float *out) {
        return mean_pool(nullptr, 1, 2, 16, none.data(), x.data(), out);
    });
    const auto back = once(std::make_tuple(poisoned<float>(32)), [&](float *to) {
        return mean_pool_backward(nullptr, 1, 2, 16, none.data(), dout.data(), to);
    });
    assert_true(same_bytes(std::get<0>(pooled), std::vector<float>(16)));
    assert_true(same_bytes(std::get<0>(back), std::vector<float>(32)));
}

void test_autocorrelation(void **) {
    const cpu device;
    static const struct {
        int batch, sequence, lags;
        int64_t channels;
    } shapes[] = {{1, 2, 1, 16}, {2, 33, 9, 48}, {1, 64, 63, 16}, {3, 17, 8, 80}};
    for (const auto &s : shapes) {
        philox_stream numbers = random_numbers();
        const int64_t count = s.batch * s.sequence * s.channels, results = s.batch * s.lags * s.channels,
                      energies = s.batch * s.channels;
        const std::vector<float> x = random_values<float>(&numbers, count),
                                 dout = random_values<float>(&numbers, results);
        std::vector<float> centred = x, out(dout.size()), inverse(static_cast<size_t>(energies)),
                           dx(x.size()), scratch(inverse.size());
        op_autocorrelation(device, s.batch, s.sequence, s.channels, s.lags, 1e-3f, centred.data(), out.data(),
                           inverse.data());
        const auto found = in_every_order(
            std::make_tuple(x, poisoned<float>(results), poisoned<float>(energies)),
            [&](float *c, float *r, float *e) {
                return autocorrelation(nullptr, s.batch, s.sequence, s.channels, s.lags, 1e-3f, c, r, e);
            });
        expect_close("autocorrelation centred f32", std::get<0>(found), centred, 2e-6);
        expect_close("autocorrelation f32", std::get<1>(found), out, 5e-6);
        expect_close("autocorrelation inverse_energies f32", std::get<2>(found), inverse, 5e-6);
        op_autocorrelation_backward(device, s.batch, s.sequence, s.channels, s.lags, centred.data(),
                                    out.data(), inverse.data(), dout.data(), dx.data(), scratch.data());
        const buffer<float> centred_given(centred), out_given(out), inverse_given(inverse), douts(dout);
        const auto back =
            in_every_order(std::make_tuple(poisoned<float>(count), poisoned<float>(energies)),
                           [&](float *to, float *weighted) {
                               return autocorrelation_backward(
                                   nullptr, s.batch, s.sequence, s.channels, s.lags, centred_given.data(),
                                   out_given.data(), inverse_given.data(), douts.data(), to, weighted);
                           });
        expect_close("autocorrelation_backward f32", std::get<0>(back), dx, 5e-6);
    }
}

void test_time_variation(void **) {
    const cpu device;
    static const struct {
        int batch, sequence;
        int64_t channels;
    } shapes[] = {{1, 2, 16}, {2, 33, 48}, {3, 17, 144}};
    for (const auto &s : shapes) {
        philox_stream numbers = random_numbers();
        const int64_t count = s.batch * s.sequence * s.channels, results = s.batch * 2 * s.channels;
        const std::vector<float> x = random_values<float>(&numbers, count),
                                 dout = random_values<float>(&numbers, results),
                                 before = random_values<float>(&numbers, count);
        std::vector<float> out(dout.size()), dx = before;
        const buffer<float> x_given(x), dout_given(dout);
        op_time_variation(device, s.batch, s.sequence, s.channels, 3.0f, 1e-2f, x.data(), out.data());
        const auto found = in_every_order(std::make_tuple(poisoned<float>(results)), [&](float *to) {
            return time_variation(nullptr, s.batch, s.sequence, s.channels, 3.0f, 1e-2f, x_given.data(), to);
        });
        const buffer<float> out_given(out);
        expect_close("time_variation f32", std::get<0>(found), out, 5e-6);
        op_time_variation_backward(device, s.batch, s.sequence, s.channels, 3.0f, x.data(), out.data(),
                                   dout.data(), dx.data());
        const auto back = in_every_order(std::make_tuple(before), [&](float *to) {
            return time_variation_backward(nullptr, s.batch, s.sequence, s.channels, 3.0f, x_given.data(),
                                           out_given.data(), dout_given.data(), to);
        });
        expect_close("time_variation_backward f32", std::get<0>(back), dx, 5e-6);
    }
}

void test_contrastive(void **) {
    const cpu device;
    for (int64_t rows : {1, 2, 33})
        for (int64_t width : {16, 272}) {
            philox_stream numbers = random_numbers();
            const std::vector<float> a = random_values<float>(&numbers, rows * width, 0.2f),
                                     b = random_values<float>(&numbers, rows * width, 0.2f);
            std::vector<float> da(a.size()), db(b.size()), scratch(static_cast<size_t>(2 * rows * rows));
            float dscale;
            const double loss = op_contrastive_loss(device, rows, width, a.data(), b.data(), 7.0f, da.data(),
                                                    db.data(), &dscale, scratch.data());
            const int64_t floats = static_cast<int64_t>(contrastive_scratch_bytes(rows) / sizeof(double)) + 1;
            const buffer<float> a_given(a), b_given(b);
            const auto found = in_every_order(
                std::make_tuple(poisoned<float>(rows * width), poisoned<float>(rows * width),
                                poisoned<float>(1), poisoned<double>(1), poisoned<double>(floats)),
                [&](float *x, float *y, float *s, double *l, double *work) {
                    return contrastive_loss(nullptr, rows, width, a_given.data(), b_given.data(), 7.0f, x, y,
                                            s, l, work);
                });
            expect_close("contrastive_loss da f32", std::get<0>(found), da, 2e-6);
            expect_close("contrastive_loss db f32", std::get<1>(found), db, 2e-6);
            expect_close("contrastive_loss dscale f32", std::get<2>(found), {dscale}, 2e-6);
            record("contrastive_loss f32", std::fabs(std::get<3>(found)[0] - loss), 2e-6 * (1.0 + loss));
            assert_true(std::fabs(std::get<3>(found)[0] - loss) <= 2e-6 * (1.0 + loss));
        }
}

void test_put_row(void **) {
    for (int64_t width : {1, 16, 257, 1000}) {
        std::vector<int32_t> from(static_cast<size_t>(width));
        for (size_t i = 0; i < from.size(); i++)
            from[i] = static_cast<int32_t>(3 * i + 1);
        const buffer<int32_t> given(from);
        const auto put =
            in_every_order(std::make_tuple(poisoned<int32_t>(3 * width), std::vector<int32_t>(1, 1)),
                           [&](int32_t *to, int32_t *index) {
                               const cudaError_t error = put_row(nullptr, index, width, given.data(), to);
                               return error == cudaSuccess ? advance(nullptr, index) : error;
                           });
        assert_int_equal(std::get<1>(put)[0], 2);
        for (size_t i = 0; i < 3 * from.size(); i++)
            assert_int_equal(std::get<0>(put)[i], i / from.size() == 1 ? from[i % from.size()] : -1);
    }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),          cmocka_unit_test(test_sums),
        cmocka_unit_test(test_pool),           cmocka_unit_test(test_autocorrelation),
        cmocka_unit_test(test_time_variation), cmocka_unit_test(test_contrastive),
        cmocka_unit_test(test_put_row),
    };
    return cmocka_run_group_tests(tests, begin, report);
}
