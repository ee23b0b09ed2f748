// Weights packed for products of few rows (vector_few_rows.c), for processors that have the instructions.
// They take the place of oneDNN's copy only where they give the same bits.
#pragma once

#include "kernels/product.h"

// Where the values of a weight lie.
typedef struct few_rows_stream {
    char *values;  // [pairs][words][2][16] words of 4 bytes; NULL: not in use
    int64_t pairs; // of strips, the last one filled up with zeros
    int64_t words; // of a row; a word is one f32 or two bf16 inputs
} few_rows_stream;

typedef struct few_rows_weight {
    few_rows_stream stream, following; // of the product that came after this one last time
    size_t bytes;
    int64_t outputs;
    int64_t chunk; // words after which oneDNN starts a new sum
    weight_precision precision;
} few_rows_weight;

// How long the chains of sums must be so that products of this shape have oneDNN's bits, found out by trial
// on random numbers, once for each shape of a device; 0: no length makes them equal, or the instructions are
// missing.
status few_rows_find_chunk(device *device, int64_t outputs, int64_t inputs, weight_precision precision,
                           int64_t *chunk);

status few_rows_create(few_rows_weight *weight, device *device, int64_t outputs, int64_t inputs,
                       weight_precision precision, int64_t chunk);
void few_rows_release(few_rows_weight *weight, device *device);
void few_rows_pack(few_rows_weight *weight, device *device, const float *plain); // plain: [outputs, inputs]

// y [rows, outputs] = x W^T, or +=. x: [rows, inputs] f32, or rounded to bf16 already.
void few_rows_multiply(few_rows_weight *weight, device *device, int64_t rows, const void *x, float *y,
                       bool accumulate);
