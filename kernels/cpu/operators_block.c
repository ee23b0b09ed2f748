// The operators of a transformer block: normalisation, gated activation, attention.
#include "kernels/cpu/device_cpu.h"
#include "kernels/operators.h"

#include <math.h>
#include <string.h>

void cpu_op_store_activations(device *d, int64_t rows, int64_t width, const float *x, activation *out) {
    cpu_op_copy_rows(d, rows, width, x, width, f32_of(out), width, false);
}

static void rms_norm(const device *d, int64_t rows, int64_t width, const float *x, const float *gain,
                     float epsilon, float *out, float *inverse_rms, float *copy) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++) {
        float r = v->rms_norm((size_t)width, x + row * width, gain, epsilon, out + row * width);
        if (inverse_rms != NULL)
            inverse_rms[row] = r;
        if (copy != NULL)
            memcpy(copy + row * width, x + row * width, sizeof(float) * (size_t)width);
    }
}

void cpu_op_rms_norm(device *d, int64_t rows, int64_t width, const float *x, const float *gain, float epsilon,
                     activation *out, float *inverse_rms, float *copy) {
    rms_norm(d, rows, width, x, gain, epsilon, f32_of(out), inverse_rms, copy);
}

void cpu_op_rms_norm_last(device *d, int64_t rows, int64_t width, const float *x, const float *gain,
                          float epsilon, float *out, float *inverse_rms) {
    rms_norm(d, rows, width, x, gain, epsilon, out, inverse_rms, NULL);
}

void cpu_op_rms_norm_backward(device *d, int64_t rows, int64_t width, const float *x, const float *gain,
                              const float *inverse_rms, const activation *of_out, float *dx, float *dgain) {
    const vector_operators *v = d->vector;
    const float *dy = f32_in(of_out);
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < rows; row++)
            v->rms_norm_backward((size_t)width, x + row * width, gain, inverse_rms[row], dy + row * width,
                                 dx + row * width);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < width; first += COLUMN_CHUNK) {
            int64_t last = first + COLUMN_CHUNK < width ? first + COLUMN_CHUNK : width;
            float sum[COLUMN_CHUNK] = {0};
            for (int64_t row = 0; row < rows; row++)
                for (int64_t i = first; i < last; i++)
                    sum[i - first] += dy[row * width + i] * x[row * width + i] * inverse_rms[row];
            for (int64_t i = first; i < last; i++)
                dgain[i] += sum[i - first];
        }
    }
}

void cpu_op_swiglu(device *d, int64_t rows, int64_t width, const activation *in, activation *to) {
    const vector_operators *v = d->vector;
    const float *gate_up = f32_in(in);
    float *out = f32_of(to);
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++)
        v->swiglu((size_t)width, gate_up + 2 * row * width, gate_up + (2 * row + 1) * width,
                  out + row * width);
}

void cpu_op_swiglu_backward(device *d, int64_t rows, int64_t width, const activation *in,
                            const activation *of_out, activation *of_in) {
    const vector_operators *v = d->vector;
    const float *gate_up = f32_in(in), *dout = f32_in(of_out);
    float *dgate_up = f32_of(of_in);
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        v->swiglu_backward((size_t)width, gate_up + 2 * row * width, gate_up + (2 * row + 1) * width,
                           dout + row * width, dgate_up + 2 * row * width, dgate_up + (2 * row + 1) * width);
}

void cpu_op_rotary_table(device *d, int positions, int head_dim, float *cosine, float *sine) {
    (void)d;
    int half = head_dim / 2;
    for (int p = 0; p < positions; p++)
        for (int i = 0; i < half; i++) {
            double angle = p * pow(10000.0, -2.0 * i / head_dim);
            cosine[p * half + i] = (float)cos(angle);
            sine[p * half + i] = (float)sin(angle);
        }
}

// Per thread: packed keys and values, keys and their gradients, gradients of values, eight rows of scores.
// Rows of one head are gathered there, because rows of qkv lie a power of two apart and would share few cache
// sets.
static size_t scratch_of_a_thread(const attention_shape *shape) {
    return padded_rows(shape->sequence) * (5 * (size_t)shape->head_dim + 8);
}

static void gather_rows(int rows, int head_dim, const float *from, size_t stride, float *to) {
    for (int row = 0; row < rows; row++)
        memcpy(to + (size_t)row * head_dim, from + row * stride, sizeof(float) * (size_t)head_dim);
}

static void scatter_rows(int rows, int head_dim, const float *from, float *to, size_t stride) {
    for (int row = 0; row < rows; row++)
        memcpy(to + row * stride, from + (size_t)row * head_dim, sizeof(float) * (size_t)head_dim);
}

size_t cpu_attention_scratch_floats(const device *d, const attention_shape *shape) {
    return scratch_of_a_thread(shape) * (size_t)d->threads;
}

size_t cpu_attention_cache_bytes(const device *d, const attention_shape *capacity) {
    (void)d;
    return sizeof(float) * (size_t)capacity->batch * capacity->heads * padded_rows(capacity->sequence) *
           (size_t)capacity->head_dim;
}

static attention_head head_of(const attention_shape *shape, int sample) {
    return (attention_head){
        .head_dim = shape->head_dim,
        .scale = 1.0f / sqrtf((float)shape->head_dim),
        .limit = shape->causal            ? 1
                 : shape->lengths != NULL ? shape->lengths[sample]
                                          : shape->sequence,
        .limit_step = shape->causal ? 1 : 0,
    };
}

