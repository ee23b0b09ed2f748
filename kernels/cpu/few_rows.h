// Weights packed for products of few rows (vector_few_rows.c), for processors that have the instructions.
// They take the place of oneDNN's copy only where they give the same bits.
#pragma once

#include "kernels/cpu/vector.h"
#include "kernels/product.h"

// Where the values of a weight lie.
typedef struct few_rows_stream {
    char *values;  // [pairs][words][2][16] words of 4 bytes; NULL: not in use
    int64_t pairs; // of strips, the last one filled up with zeros
    int64_t words; // of a row; a word is one f32 or two bf16 inputs
    int64_t parts; // of outputs, each of which is shared out among the threads
} few_rows_stream;

typedef struct few_rows_weight {
    few_rows_stream stream, following; // of the product that came after this one last time
    size_t bytes;
    int64_t outputs;
    int64_t chunk; // words after which oneDNN starts a new sum
    weight_precision precision;
} few_rows_weight;

// The pair with which a thread begins; it goes on to the next thread's, in every part.
static inline int64_t few_rows_first(const few_rows_stream *stream, int thread, int threads) {
    return stream->pairs / stream->parts * thread / threads;
}

static inline const char *few_rows_at(const few_rows_stream *stream, int64_t pair) {
    return stream->values + pair * stream->words * (2 * VECTOR_LANES * (int64_t)sizeof(float));
}

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

// One thread's share of few_rows_multiply, with the outputs in `parts` equal parts, which must be whole
// pairs. follow: where this thread will read next.
void few_rows_multiply_share(const few_rows_weight *weight, const device *device, int thread, int threads,
                             int64_t parts, int64_t rows, const void *x, float *y, bool accumulate,
                             const void *follow);

// Of a weight that was made for few rows; NULL if it was not, or if oneDNN serves it.
few_rows_weight *weight_few_rows(weight *weight);
