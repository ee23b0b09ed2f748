// Is a difference more than chance? Tests and intervals over independent units (prompts, captions).
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Mean of `count` values and its standard error (deviation with count - 1, over the root of count; 0 for
// fewer than two values). Added in index order.
typedef struct mean_error {
    double mean, error;
} mean_error;
mean_error mean_with_error(const double *values, size_t count);

// Ranks from 1, ties share the mean of their ranks. values: [count] without NaN; ranks: [count].
status rank_values(const double *values, size_t count, double *ranks);

// Wilcoxon's signed-rank test, two-sided: are paired differences symmetric about 0? (Wilcoxon, "Individual
// comparisons by ranking methods", 1945.) Differences of exactly 0 are dropped, as Wilcoxon did. Up to
// WILCOXON_EXACT_MAX remaining ones without ties the null distribution of the rank sum is counted out;
// otherwise it is taken as normal, with the variance corrected for ties (sum of t^3 - t over groups of t
// equal sizes, divided by 48) and no continuity correction.
enum { WILCOXON_EXACT_MAX = 50 };
typedef struct wilcoxon_outcome {
    double plus, minus; // rank sums of the positive and the negative differences
    size_t used;        // differences that are not 0
    double z;           // of `plus`; 0 if none is used
    double p;           // two-sided; 1 if none is used
    bool exact;
} wilcoxon_outcome;
status wilcoxon_signed_rank(const double *differences, size_t count, wilcoxon_outcome *out);

// A value with a two-sided interval.
typedef struct interval {
    double mean, low, high;
} interval;

// The percentile bootstrap (Efron, "Bootstrap methods: another look at the jackknife", 1979): `units` units
// are drawn with replacement `resamples` times, and the interval holds the middle `level` (0.95) of the
// statistic's values, with linear interpolation between them. `statistic` is given a list of unit numbers
// drawn [units] and may return NaN where the draw leaves it undefined: such draws are left out. out->mean is
// the statistic of the units as they are. Draw r of unit i is a function of seed, r and i alone. Needs one
// unit or more; where every draw is undefined, the interval is NaN.
typedef double (*bootstrap_statistic)(void *context, const size_t *drawn, size_t units);
status bootstrap_interval(bootstrap_statistic statistic, void *context, size_t units, size_t resamples,
                          double level, uint64_t seed, interval *out);

// The same for the mean of one number a unit. values: [units]
status bootstrap_mean(const double *values, size_t units, size_t resamples, double level, uint64_t seed,
                      interval *out);
