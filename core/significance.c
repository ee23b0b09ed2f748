#include "core/significance.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdlib.h>

enum { PURPOSE_BOOTSTRAP = 0x424F4F54u };

mean_error mean_with_error(const double *values, size_t count) {
    mean_error out = {0};
    for (size_t i = 0; i < count; i++)
        out.mean += values[i] / (double)count;
    double squares = 0.0;
    for (size_t i = 0; i < count; i++)
        squares += (values[i] - out.mean) * (values[i] - out.mean);
    if (count > 1)
        out.error = sqrt(squares / (double)(count - 1) / (double)count);
    return out;
}

typedef struct placed {
    double value;
    size_t index;
} placed;

static int by_value(const void *left, const void *right) {
    const placed *a = left, *b = right;
    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

// *ties, if wanted, receives the sum of t^3 - t over the groups of t equal values.
static status rank_counting_ties(const double *values, size_t count, double *ranks, double *ties) {
    placed *sorted;
    TRY(memory_allocate((void **)&sorted, sizeof *sorted * (count + 1), "values in order"));
    for (size_t i = 0; i < count; i++)
        sorted[i] = (placed){values[i], i};
    qsort(sorted, count, sizeof *sorted, by_value);
    if (ties != NULL)
        *ties = 0.0;
    for (size_t first = 0, end; first < count; first = end) {
        for (end = first + 1; end < count && sorted[end].value == sorted[first].value;)
            end++;
        const double equal = (double)(end - first);
        for (size_t i = first; i < end; i++)
            ranks[sorted[i].index] = ((double)first + 1.0 + (double)end) / 2.0;
        if (ties != NULL)
            *ties += equal * equal * equal - equal;
    }
    memory_free(sorted);
    return STATUS_OK;
}

status rank_values(const double *values, size_t count, double *ranks) {
    return rank_counting_ties(values, count, ranks, NULL);
}

// P(sum of a random subset of 1..count <= sum), by counting subsets.
static double exact_tail(size_t count, double sum) {
    double ways[WILCOXON_EXACT_MAX * (WILCOXON_EXACT_MAX + 1) / 2 + 1] = {1.0};
    size_t largest = 0;
    for (size_t rank = 1; rank <= count; rank++) {
        largest += rank;
        for (size_t s = largest; s >= rank; s--)
            ways[s] += ways[s - rank];
    }
    double tail = 0.0;
    for (size_t s = 0; s <= largest && (double)s <= sum; s++)
        tail += ways[s];
    return ldexp(tail, -(int)count);
}

status wilcoxon_signed_rank(const double *differences, size_t count, wilcoxon_outcome *out) {
    *out = (wilcoxon_outcome){.p = 1.0};
    double *sizes, *ranks = NULL, ties;
    TRY(memory_allocate((void **)&sizes, sizeof(double) * (count + 1), "differences"));
    status result;
    TRY_GOTO(result, memory_allocate((void **)&ranks, sizeof(double) * (count + 1), "ranks"), done);
    for (size_t i = 0; i < count; i++)
        if (differences[i] != 0.0)
            sizes[out->used++] = fabs(differences[i]);
    TRY_GOTO(result, rank_counting_ties(sizes, out->used, ranks, &ties), done);
    for (size_t i = 0, at = 0; i < count; i++) {
        if (differences[i] > 0.0)
            out->plus += ranks[at];
        if (differences[i] < 0.0)
            out->minus += ranks[at];
        at += differences[i] != 0.0;
    }
    if (out->used == 0)
        goto done;
    const double n = (double)out->used;
    const double variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    out->z = (out->plus - n * (n + 1.0) / 4.0) / sqrt(variance);
    out->exact = out->used <= WILCOXON_EXACT_MAX && ties == 0.0;
    out->p = out->exact ? fmin(1.0, 2.0 * exact_tail(out->used, fmin(out->plus, out->minus)))
                        : erfc(fabs(out->z) / sqrt(2.0));
done:
    memory_free(sizes);
    memory_free(ranks);
    return result;
}

static int by_size(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

// Quantile of sorted values by linear interpolation between the two next to position q (count - 1).
static double quantile(const double *sorted, size_t count, double q) {
    const double position = q * (double)(count - 1);
    const size_t below = (size_t)position;
    const double part = position - (double)below;
    return below + 1 < count ? sorted[below] + part * (sorted[below + 1] - sorted[below]) : sorted[below];
}

status bootstrap_interval(bootstrap_statistic statistic, void *context, size_t units, size_t resamples,
                          double level, uint64_t seed, interval *out) {
    if (units == 0 || units > UINT32_MAX || resamples == 0 || resamples > UINT32_MAX ||
        !(level > 0.0 && level < 1.0))
        return FAIL("a bootstrap interval of %zu units, %zu draws and level %g is undefined; wanted are one "
                    "or more units and draws and a level between 0 and 1",
                    units, resamples, level);
    size_t *drawn, defined = 0;
    double *values = NULL;
    TRY(memory_allocate((void **)&drawn, sizeof(size_t) * units, "bootstrap draw"));
    status result;
    TRY_GOTO(result, memory_allocate((void **)&values, sizeof(double) * resamples, "bootstrap values"), done);
    for (size_t i = 0; i < units; i++)
        drawn[i] = i;
    out->mean = statistic(context, drawn, units);
    for (size_t r = 0; r < resamples; r++) {
        philox_block block = {{0}};
        for (size_t i = 0; i < units; i++) {
            if (i % 4 == 0)
                block = philox(seed, (uint32_t)(i / 4), (uint32_t)r, 0, PURPOSE_BOOTSTRAP);
            drawn[i] = (size_t)(((uint64_t)block.word[i % 4] * units) >> 32);
        }
        const double value = statistic(context, drawn, units);
        if (!isnan(value))
            values[defined++] = value;
    }
    qsort(values, defined, sizeof(double), by_size);
    out->low = defined > 0 ? quantile(values, defined, (1.0 - level) / 2.0) : NAN;
    out->high = defined > 0 ? quantile(values, defined, (1.0 + level) / 2.0) : NAN;
done:
    memory_free(drawn);
    memory_free(values);
    return result;
}

static double mean_of_drawn(void *context, const size_t *drawn, size_t units) {
    const double *values = context;
    double sum = 0.0;
    for (size_t i = 0; i < units; i++)
        sum += values[drawn[i]];
    return sum / (double)units;
}

status bootstrap_mean(const double *values, size_t units, size_t resamples, double level, uint64_t seed,
                      interval *out) {
    return bootstrap_interval(mean_of_drawn, (void *)values, units, resamples, level, seed, out);
}
