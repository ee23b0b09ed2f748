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
    philox_stream numbers = {};
    const int64_t from_stride = width + 16, to_stride = width + 32, repeat = 3;
    const std::vector<float> from = random_values<T>(&numbers, rows * from_stride),
                             to = random_values<T>(&numbers, rows * to_stride),
                             many = random_values<T>(&numbers, rows * repeat * width);
    const std::vector<T> input = stored<T>(from), input_many = stored<T>(many);
    for (bool accumulate : {false, true}) {
        std::vector<float> wanted = to;
        op_copy_rows(device, rows, width, from.data(), from_stride, wanted.data(), to_stride, accumulate);
        const auto found = in_every_order(std::make_tuple(stored<T>(to)), [&](T *out) {
            return copy_rows(nullptr, rows, width, input.data(), from_stride, out, to_stride, accumulate);
        });
        expect_close("copy_rows", plain(std::get<0>(found)), wanted, tolerance<T>(0.0));
    }
    std::vector<float> wanted(static_cast<size_t>(rows * repeat * width));
    op_repeat_rows(device, rows, repeat, width, from.data(), wanted.data());
    const auto repeated = in_every_order(std::make_tuple(poisoned<T>(rows * repeat * width)), [&](T *out) {
        return repeat_rows(nullptr, rows, repeat, width, input.data(), out);
    });
    expect_close("repeat_rows", plain(std::get<0>(repeated)), wanted, 0.0);
    wanted.resize(static_cast<size_t>(rows * width));
    op_sum_repeated(device, rows, repeat, width, many.data(), wanted.data());
    const auto sums = in_every_order(std::make_tuple(poisoned<T>(rows * width)), [&](T *out) {
        return sum_repeated(nullptr, rows, repeat, width, input_many.data(), out);
    });
    expect_close("sum_repeated", plain(std::get<0>(sums)), wanted, tolerance<T>(1e-7));
}

template <typename T> void check_sums(int64_t rows, int64_t width) {
    const cpu device;
    philox_stream numbers = {};
    const std::vector<float> x = random_values<T>(&numbers, rows * width),
                             vector = random_values<float>(&numbers, width),
                             before = random_values<float>(&numbers, width),
                             dout = random_values<float>(&numbers, rows);
    const std::vector<T> input = stored<T>(x);
    const float bias = 0.25f;
    const double order = 1e-6 * std::sqrt(static_cast<double>(rows)) + 1e-6; // of sums over rows
    std::vector<float> wanted = before;
    op_column_sums(device, rows, width, x.data(), wanted.data());
    const auto columns = in_every_order(
        std::make_tuple(before,
                        poisoned<float>(static_cast<int64_t>(column_sums_scratch_floats(rows, width)))),
        [&](float *out, float *scratch) {
            return column_sums(nullptr, rows, width, input.data(), out, scratch);
        });
    expect_close("column_sums", std::get<0>(columns), wanted, order);

    wanted.resize(static_cast<size_t>(rows));
    for (const float *added : {&bias, static_cast<const float *>(nullptr)}) {
        op_row_dot(device, rows, width, x.data(), vector.data(), added, wanted.data());
        const auto dots = in_every_order(std::make_tuple(poisoned<float>(rows)), [&](float *out) {
            return row_dot(nullptr, rows, width, input.data(), vector.data(), added, out);
        });
        expect_close("row_dot", std::get<0>(dots), wanted, 1e-5);
    }

    std::vector<float> dx(x.size()), dvector = before, dbias(1, 0.5f);
    op_row_dot_backward(device, rows, width, x.data(), vector.data(), dout.data(), dx.data(), dvector.data(),
                        dbias.data());
    const auto backward = in_every_order(
        std::make_tuple(poisoned<T>(rows * width), before, std::vector<float>(1, 0.5f),
                        poisoned<float>(static_cast<int64_t>(row_dot_backward_scratch_floats(rows, width)))),
        [&](T *to, float *v, float *b, float *scratch) {
            return row_dot_backward(nullptr, rows, width, input.data(), vector.data(), dout.data(), to, v, b,
                                    scratch);
        });
    expect_close("dx", plain(std::get<0>(backward)), dx, tolerance<T>(0.0));
    expect_close("dvector", std::get<1>(backward), dvector, order);
    expect_close("dbias", std::get<2>(backward), dbias, order);
    std::vector<T> unbiased_dx = poisoned<T>(rows * width);
    std::vector<float> unbiased = before,
                       scratch(std::get<3>(backward).size()); // without a bias, the rest is the same
    expect_success(row_dot_backward(nullptr, rows, width, input.data(), vector.data(), dout.data(),
                                    unbiased_dx.data(), unbiased.data(), nullptr, scratch.data()));
    assert_true(same_bytes(unbiased_dx, std::get<0>(backward)) &&
                same_bytes(unbiased, std::get<1>(backward)));

    if (sizeof(T) == 2)
        return;
    std::vector<float> normed(x.size()), inverse(static_cast<size_t>(rows));
    const std::vector<float> d = random_values<float>(&numbers, rows * width);
    op_normalize_rows(device, rows, width, x.data(), normed.data(), inverse.data());
    const auto unit = in_every_order(
        std::make_tuple(poisoned<float>(rows * width), poisoned<float>(rows)),
        [&](float *out, float *r) { return normalize_rows(nullptr, rows, width, x.data(), out, r); });
    expect_close("normalize_rows", std::get<0>(unit), normed, 1e-6);
    expect_close("inverse_norms", std::get<1>(unit), inverse, 1e-6);
    op_normalize_rows_backward(device, rows, width, normed.data(), inverse.data(), d.data(), dx.data());
    const auto back = in_every_order(std::make_tuple(poisoned<float>(rows * width)), [&](float *to) {
        return normalize_rows_backward(nullptr, rows, width, normed.data(), inverse.data(), d.data(), to);
    });
    expect_close("normalize_rows_backward", std::get<0>(back), dx, 1e-6);
}

