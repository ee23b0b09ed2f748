// Whether the products of cuBLASLt give a row the same bits whatever the number of rows around it, and
// wherever it stands: measured, because nobody promises it.
#pragma once

extern "C" {
#include "kernels/cuda/card.h"
#include "kernels/cuda/product_cublas.h"
}

namespace cuda_kernels {

// Tries every forward product with every number of rows that it was prepared for. shapes: of weights, each
// counted once for every way in which its results are stored (f32, added to what is there, bf16); equal: of
// those for which it holds. One for which there is no memory counts as not equal.
status measure_rows(card *gpu, cublas *products, int *shapes, int *equal);

} // namespace cuda_kernels
