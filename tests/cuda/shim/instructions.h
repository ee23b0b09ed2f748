// What the instructions of kernels/cuda/ptx.cuh do, on the host.
#pragma once

#include <cstdint>

namespace shim {

// d [16, 8] = a [16, 16] b [16, 8] + c, bf16 inputs, f32 sums; operands lie in registers as PTX says for
// mma.m16n8k16. All lanes of a warp call it.
void mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4],
                       const char *file, int line);

// Loads `matrices` (1, 2, 4) 8 x 8 matrices of 16-bit values, row r of matrix m from the address that lane
// 8 m + r gives; transposed if wanted.
void load_matrices(int matrices, bool transposed, uint32_t *registers, const void *row, const char *file,
                   int line);

} // namespace shim
