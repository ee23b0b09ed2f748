// One position of a batch through a whole stack of transformer blocks, as sampling does it.
#pragma once

#include "kernels/operators.h"
#include "kernels/product.h"

typedef struct decode_layer {
    const float *norm1, *norm2; // [width] gains
    weight *qkv, *out, *gate_up, *down;
    activation *keys, *values; // as op_attention_decode has them
} decode_layer;

// Rows are the samples of the batch, capacity.batch.
typedef struct decode_stack {
    attention_shape capacity; // of the caches
    int layers, feed_forward;
    float epsilon;              // of the normalisations
    const decode_layer *layer;  // [layers]
    const float *norm;          // [width] gain of the last normalisation
    float *x;                   // [rows, width] input; left as the last block's output
    float *output;              // [rows, width] x, normalised
    activation *normed;         // [rows, width]
    activation *qkv, *attended; // [rows, 3 * width], [rows, width]
    activation *gate_up;        // [rows, 2 * feed_forward]
    activation *activated;      // [rows, feed_forward]
    float *attention_scratch;   // attention_scratch_floats
    void *scratch;              // decode_scratch_bytes
    const int32_t *offset;      // [1] on the device, added to the position; NULL: 0
} decode_stack;

// Runs the position through all blocks. The same bits as op_rms_norm, block_product, op_attention_decode and
// op_swiglu one after another.
status op_decode(device *device, const decode_stack *stack, int position);
// Only capacity and feed_forward are looked at; enough for smaller batches too.
size_t decode_scratch_bytes(const device *device, const decode_stack *stack);
