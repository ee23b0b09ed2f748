// Elementwise and row-wise loops: normalisation, gated activation, rotary positions, AdamW, rounding.
#include "kernels/cpu/vector_functions.h"

void VECTOR_NAME(round_to_bf16)(size_t count, const float *x, uint16_t *out) {
    for (size_t i = 0; i < count; i++) { // to nearest, ties to even; vectorised by the compiler
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits += 0x7fffu + ((bits >> 16) & 1u);
        out[i] = (uint16_t)(bits >> 16);
    }
}

void VECTOR_NAME(add)(size_t count, const float *x, float *y) {
    for (size_t i = 0; i < count; i++)
        y[i] += x[i];
}

void VECTOR_NAME(scale)(size_t count, float factor, float *x) {
    for (size_t i = 0; i < count; i++)
        x[i] *= factor;
}

float VECTOR_NAME(dot)(size_t count, const float *x, const float *y) {
    lanes sum = {0};
    for (size_t i = 0; i < count; i += LANES)
        sum = multiply_add(load(x + i), load(y + i), sum);
    return horizontal_sum(sum);
}

void VECTOR_NAME(multiply_add_to)(size_t count, float factor, const float *x, float *y) {
    for (size_t i = 0; i < count; i++)
        y[i] += factor * x[i];
}

double VECTOR_NAME(sum_squares)(size_t count, const float *x) {
    // Eight double chains in a fixed order.
    double part[8] = {0};
    size_t body = count / 8 * 8;
    for (size_t i = 0; i < body; i += 8)
        for (int lane = 0; lane < 8; lane++)
            part[lane] += (double)x[i + lane] * (double)x[i + lane];
    for (size_t i = body; i < count; i++)
        part[i - body] += (double)x[i] * (double)x[i];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

bool VECTOR_NAME(all_finite)(size_t count, const float *x) {
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

void VECTOR_NAME(adamw)(size_t count, const adamw_terms *terms, const float *gradient, float *parameter,
                        float *first, float *second) {
    const adamw_terms t = *terms;
    for (size_t i = 0; i < count; i++) {
        float g = gradient[i] * t.gradient_scale;
        float m = t.beta1 * first[i] + (1.0f - t.beta1) * g;
        float v = t.beta2 * second[i] + (1.0f - t.beta2) * g * g;
        first[i] = m;
        second[i] = v;
        float step = m * t.correction1 / (sqrtf(v * t.correction2) + t.epsilon);
        parameter[i] -= t.learning_rate * (step + t.weight_decay * parameter[i]);
    }
}

float VECTOR_NAME(rms_norm)(size_t width, const float *x, const float *gain, float epsilon, float *out) {
    lanes sum = {0};
    for (size_t i = 0; i < width; i += LANES) {
        lanes value = load(x + i);
        sum = multiply_add(value, value, sum);
    }
    float inverse_rms = 1.0f / sqrtf(horizontal_sum(sum) / (float)width + epsilon);
    for (size_t i = 0; i < width; i++)
        out[i] = x[i] * inverse_rms * gain[i];
    return inverse_rms;
}

void VECTOR_NAME(rms_norm_backward)(size_t width, const float *x, const float *gain, float inverse_rms,
                                    const float *dy, float *dx) {
    lanes sum = {0};
    for (size_t i = 0; i < width; i += LANES)
        sum = multiply_add(load(x + i), load(gain + i) * load(dy + i), sum);
    float shared = horizontal_sum(sum) / (float)width * inverse_rms * inverse_rms * inverse_rms;
    for (size_t i = 0; i < width; i++)
        dx[i] += gain[i] * dy[i] * inverse_rms - x[i] * shared;
}

void VECTOR_NAME(swiglu)(size_t width, const float *gate, const float *up, float *out) {
    for (size_t i = 0; i < width; i += LANES) {
        lanes g = load(gate + i);
        store(out + i, g * sigmoid(g) * load(up + i));
    }
}

INLINE void swiglu_gradient(lanes g, lanes u, lanes d, lanes *dgate, lanes *dup) {
    lanes s = sigmoid(g);
    *dup = d * g * s;
    *dgate = d * u * s * (1.0f + g * (1.0f - s));
}

void VECTOR_NAME(swiglu_backward)(size_t width, const float *gate, const float *up, const float *dout,
                                  float *dgate, float *dup) {
    lanes dg, du;
    for (size_t i = 0; i < width; i += LANES) {
        swiglu_gradient(load(gate + i), load(up + i), load(dout + i), &dg, &du);
        store(dgate + i, dg);
        store(dup + i, du);
    }
}

void VECTOR_NAME(rotate)(int head_dim, const float *cosine, const float *sine, float direction, float *x) {
    int half = head_dim / 2;
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half], s = direction * sine[i];
        x[i] = a * cosine[i] - b * s;
        x[i + half] = b * cosine[i] + a * s;
    }
}
