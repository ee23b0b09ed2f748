#include "core/linear_fit.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { NEWTON_STEPS = 20 };

// Solves matrix [n, n] z = right [n] in place for a symmetric positive definite matrix, whose lower triangle
// is overwritten by its factor (Cholesky). False if it is not positive definite.
static bool solve(double *matrix, double *right, size_t n) {
    for (size_t j = 0; j < n; j++) {
        double *row = matrix + j * n;
        for (size_t k = 0; k < j; k++) {
            double sum = row[k];
            for (size_t i = 0; i < k; i++)
                sum -= row[i] * matrix[k * n + i];
            row[k] = sum / matrix[k * n + k];
        }
        double square = row[j];
        for (size_t i = 0; i < j; i++)
            square -= row[i] * row[i];
        if (!(square > 0.0))
            return false;
        row[j] = sqrt(square);
    }
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < j; i++)
            right[j] -= matrix[j * n + i] * right[i];
        right[j] /= matrix[j * n + j];
    }
    for (size_t j = n; j-- > 0;) {
        for (size_t i = j + 1; i < n; i++)
            right[j] -= matrix[i * n + j] * right[i];
        right[j] /= matrix[j * n + j];
    }
    return true;
}

// matrix [n, n], lower triangle: sum over rows of importance * x x^T; each of its rows is added up by one
// thread.
static void outer_products(const float *x, const double *importance, size_t rows, size_t n, double *matrix) {
#pragma omp parallel for schedule(static, 1)
    for (size_t j = 0; j < n; j++) {
        double *to = matrix + j * n;
        memset(to, 0, sizeof(double) * n);
        for (size_t i = 0; i < rows; i++) {
            const float *row = x + i * n;
            const double factor = importance[i] * (double)row[j];
            for (size_t k = 0; k <= j; k++)
                to[k] += factor * (double)row[k];
        }
    }
}

typedef struct preference_fit {
    const fit_pair *pairs;
    size_t count, width;
    float *difference;  // [count, width]
    double *importance; // [count]
    double *scale;      // [width]
    double ridge;
} preference_fit;

// Objective at `weights`; importance becomes p (1 - p), and gradient [width] what it says if it is not NULL.
static double objective(const preference_fit *f, const double *weights, double *gradient) {
    const double share = 1.0 / (double)f->count;
    double loss = 0.0;
    if (gradient != NULL)
        memset(gradient, 0, sizeof(double) * f->width);
    for (size_t i = 0; i < f->count; i++) {
        const float *x = f->difference + i * f->width;
        double d = 0.0;
        for (size_t j = 0; j < f->width; j++)
            d += weights[j] * (double)x[j];
        const double outcome = (double)f->pairs[i].outcome, p = 1.0 / (1.0 + exp(-d));
        const double size = fabs(d), rest = log1p(exp(-size)); // softplus(-|d|)
        loss += share * (outcome * (rest + (d < 0.0 ? size : 0.0)) +
                         (1.0 - outcome) * (rest + (d > 0.0 ? size : 0.0)));
        if (gradient == NULL)
            continue;
        f->importance[i] = share * p * (1.0 - p);
        for (size_t j = 0; j < f->width; j++)
            gradient[j] += share * (p - outcome) * (double)x[j];
    }
    for (size_t j = 0; j < f->width; j++) {
        loss += 0.5 * f->ridge * f->scale[j] * weights[j] * weights[j];
        if (gradient != NULL)
            gradient[j] += f->ridge * f->scale[j] * weights[j];
    }
    return loss;
}

