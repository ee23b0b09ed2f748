// The instructions that CUDA C++ has no name for: one function each, and all inline PTX of the project. Where
// a kernel's source is compiled for the host (tests/cuda/shim), the same function does what the instruction
// does. `what` the lanes of a warp must call together is said.
#pragma once

#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#ifdef CUDA_SHIM
#include "tests/cuda/shim/instructions.h"
// Where an instruction stands in the kernel, for the shim's messages.
#define PTX_PLACE , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#else
#define PTX_PLACE
#endif

namespace cuda_kernels {

#ifndef CUDA_SHIM
__device__ __forceinline__ uint32_t shared_address(const void *at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}
#endif

// d [16, 8] = a [16, 16] b [16, 8] + c: bf16 inputs, two in each register, f32 sums. Whole warp. With g =
// lane / 4 and t = lane % 4: a[0] holds row g, columns 2 t and 2 t + 1; a[1] row g + 8; a[2] and a[3] the
// same eight columns on. b[0] holds rows 2 t and 2 t + 1 of column g, b[1] those eight on. c[0], c[1]: row g,
// columns 2 t and 2 t + 1; c[2], c[3]: row g + 8. d and c may be the same.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                                                  const uint32_t (&b)[2], const float (&c)[4] PTX_PLACE) {
#ifdef CUDA_SHIM
    shim::mma_m16n8k16_bf16(d, a, b, c, file, line);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
                 "{%8, %9}, {%10, %11, %12, %13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
                   "f"(c[2]), "f"(c[3]));
#endif
}

// Loads four 8 x 8 matrices of 16-bit values from shared memory: lane 8 m + r gives the address of row r of
// matrix m, aligned to 16 bytes; to[m] receives row lane / 4, columns 2 (lane % 4) and the one after. Whole
// warp. The _transposed ones load the transposes.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&to)[4], const void *row PTX_PLACE) {
#ifdef CUDA_SHIM
    shim::load_matrices(4, false, to, row, file, line);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&to)[4], const void *row PTX_PLACE) {
#ifdef CUDA_SHIM
    shim::load_matrices(4, true, to, row, file, line);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// The same of two matrices: the addresses of lanes 0 .. 15 count, all must be valid.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&to)[2], const void *row PTX_PLACE) {
#ifdef CUDA_SHIM
    shim::load_matrices(2, false, to, row, file, line);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x2_transposed(uint32_t (&to)[2], const void *row PTX_PLACE) {
#ifdef CUDA_SHIM
    shim::load_matrices(2, true, to, row, file, line);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
#endif
}

// Starts copying 16 bytes from global to shared memory past the registers and the first-level cache, both
// aligned to 16 bytes. Only `bytes_read` (0 or 16, say) are read, zeros fill the rest. Done when the thread
// has waited for it; other threads see it after a barrier.
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, int bytes_read = 16) {
#ifdef CUDA_SHIM
    shim::copy_asynchronously(shared, global, 16, static_cast<unsigned>(bytes_read));
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes_read)
                 : "memory");
#endif
}

// Makes one group of the copies that this thread has started since the last call.
__device__ __forceinline__ void cp_async_commit() {
#ifdef CUDA_SHIM
    shim::copies_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the newest `groups` groups of this thread are under way.
template <int groups> __device__ __forceinline__ void cp_async_wait() {
#ifdef CUDA_SHIM
    shim::copies_wait(groups);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

// Waits until `threads` threads (whole warps) of the block have come to barrier `id`, 1 .. 15; 0 is
// __syncthreads.
__device__ __forceinline__ void barrier_sync(int id, int threads PTX_PLACE) {
#ifdef CUDA_SHIM
    shim::barrier(id, threads, false, {"bar.sync", file, line});
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// 2^x within 2 ulp, subnormal results flushed to 0; 2^-inf = 0.
__device__ __forceinline__ float exp2_approximate(float x) {
#ifdef CUDA_SHIM
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

} // namespace cuda_kernels
