// Gated activations and rotary positions.
#include "kernels/cuda/activation.cuh"

#include "tests/cuda/check.h"

#include "kernels/cuda/rotary.cuh"

using namespace cuda_kernels;
using namespace check;

namespace {

template <typename T> void check_swiglu(int64_t rows, int64_t width) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const std::vector<float> gate_up = random_values<T>(&numbers, 2 * rows * width, 9.0f),
                             dout = random_values<T>(&numbers, rows * width);
    std::vector<float> out(dout.size()), dgate_up(gate_up.size());
    op_swiglu(device, rows, width, as_activations(gate_up.data()), as_activations(out.data()));
    op_swiglu_backward(device, rows, width, as_activations(gate_up.data()), as_activations(dout.data()),
                       as_activations(dgate_up.data()));
    const buffer<T> input(stored<T>(gate_up)), d(stored<T>(dout));
    const auto forward = in_every_order(std::make_tuple(poisoned<T>(rows * width)), [&](T *to) {
        return swiglu(nullptr, rows, width, input.data(), to);
    });
    expect_close(named<T>("swiglu"), plain(std::get<0>(forward)), out, tolerance<T>(1e-6));
    const auto backward = in_every_order(std::make_tuple(poisoned<T>(2 * rows * width)), [&](T *to) {
        return swiglu_backward(nullptr, rows, width, input.data(), d.data(), to);
    });
    expect_close(named<T>("swiglu_backward"), plain(std::get<0>(backward)), dgate_up, tolerance<T>(2e-6));
    const auto in_place = in_every_order(std::make_tuple(stored<T>(gate_up)), [&](T *to) {
        return swiglu_backward(nullptr, rows, width, static_cast<const T *>(to), d.data(), to);
    });
    assert_true(same_bytes(std::get<0>(in_place), std::get<0>(backward)));
}

template <typename T> void check_activations() {
    for (int64_t width : {16, 48, 1040})
        for (int64_t rows : {1, 3, 37})
            check_swiglu<T>(rows, width);
}

void test_activations_f32(void **) {
    check_activations<float>();
}

void test_activations_bf16(void **) {
    check_activations<bf16>();
}

// The pair (i, i + head_dim / 2) of queries and keys turns by the table's angle; values stay.
template <typename T> void check_rotary(int batch, int sequence, int heads, int head_dim) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const int half = head_dim / 2;
    const int64_t rows = static_cast<int64_t>(batch) * sequence,
                  width = static_cast<int64_t>(heads) * head_dim;
    std::vector<float> cosine(static_cast<size_t>(sequence * half)), sine(cosine.size());
    op_rotary_table(device, sequence, head_dim, cosine.data(), sine.data());
    const std::vector<float> qkv = random_values<T>(&numbers, rows * 3 * width);
    std::vector<float> wanted = qkv;
    for (int64_t row = 0; row < rows; row++)
        for (int head = 0; head < 2 * heads; head++)
            for (int i = 0; i < half; i++) {
                const size_t at = static_cast<size_t>(row * 3 * width + head * head_dim + i),
                             angle = static_cast<size_t>(row % sequence * half + i),
                             other = at + static_cast<size_t>(half);
                wanted[at] = qkv[at] * cosine[angle] - qkv[other] * sine[angle];
                wanted[other] = qkv[other] * cosine[angle] + qkv[at] * sine[angle];
            }
    const buffer<float> cosines(cosine), sines(sine);
    const auto rotated = in_every_order(std::make_tuple(stored<T>(qkv)), [&](T *x) {
        return rotary_rows(nullptr, rows, sequence, heads, head_dim, cosines.data(), sines.data(), 1.0f, x);
    });
    expect_close(named<T>("rotary_rows"), plain(std::get<0>(rotated)), wanted, tolerance<T>(1e-7));
    const auto back = in_every_order(rotated, [&](T *x) {
        return rotary_rows(nullptr, rows, sequence, heads, head_dim, cosines.data(), sines.data(), -1.0f, x);
    });
    expect_close(named<T>("rotary_rows back"), plain(std::get<0>(back)), qkv, 2.0 * tolerance<T>(2e-7));

    const int capacity = sequence + 3;
    const int64_t cached = static_cast<int64_t>(batch) * heads * capacity * head_dim;
    const buffer<T> turned(std::get<0>(rotated));
    const auto caches =
        in_every_order(std::make_tuple(poisoned<T>(cached), poisoned<T>(cached)), [&](T *keys, T *values) {
            return fill_cache(nullptr, batch, sequence, heads, head_dim, capacity, turned.data(), keys,
                              values);
        });
    const std::vector<float> from = plain(std::get<0>(rotated)), keys = plain(std::get<0>(caches)),
                             values = plain(std::get<1>(caches));
    for (int64_t at = 0; at < cached; at++) {
        const int64_t i = at % head_dim, position = at / head_dim % capacity,
                      head = at / head_dim / capacity % heads, sample = at / head_dim / capacity / heads;
        const size_t place = static_cast<size_t>(at);
        if (position >= sequence) { // left alone
            assert_true(std::isnan(keys[place]) && std::isnan(values[place]));
            continue;
        }
        const size_t row =
            static_cast<size_t>((sample * sequence + position) * 3 * width + head * head_dim + i);
        record(named<T>("fill_cache"),
               std::fabs(keys[place] - from[row + static_cast<size_t>(width)]) +
                   std::fabs(values[place] - from[row + 2 * static_cast<size_t>(width)]),
               0.0);
        assert_true(keys[place] == from[row + static_cast<size_t>(width)]);
        assert_true(values[place] == from[row + 2 * static_cast<size_t>(width)]);
    }
}

void test_rotary(void **) {
    for (int head_dim : {16, 32, 64, 128})
        for (int sequence : {1, 7, 33}) {
            check_rotary<float>(2, sequence, 3, head_dim);
            check_rotary<bf16>(1, sequence, 1, head_dim);
        }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_activations_f32),
        cmocka_unit_test(test_activations_bf16),
        cmocka_unit_test(test_rotary),
    };
    return cmocka_run_group_tests(tests, begin, report);
}
