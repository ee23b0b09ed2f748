// Operators over whole parameter buffers.
#include "kernels/cpu/device_cpu.h"
#include "kernels/memory.h"
#include "kernels/operators.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 16384,
    CHUNKS_AT_ONCE = 64,
    SLOT_CHUNK = 4096, // goes through all levels of a tree while it is in the first cache
};

void cpu_op_scale(device *d, size_t count, float factor, float *x) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < count; at += CHUNK)
        v->scale(count - at < CHUNK ? count - at : CHUNK, factor, x + at);
}

void cpu_op_add_slot(device *d, size_t count, int depth, bool keep, size_t stride, float *partial,
                     float *values) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < count; at += SLOT_CHUNK) {
        const size_t size = count - at < SLOT_CHUNK ? count - at : SLOT_CHUNK;
        float *level = partial + at;
        for (int i = 0; i < depth; i++, level += stride)
            v->add(size, level, values + at);
        if (keep)
            memcpy(level, values + at, sizeof(float) * size);
    }
}

double cpu_op_sum_squares(device *d, size_t count, const float *x) {
    const vector_operators *v = d->vector;
    double total = 0.0;
    for (size_t start = 0; start < count; start += (size_t)CHUNK * CHUNKS_AT_ONCE) {
        double part[CHUNKS_AT_ONCE];
#pragma omp parallel for schedule(static)
        for (int c = 0; c < CHUNKS_AT_ONCE; c++) {
            size_t first = start + (size_t)c * CHUNK;
            size_t size = first >= count ? 0 : count - first < CHUNK ? count - first : CHUNK;
            part[c] = size == 0 ? 0.0 : v->sum_squares(size, x + first);
        }
        for (int c = 0; c < CHUNKS_AT_ONCE; c++)
            total += part[c];
    }
    return total;
}

bool cpu_op_all_finite(device *d, size_t count, const float *x) {
    const vector_operators *v = d->vector;
    int bad = 0;
#pragma omp parallel for schedule(static) reduction(| : bad)
    for (size_t first = 0; first < count; first += CHUNK)
        bad |= !v->all_finite(count - first < CHUNK ? count - first : CHUNK, x + first);
    return bad == 0;
}

void cpu_op_adamw(device *d, size_t count, const adamw_step *step, const float *gradient, float *parameter,
                  float *first, float *second) {
    const vector_operators *v = d->vector;
    const adamw_terms terms = {
        .learning_rate = step->learning_rate,
        .beta1 = step->beta1,
        .beta2 = step->beta2,
        .epsilon = step->epsilon,
        .weight_decay = step->weight_decay,
        .correction1 = (float)(1.0 / (1.0 - pow(step->beta1, (double)step->step))),
        .correction2 = (float)(1.0 / (1.0 - pow(step->beta2, (double)step->step))),
        .gradient_scale = step->gradient_scale,
    };
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < count; at += CHUNK) {
        size_t size = count - at < CHUNK ? count - at : CHUNK;
        v->adamw(size, &terms, gradient + at, parameter + at, first + at, second + at);
    }
}
