#include "core/detector.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

// Rows of vectors of 8: the compiler keeps one register a lane, in a fixed order of additions.
enum { LANES = 8, BLOCK = 64 }; // BLOCK: columns of a factor made at a time, a multiple of 2 * LANES
typedef float lanes __attribute__((vector_size(4 * LANES), may_alias, aligned(4)));

static size_t round_up(size_t value, size_t to) {
    return (value + to - 1) / to * to;
}

void detector_standardise(const float *features, size_t count, size_t width, float *mean, float *scale) {
    for (size_t d = 0; d < width; d++) {
        double sum = 0.0, squares = 0.0;
        for (size_t i = 0; i < count; i++)
            sum += (double)features[i * width + d];
        const double middle = count > 0 ? sum / (double)count : 0.0;
        for (size_t i = 0; i < count; i++) {
            const double off = (double)features[i * width + d] - middle;
            squares += off * off;
        }
        const double deviation = count > 0 ? sqrt(squares / (double)count) : 0.0;
        mean[d] = (float)middle;
        scale[d] = deviation > 1e-6 ? (float)(1.0 / deviation) : 0.0f;
    }
}

void detector_apply_standard(const float *features, size_t width, const float *mean, const float *scale,
                             float *standard) {
    for (size_t d = 0; d < width; d++)
        standard[d] = fminf(fmaxf((features[d] - mean[d]) * scale[d], -DETECTOR_LIMIT), DETECTOR_LIMIT);
}

static void softmax(float *values, int classes) {
    float largest = values[0], sum = 0.0f;
    for (int k = 1; k < classes; k++)
        largest = fmaxf(largest, values[k]);
    for (int k = 0; k < classes; k++) {
        values[k] = expf(values[k] - largest);
        sum += values[k];
    }
    for (int k = 0; k < classes; k++)
        values[k] /= sum;
}

void detector_apply(const float *standard, size_t width, const float *weights, int classes, float *out) {
    memcpy(out, weights + width * (size_t)classes, sizeof(float) * (size_t)classes);
    for (size_t d = 0; d < width; d++)
        for (int k = 0; k < classes; k++)
            out[k] += standard[d] * weights[d * (size_t)classes + (size_t)k];
    softmax(out, classes);
}

static float dot(const float *a, const float *b, size_t count) { // count: a multiple of 2 * LANES
    lanes even = {0}, odd = {0};
    for (size_t i = 0; i < count; i += 2 * LANES) {
        even += *(const lanes *)(a + i) * *(const lanes *)(b + i);
        odd += *(const lanes *)(a + i + LANES) * *(const lanes *)(b + i + LANES);
    }
    even += odd;
    return ((even[0] + even[4]) + (even[2] + even[6])) + ((even[1] + even[5]) + (even[3] + even[7]));
}

// The shared part of a fit. Columns are features and a last one of ones, padded with zeros to `stride`.
typedef struct solver {
    size_t count, width, stride; // width: with the column of ones
    float *samples;              // [count, stride]
    float *factor;               // [width, stride] lower triangle L of L L^T = bound
    float *transposed;           // [width, stride] its transpose
    float penalty;
} solver;

// Columns first .. end - 1 of the factor, from those before them. Few parallel regions: rows below the
// diagonal block do not depend on each other.
static void factorise_block(solver *s, int64_t first, int64_t end) {
    const int64_t width = (int64_t)s->width;
    float *const factor = s->factor;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = first; i < width; i++) {
        float *row = factor + (size_t)i * s->stride;
        for (int64_t j = first; j < end && j <= i; j++)
            row[j] -= dot(row, factor + (size_t)j * s->stride, (size_t)first);
    }
    for (int64_t j = first; j < end; j++) {
        float *row = factor + (size_t)j * s->stride;
        for (int64_t k = first; k < j; k++) {
            for (int64_t m = first; m < k; m++)
                row[k] -= row[m] * factor[(size_t)k * s->stride + (size_t)m];
            row[k] /= factor[(size_t)k * s->stride + (size_t)k];
            row[j] -= row[k] * row[k];
        }
        row[j] = sqrtf(fmaxf(row[j], 1e-9f));
    }
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = end; i < width; i++) {
        float *row = factor + (size_t)i * s->stride;
        for (int64_t j = first; j < end; j++) {
            const float *above = factor + (size_t)j * s->stride;
            for (int64_t k = first; k < j; k++)
                row[j] -= row[k] * above[k];
            row[j] /= above[j];
        }
    }
}

