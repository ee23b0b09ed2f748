// Products by the card's cuBLASLt against plain sums in double, and whether a row's bits depend on the rows
// around it. Factors are values of bf16, which TF32 holds too: products of two are exact, and what may differ
// is one unit in the last place of f32 for each step in which tensor cores add, and the rounding of the
// result.
#include "tests/cuda/check.h"

extern "C" {
#include "kernels/cuda/card.h"
#include "kernels/cuda/product_cublas.h"
}

using namespace check;

namespace {

constexpr double UNIT = 0x1p-23;
constexpr int STEP = 8; // products that an instruction adds at once, at least

void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

struct machine {
    card *gpu;
    cublas *products;
};

int open_machine(void **state) {
    begin(state);
    static machine m;
    must(card_open(&m.gpu, cuda_calls_of_this_build(), 0));
    must(cublas_open(&m.products, m.gpu, nullptr));
    *state = &m;
    return 0;
}

int close_machine(void **state) {
    machine *m = static_cast<machine *>(*state);
    cublas_close(m->products);
    card_close(m->gpu);
    return report(state);
}

template <typename T> constexpr cublas_type TYPE = sizeof(T) == 2 ? CUBLAS_TYPE_BF16 : CUBLAS_TYPE_F32;

template <typename T>
std::vector<T> multiply(const machine *m, const cublas_shape &shape, const buffer<T> &left,
                        const buffer<T> &right, const std::vector<T> &before) {
    buffer<T> out(before);
    must(cublas_product(m->products, &shape, left.data(), right.data(), out.data()));
    must(card_finish(m->gpu));
    return out.fetch();
}

// The factors and the result as the kind names them: element (i, j) of the result is the sum over k of
// left[i * left_row + k * left_step] times right[j * right_row + k * right_step].
struct layout {
    int64_t rows, columns, terms, left_row, left_step, right_row, right_step;
};

layout layout_of(const cublas_shape &s) {
    switch (s.kind) {
    case CUBLAS_FORWARD:
        return {s.rows, s.outputs, s.inputs, s.inputs, 1, s.inputs, 1};
    case CUBLAS_BACKWARD_DATA:
        return {s.rows, s.inputs, s.outputs, s.outputs, 1, 1, s.inputs};
    case CUBLAS_BACKWARD_WEIGHT:
        break;
    }
    return {s.outputs, s.inputs, s.rows, 1, s.outputs, 1, s.inputs};
}

template <typename T> void check_product(const machine *m, cublas_shape shape, const char *name) {
    philox_stream numbers = random_numbers(static_cast<uint64_t>(shape.rows * 7 + shape.inputs));
    const layout at = layout_of(shape);
    const std::vector<float> left = random_values<bf16>(&numbers, at.rows * at.terms),
                             right = random_values<bf16>(&numbers, at.columns * at.terms),
                             before = random_values<bf16>(&numbers, at.rows * at.columns);
    const buffer<T> x(stored<T>(left)), y(stored<T>(right));
    for (bool accumulate : {false, true}) {
        shape.accumulate = accumulate;
        const std::vector<T> start = accumulate ? stored<T>(before) : poisoned<T>(at.rows * at.columns);
        const std::vector<T> bits = multiply(m, shape, x, y, start);
        assert_true(same_bytes(bits, multiply(m, shape, x, y, start)));
        const std::vector<float> found = plain(bits);
        const int64_t all = at.rows * at.columns, stride = all > 20000 ? all / 4999 : 1;
        for (int64_t place = 0; place < all; place += stride) {
            const int64_t i = place / at.columns, j = place % at.columns;
            double sum = accumulate ? static_cast<double>(before[static_cast<size_t>(place)]) : 0.0,
                   size = std::fabs(sum);
            for (int64_t k = 0; k < at.terms; k++) {
                const double term =
                    static_cast<double>(left[static_cast<size_t>(i * at.left_row + k * at.left_step)]) *
                    static_cast<double>(right[static_cast<size_t>(j * at.right_row + k * at.right_step)]);
                sum += term;
                size += std::fabs(term);
            }
            const double steps = static_cast<double>(at.terms / STEP + 2),
                         allowed = tolerance<T>(0.0) * std::fabs(sum) + UNIT * steps * size,
                         error = std::fabs(static_cast<double>(found[static_cast<size_t>(place)]) - sum);
            record(named<T>(name), error, allowed);
            if (!(error <= allowed))
                fail_msg("%s of %lld rows, %lld outputs, %lld inputs, element %lld: %g where %g is wanted",
                         named<T>(name).c_str(), static_cast<long long>(shape.rows),
                         static_cast<long long>(shape.outputs), static_cast<long long>(shape.inputs),
                         static_cast<long long>(place),
                         static_cast<double>(found[static_cast<size_t>(place)]), sum);
        }
    }
}

template <typename T> void check_products(const machine *m) {
    static const int64_t shapes[][3] = {{1, 48, 16},  {5, 48, 32},     {67, 64, 272},
                                        {512, 16, 8}, {250, 3072, 64}, {512, 1024, 2752}};
    for (const auto &[rows, outputs, inputs] : shapes) {
        check_product<T>(m, {CUBLAS_FORWARD, rows, outputs, inputs, TYPE<T>, TYPE<T>, false, 0},
                         "product_forward");
        check_product<T>(m, {CUBLAS_BACKWARD_DATA, rows, outputs, inputs, TYPE<T>, TYPE<T>, false, 0},
                         "product_backward_data");
        check_product<T>(m, {CUBLAS_BACKWARD_WEIGHT, rows, outputs, inputs, TYPE<T>, TYPE<T>, false, 0},
                         "product_backward_weight");
    }
}

void test_f32(void **state) {
    check_products<float>(static_cast<const machine *>(*state));
}

void test_bf16(void **state) {
    check_products<bf16>(static_cast<const machine *>(*state));
}

// cuBLAS does not promise it: this finds out, and fails nothing.
template <typename T> void find_invariance(const machine *m, int64_t tuned_rows) {
    static const int64_t numbers_of_rows[] = {1, 2, 3, 5, 8, 16, 31, 64, 250, 256},
                         widths[][2] = {{3072, 1024}, {1024, 1024}, {5504, 1024}, {1024, 2752}};
    constexpr int64_t MOST = 512;
    std::string differ;
    for (const auto &width : widths) {
        const int64_t outputs = width[0], inputs = width[1];
        philox_stream numbers = random_numbers(static_cast<uint64_t>(outputs));
        const buffer<T> x(stored<T>(random_values<float>(&numbers, MOST * inputs))),
            w(stored<T>(random_values<float>(&numbers, outputs * inputs)));
        const auto rows_of = [&](int64_t rows) {
            return multiply(m, {CUBLAS_FORWARD, rows, outputs, inputs, TYPE<T>, TYPE<T>, false, tuned_rows},
                            x, w, poisoned<T>(rows * outputs));
        };
        const std::vector<T> all = rows_of(MOST);
        for (int64_t rows : numbers_of_rows) {
            const std::vector<T> few = rows_of(rows);
            if (memcmp(few.data(), all.data(), few.size() * sizeof(T)) != 0)
                differ += " " + std::to_string(rows) + " of " + std::to_string(inputs) + " x " +
                          std::to_string(outputs);
        }
    }
    printf("note rows of products, %s, %s: %s%s\n", named<T>("storage").c_str(),
           tuned_rows > 0 ? "one algorithm for all numbers of rows" : "the algorithm of each number of rows",
           differ.empty() ? "the same bits whatever the rows around them" : "other bits for", differ.c_str());
}

void test_invariance(void **state) {
    const machine *m = static_cast<const machine *>(*state);
    for (int64_t tuned : {int64_t{0}, int64_t{CUBLAS_TUNED_ROWS}}) {
        find_invariance<float>(m, tuned);
        find_invariance<bf16>(m, tuned);
    }
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_invariance),
    };
    return cmocka_run_group_tests(tests, open_machine, close_machine);
}
