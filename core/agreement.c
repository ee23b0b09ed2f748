#include "core/agreement.h"

#include "core/significance.h"
#include "kernels/memory.h"

#include <math.h>
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

double calibration_error(const double *predicted, const double *observed, size_t count, double low,
                         double high, int bins, calibration_bin *out) {
    memset(out, 0, sizeof *out * (size_t)bins);
    for (size_t i = 0; i < count; i++) {
        const double place = floor((predicted[i] - low) / (high - low) * bins);
        calibration_bin *bin = &out[place < 0.0 ? 0 : place >= bins ? bins - 1 : (int)place];
        bin->predicted += predicted[i];
        bin->observed += observed[i];
        bin->count++;
    }
    double error = 0.0;
    for (int i = 0; i < bins; i++) {
        if (out[i].count == 0)
            continue;
        error += fabs(out[i].predicted - out[i].observed) / (double)count;
        out[i].predicted /= (double)out[i].count;
        out[i].observed /= (double)out[i].count;
    }
    return error;
}
