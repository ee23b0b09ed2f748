// Matrix products by cuBLASLt: the ceiling, and those of the medium configuration.
#include "tests/gpu/bench.cuh"

#include <cstdio>

namespace bench {

namespace {

const char *name_of(cublas_kind kind) {
    return kind == CUBLAS_FORWARD         ? "product_forward"
           : kind == CUBLAS_BACKWARD_DATA ? "product_backward_data"
                                          : "product_backward_weight";
}

template <typename T>
kernel_case product(const char *name, const cublas_shape &shape, ceiling limit, cublas *products) {
    const double m = static_cast<double>(shape.rows), n = static_cast<double>(shape.outputs),
                 k = static_cast<double>(shape.inputs);
    kernel_case c = {name,
                     storage_of<T>,
                     {{"rows", shape.rows}, {"outputs", shape.outputs}, {"inputs", shape.inputs}},
                     limit,
                     limit == ceiling::COPY ? sizeof(T) * (m * n + m * k + n * k) : 2.0 * m * n * k,
                     limit == ceiling::COPY ? "both factors read, the result written"
                                            : "2 x rows x outputs x inputs operations",
                     nullptr};
    if (shape.tuned_rows > 0)
        c.shape.push_back({"tuned_rows", shape.tuned_rows});
    c.prepare = [=](memory &memory) -> work {
        const int64_t left = shape.rows * (shape.kind == CUBLAS_FORWARD ? shape.inputs : shape.outputs),
                      right =
                          shape.inputs * (shape.kind == CUBLAS_BACKWARD_WEIGHT ? shape.rows : shape.outputs),
                      result = shape.kind == CUBLAS_FORWARD         ? shape.rows * shape.outputs
                               : shape.kind == CUBLAS_BACKWARD_DATA ? shape.rows * shape.inputs
                                                                    : shape.outputs * shape.inputs;
        const T *x = memory.random<T>(left), *y = memory.random<T>(right);
        T *out = memory.empty<T>(result);
        return [=](cudaStream_t) { // the products have the card's own stream
            if (cublas_product(products, &shape, x, y, out) == STATUS_OK)
                return cudaSuccess;
            fprintf(stderr, "%s\n", status_message());
            return cudaErrorNotSupported;
        };
    };
    return c;
}

template <typename T>
void add_learner_products(cases *to, cublas_kind kind, int64_t rows, int64_t outputs, int64_t inputs,
                          cublas *products) {
    const cublas_type type = sizeof(T) == 2 ? CUBLAS_TYPE_BF16 : CUBLAS_TYPE_F32;
    to->push_back(product<T>(name_of(kind), {kind, rows, outputs, inputs, type, type, false, 0},
                             sizeof(T) == 2 ? ceiling::MATRIX : ceiling::MATRIX_TF32, products));
}

} // namespace

kernel_case square_product(int64_t size, const char *storage, cublas *products) {
    const cublas_type type = storage[0] == 'b' ? CUBLAS_TYPE_BF16 : CUBLAS_TYPE_F32;
    const cublas_shape shape = {CUBLAS_FORWARD, size, size, size, type, type, false, 0};
    return type == CUBLAS_TYPE_BF16 ? product<bf16>("product", shape, ceiling::MATRIX, products)
                                    : product<float>("product", shape, ceiling::MATRIX_TF32, products);
}

void add_product_cases(cases *to, const sizes &s, cublas *products) {
    const int64_t rows = s.attention_rows, wide[][2] = {{3 * s.width, s.width},
                                                        {s.width, s.width},
                                                        {2 * s.feed_forward, s.width},
                                                        {s.width, s.feed_forward}};
    for (const auto &[outputs, inputs] : wide) {
        for (cublas_kind kind : {CUBLAS_FORWARD, CUBLAS_BACKWARD_DATA, CUBLAS_BACKWARD_WEIGHT})
            add_learner_products<bf16>(to, kind, rows, outputs, inputs, products);
        add_learner_products<float>(to, CUBLAS_FORWARD, rows, outputs, inputs, products);
    }
    // One decoded position, with the algorithm of its number of rows and with one for all numbers.
    for (const auto &[outputs, inputs] : wide)
        for (int64_t tuned : {int64_t{0}, int64_t{CUBLAS_TUNED_ROWS}})
            to->push_back(product<bf16>("product_decode",
                                        {CUBLAS_FORWARD, s.decode_batch, outputs, inputs, CUBLAS_TYPE_BF16,
                                         CUBLAS_TYPE_BF16, false, tuned},
                                        ceiling::COPY, products));
}

} // namespace bench
