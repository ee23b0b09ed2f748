// CUDA's own conversions between f32 and bf16, as the toolkit's header computes them on the host.
#pragma once

#include <cstdint>

uint16_t toolkit_float_to_bf16(float x);
float toolkit_bf16_to_float(uint16_t bits);
