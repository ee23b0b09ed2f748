// Matrix products on the card by cuBLASLt, which is opened at run time, so that a machine without it starts
// and says so. Row-major, shapes as in kernels/product.h. An algorithm is chosen once for each shape, among
// those that add up every element in one piece, or, for gradients of weights, in pieces whose sums are then
// added in their order; and then kept: the same shape gives the same bits.
#pragma once

#include "kernels/cuda/card.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum cublas_type {
    CUBLAS_TYPE_F32 = 0,
    CUBLAS_TYPE_BF16 = 14,
} cublas_type;

typedef enum cublas_kind {
    CUBLAS_FORWARD,         // y [rows, outputs] = x [rows, inputs] W^T, W [outputs, inputs]
    CUBLAS_BACKWARD_DATA,   // dx [rows, inputs] = dy [rows, outputs] W
    CUBLAS_BACKWARD_WEIGHT, // dw [outputs, inputs] = dy^T x
} cublas_kind;

typedef struct cublas_shape {
    cublas_kind kind;
    int64_t rows, outputs, inputs;
    cublas_type factors, result; // sums are f32; f32 factors enter the tensor cores as TF32
    bool accumulate;             // add to the result, in the same call
    // The algorithm is chosen for so many rows, whatever `rows` is; 0: for `rows`. With one number for all,
    // rows around it do not decide how a row is added up.
    int64_t tuned_rows;
} cublas_shape;

// What products with one order for every number of rows are tuned for.
enum { CUBLAS_TUNED_ROWS = 4096 };

typedef struct cublas cublas;
// path: of libcublasLt, NULL: MUSICRL_CUBLASLT where it is set, else the system's. The card must outlive it.
status cublas_open(cublas **out, card *card, const char *path);
void cublas_close(cublas *cublas);                     // NULL is allowed
const char *cublas_version_text(const cublas *cublas); // "13.0.2"

// Chooses the algorithm, so that later calls allocate nothing.
status cublas_prepare(cublas *cublas, const cublas_shape *shape);
// What was prepared so far, by number.
int cublas_count(const cublas *cublas);
const cublas_shape *cublas_prepared(const cublas *cublas, int i);

// Left and right factor as the kind names them: (x, W), (dy, W), (dy, x). Device buffers, aligned to 16
// bytes.
status cublas_product(cublas *cublas, const cublas_shape *shape, const void *left, const void *right,
                      void *result);