void cpu_op_attention(device *d, const attention_shape *shape, activation *rows, activation *attended,
                      float *log_sum, float *scratch) {
    const vector_operators *v = d->vector;
    float *qkv = f32_of(rows), *out = f32_of(attended);
    const int sequence = shape->sequence, heads = shape->heads, head_dim = shape->head_dim,
              half = head_dim / 2;
    const size_t width = (size_t)heads * head_dim, stride = 3 * width;
#pragma omp parallel for schedule(static)
    for (int pair = 0; pair < shape->batch * heads; pair++) {
        int sample = pair / heads, head = pair % heads;
        float *q = qkv + (size_t)sample * sequence * stride + (size_t)head * head_dim;
        float *keys = scratch + (size_t)thread_number() * scratch_of_a_thread(shape);
        float *values = keys + padded_rows(sequence) * (size_t)head_dim;
        float *scores = values + padded_rows(sequence) * (size_t)head_dim;
        attention_head terms = head_of(shape, sample);
        for (int s = 0; s < sequence; s++) {
            v->rotate(head_dim, shape->cosine + s * half, shape->sine + s * half, 1.0f, q + s * stride);
            v->rotate(head_dim, shape->cosine + s * half, shape->sine + s * half, 1.0f,
                      q + s * stride + width);
        }
        v->pack_lanes(head_dim, sequence, q + width, stride, keys);
        gather_rows(sequence, head_dim, q + 2 * width, stride, values);
        v->attend(&terms, sequence, q, stride, keys, values, (size_t)head_dim, scores,
                  out + (size_t)sample * sequence * width + (size_t)head * head_dim, width,
                  log_sum != NULL ? log_sum + (size_t)pair * sequence : NULL);
    }
}

void cpu_op_attention_backward(device *d, const attention_shape *shape, const activation *rows,
                               const activation *attended, const float *log_sum,
                               const activation *of_attended, activation *of_rows, float *scratch) {
    const vector_operators *v = d->vector;
    const float *qkv = f32_in(rows), *out = f32_in(attended), *dout = f32_in(of_attended);
    float *dqkv = f32_of(of_rows);
    const int sequence = shape->sequence, heads = shape->heads, head_dim = shape->head_dim,
              half = head_dim / 2;
    const size_t width = (size_t)heads * head_dim, stride = 3 * width;
#pragma omp parallel for schedule(static)
    for (int pair = 0; pair < shape->batch * heads; pair++) {
        int sample = pair / heads, head = pair % heads;
        size_t at = (size_t)sample * sequence * stride + (size_t)head * head_dim;
        size_t out_at = (size_t)sample * sequence * width + (size_t)head * head_dim;
        const float *q = qkv + at, *k = q + width;
        float *dq = dqkv + at, *dk = dq + width;
        float *keys = scratch + (size_t)thread_number() * scratch_of_a_thread(shape);
        const size_t part = padded_rows(sequence) * (size_t)head_dim;
        float *values = keys + part, *plain_keys = values + part, *d_keys = plain_keys + part;
        float *d_values = d_keys + part, *scores = d_values + part;
        attention_head terms = head_of(shape, sample);
        v->pack_lanes(head_dim, sequence, k, stride, keys);
        v->pack_lanes(head_dim, sequence, q + 2 * width, stride, values);
        gather_rows(sequence, head_dim, k, stride, plain_keys);
        v->attend_backward(&terms, sequence, q, stride, plain_keys, keys, values, out + out_at, dout + out_at,
                           width, log_sum + (size_t)pair * sequence, scores, dq, d_keys, d_values);
        scatter_rows(sequence, head_dim, d_keys, dk, stride);
        scatter_rows(sequence, head_dim, d_values, dq + 2 * width, stride);
        for (int s = 0; s < sequence; s++) {
            v->rotate(head_dim, shape->cosine + s * half, shape->sine + s * half, -1.0f, dq + s * stride);
            v->rotate(head_dim, shape->cosine + s * half, shape->sine + s * half, -1.0f, dk + s * stride);
        }
    }
}

// Writes one position's key and value of one head, behind each other in its row of qkv, into its part of the
// caches.
static void append_to_cache(const vector_operators *v, int head_dim, int position, const float *key,
                            size_t width, float *keys, float *values) {
    v->append_key(head_dim, position, key, keys);
    memcpy(values + (size_t)position * head_dim, key + width, sizeof(float) * (size_t)head_dim);
}

void cpu_op_attention_fill_cache(device *d, const attention_shape *capacity, int positions,
                                 const activation *qkv, activation *key_cache, activation *value_cache) {
    const int heads = capacity->heads, head_dim = capacity->head_dim;
    const size_t width = (size_t)heads * head_dim, rows = padded_rows(capacity->sequence);
#pragma omp parallel for schedule(static)
    for (int pair = 0; pair < capacity->batch * heads; pair++) {
        const size_t at = (size_t)(pair / heads) * positions * 3 * width + (size_t)(pair % heads) * head_dim;
        for (int position = 0; position < positions; position++)
            append_to_cache(d->vector, head_dim, position,
                            f32_in(qkv) + at + ((size_t)position * 3 + 1) * width, width,
                            f32_of(key_cache) + (size_t)pair * rows * head_dim,
                            f32_of(value_cache) + (size_t)pair * rows * head_dim);
    }
}
