// Operators on pooled vectors: value heads, pooling over time, normalisation, the contrastive loss.
#include "kernels/cpu/device_cpu.h"
#include "kernels/operators.h"

#include <math.h>
#include <string.h>

void cpu_op_row_dot(device *d, int64_t rows, int64_t width, const float *x, const float *vector,
                    const float *bias, float *out) {
    const vector_operators *v = d->vector;
    const float added = bias != NULL ? bias[0] : 0.0f;
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++)
        out[row] = v->dot((size_t)width, x + row * width, vector) + added;
}

void cpu_op_row_dot_backward(device *d, int64_t rows, int64_t width, const float *x, const float *vector,
                             const float *dout, float *dx, float *dvector, float *dbias) {
    (void)d;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < width; i++)
            dx[row * width + i] = dout[row] * vector[i];
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < width; first += COLUMN_CHUNK) {
        int64_t last = first + COLUMN_CHUNK < width ? first + COLUMN_CHUNK : width;
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = first; i < last; i++)
                dvector[i] += dout[row] * x[row * width + i];
    }
    if (dbias == NULL)
        return;
    float sum = 0.0f;
    for (int64_t row = 0; row < rows; row++)
        sum += dout[row];
    dbias[0] += sum;
}

void cpu_op_mean_pool(device *d, int batch, int sequence, int64_t width, const int32_t *lengths,
                      const float *x, float *out) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < batch; b++) {
        const int length = lengths != NULL ? lengths[b] : sequence;
        float *to = out + b * width;
        memset(to, 0, sizeof(float) * (size_t)width);
        for (int s = 0; s < length; s++)
            v->add((size_t)width, x + ((int64_t)b * sequence + s) * width, to);
        v->scale((size_t)width, 1.0f / (float)length, to);
    }
}

void cpu_op_mean_pool_backward(device *d, int batch, int sequence, int64_t width, const int32_t *lengths,
                               const float *dout, float *dx) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < batch; b++) {
        const int length = lengths != NULL ? lengths[b] : sequence;
        for (int s = 0; s < sequence; s++) {
            float *to = dx + ((int64_t)b * sequence + s) * width;
            memset(to, 0, sizeof(float) * (size_t)width);
            if (s < length)
                v->multiply_add_to((size_t)width, 1.0f / (float)length, dout + b * width, to);
        }
    }
}

// x [sequence, channels] less its mean over the sequence; mean: [channels], overwritten.
static void centre(const vector_operators *v, int sequence, size_t channels, float *x, float *mean) {
    memset(mean, 0, sizeof(float) * channels);
    for (int t = 0; t < sequence; t++)
        v->add(channels, x + (size_t)t * channels, mean);
    for (int t = 0; t < sequence; t++)
        v->multiply_add_to(channels, -1.0f / (float)sequence, mean, x + (size_t)t * channels);
}

static void multiply_add_rows(int64_t channels, const float *a, const float *b, float *sum) {
    for (int64_t c = 0; c < channels; c++)
        sum[c] += a[c] * b[c];
}

void cpu_op_autocorrelation(device *d, int batch, int sequence, int64_t channels, int lags, float epsilon,
                            float *x, float *out, float *inverse_energies) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < batch; b++) {
        float *at = x + (int64_t)b * sequence * channels, *to = out + (int64_t)b * lags * channels,
              *inverse = inverse_energies + b * channels;
        centre(v, sequence, (size_t)channels, at, inverse);
        memset(inverse, 0, sizeof(float) * (size_t)channels);
        memset(to, 0, sizeof(float) * (size_t)(lags * channels));
        for (int t = 0; t < sequence; t++) {
            multiply_add_rows(channels, at + t * channels, at + t * channels, inverse);
            for (int lag = 1; lag <= lags && t + lag < sequence; lag++)
                multiply_add_rows(channels, at + t * channels, at + (t + lag) * channels,
                                  to + (lag - 1) * channels);
        }
        for (int64_t c = 0; c < channels; c++)
            inverse[c] = 1.0f / (inverse[c] + (float)sequence * epsilon);
        for (int lag = 0; lag < lags; lag++)
            for (int64_t c = 0; c < channels; c++)
                to[lag * channels + c] *= inverse[c];
    }
}

