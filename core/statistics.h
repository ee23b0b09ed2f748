// Numbers about sets of samples.
#pragma once

#include <stddef.h>

// Diversity of a set: the mean over all pairs of 1 - cos of their vectors; 0 for fewer than two. Vector i
// starts at vectors + i * stride and has `width` numbers. Added in index order.
double statistics_diversity(const double *vectors, size_t stride, size_t count, size_t width);