// Newton's method with steps that are halved until the objective falls.
static status minimise(preference_fit *f, double *weights, double *matrix, double *step, double *trial) {
    const size_t n = f->width;
    double loss = objective(f, weights, step);
    for (int round = 0; round < NEWTON_STEPS; round++) {
        outer_products(f->difference, f->importance, f->count, n, matrix);
        for (size_t j = 0; j < n; j++)
            matrix[j * n + j] += f->ridge * f->scale[j];
        if (!solve(matrix, step, n))
            return FAIL("the linear fit of %zu pairs has no single minimum; use a larger reward.fit_ridge",
                        f->count);
        double length = 1.0, next = INFINITY;
        while (length > 1e-3) {
            for (size_t j = 0; j < n; j++)
                trial[j] = weights[j] - length * step[j];
            next = objective(f, trial, NULL);
            if (next <= loss)
                break;
            length *= 0.5;
        }
        if (!(next < loss))
            return STATUS_OK;
        memcpy(weights, trial, sizeof(double) * n);
        const bool done = loss - next < 1e-7 * loss;
        loss = next;
        if (done)
            return STATUS_OK;
        objective(f, weights, step);
    }
    return STATUS_OK;
}

status fit_preference(const float *x, size_t width, const fit_pair *pairs, size_t count, double ridge,
                      double *weights) {
    if (count == 0)
        return FAIL("there are no pairs to fit a preference on");
    preference_fit f = {.pairs = pairs, .count = count, .width = width, .ridge = ridge};
    double *matrix = NULL, *step = NULL, *trial = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&f.difference, sizeof(float) * count * width, "differences"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&f.importance, sizeof(double) * count, "importances"), done);
    TRY_GOTO(result, memory_allocate((void **)&f.scale, sizeof(double) * width, "feature scales"), done);
    TRY_GOTO(result, memory_allocate((void **)&matrix, sizeof(double) * width * width, "second moments"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&step, sizeof(double) * width, "fit step"), done);
    TRY_GOTO(result, memory_allocate((void **)&trial, sizeof(double) * width, "fit step"), done);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < width; j++) {
            const float d = x[(size_t)pairs[i].a * width + j] - x[(size_t)pairs[i].b * width + j];
            f.difference[i * width + j] = d;
            f.scale[j] += (double)d * (double)d / (double)count;
        }
    for (size_t j = 0; j < width; j++) // a feature that never differs keeps its weight at 0
        f.scale[j] = f.scale[j] > 1e-12 ? f.scale[j] : 1.0;
    TRY_GOTO(result, minimise(&f, weights, matrix, step, trial), done);
done:
    memory_free(f.difference);
    memory_free(f.importance);
    memory_free(f.scale);
    memory_free(matrix);
    memory_free(step);
    memory_free(trial);
    return result;
}

status fit_scores(const float *x, size_t width, const float *targets, const float *importances, size_t rows,
                  double ridge, double *weights) {
    if (rows == 0)
        return FAIL("there are no scores to fit a regression on");
    float *centred = NULL;
    double *importance = NULL, *matrix = NULL, *mean = NULL, total = 0.0, target = 0.0;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&centred, sizeof(float) * rows * width, "centred features"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&importance, sizeof(double) * rows, "importances"), done);
    TRY_GOTO(result, memory_allocate((void **)&matrix, sizeof(double) * width * width, "second moments"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&mean, sizeof(double) * width, "feature means"), done);
    for (size_t i = 0; i < rows; i++)
        total += (double)importances[i];
    for (size_t i = 0; i < rows; i++) {
        importance[i] = (double)importances[i] / total;
        target += importance[i] * (double)targets[i];
        for (size_t j = 0; j < width; j++)
            mean[j] += importance[i] * (double)x[i * width + j];
    }
    memset(weights, 0, sizeof(double) * (width + 1));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < width; j++) {
            centred[i * width + j] = (float)((double)x[i * width + j] - mean[j]);
            weights[j] += importance[i] * (double)centred[i * width + j] * ((double)targets[i] - target);
        }
    outer_products(centred, importance, rows, width, matrix);
    for (size_t j = 0; j < width; j++) {
        const double variance = matrix[j * width + j];
        matrix[j * width + j] += ridge * (variance > 1e-12 ? variance : 1.0);
    }
    if (!solve(matrix, weights, width)) {
        result =
            FAIL("the linear fit of %zu scores has no single minimum; use a larger reward.fit_ridge", rows);
        goto done;
    }
    weights[width] = target;
    for (size_t j = 0; j < width; j++)
        weights[width] -= weights[j] * mean[j];
done:
    memory_free(centred);
    memory_free(importance);
    memory_free(matrix);
    memory_free(mean);
    return result;
}
