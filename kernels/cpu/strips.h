// Weights packed in strips for the forward products of vector_strips.c. Where a row of oneDNN's product does
// not depend on its batch, they serve products of few rows, in which they are faster, and only where they
// give the same bits. Where it does (AVX2), they serve all products, whose bits do not depend on the number
// of threads either.
#pragma once

#include "kernels/cpu/vector.h"
#include "kernels/product.h"

// Where the values of a weight lie.
typedef struct strip_stream {
    char *values;  // [pairs][words][2][16] words of 4 bytes; NULL: not in use
    int64_t pairs; // of strips, the last one filled up with zeros
    int64_t words; // of a row; a word is one f32 or two bf16 inputs
    int64_t parts; // of outputs, each of which is shared out among the threads
} strip_stream;

typedef struct strip_weight {
    strip_stream stream, following; // of the product that came after this one last time
    size_t bytes;
    int64_t outputs;
    int64_t chunk; // words after which oneDNN starts a new sum
    weight_precision precision;
} strip_weight;

// The pair with which a thread begins; it goes on to the next thread's, in every part.
static inline int64_t strips_first(const strip_stream *stream, int thread, int threads) {
    return stream->pairs / stream->parts * thread / threads;
}

static inline const char *strips_at(const strip_stream *stream, int64_t pair) {
    return stream->values + pair * stream->words * (2 * VECTOR_LANES * (int64_t)sizeof(float));
}

// How long the chains of sums must be so that products of this shape have oneDNN's bits, found out by trial
// on random numbers, once for each shape of a device; 0: no length makes them equal, or the instructions are
// missing. Where strips serve all products there is nobody to agree with, and sums are in one piece.
status strips_find_chunk(device *device, int64_t outputs, int64_t inputs, weight_precision precision,
                         int64_t *chunk);

status strips_create(strip_weight *weight, device *device, int64_t outputs, int64_t inputs,
                     weight_precision precision, int64_t chunk);
void strips_release(strip_weight *weight, device *device);
void strips_pack(strip_weight *weight, device *device, const float *plain); // plain: [outputs, inputs]
// The weight serves dx = dy W: plain is [inputs, outputs] of this weight. f32 alone.
void strips_pack_transposed(strip_weight *weight, const float *plain);

// Makes room for products of so many rows.
status strips_prepare(const strip_weight *weight, device *device, int64_t rows);
// y [rows, outputs] = x W^T, or +=, after strips_prepare. x: [rows, inputs] f32, or rounded to bf16 already.
void strips_multiply(strip_weight *weight, device *device, int64_t rows, const void *x, float *y,
                     bool accumulate);

// dw [outputs, inputs] = dy^T x, or +=, for any number of rows of x [rows, inputs] and dy [rows, outputs].
status strips_gradient_prepare(device *device, int64_t outputs, int64_t inputs);
void strips_gradient(device *device, int64_t outputs, int64_t inputs, int64_t rows, const float *x,
                     const float *dy, float *dw, bool accumulate);

// One thread's share of strips_multiply, with the outputs in `parts` equal parts, which must be whole
// pairs. follow: where this thread will read next.
void strips_multiply_share(const strip_weight *weight, const device *device, int thread, int threads,
                           int64_t parts, int64_t rows, const void *x, float *y, bool accumulate,
                           const void *follow);

// Of a weight that was made for few rows; NULL if it was not, or if oneDNN serves it.
strip_weight *weight_strips(weight *weight);