// With e the energy and r_l = s_l / e: d r_l / d x_t = (x_{t + l} + x_{t - l} - 2 r_l x_t) / e.
void cpu_op_autocorrelation_backward(device *d, int batch, int sequence, int64_t channels, int lags,
                                     const float *x, const float *out, const float *inverse_energies,
                                     const float *dout, float *dx, float *scratch) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < batch; b++) {
        const float *at = x + (int64_t)b * sequence * channels, *r = out + (int64_t)b * lags * channels,
                    *dr = dout + (int64_t)b * lags * channels, *inverse = inverse_energies + b * channels;
        float *to = dx + (int64_t)b * sequence * channels, *row = scratch + b * channels;
        memset(row, 0, sizeof(float) * (size_t)channels); // sum over lags of dr r
        for (int lag = 0; lag < lags; lag++)
            multiply_add_rows(channels, dr + lag * channels, r + lag * channels, row);
        for (int t = 0; t < sequence; t++)
            for (int64_t c = 0; c < channels; c++)
                to[t * channels + c] = -2.0f * row[c] * at[t * channels + c];
        for (int lag = 1; lag <= lags; lag++)
            for (int t = 0; t + lag < sequence; t++) {
                multiply_add_rows(channels, dr + (lag - 1) * channels, at + (t + lag) * channels,
                                  to + t * channels);
                multiply_add_rows(channels, dr + (lag - 1) * channels, at + t * channels,
                                  to + (t + lag) * channels);
            }
        for (int t = 0; t < sequence; t++)
            for (int64_t c = 0; c < channels; c++)
                to[t * channels + c] *= inverse[c];
        centre(v, sequence, (size_t)channels, to, row);
    }
}

// mean: [channels], overwritten by the mean of x [sequence, channels].
static void mean_over_time(const vector_operators *v, int sequence, size_t channels, const float *x,
                           float *mean) {
    memset(mean, 0, sizeof(float) * channels);
    for (int t = 0; t < sequence; t++)
        v->add(channels, x + (size_t)t * channels, mean);
    v->scale(channels, 1.0f / (float)sequence, mean);
}

static void add_squared_differences(int64_t channels, const float *a, const float *b, float *sum) {
    for (int64_t c = 0; c < channels; c++)
        sum[c] += (a[c] - b[c]) * (a[c] - b[c]);
}

void cpu_op_time_variation(device *d, int batch, int sequence, int64_t channels, float scale, float epsilon,
                           const float *x, float *out) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int b = 0; b < batch; b++) {
        const float *at = x + (int64_t)b * sequence * channels;
        float *around = out + (int64_t)b * 2 * channels, *along = around + channels;
        mean_over_time(v, sequence, (size_t)channels, at, along); // the mean's place until `along` is summed
        memset(around, 0, sizeof(float) * (size_t)channels);
        for (int t = 0; t < sequence; t++)
            add_squared_differences(channels, at + t * channels, along, around);
        memset(along, 0, sizeof(float) * (size_t)channels);
        for (int t = 0; t + 1 < sequence; t++)
            add_squared_differences(channels, at + (t + 1) * channels, at + t * channels, along);
        for (int64_t c = 0; c < channels; c++) {
            around[c] = logf(scale / (float)sequence * around[c] + epsilon);
            along[c] = logf(scale / (float)(sequence - 1) * along[c] + epsilon);
        }
    }
}

