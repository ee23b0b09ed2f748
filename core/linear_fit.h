// Linear models in closed form or by Newton's method: the heads of reward models before they are trained, and
// the linear baselines. Sums are taken in one fixed order, whatever the thread count.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

// A comparison of two rows; outcome: 1 if a won, 0 if b did, 0.5 for a tie.
typedef struct fit_pair {
    int a, b;
    float outcome;
} fit_pair;

// Utilities u = w . x under the model of Bradley and Terry, P(a beats b) = 1 / (1 + e^{u_b - u_a}): minimises
//     mean over pairs of the negative log-likelihood + ridge / 2 * sum_j s_j w_j^2,
// s_j being the mean square of feature j's difference over the pairs, by Newton's method. x: [rows, width];
// pairs: [count]; weights: [width], the start when called, the minimum on return. Fails if there are no
// pairs.
status fit_preference(const float *x, size_t width, const fit_pair *pairs, size_t count, double ridge,
                      double *weights);

// Ridge regression of targets [rows] with importances [rows] on x [rows, width] and a constant: weights
// [width + 1], the constant last. The penalty is ridge times the variance of each feature; the constant has
// none. Fails if there are no rows.
status fit_scores(const float *x, size_t width, const float *targets, const float *importances, size_t rows,
                  double ridge, double *weights);
