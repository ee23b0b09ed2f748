// Linear models in closed form or nearly so: the heads of reward models before they are trained, and
// the linear baselines. Sums are taken in one fixed order, whatever the thread count.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

// A comparison of two rows; outcome: 1 if a won, 0 if b did, 0.5 for a tie.
typedef struct fit_pair {
    int a, b;
    float outcome;
} fit_pair;

// A row, or a pair, belongs to a fold: whole captions do, so that a fit is judged on captions that it has not
// seen. The penalty is the one among `ridges` [ridge_count] whose fits to all folds but one predict the rows
// of the one best; the weights are then fitted to all rows.
typedef struct fit_options {
    const int *fold; // [pairs or rows], 0 .. folds - 1
    int folds;       // 0: no folds, the first penalty is taken
    const double *ridges;
    int ridge_count;
} fit_options;

// Utilities u = w . x under the model of Bradley and Terry, P(a beats b) = 1 / (1 + e^{u_b - u_a}): minimises
//     mean over pairs of the negative log-likelihood + ridge / 2 * sum_j s_j w_j^2,
// s_j being the mean square of feature j's difference over the pairs. Newton's method with the curvature
// replaced by its bound, p (1 - p) <= 1/4, which is one matrix for all steps, penalties and folds (Bohning
// and Lindsay, "Monotonicity of quadratic-approximation algorithms", 1988). x: [rows, width]; pairs: [count];
// weights: [width]. *ridge: the penalty chosen, may be NULL. Votes on the same two rows are added up first:
// time and memory follow the number of different pairs. Fails if there are no pairs.
status fit_preference(const float *x, size_t width, const fit_pair *pairs, size_t count,
                      const fit_options *options, double *weights, double *ridge);

// Ridge regression of targets [rows] with importances [rows] on x [rows, width] and a constant: weights
// [width + 1], the constant last. The penalty is ridge times the variance of each feature; the constant has
// none. Fails if there are no rows.
status fit_scores(const float *x, size_t width, const float *targets, const float *importances, size_t rows,
                  const fit_options *options, double *weights, double *ridge);