// d log(scale * v + epsilon) / d x_t = 2 scale e^{-out} times (x_t - mean) / T, the mean's own share summing
// to nothing, and times (2 x_t - x_{t - 1} - x_{t + 1}) / (T - 1), at the ends the one difference there is.
void cpu_op_time_variation_backward(device *d, int batch, int sequence, int64_t channels, float scale,
                                    const float *x, const float *out, const float *dout, float *dx) {
#pragma omp parallel for schedule(static)
    for (int b = 0; b < batch; b++) {
        const float *at = x + (int64_t)b * sequence * channels, *around = out + (int64_t)b * 2 * channels,
                    *d_around = dout + (int64_t)b * 2 * channels;
        float *to = dx + (int64_t)b * sequence * channels;
        for (int64_t c = 0; c < channels; c++) {
            const float weight = 2.0f * scale / (float)sequence * d_around[c] * expf(-around[c]);
            const float step =
                2.0f * scale / (float)(sequence - 1) * d_around[channels + c] * expf(-around[channels + c]);
            float mean = 0.0f;
            for (int t = 0; t < sequence; t++)
                mean += at[t * channels + c];
            mean /= (float)sequence;
            for (int t = 0; t < sequence; t++) {
                const float own = at[t * channels + c];
                float bend = t > 0 ? own - at[(t - 1) * channels + c] : 0.0f;
                bend += t + 1 < sequence ? own - at[(t + 1) * channels + c] : 0.0f;
                to[t * channels + c] += weight * (own - mean) + step * bend;
            }
        }
    }
    (void)d;
}

void cpu_op_normalize_rows(device *d, int64_t rows, int64_t width, const float *x, float *out,
                           float *inverse_norms) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++) {
        float norm = sqrtf(v->dot((size_t)width, x + row * width, x + row * width));
        inverse_norms[row] = 1.0f / (norm > 1e-12f ? norm : 1e-12f);
        memcpy(out + row * width, x + row * width, sizeof(float) * (size_t)width);
        v->scale((size_t)width, inverse_norms[row], out + row * width);
    }
}

void cpu_op_normalize_rows_backward(device *d, int64_t rows, int64_t width, const float *out,
                                    const float *inverse_norms, const float *dout, float *dx) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++) {
        float along = v->dot((size_t)width, out + row * width, dout + row * width);
        for (int64_t i = 0; i < width; i++)
            dx[row * width + i] = (dout[row * width + i] - along * out[row * width + i]) * inverse_norms[row];
    }
}

// One direction: row r of `a` should pick row r of `b`. Leaves the gradient with respect to the similarities,
// halved for the mean of two directions, in `gradient` [rows, rows], and returns the summed cross-entropy.
static double one_direction(device *d, int64_t rows, int64_t width, const float *a, const float *b,
                            float scale, float *gradient, float *similarity_dot_gradient) {
    const vector_operators *v = d->vector;
    double total = 0.0, dot = 0.0;
    for (int64_t r = 0; r < rows; r++) {
        float *row = gradient + r * rows;
        float top = -INFINITY;
        for (int64_t c = 0; c < rows; c++) {
            row[c] = v->dot((size_t)width, a + r * width, b + c * width);
            top = row[c] > top ? row[c] : top;
        }
        double sum = 0.0;
        for (int64_t c = 0; c < rows; c++)
            sum += exp((double)(scale * (row[c] - top)));
        total += log(sum) - (double)(scale * (row[r] - top));
        for (int64_t c = 0; c < rows; c++) {
            double p = exp((double)(scale * (row[c] - top))) / sum - (c == r ? 1.0 : 0.0);
            p /= 2.0 * (double)rows;
            dot += p * (double)row[c];
            row[c] = (float)p;
        }
    }
    *similarity_dot_gradient += (float)dot;
    return total;
}

double cpu_op_contrastive_loss(device *d, int64_t rows, int64_t width, const float *a, const float *b,
                               float scale, float *da, float *db, float *dscale, float *scratch) {
    const vector_operators *v = d->vector;
    float *forward = scratch, *backward = scratch + rows * rows;
    *dscale = 0.0f;
    double loss = one_direction(d, rows, width, a, b, scale, forward, dscale);
    loss += one_direction(d, rows, width, b, a, scale, backward, dscale);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        memset(da + r * width, 0, sizeof(float) * (size_t)width);
        memset(db + r * width, 0, sizeof(float) * (size_t)width);
        for (int64_t c = 0; c < rows; c++) {
            v->multiply_add_to((size_t)width, scale * (forward[r * rows + c] + backward[c * rows + r]),
                               b + c * width, da + r * width);
            v->multiply_add_to((size_t)width, scale * (forward[c * rows + r] + backward[r * rows + c]),
                               a + c * width, db + r * width);
        }
    }
    return loss / (2.0 * (double)rows);
}
