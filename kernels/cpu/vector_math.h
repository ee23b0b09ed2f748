// Arithmetic on whole registers for the sources that are compiled once for each instruction set. A multiply
// and an add are fused only through multiply_add, so that all callers round alike.
#pragma once

#include "kernels/cpu/vector.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define VECTOR_JOIN_(a, b) a##_##b
#define VECTOR_JOIN(a, b) VECTOR_JOIN_(a, b)
// The name of a function in the code path that is being compiled: scale -> scale_avx512.
#define VECTOR_NAME(name) VECTOR_JOIN(name, VECTOR_ISA)

// One register: sixteen floats with AVX-512, eight with AVX2.
#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t integer_lanes __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))

INLINE lanes load(const float *from) {
    lanes value;
    memcpy(&value, from, sizeof value);
    return value;
}

INLINE void store(float *to, lanes value) {
    memcpy(to, &value, sizeof value);
}

INLINE lanes broadcast(float value) {
    return value - (lanes){0};
}

INLINE lanes multiply_add(lanes a, lanes b, lanes c) {
#ifdef __AVX512F__
    return (lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#else
    return (lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#endif
}

INLINE lanes choose(integer_lanes mask, lanes yes, lanes no) {
    return (lanes)((mask & (integer_lanes)yes) | (~mask & (integer_lanes)no));
}

INLINE lanes maximum(lanes a, lanes b) {
    return choose(a > b, a, b);
}

// Balanced tree over the lanes.
INLINE float horizontal_sum(lanes value) {
    float part[LANES];
    store(part, value);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            part[i] += part[i + width];
    return part[0];
}

INLINE float horizontal_maximum(lanes value) {
    float part[LANES];
    store(part, value);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
    return part[0];
}

// exp within about 1 ulp on [-87, 88]; exactly 0 below -87, so that masked scores vanish. Range reduction to
// |r| <= ln(2) / 2 and a polynomial of degree 6 (Taylor coefficients, the last two adjusted to the interval).
INLINE lanes exponential(lanes x) {
    integer_lanes small = x < -87.0f;
    x = choose(x > 88.0f, broadcast(88.0f), choose(small, broadcast(0.0f), x));
    const lanes magic = broadcast(0x1.8p23f); // adding it rounds to the nearest integer
    lanes shifted = multiply_add(x, broadcast(0x1.715476p+0f), magic);
    lanes n = shifted - magic;
    lanes r = multiply_add(n, broadcast(-0x1.62e400p-1f), x);
    r = multiply_add(n, broadcast(-0x1.7f7d1cp-20f), r);
    lanes p = broadcast(0x1.6c16c2p-10f);
    p = multiply_add(p, r, broadcast(0x1.111112p-7f));
    p = multiply_add(p, r, broadcast(0x1.555556p-5f));
    p = multiply_add(p, r, broadcast(0x1.555556p-3f));
    p = multiply_add(p, r, broadcast(0.5f));
    p = multiply_add(p, r, broadcast(1.0f));
    p = multiply_add(p, r, broadcast(1.0f));
    integer_lanes exponent = ((integer_lanes)shifted - (integer_lanes)magic) << 23;
    lanes value = (lanes)((integer_lanes)p + exponent);
    return choose(small, broadcast(0.0f), value);
}

INLINE lanes sigmoid(lanes x) {
    return 1.0f / (1.0f + exponential(-x));
}