// bound = X^T X / (2 count) + penalty I, the bias not penalised; then its factor. `columns` is X^T.
static void factorise(solver *s, const float *columns, size_t column_stride) {
    const int64_t width = (int64_t)s->width;
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < width; i++)
        for (int64_t j = 0; j <= i; j++)
            s->factor[(size_t)i * s->stride + (size_t)j] =
                dot(columns + (size_t)i * column_stride, columns + (size_t)j * column_stride, column_stride) /
                (2.0f * (float)s->count);
    for (size_t i = 0; i < s->width; i++)
        s->factor[i * s->stride + i] += i + 1 < s->width ? s->penalty : 1e-6f;
    for (int64_t first = 0; first < width; first += BLOCK)
        factorise_block(s, first, first + BLOCK < width ? first + BLOCK : width);
    for (size_t i = 0; i < s->width; i++)
        for (size_t j = 0; j <= i; j++)
            s->transposed[j * s->stride + i] = s->factor[i * s->stride + j];
}

// Solves bound x = right for `planes` vectors of 8 columns, in place. right: [width, planes * LANES].
static void solve(const solver *s, float *right, size_t planes) {
    const size_t row = planes * LANES;
    for (size_t i = 0; i < s->width; i++) {
        const float *factor = s->factor + i * s->stride;
        for (size_t p = 0; p < planes; p++) {
            lanes sum = *(lanes *)(right + i * row + p * LANES);
            for (size_t k = 0; k < i; k++)
                sum -= factor[k] * *(const lanes *)(right + k * row + p * LANES);
            *(lanes *)(right + i * row + p * LANES) = sum / factor[i];
        }
    }
    for (size_t i = s->width; i-- > 0;) {
        const float *factor = s->transposed + i * s->stride;
        for (size_t p = 0; p < planes; p++) {
            lanes sum = *(lanes *)(right + i * row + p * LANES);
            for (size_t k = i + 1; k < s->width; k++)
                sum -= factor[k] * *(const lanes *)(right + k * row + p * LANES);
            *(lanes *)(right + i * row + p * LANES) = sum / factor[i];
        }
    }
}

// gradient += x (probabilities - label), for one sample. weights, gradient: [width, planes * LANES].
static void add_sample(const float *sample, size_t width, int label, int classes, size_t planes,
                       const float *weights, float *gradient) {
    lanes score[DETECTOR_CLASSES_MAX / LANES] = {{0}};
    const size_t row = planes * LANES;
    for (size_t d = 0; d < width; d++)
        for (size_t p = 0; p < planes; p++)
            score[p] += sample[d] * *(const lanes *)(weights + d * row + p * LANES);
    float residual[DETECTOR_CLASSES_MAX];
    memcpy(residual, score, sizeof residual);
    softmax(residual, classes);
    residual[label] -= 1.0f;
    for (int k = classes; k < DETECTOR_CLASSES_MAX; k++)
        residual[k] = 0.0f;
    memcpy(score, residual, sizeof residual);
    for (size_t d = 0; d < width; d++)
        for (size_t p = 0; p < planes; p++)
            *(lanes *)(gradient + d * row + p * LANES) += sample[d] * score[p];
}

