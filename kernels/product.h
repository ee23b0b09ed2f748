// Matrix products with prepacked weights. Row-major everywhere; a weight is [outputs, inputs] as in a linear
// layer's checkpoint. Every output element is reduced in one fixed order, whatever the number of rows around
// it and whatever the thread count.
#pragma once

#include "kernels/device.h"

typedef enum weight_precision {
    WEIGHT_F32,
    WEIGHT_BF16, // weights and inputs rounded to bf16, f32 accumulation; forward only
} weight_precision;

typedef enum weight_use {
    WEIGHT_SCORE, // forward products of many rows
    WEIGHT_LEARN, // forward and backward
    WEIGHT_SAMPLE // forward products of few rows: those of one position of a batch
} weight_use;

// A packed copy of one weight matrix (two copies if it also serves the backward pass). Whatever the use, a
// product's bits are the same.
typedef struct weight weight;

// The device must outlive the weight.
status weight_create(weight **out, device *device, int64_t outputs, int64_t inputs, weight_use use,
                     weight_precision precision);
void weight_destroy(weight *weight); // NULL is allowed
size_t weight_bytes(const weight *weight);

// Packs new values; plain: [outputs, inputs], not kept.
status weight_pack(weight *weight, const float *plain);

// Prepares the products for `rows` rows, so that later calls allocate nothing of ours. Called implicitly on
// first use.
status weight_prepare(weight *weight, int64_t rows, bool backward);

// y [rows, outputs] = x [rows, inputs] W^T, or += if accumulate.
status product_forward(weight *weight, int64_t rows, const float *x, float *y, bool accumulate);
// dx [rows, inputs] = dy [rows, outputs] W, or +=.
status product_backward_data(weight *weight, int64_t rows, const float *dy, float *dx, bool accumulate);
// dw [outputs, inputs] = dy^T [outputs, rows] x [rows, inputs], or +=. Uses only the shape of the weight.
status product_backward_weight(weight *weight, int64_t rows, const float *x, const float *dy, float *dw,
                               bool accumulate);

// The products of a transformer block, whose activations lie in the device's storage; prepared by
// weight_prepare_block. What leaves the block is added to the residual stream, which is f32, as are gradients
// of weights.
status weight_prepare_block(weight *weight, int64_t rows, bool backward);
// y = x W^T, and y += x W^T
status block_product(weight *weight, int64_t rows, const activation *x, activation *y);
status block_product_add(weight *weight, int64_t rows, const activation *x, float *y);
// dx = dy W, and dw += dy^T x
status block_backward_data(weight *weight, int64_t rows, const activation *dy, activation *dx);
status block_backward_weight(weight *weight, int64_t rows, const activation *x, const activation *dy,
                             float *dw);
