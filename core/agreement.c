#include "core/agreement.h"

#include "core/significance.h"
#include "kernels/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

status spearman_correlation(const double *x, const double *y, size_t count, double *out) {
    *out = NAN;
    double *ranks;
    TRY(memory_allocate((void **)&ranks, sizeof(double) * (2 * count + 1), "ranks"));
    double *a = ranks, *b = ranks + count;
    status result;
    TRY_GOTO(result, rank_values(x, count, a), done);
    TRY_GOTO(result, rank_values(y, count, b), done);
    const double middle = ((double)count + 1.0) / 2.0; // the mean rank, ties or not
    double together = 0.0, own_a = 0.0, own_b = 0.0;
    for (size_t i = 0; i < count; i++) {
        together += (a[i] - middle) * (b[i] - middle);
        own_a += (a[i] - middle) * (a[i] - middle);
        own_b += (b[i] - middle) * (b[i] - middle);
    }
    if (own_a > 0.0 && own_b > 0.0)
        *out = together / sqrt(own_a * own_b);
done:
    memory_free(ranks);
    return result;
}

typedef struct prediction {
    double predicted, observed;
} prediction;

static int by_prediction(const void *left, const void *right) {
    const prediction *a = left, *b = right;
    if (a->predicted != b->predicted)
        return a->predicted < b->predicted ? -1 : 1;
    return (a->observed > b->observed) - (a->observed < b->observed);
}

status calibration_bins(const double *predicted, const double *observed, size_t count, calibration_bin *bins,
                        int *bin_count) {
    prediction *list;
    TRY(memory_allocate((void **)&list, sizeof *list * (count + 1), "predictions"));
    for (size_t i = 0; i < count; i++)
        list[i] = (prediction){predicted[i], observed[i]};
    qsort(list, count, sizeof *list, by_prediction);
    *bin_count = 0;
    for (size_t b = 0; b < CALIBRATION_BINS; b++) {
        const size_t first = count * b / CALIBRATION_BINS, last = count * (b + 1) / CALIBRATION_BINS;
        if (first == last)
            continue;
        calibration_bin *bin = &bins[(*bin_count)++];
        *bin = (calibration_bin){.count = last - first};
        for (size_t i = first; i < last; i++) {
            bin->predicted += list[i].predicted / (double)bin->count;
            bin->observed += list[i].observed / (double)bin->count;
        }
    }
    memory_free(list);
    return STATUS_OK;
}

double calibration_error(const calibration_bin *bins, int bin_count) {
    double sum = 0.0, count = 0.0;
    for (int i = 0; i < bin_count; i++) {
        sum += (double)bins[i].count * fabs(bins[i].predicted - bins[i].observed);
        count += (double)bins[i].count;
    }
    return count > 0.0 ? sum / count : 0.0;
}
