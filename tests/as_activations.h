// What the CPU's operators take as activations, f32 there, from buffers of a test.
#pragma once

#include "kernels/operators.h"

static inline activation *as_activations(const float *x) {
    return (activation *)(uintptr_t)x;
}
