// Principal components by subspace iteration (Golub and Van Loan, "Matrix computations", section 8.2).
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// vectors: [count, width]; mean: [width] receives their mean; basis: [dimension, width] receives orthonormal
// rows that span the directions of largest variance, dimension <= width. At most about 8 000 evenly spaced
// vectors are looked at. Independent of the number of threads.
status principal_components(const float *vectors, size_t count, size_t width, uint32_t dimension,
                            uint64_t seed, float *mean, float *basis);
