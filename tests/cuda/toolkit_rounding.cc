#include "tests/cuda/toolkit_rounding.h"

#include <cuda_bf16.h>

uint16_t toolkit_float_to_bf16(float x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

float toolkit_bf16_to_float(uint16_t bits) {
    return __bfloat162float(__ushort_as_bfloat16(bits));
}
