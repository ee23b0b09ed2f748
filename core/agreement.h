// How well predictions agree with what was observed.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

// Spearman's rank correlation (Spearman, "The proof and measurement of association between two things",
// 1904): Pearson's correlation of the ranks, ties sharing the mean of theirs. x, y: [count] without NaN. NaN
// in *out if one of them is constant or there are fewer than two.
status spearman_correlation(const double *x, const double *y, size_t count, double *out);

// One bar of a reliability diagram: means of the predictions in it and of what came true.
typedef struct calibration_bin {
    double predicted, observed;
    size_t count;
} calibration_bin;

enum { CALIBRATION_BINS = 10 };
// Sorts predictions into bins of equal count, in ascending order: bins [CALIBRATION_BINS]; *bin_count says
// how many hold something. predicted, observed: [count] without NaN.
status calibration_bins(const double *predicted, const double *observed, size_t count, calibration_bin *bins,
                        int *bin_count);
// The mean over predictions of |mean predicted - mean observed| of their bin: of probabilities and outcomes 0
// and 1 the expected calibration error (Guo et al., "On calibration of modern neural networks", 2017), of
// ratings the calibration error of a regressor. 0 of no predictions.
double calibration_error(const calibration_bin *bins, int bin_count);
