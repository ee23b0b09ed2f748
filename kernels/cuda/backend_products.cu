// Weights and their products on the card, by cuBLASLt.
#include "kernels/cuda/backend_parts.cuh"
#include "kernels/cuda/rows.cuh"

extern "C" {
#include "kernels/memory.h"
}

namespace cuda_kernels {

static cublas_shape shape_of(const weight *w, cublas_kind kind, int64_t rows, bool accumulate) {
    cublas_shape s = {};
    s.kind = kind;
    s.rows = rows;
    s.outputs = w->outputs;
    s.inputs = w->inputs;
    s.factors = w->precision == WEIGHT_BF16 ? CUBLAS_TYPE_BF16 : CUBLAS_TYPE_F32;
    s.result = CUBLAS_TYPE_F32;
    s.accumulate = accumulate;
    s.tuned_rows = w->owner->one_order && kind == CUBLAS_FORWARD ? CUBLAS_TUNED_ROWS : 0;
    return s;
}

// Of a product that gives activations.
static cublas_shape shape_of_block(const weight *w, cublas_kind kind, int64_t rows) {
    cublas_shape s = shape_of(w, kind, rows, false);
    s.result = w->owner->bf16 ? CUBLAS_TYPE_BF16 : CUBLAS_TYPE_F32;
    return s;
}

size_t cuda_weight_bytes(const weight *w) {
    return static_cast<size_t>(w->outputs * w->inputs) *
           (w->precision == WEIGHT_BF16 ? sizeof(bf16) : sizeof(float));
}

void cuda_weight_destroy(weight *w) {
    card_free(w->owner->gpu, w->values);
    memory_free(w);
}

status cuda_weight_create(weight **out, device *d, int64_t outputs, int64_t inputs, weight_use,
                          weight_precision precision) {
    *out = nullptr;
    void *memory;
    TRY(memory_allocate(&memory, sizeof(weight), "weight"));
    weight *w = static_cast<weight *>(memory);
    *w = {d, outputs, inputs, d->bf16 ? WEIGHT_BF16 : precision, nullptr};
    const status result = card_allocate(d->gpu, &w->values, cuda_weight_bytes(w), "weights");
    if (result != STATUS_OK)
        cuda_weight_destroy(w);
    else
        *out = w;
    return result;
}

status cuda_weight_pack(weight *w, const float *plain) {
    device *d = w->owner;
    if (w->precision == WEIGHT_BF16)
        note(d, round_to_bf16(stream_of(d), w->outputs * w->inputs, plain, static_cast<bf16 *>(w->values)),
             "rounding weights");
    else
        note(d,
             copy_rows<float>(stream_of(d), w->outputs, w->inputs, plain, w->inputs,
                              static_cast<float *>(w->values), w->inputs, false),
             "copying weights");
    return card_check(d->gpu);
}

static status grow_rounded(device *d, int which, int64_t rows, int64_t width) {
    return grow(d, &d->rounded[which].at, &d->rounded[which].bytes,
                sizeof(bf16) * static_cast<size_t>(rows * width), "factors rounded to bf16");
}

// What a product multiplies: x [rows, width] itself, or its rounded values where the weight is bf16. which: 0
// for inputs, 1 for gradients of outputs.
static status factor_of(const weight *w, int which, int64_t rows, int64_t width, const float *x,
                        const void **out) {
    device *d = w->owner;
    *out = x;
    if (w->precision == WEIGHT_F32)
        return STATUS_OK;
    TRY(grow_rounded(d, which, rows, width));
    *out = d->rounded[which].at;
    note(d, round_to_bf16(stream_of(d), rows * width, x, static_cast<bf16 *>(d->rounded[which].at)),
         "rounding factors");
    return STATUS_OK;
}

status cuda_weight_prepare(weight *w, int64_t rows, bool backward) {
    if (w->precision == WEIGHT_BF16)
        TRY(grow_rounded(w->owner, 0, rows, w->inputs));
    if (w->precision == WEIGHT_BF16 && backward)
        TRY(grow_rounded(w->owner, 1, rows, w->outputs));
    for (int accumulate = 0; accumulate < 2; accumulate++)
        for (int kind = CUBLAS_FORWARD; kind <= (backward ? CUBLAS_BACKWARD_WEIGHT : CUBLAS_FORWARD);
             kind++) {
            const cublas_shape s = shape_of(w, static_cast<cublas_kind>(kind), rows, accumulate == 1);
            TRY(cublas_prepare(w->owner->products, &s));
        }
    return STATUS_OK;
}

status cuda_product_forward(weight *w, int64_t rows, const float *x, float *y, bool accumulate) {
    const cublas_shape s = shape_of(w, CUBLAS_FORWARD, rows, accumulate);
    const void *input;
    TRY(factor_of(w, 0, rows, w->inputs, x, &input));
    return cublas_product(w->owner->products, &s, input, w->values, y);
}

status cuda_product_backward_data(weight *w, int64_t rows, const float *dy, float *dx, bool accumulate) {
    const cublas_shape s = shape_of(w, CUBLAS_BACKWARD_DATA, rows, accumulate);
    const void *gradient;
    TRY(factor_of(w, 1, rows, w->outputs, dy, &gradient));
    return cublas_product(w->owner->products, &s, gradient, w->values, dx);
}

status cuda_product_backward_weight(weight *w, int64_t rows, const float *x, const float *dy, float *dw,
                                    bool accumulate) {
    const cublas_shape s = shape_of(w, CUBLAS_BACKWARD_WEIGHT, rows, accumulate);
    const void *input, *gradient;
    TRY(factor_of(w, 0, rows, w->inputs, x, &input));
    TRY(factor_of(w, 1, rows, w->outputs, dy, &gradient));
    return cublas_product(w->owner->products, &s, gradient, input, dw);
}

// Activations enter as they are stored; only f32 that meets a weight in bf16 is rounded.
static status block_factor(const weight *w, int which, int64_t rows, int64_t width, const activation *x,
                           const void **out) {
    *out = x;
    return w->owner->bf16 ? STATUS_OK : factor_of(w, which, rows, width, stored<float>(x), out);
}

status cuda_weight_prepare_block(weight *w, int64_t rows, bool backward) {
    if (!w->owner->bf16)
        return cuda_weight_prepare(w, rows, backward);
    const cublas_shape shapes[] = {
        shape_of_block(w, CUBLAS_FORWARD, rows), shape_of(w, CUBLAS_FORWARD, rows, true),
        shape_of_block(w, CUBLAS_BACKWARD_DATA, rows), shape_of(w, CUBLAS_BACKWARD_WEIGHT, rows, true)};
    for (const cublas_shape &s : shapes)
        if (backward || s.kind == CUBLAS_FORWARD)
            TRY(cublas_prepare(w->owner->products, &s));
    return STATUS_OK;
}

status cuda_block_product(weight *w, int64_t rows, const activation *x, activation *y) {
    const cublas_shape s = shape_of_block(w, CUBLAS_FORWARD, rows);
    const void *input;
    TRY(block_factor(w, 0, rows, w->inputs, x, &input));
    return cublas_product(w->owner->products, &s, input, w->values, y);
}

status cuda_block_product_add(weight *w, int64_t rows, const activation *x, float *y) {
    const cublas_shape s = shape_of(w, CUBLAS_FORWARD, rows, true);
    const void *input;
    TRY(block_factor(w, 0, rows, w->inputs, x, &input));
    return cublas_product(w->owner->products, &s, input, w->values, y);
}

status cuda_block_backward_data(weight *w, int64_t rows, const activation *dy, activation *dx) {
    const cublas_shape s = shape_of_block(w, CUBLAS_BACKWARD_DATA, rows);
    const void *gradient;
    TRY(block_factor(w, 1, rows, w->outputs, dy, &gradient));
    return cublas_product(w->owner->products, &s, gradient, w->values, dx);
}

status cuda_block_backward_weight(weight *w, int64_t rows, const activation *x, const activation *dy,
                                  float *dw) {
    const cublas_shape s = shape_of(w, CUBLAS_BACKWARD_WEIGHT, rows, true);
    const void *input, *gradient;
    TRY(block_factor(w, 0, rows, w->inputs, x, &input));
    TRY(block_factor(w, 1, rows, w->outputs, dy, &gradient));
    return cublas_product(w->owner->products, &s, gradient, input, dw);
}

} // namespace cuda_kernels
