#include "kernels/cuda/row_trial.cuh"

#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/philox.h"

#include <vector>

namespace cuda_kernels {

namespace {

constexpr int64_t PATTERN_ROWS = 256; // after which the rows of the input repeat

struct trial {
    card *gpu;
    cublas *products;
    cublas_shape shape;             // of the most rows
    char *weight, *input;           // [outputs, inputs], [rows, inputs] of the shape's factors
    char *output;                   // [rows, outputs] of its results
    std::vector<char> first, found; // rows of the pattern: by the most rows, and by others
};

size_t bytes_of(cublas_type type) {
    return type == CUBLAS_TYPE_BF16 ? sizeof(bf16) : sizeof(float);
}

size_t output_row(const cublas_shape &s) {
    return bytes_of(s.result) * static_cast<size_t>(s.outputs);
}

bool differ_in_rows(const cublas_shape &a, const cublas_shape &b) {
    return a.kind == CUBLAS_FORWARD && b.kind == CUBLAS_FORWARD && a.outputs == b.outputs &&
           a.inputs == b.inputs && a.factors == b.factors && a.result == b.result &&
           a.accumulate == b.accumulate;
}

// What was prepared for the most rows, but fewer than `below`, of the same product; rows 0: nothing.
cublas_shape next_below(const cublas *products, const cublas_shape &shape, int64_t below) {
    cublas_shape next = {};
    for (int i = 0; i < cublas_count(products); i++) {
        const cublas_shape &s = *cublas_prepared(products, i);
        if (differ_in_rows(s, shape) && s.rows < below && s.rows > next.rows)
            next = s;
    }
    return next;
}

template <typename T> T stored(float x);
template <> float stored<float>(float x) {
    return x;
}
template <> bf16 stored<bf16>(float x) {
    return __float2bfloat16_rn(x);
}

// In [-1, 1), of many magnitudes: sums of their products depend on the order.
template <typename T> status upload_values(card *gpu, int64_t count, char *to) {
    std::vector<T> values;
    values.reserve(static_cast<size_t>(count));
    philox_stream numbers = {};
    numbers.key = static_cast<uint64_t>(count);
    for (int64_t i = 0; i < count; i++)
        values.push_back(stored<T>(2.0f * philox_next_uniform(&numbers) - 1.0f));
    return card_upload(gpu, to, values.data(), values.size() * sizeof(T));
}

status upload_random(const trial &t, int64_t count, char *to) {
    return t.shape.factors == CUBLAS_TYPE_BF16 ? upload_values<bf16>(t.gpu, count, to)
                                               : upload_values<float>(t.gpu, count, to);
}

status allocate(trial *t) {
    const cublas_shape &s = t->shape;
    const size_t row = bytes_of(s.factors) * static_cast<size_t>(s.inputs);
    TRY(card_allocate(t->gpu, reinterpret_cast<void **>(&t->weight), row * static_cast<size_t>(s.outputs),
                      "trial of products"));
    TRY(card_allocate(t->gpu, reinterpret_cast<void **>(&t->input), row * static_cast<size_t>(s.rows),
                      "trial of products"));
    return card_allocate(t->gpu, reinterpret_cast<void **>(&t->output),
                         output_row(s) * static_cast<size_t>(s.rows), "trial of products");
}

void release(const trial &t) {
    card_free(t.gpu, t.weight);
    card_free(t.gpu, t.input);
    card_free(t.gpu, t.output);
}

status fill(const trial &t) {
    const cublas_shape &s = t.shape;
    const int64_t pattern = s.rows < PATTERN_ROWS ? s.rows : PATTERN_ROWS,
                  words = static_cast<int64_t>(bytes_of(s.factors)) * s.inputs / 4; // of a row, as f32
    TRY(upload_random(t, s.outputs * s.inputs, t.weight));
    TRY(upload_random(t, pattern * s.inputs, t.input));
    float *rows = reinterpret_cast<float *>(t.input);
    for (int64_t at = pattern; at < s.rows; at += pattern) {
        const int64_t count = s.rows - at < pattern ? s.rows - at : pattern;
        card_note(t.gpu,
                  copy_rows<float>(static_cast<cudaStream_t>(card_stream(t.gpu)), count, words, rows, words,
                                   rows + at * words, words, false),
                  "trial of products");
    }
    return card_check(t.gpu);
}

// Whether the rows from `at` on are those that came first.
status compare(trial *t, int64_t at, int64_t rows, bool *equal) {
    const size_t row = output_row(t->shape),
                 bytes = row * static_cast<size_t>(rows < PATTERN_ROWS ? rows : PATTERN_ROWS);
    t->found.resize(bytes);
    TRY(card_download(t->gpu, t->found.data(), t->output + static_cast<size_t>(at) * row, bytes));
    if (t->first.empty())
        t->first = t->found;
    *equal = *equal && memcmp(t->found.data(), t->first.data(), bytes) == 0;
    return STATUS_OK;
}

status try_shape(trial *t, bool *equal) {
    *equal = true;
    TRY(fill(*t));
    for (cublas_shape s = t->shape; s.rows > 0; s = next_below(t->products, t->shape, s.rows)) {
        if (s.accumulate)
            card_zero(t->gpu, t->output, output_row(s) * static_cast<size_t>(s.rows));
        TRY(cublas_product(t->products, &s, t->input, t->weight, t->output));
        TRY(compare(t, 0, s.rows, equal));
        if (s.rows >= 2 * PATTERN_ROWS) // the last whole pattern
            TRY(compare(t, (s.rows / PATTERN_ROWS - 1) * PATTERN_ROWS, PATTERN_ROWS, equal));
    }
    return STATUS_OK;
}

} // namespace

status measure_rows(card *gpu, cublas *products, int *shapes, int *equal) {
    *shapes = *equal = 0;
    for (int i = 0; i < cublas_count(products); i++) {
        const cublas_shape shape = *cublas_prepared(products, i);
        if (shape.kind != CUBLAS_FORWARD || next_below(products, shape, INT64_MAX).rows != shape.rows)
            continue;
        trial t = {gpu, products, shape, nullptr, nullptr, nullptr, {}, {}};
        bool holds = false;
        const status result = allocate(&t) == STATUS_OK ? try_shape(&t, &holds) : card_check(gpu);
        release(t);
        TRY(result);
        ++*shapes;
        *equal += holds;
    }
    return STATUS_OK;
}

} // namespace cuda_kernels
