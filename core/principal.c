#include "core/principal.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { SAMPLE_VECTORS = 8000, SUBSPACE_ITERATIONS = 16, PURPOSE = 0x50434131 };

// covariance: [width, width]
static void fill_covariance(const float *vectors, size_t count, size_t width, const float *mean,
                            double *covariance) {
    size_t step = count / SAMPLE_VECTORS + 1, kept = (count + step - 1) / step;
#pragma omp parallel for schedule(dynamic)
    for (size_t row = 0; row < width; row++) {
        double *out = covariance + row * width;
        for (size_t i = 0; i < count; i += step) {
            const float *vector = vectors + i * width;
            double here = (double)(vector[row] - mean[row]) / (double)kept;
            for (size_t column = 0; column < width; column++)
                out[column] += here * (vector[column] - mean[column]);
        }
    }
}

// Makes the rows of `basis` [dimension, width] orthonormal, in their order.
static void orthonormalise(double *basis, uint32_t dimension, size_t width) {
    for (uint32_t row = 0; row < dimension; row++) {
        double *vector = basis + row * width;
        for (uint32_t other = 0; other < row; other++) {
            const double *unit = basis + other * width;
            double along = 0;
            for (size_t d = 0; d < width; d++)
                along += vector[d] * unit[d];
            for (size_t d = 0; d < width; d++)
                vector[d] -= along * unit[d];
        }
        double norm = 0;
        for (size_t d = 0; d < width; d++)
            norm += vector[d] * vector[d];
        double scale = 1.0 / sqrt(norm);
        for (size_t d = 0; d < width; d++)
            vector[d] *= scale;
    }
}

status principal_components(const float *vectors, size_t count, size_t width, uint32_t dimension,
                            uint64_t seed, float *mean, float *basis) {
    if (dimension > width || count == 0)
        return FAIL("%u principal components of %zu vectors of %zu values were asked for", dimension, count,
                    width);
    size_t covariance_bytes = width * width * sizeof(double),
           basis_bytes = dimension * width * sizeof(double);
    arena sizes = {0};
    arena_take(&sizes, covariance_bytes);
    arena_take(&sizes, basis_bytes);
    arena_take(&sizes, basis_bytes);
    void *block;
    TRY(memory_allocate(&block, sizes.used, "covariance"));
    arena views = {.base = block, .capacity = sizes.used};
    double *covariance = arena_take(&views, covariance_bytes);
    double *now = arena_take(&views, basis_bytes), *next = arena_take(&views, basis_bytes);
    for (size_t d = 0; d < width; d++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++)
            sum += vectors[i * width + d];
        mean[d] = (float)(sum / (double)count);
    }
    fill_covariance(vectors, count, width, mean, covariance);
    double trace = 0;
    for (size_t d = 0; d < width; d++)
        trace += covariance[d * width + d];
    // A multiple of the identity turns no eigenvector and keeps the rows apart where there is no variance.
    double shift = 1e-9 * trace / (double)width + 1e-12;
    philox_stream random = {.key = seed, .purpose = PURPOSE};
    for (size_t i = 0; i < dimension * width; i++)
        now[i] = (double)philox_next_uniform(&random) - 0.5;
    orthonormalise(now, dimension, width);
    for (int iteration = 0; iteration < SUBSPACE_ITERATIONS; iteration++) {
#pragma omp parallel for schedule(static)
        for (uint32_t row = 0; row < dimension; row++) {
            const double *from = now + row * width;
            double *to = next + row * width;
            for (size_t d = 0; d < width; d++)
                to[d] = shift * from[d];
            for (size_t k = 0; k < width; k++) {
                for (size_t d = 0; d < width; d++)
                    to[d] += from[k] * covariance[k * width + d];
            }
        }
        orthonormalise(next, dimension, width);
        double *swap = now;
        now = next;
        next = swap;
    }
    for (size_t i = 0; i < dimension * width; i++)
        basis[i] = (float)now[i];
    memory_free(block);
    return STATUS_OK;
}
