#include "core/linear_fit.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 400 };

// The lower triangle of a symmetric positive definite matrix [n, n] becomes its factor (Cholesky). False if
// it is not positive definite.
static bool factorise(double *matrix, size_t n) {
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
    return true;
}

// right [n] becomes the solution for a factor.
static void substitute(const double *factor, double *right, size_t n) {
    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < j; i++)
            right[j] -= factor[j * n + i] * right[i];
        right[j] /= factor[j * n + j];
    }
    for (size_t j = n; j-- > 0;) {
        for (size_t i = j + 1; i < n; i++)
            right[j] -= factor[i * n + j] * right[i];
        right[j] /= factor[j * n + j];
    }
}

// What both fits share: rows (of features, or of differences of them) with outcomes.
typedef struct problem {
    const fit_options *options;
    size_t count, width;
    float *rows;        // [count, width]
    double *outcome;    // [count]
    double *importance; // [count]
    double *scale;      // [width] what the penalty of each weight is multiplied by
    bool logistic;      // else least squares
    double *moments;    // [folds, width, width] lower triangles of sum of importance * row row^T, by fold
    double *factor;     // [width, width]
    double *step;       // [width]
} problem;

static int fold_of(const problem *p, size_t i) {
    return p->options->folds > 0 ? p->options->fold[i] : 0;
}

static void destroy(problem *p) {
    memory_free(p->rows);
    memory_free(p->outcome);
    memory_free(p->importance);
    memory_free(p->scale);
    memory_free(p->moments);
    memory_free(p->factor);
    memory_free(p->step);
}

static status create(problem *p, size_t count, size_t width, const fit_options *options, bool logistic) {
    *p = (problem){.options = options, .count = count, .width = width, .logistic = logistic};
    const size_t square = width * width, folds = options->folds > 0 ? (size_t)options->folds : 1;
    TRY(memory_allocate((void **)&p->rows, sizeof(float) * count * width, "fit rows"));
    TRY(memory_allocate((void **)&p->outcome, sizeof(double) * count, "fit outcomes"));
    TRY(memory_allocate((void **)&p->importance, sizeof(double) * count, "fit importances"));
    TRY(memory_allocate((void **)&p->scale, sizeof(double) * width, "feature scales"));
    TRY(memory_allocate((void **)&p->moments, sizeof(double) * folds * square, "second moments"));
    TRY(memory_allocate((void **)&p->factor, sizeof(double) * square, "second moments"));
    return memory_allocate((void **)&p->step, sizeof(double) * width, "fit step");
}

// Each row of the matrices is added up by one thread.
static void add_moments(problem *p) {
    const size_t n = p->width;
#pragma omp parallel for schedule(static, 1)
    for (size_t j = 0; j < n; j++)
        for (size_t i = 0; i < p->count; i++) {
            double *to = p->moments + ((size_t)fold_of(p, i) * n + j) * n;
            const float *row = p->rows + i * n;
            const double factor = p->importance[i] * (double)row[j];
            for (size_t k = 0; k <= j; k++)
                to[k] += factor * (double)row[k];
        }
}

static double predict(const problem *p, const double *weights, size_t i) {
    double sum = 0.0;
    for (size_t j = 0; j < p->width; j++)
        sum += weights[j] * (double)p->rows[i * p->width + j];
    return sum;
}

// Loss of the rows of one fold, a sum.
static double loss_of(const problem *p, const double *weights, int fold) {
    double loss = 0.0;
    for (size_t i = 0; i < p->count; i++) {
        if (fold_of(p, i) != fold)
            continue;
        const double found = predict(p, weights, i), outcome = p->outcome[i];
        if (p->logistic) {
            const double size = fabs(found), rest = log1p(exp(-size)); // softplus(-|found|)
            loss += p->importance[i] * (outcome * (rest + (found < 0.0 ? size : 0.0)) +
                                        (1.0 - outcome) * (rest + (found > 0.0 ? size : 0.0)));
        } else {
            loss += p->importance[i] * (found - outcome) * (found - outcome);
        }
    }
    return loss;
}

// Fits all rows but those of fold `left_out` (-1: none) from the weights given.
static status minimise(problem *p, double ridge, int left_out, double *weights) {
    const size_t n = p->width, folds = p->options->folds > 0 ? (size_t)p->options->folds : 1;
    const double curvature = p->logistic ? 0.25 : 1.0;
    double total = 0.0;
    for (size_t i = 0; i < p->count; i++)
        total += fold_of(p, i) != left_out ? p->importance[i] : 0.0;
    if (!(total > 0.0))
        return FAIL("all rows of a linear fit are in one fold; give more captions");
    memset(p->factor, 0, sizeof(double) * n * n);
    for (size_t f = 0; f < folds; f++)
        for (size_t i = 0; (int)f != left_out && i < n * n; i++)
            p->factor[i] += curvature / total * p->moments[f * n * n + i];
    for (size_t j = 0; j < n; j++)
        p->factor[j * n + j] += ridge * p->scale[j];
    if (!factorise(p->factor, n))
        return FAIL("a linear fit of %zu rows has no single minimum; use a larger reward.fit_ridge",
                    p->count);
    for (int round = 0; round < (p->logistic ? STEPS_MAX : 1); round++) {
        for (size_t j = 0; j < n; j++)
            p->step[j] = p->logistic ? ridge * p->scale[j] * weights[j] : 0.0;
        for (size_t i = 0; i < p->count; i++) {
            if (fold_of(p, i) == left_out)
                continue;
            const double found = p->logistic ? 1.0 / (1.0 + exp(-predict(p, weights, i))) : 0.0;
            const double slope = p->importance[i] / total * (found - p->outcome[i]);
            for (size_t j = 0; j < n; j++)
                p->step[j] += slope * (double)p->rows[i * n + j];
        }
        substitute(p->factor, p->step, n);
        double moved = 0.0, size = 0.0;
        for (size_t j = 0; j < n; j++) {
            weights[j] = (p->logistic ? weights[j] : 0.0) - p->step[j];
            moved += p->scale[j] * p->step[j] * p->step[j];
            size += p->scale[j] * weights[j] * weights[j];
        }
        if (moved < 1e-10 * size)
            break;
    }
    return STATUS_OK;
}