template <typename T> void check_pool(int batch, int sequence, int64_t width, bool has_lengths) {
    const cpu device;
    philox_stream numbers = {};
    const int64_t count = batch * sequence * width;
    const std::vector<float> x = random_values<T>(&numbers, count),
                             dout = random_values<float>(&numbers, batch * width);
    std::vector<int32_t> lengths;
    for (int b = 0; b < batch; b++)
        lengths.push_back(1 + b * 5 % sequence);
    const int32_t *given = has_lengths ? lengths.data() : nullptr;
    const std::vector<T> input = stored<T>(x);
    std::vector<float> wanted(dout.size()), dx(x.size());
    op_mean_pool(device, batch, sequence, width, given, x.data(), wanted.data());
    const auto pooled = in_every_order(std::make_tuple(poisoned<float>(batch * width)), [&](float *out) {
        return mean_pool(nullptr, batch, sequence, width, given, input.data(), out);
    });
    expect_close("mean_pool", std::get<0>(pooled), wanted, 1e-6);
    op_mean_pool_backward(device, batch, sequence, width, given, dout.data(), dx.data());
    const auto back = in_every_order(std::make_tuple(poisoned<T>(count)), [&](T *to) {
        return mean_pool_backward(nullptr, batch, sequence, width, given, dout.data(), to);
    });
    expect_close("mean_pool_backward", plain(std::get<0>(back)), dx, tolerance<T>(1e-7));
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
    const int32_t none = 0;
    std::vector<float> x = poisoned<float>(32), out = poisoned<float>(16), zeros(32), dout(16, 1.0f);
    expect_success(mean_pool(nullptr, 1, 2, 16, &none, x.data(), out.data()));
    expect_success(mean_pool_backward(nullptr, 1, 2, 16, &none, dout.data(), x.data()));
    assert_true(same_bytes(x, zeros) && same_bytes(out, std::vector<float>(16)));
}

