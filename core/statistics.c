#include "core/statistics.h"

#include <math.h>

// The pairs' cosines add up to (|sum of unit vectors|^2 - sum of |unit vector|^2) / 2.
double statistics_diversity(const double *vectors, size_t stride, size_t count, size_t width) {
    if (count < 2)
        return 0.0;
    double along = 0.0, own = 0.0;
    for (size_t d = 0; d < width; d++) {
        double sum = 0.0;
        for (size_t i = 0; i < count; i++) {
            const double *vector = vectors + i * stride;
            double squares = 0.0;
            for (size_t k = 0; k < width; k++)
                squares += vector[k] * vector[k];
            const double unit = vector[d] / sqrt(squares > 1e-24 ? squares : 1e-24);
            sum += unit;
            own += unit * unit;
        }
        along += sum * sum;
    }
    return 1.0 - (along - own) / ((double)count * (double)(count - 1));
}