// work: three matrices [width, planes * LANES], zeroed.
static void fit_target(const solver *s, detector_target *target, int iterations, float *work) {
    const size_t planes = (size_t)(target->classes + LANES - 1) / LANES, row = planes * LANES;
    const size_t size = s->width * row;
    float *weights = work, *ahead = work + size, *gradient = work + 2 * size;
    double momentum = 1.0;
    for (int iteration = 0; iteration < iterations; iteration++) {
        memset(gradient, 0, sizeof(float) * size);
        for (size_t i = 0; i < s->count; i++)
            if (target->labels[i] >= 0)
                add_sample(s->samples + i * s->stride, s->width, target->labels[i], target->classes, planes,
                           ahead, gradient);
        for (size_t i = 0; i < size; i++)
            gradient[i] = gradient[i] / (float)s->count + (i < size - row ? s->penalty * ahead[i] : 0.0f);
        solve(s, gradient, planes);
        const double next = 0.5 * (1.0 + sqrt(1.0 + 4.0 * momentum * momentum));
        const float carry = (float)((momentum - 1.0) / next);
        momentum = next;
        for (size_t i = 0; i < size; i++) {
            const float updated = ahead[i] - gradient[i];
            ahead[i] = updated + carry * (updated - weights[i]);
            weights[i] = updated;
        }
    }
    for (size_t d = 0; d < s->width; d++)
        memcpy(target->weights + d * (size_t)target->classes, weights + d * row,
               sizeof(float) * (size_t)target->classes);
}

status detector_fit(const float *features, size_t count, size_t width, const float *mean, const float *scale,
                    detector_target *targets, int target_count, float penalty, int iterations) {
    solver s = {.count = count, .width = width + 1, .penalty = penalty};
    s.stride = round_up(s.width, 2 * LANES);
    const size_t column_stride = round_up(count, 2 * LANES);
    const size_t matrices = 3 * s.width * DETECTOR_CLASSES_MAX;
    arena views = {0};
    float *columns = NULL, *work = NULL;
    for (int pass = 0; pass < 2; pass++) {
        s.samples = arena_take(&views, sizeof(float) * count * s.stride);
        s.factor = arena_take(&views, sizeof(float) * s.width * s.stride);
        s.transposed = arena_take(&views, sizeof(float) * s.width * s.stride);
        columns = arena_take(&views, sizeof(float) * s.width * column_stride);
        work = arena_take(&views, sizeof(float) * matrices * (size_t)target_count);
        if (pass == 0) {
            views.capacity = views.used;
            views.used = 0;
            TRY(memory_allocate((void **)&views.base, views.capacity, "fit of detectors"));
        }
    }
    for (size_t i = 0; i < count; i++) {
        float *sample = s.samples + i * s.stride;
        detector_apply_standard(features + i * width, width, mean, scale, sample);
        sample[width] = 1.0f;
        for (size_t d = 0; d < s.width; d++)
            columns[d * column_stride + i] = sample[d];
    }
    factorise(&s, columns, column_stride);
#pragma omp parallel for schedule(dynamic)
    for (int t = 0; t < target_count; t++)
        fit_target(&s, &targets[t], iterations, work + (size_t)t * matrices);
    memory_free(views.base);
    return STATUS_OK;
}

detector_score detector_measure(const int8_t *guesses, const int8_t *labels, size_t count, int classes) {
    detector_score out = {0};
    size_t said[DETECTOR_CLASSES_MAX] = {0}, true_of[DETECTOR_CLASSES_MAX] = {0}, right = 0;
    for (size_t i = 0; i < count; i++)
        if (labels[i] >= 0) {
            out.count++;
            right += guesses[i] == labels[i];
            said[guesses[i]]++;
            true_of[labels[i]]++;
        }
    if (out.count == 0)
        return out;
    const double n = (double)out.count;
    out.accuracy = (double)right / n;
    for (int k = 0; k < classes; k++)
        out.chance += (double)said[k] * (double)true_of[k] / (n * n);
    if (out.chance < 1.0) {
        out.kappa = (out.accuracy - out.chance) / (1.0 - out.chance);
        // Two right and two wrong ones are added (Agresti and Coull, 1998): a perfect score of a few is no
        // proof.
        const double shrunk = ((double)right + 2.0) / (n + 4.0);
        out.error = sqrt(shrunk * (1.0 - shrunk) / (n + 4.0)) / (1.0 - out.chance);
    }
    return out;
}
