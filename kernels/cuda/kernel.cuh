// What the kernels share: launching, shared memory, 16-byte accesses, sums over a warp and a block in a fixed
// order. Every kernel source compiles with nvcc and, against tests/cuda/shim, for the host.
//
// Conventions: storage is f32 or bf16 (T), arithmetic and sums f32; products and sums are fused only by fmaf
// (nvcc is told not to contract). Launchers return what the launch returned and do nothing for no rows.
// Buffers are aligned to 16 bytes, widths are multiples of 16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <utility>

// SHARED(float, tile, [8][33]); declares an array in the block's shared memory.
// SHARED_DYNAMIC(float, tile); makes `tile` point to the bytes that the launch gave, aligned to 128.
#ifdef CUDA_SHIM
#define SHARED(type, name, extents)                                                                          \
    static const char name##_site = 0;                                                                       \
    typedef type name##_array extents;                                                                       \
    name##_array &name = *static_cast<name##_array *>(shim::shared_array(&name##_site, sizeof(name##_array)))
#define SHARED_DYNAMIC(type, name) type *name = static_cast<type *>(shim::shared_dynamic())
#else
#define SHARED(type, name, extents) __shared__ type name extents
#define SHARED_DYNAMIC(type, name)                                                                           \
    extern __shared__ __align__(128) unsigned char shared_dynamic_bytes[];                                   \
    type *name = reinterpret_cast<type *>(shared_dynamic_bytes)
#endif

namespace cuda_kernels {

typedef __nv_bfloat16 bf16;

constexpr int WARP_LANES = 32;
constexpr unsigned WHOLE_WARP = 0xFFFFFFFFu;
constexpr size_t SHARED_WITHOUT_ASKING = 48 * 1024;

// The one way to launch: asks for more shared memory than 48 KiB where a kernel wants it. An empty grid is no
// error.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, Arguments &&...arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return cudaSuccess;
    if (shared_bytes > SHARED_WITHOUT_ASKING) {
        const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                       static_cast<int>(shared_bytes));
        if (error != cudaSuccess)
            return error;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(bf16 x) {
    return __bfloat162float(x);
}
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return __float2bfloat16_rn(x);
}

// COUNT (4 or 8) neighbouring values as floats, in as few accesses as their bytes allow: 4 f32 or 8 bf16 are
// 16 bytes, which is what a kernel chooses where all of its arrays have one type; 4 bf16 beside 4 f32 are 8.
template <typename X, typename Y = X> constexpr int PACK = sizeof(X) == 4 || sizeof(Y) == 4 ? 4 : 8;

__device__ __forceinline__ float bf16_low(unsigned pair) {
    return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float bf16_high(unsigned pair) {
    return __uint_as_float(pair & 0xFFFF0000u);
}
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    unsigned bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

template <bool STREAM> __device__ __forceinline__ void read_pack(const float *from, float (&x)[4]) {
    const float4 *at = reinterpret_cast<const float4 *>(from);
    const float4 value = STREAM ? __ldcs(at) : *at;
    x[0] = value.x;
    x[1] = value.y;
    x[2] = value.z;
    x[3] = value.w;
}
template <bool STREAM> __device__ __forceinline__ void read_pack(const bf16 *from, float (&x)[4]) {
    const uint2 *at = reinterpret_cast<const uint2 *>(from);
    const uint2 value = STREAM ? __ldcs(at) : *at;
    x[0] = bf16_low(value.x);
    x[1] = bf16_high(value.x);
    x[2] = bf16_low(value.y);
    x[3] = bf16_high(value.y);
}
template <bool STREAM> __device__ __forceinline__ void read_pack(const bf16 *from, float (&x)[8]) {
    const uint4 *at = reinterpret_cast<const uint4 *>(from);
    const uint4 value = STREAM ? __ldcs(at) : *at;
    x[0] = bf16_low(value.x);
    x[1] = bf16_high(value.x);
    x[2] = bf16_low(value.y);
    x[3] = bf16_high(value.y);
    x[4] = bf16_low(value.z);
    x[5] = bf16_high(value.z);
    x[6] = bf16_low(value.w);
    x[7] = bf16_high(value.w);
}
// Eight f32, as parameters that stand beside bf16 activations are.
template <bool STREAM> __device__ __forceinline__ void read_pack(const float *from, float (&x)[8]) {
    float half[4];
    read_pack<STREAM>(from, half);
    for (int i = 0; i < 4; i++)
        x[i] = half[i];
    read_pack<STREAM>(from + 4, half);
    for (int i = 0; i < 4; i++)
        x[4 + i] = half[i];
}
template <typename T, int COUNT> __device__ __forceinline__ void load_pack(const T *from, float (&x)[COUNT]) {
    read_pack<false>(from, x);
}
// The same of what is read once: it need not stay in the caches.
template <typename T, int COUNT>
__device__ __forceinline__ void stream_pack(const T *from, float (&x)[COUNT]) {
    read_pack<true>(from, x);
}
__device__ __forceinline__ void store_pack(float *to, const float (&x)[4]) {
    *reinterpret_cast<float4 *>(to) = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ void store_pack(float *to, const float (&x)[8]) {
    *reinterpret_cast<float4 *>(to) = make_float4(x[0], x[1], x[2], x[3]);
    *reinterpret_cast<float4 *>(to + 4) = make_float4(x[4], x[5], x[6], x[7]);
}
__device__ __forceinline__ void store_pack(bf16 *to, const float (&x)[4]) {
    *reinterpret_cast<uint2 *>(to) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
}
__device__ __forceinline__ void store_pack(bf16 *to, const float (&x)[8]) {
    *reinterpret_cast<uint4 *>(to) = make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]),
                                                pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

// Sum over the lanes of a warp: a balanced tree, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int bits = WARP_LANES / 2; bits > 0; bits /= 2)
        x += __shfl_xor_sync(WHOLE_WARP, x, bits);
    return x;
}
__device__ __forceinline__ float warp_maximum(float x) {
#pragma unroll
    for (int bits = WARP_LANES / 2; bits > 0; bits /= 2)
        x = fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, bits));
    return x;
}

// Sum over the WARPS warps of a block, the same bits in every thread: partial [WARPS] is shared memory. The
// first barrier lets the last call's readers finish, the second lets all warps write.
template <int WARPS> __device__ __forceinline__ float team_sum(float x, float *partial) {
    x = warp_sum(x);
    if (WARPS == 1)
        return x;
    __syncthreads();
    if (threadIdx.x % WARP_LANES == 0)
        partial[threadIdx.x / WARP_LANES] = x;
    __syncthreads();
    x = partial[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++)
        x += partial[i];
    return x;
}

inline unsigned blocks_for(int64_t work, int64_t per_block) {
    return static_cast<unsigned>((work + per_block - 1) / per_block);
}

} // namespace cuda_kernels