void test_autocorrelation(void **) {
    const cpu device;
    static const struct {
        int batch, sequence, lags;
        int64_t channels;
    } shapes[] = {{1, 2, 1, 16}, {2, 33, 9, 48}, {1, 64, 63, 16}, {3, 17, 8, 80}};
    for (const auto &s : shapes) {
        philox_stream numbers = {};
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
        expect_close("centred", std::get<0>(found), centred, 2e-6);
        expect_close("autocorrelation", std::get<1>(found), out, 5e-6);
        expect_close("inverse_energies", std::get<2>(found), inverse, 5e-6);
        op_autocorrelation_backward(device, s.batch, s.sequence, s.channels, s.lags, centred.data(),
                                    out.data(), inverse.data(), dout.data(), dx.data(), scratch.data());
        const auto back =
            in_every_order(std::make_tuple(poisoned<float>(count), poisoned<float>(energies)),
                           [&](float *to, float *weighted) {
                               return autocorrelation_backward(nullptr, s.batch, s.sequence, s.channels,
                                                               s.lags, centred.data(), out.data(),
                                                               inverse.data(), dout.data(), to, weighted);
                           });
        expect_close("autocorrelation_backward", std::get<0>(back), dx, 5e-6);
    }
}

void test_time_variation(void **) {
    const cpu device;
    static const struct {
        int batch, sequence;
        int64_t channels;
    } shapes[] = {{1, 2, 16}, {2, 33, 48}, {3, 17, 144}};
    for (const auto &s : shapes) {
        philox_stream numbers = {};
        const int64_t count = s.batch * s.sequence * s.channels, results = s.batch * 2 * s.channels;
        const std::vector<float> x = random_values<float>(&numbers, count),
                                 dout = random_values<float>(&numbers, results),
                                 before = random_values<float>(&numbers, count);
        std::vector<float> out(dout.size()), dx = before;
        op_time_variation(device, s.batch, s.sequence, s.channels, 3.0f, 1e-2f, x.data(), out.data());
        const auto found = in_every_order(std::make_tuple(poisoned<float>(results)), [&](float *to) {
            return time_variation(nullptr, s.batch, s.sequence, s.channels, 3.0f, 1e-2f, x.data(), to);
        });
        expect_close("time_variation", std::get<0>(found), out, 5e-6);
        op_time_variation_backward(device, s.batch, s.sequence, s.channels, 3.0f, x.data(), out.data(),
                                   dout.data(), dx.data());
        const auto back = in_every_order(std::make_tuple(before), [&](float *to) {
            return time_variation_backward(nullptr, s.batch, s.sequence, s.channels, 3.0f, x.data(),
                                           out.data(), dout.data(), to);
        });
        expect_close("time_variation_backward", std::get<0>(back), dx, 5e-6);
    }
}

void test_contrastive(void **) {
    const cpu device;
    for (int64_t rows : {1, 2, 33})
        for (int64_t width : {16, 272}) {
            philox_stream numbers = {};
            const std::vector<float> a = random_values<float>(&numbers, rows * width, 0.2f),
                                     b = random_values<float>(&numbers, rows * width, 0.2f);
            std::vector<float> da(a.size()), db(b.size()), scratch(static_cast<size_t>(2 * rows * rows));
            float dscale;
            const double loss = op_contrastive_loss(device, rows, width, a.data(), b.data(), 7.0f, da.data(),
                                                    db.data(), &dscale, scratch.data());
            const int64_t floats = static_cast<int64_t>(contrastive_scratch_bytes(rows) / sizeof(double)) + 1;
            const auto found = in_every_order(
                std::make_tuple(poisoned<float>(rows * width), poisoned<float>(rows * width),
                                poisoned<float>(1), poisoned<double>(1), poisoned<double>(floats)),
                [&](float *x, float *y, float *s, double *l, double *work) {
                    return contrastive_loss(nullptr, rows, width, a.data(), b.data(), 7.0f, x, y, s, l, work);
                });
            expect_close("da", std::get<0>(found), da, 2e-6);
            expect_close("db", std::get<1>(found), db, 2e-6);
            expect_close("dscale", std::get<2>(found), {dscale}, 2e-6);
            assert_true(std::fabs(std::get<3>(found)[0] - loss) <= 2e-6 * (1.0 + loss));
        }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_moves),          cmocka_unit_test(test_sums),
        cmocka_unit_test(test_pool),           cmocka_unit_test(test_autocorrelation),
        cmocka_unit_test(test_time_variation), cmocka_unit_test(test_contrastive),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
