// Stands in for CUDA's header of this name: bfloat16 values and their conversions, with CUDA's bits.
#pragma once

#include "tests/cuda/shim/cuda_runtime.h"

struct __align__(2) __nv_bfloat16 {
    uint16_t bits;
};
struct __align__(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

// To nearest, ties to even; every NaN becomes the one of all ones.
static inline __nv_bfloat16 __float2bfloat16_rn(float x) {
    unsigned bits = __float_as_uint(x);
    if (x != x)
        return {0x7FFF};
    bits += 0x7FFFu + ((bits >> 16) & 1u);
    return {static_cast<uint16_t>(bits >> 16)};
}
static inline __nv_bfloat16 __float2bfloat16(float x) {
    return __float2bfloat16_rn(x);
}
static inline float __bfloat162float(__nv_bfloat16 x) {
    return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 x) {
    return __floats2bfloat162_rn(x.x, x.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 x) {
    return {__bfloat162float(x.x), __bfloat162float(x.y)};
}
static inline float __low2float(__nv_bfloat162 x) {
    return __bfloat162float(x.x);
}
static inline float __high2float(__nv_bfloat162 x) {
    return __bfloat162float(x.y);
}
static inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) {
    return {bits};
}
static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) {
    return x.bits;
}