static status choose_and_fit(problem *p, double *weights, double *chosen) {
    const fit_options *o = p->options;
    double best = o->ridges[0], lowest = INFINITY;
    add_moments(p);
    for (int r = 0; r < o->ridge_count && o->folds > 1; r++) {
        double loss = 0.0;
        for (int fold = 0; fold < o->folds; fold++) {
            memset(weights, 0, sizeof(double) * p->width);
            TRY(minimise(p, o->ridges[r], fold, weights));
            loss += loss_of(p, weights, fold);
        }
        if (loss < lowest) {
            lowest = loss;
            best = o->ridges[r];
        }
    }
    if (chosen != NULL)
        *chosen = best;
    memset(weights, 0, sizeof(double) * p->width);
    return minimise(p, best, -1, weights);
}

// Votes on the same two rows.
typedef struct comparison {
    int a, b; // a < b
    int fold;
    float won, votes; // by a; in all
} comparison;

static int by_rows(const void *left, const void *right) {
    const comparison *l = left, *r = right;
    return l->a != r->a ? (l->a > r->a) - (l->a < r->a) : (l->b > r->b) - (l->b < r->b);
}

// to [count] receives one comparison for all votes on the same two rows; returns how many there are. The
// sums, of halves, are exact in any order.
static size_t merge(const fit_pair *pairs, size_t count, const fit_options *options, comparison *to) {
    for (size_t i = 0; i < count; i++) {
        const fit_pair *p = &pairs[i];
        const int fold = options->folds > 0 ? options->fold[i] : 0;
        to[i] = p->a < p->b ? (comparison){p->a, p->b, fold, p->outcome, 1.0f}
                            : (comparison){p->b, p->a, fold, 1.0f - p->outcome, 1.0f};
    }
    qsort(to, count, sizeof *to, by_rows);
    size_t merged = 0;
    for (size_t i = 1; i < count; i++)
        if (by_rows(&to[merged], &to[i]) == 0) {
            to[merged].won += to[i].won;
            to[merged].votes += to[i].votes;
        } else {
            to[++merged] = to[i];
        }
    return merged + 1;
}

status fit_preference(const float *x, size_t width, const fit_pair *pairs, size_t count,
                      const fit_options *options, double *weights, double *ridge) {
    if (count == 0)
        return FAIL("there are no pairs to fit a preference on");
    problem p = {0};
    fit_options merged_options = *options;
    comparison *merged = NULL;
    int *fold = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&merged, sizeof *merged * count, "comparisons"), done);
    const size_t rows = merge(pairs, count, options, merged);
    TRY_GOTO(result, memory_allocate((void **)&fold, sizeof *fold * rows, "comparisons"), done);
    merged_options.fold = fold;
    TRY_GOTO(result, create(&p, rows, width, &merged_options, true), done);
    for (size_t i = 0; i < rows; i++) {
        const comparison *c = &merged[i];
        fold[i] = c->fold;
        p.outcome[i] = (double)(c->won / c->votes);
        p.importance[i] = (double)c->votes;
        for (size_t j = 0; j < width; j++) {
            const float d = x[(size_t)c->a * width + j] - x[(size_t)c->b * width + j];
            p.rows[i * width + j] = d;
            p.scale[j] += p.importance[i] * (double)d * (double)d / (double)count;
        }
    }
    for (size_t j = 0; j < width; j++) // a feature that never differs keeps its weight at 0
        p.scale[j] = p.scale[j] > 1e-12 ? p.scale[j] : 1.0;
    TRY_GOTO(result, choose_and_fit(&p, weights, ridge), done);
done:
    destroy(&p);
    memory_free(merged);
    memory_free(fold);
    return result;
}

// The features are centred, and the constant is one more of them, without a penalty.
status fit_scores(const float *x, size_t width, const float *targets, const float *importances, size_t rows,
                  const fit_options *options, double *weights, double *ridge) {
    if (rows == 0)
        return FAIL("there are no scores to fit a regression on");
    problem p;
    double *mean = NULL, total = 0.0;
    status result;
    TRY_GOTO(result, create(&p, rows, width + 1, options, false), done);
    TRY_GOTO(result, memory_allocate((void **)&mean, sizeof(double) * (width + 1), "feature means"), done);
    for (size_t i = 0; i < rows; i++)
        total += (double)importances[i];
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < width; j++)
            mean[j] += (double)importances[i] / total * (double)x[i * width + j];
    for (size_t i = 0; i < rows; i++) {
        p.outcome[i] = (double)targets[i];
        p.importance[i] = (double)importances[i];
        p.rows[i * (width + 1) + width] = 1.0f;
        for (size_t j = 0; j < width; j++) {
            const double off = (double)x[i * width + j] - mean[j];
            p.rows[i * (width + 1) + j] = (float)off;
            p.scale[j] += p.importance[i] / total * off * off;
        }
    }
    for (size_t j = 0; j < width; j++)
        p.scale[j] = p.scale[j] > 1e-12 ? p.scale[j] : 1.0;
    TRY_GOTO(result, choose_and_fit(&p, weights, ridge), done);
    for (size_t j = 0; j < width; j++)
        weights[width] -= weights[j] * mean[j];
done:
    destroy(&p);
    memory_free(mean);
    return result;
}
