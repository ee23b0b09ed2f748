// How well predictions agree with what was observed.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

// Spearman's rank correlation (Spearman, "The proof and measurement of association between two things",
// 1904): Pearson's correlation of the ranks, ties sharing the mean of theirs. x, y: [count] without NaN. NaN
// in *out if one of them is constant or there are fewer than two.
status spearman_correlation(const double *x, const double *y, size_t count, double *out);

// One bar of a reliability diagram; predicted and observed are means, 0 where count is.
typedef struct calibration_bin {
    double predicted, observed;
    size_t count;
} calibration_bin;

// Sorts predictions into `bins` equal bins of [low, high] (values outside go into the nearest) and returns
// the mean over predictions of |mean predicted - mean observed| of their bin: over [0, 1], with outcomes 0
// and 1, the expected calibration error (Guo et al., "On calibration of modern neural networks", 2017); over
// a rating scale, the calibration error of a regressor. predicted, observed: [count] without NaN; out:
// [bins]. 0 of no predictions.
double calibration_error(const double *predicted, const double *observed, size_t count, double low,
                         double high, int bins, calibration_bin *out);
