// Stands in for CUDA's header of this name where a kernel's source is compiled for the host: the keywords,
// the built-in variables and functions that kernels use, and the few calls of the runtime that launch them.
#pragma once

#define CUDA_SHIM 1

#include "tests/cuda/shim/shim.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <math.h>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

// Of the running thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// Vectors, aligned as on the device, so that UndefinedBehaviorSanitizer sees a misaligned access.
struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
struct __align__(8) uint2 {
    unsigned x, y;
};
struct __align__(16) uint4 {
    unsigned x, y, z, w;
};
struct __align__(16) double2 {
    double x, y;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline int2 make_int2(int x, int y) {
    return {x, y};
}
static inline int4 make_int4(int x, int y, int z, int w) {
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

// Barriers.
static inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    shim::barrier(0, shim::block_threads(), false, {"__syncthreads", file, line});
}
static inline int __syncthreads_count(int predicate, const char *file = __builtin_FILE(),
                                      int line = __builtin_LINE()) {
    return shim::barrier(0, shim::block_threads(), predicate != 0, {"__syncthreads_count", file, line});
}
static inline int __syncthreads_or(int predicate, const char *file = __builtin_FILE(),
                                   int line = __builtin_LINE()) {
    return shim::barrier(0, shim::block_threads(), predicate != 0, {"__syncthreads_or", file, line}) > 0;
}
static inline int __syncthreads_and(int predicate, const char *file = __builtin_FILE(),
                                    int line = __builtin_LINE()) {
    return shim::barrier(0, shim::block_threads(), predicate == 0, {"__syncthreads_and", file, line}) == 0;
}
static inline void __threadfence() {
}
static inline void __threadfence_block() {
}

// Warp operations.
namespace shim {
struct shuffle {
    uint64_t value, result;
    int source; // lane
};
static inline void perform_shuffle(unsigned mask, void *const lanes[32]) {
    for (int i = 0; i < 32; i++) {
        shuffle *own = static_cast<shuffle *>(lanes[i]);
        if (own == nullptr)
            continue;
        if (((mask >> own->source) & 1u) == 0)
            reject("lane %d shuffles from lane %d, which the mask %08x leaves out", i, own->source, mask);
        own->result = static_cast<shuffle *>(lanes[own->source])->value;
    }
}
template <typename T> T shuffle_from(unsigned mask, T value, int source, place where) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move up to 8 bytes");
    shuffle own = {0, 0, source};
    memcpy(&own.value, &value, sizeof value);
    warp_collect(mask, &own, perform_shuffle, where);
    memcpy(&value, &own.result, sizeof value);
    return value;
}
struct vote {
    bool predicate;
    unsigned result;
};
static inline void perform_vote(unsigned, void *const lanes[32]) {
    unsigned result = 0;
    for (int i = 0; i < 32; i++)
        if (lanes[i] != nullptr && static_cast<vote *>(lanes[i])->predicate)
            result |= 1u << i;
    for (int i = 0; i < 32; i++)
        if (lanes[i] != nullptr)
            static_cast<vote *>(lanes[i])->result = result;
}
static inline unsigned ballot(unsigned mask, bool predicate, place where) {
    vote own = {predicate, 0};
    warp_collect(mask, &own, perform_vote, where);
    return own.result;
}
struct addition {
    int value, result;
};
static inline void perform_addition(unsigned, void *const lanes[32]) {
    int sum = 0;
    for (int i = 0; i < 32; i++)
        sum += lanes[i] != nullptr ? static_cast<addition *>(lanes[i])->value : 0;
    for (int i = 0; i < 32; i++)
        if (lanes[i] != nullptr)
            static_cast<addition *>(lanes[i])->result = sum;
}
struct match {
    uint64_t value;
    unsigned result;
};
static inline void perform_match(unsigned, void *const lanes[32]) {
    for (int i = 0; i < 32; i++) {
        match *own = static_cast<match *>(lanes[i]);
        for (int j = 0; own != nullptr && j < 32; j++)
            if (lanes[j] != nullptr && static_cast<match *>(lanes[j])->value == own->value)
                own->result |= 1u << j;
    }
}
} // namespace shim

static inline int __reduce_add_sync(unsigned mask, int value, const char *file = __builtin_FILE(),
                                    int line = __builtin_LINE()) {
    shim::addition own = {value, 0};
    shim::warp_collect(mask, &own, shim::perform_addition, {"__reduce_add_sync", file, line});
    return own.result;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, const char *file = __builtin_FILE(),
                          int line = __builtin_LINE()) {
    shim::match own = {0, 0};
    memcpy(&own.value, &value, sizeof value);
    shim::warp_collect(mask, &own, shim::perform_match, {"__match_any_sync", file, line});
    return own.result;
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, const char *file = __builtin_FILE(),
              int line = __builtin_LINE()) {
    return shim::shuffle_from(mask, value, (shim::lane() & ~(width - 1)) | (source & (width - 1)),
                              {"__shfl_sync", file, line});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, const char *file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
    const int lane = shim::lane(), source = lane ^ bits;
    return shim::shuffle_from(mask, value, (source & ~(width - 1)) <= (lane & ~(width - 1)) ? source : lane,
                              {"__shfl_xor_sync", file, line});
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    const int lane = shim::lane(), source = lane + static_cast<int>(delta);
    return shim::shuffle_from(mask, value, source <= (lane | (width - 1)) ? source : lane,
                              {"__shfl_down_sync", file, line});
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, const char *file = __builtin_FILE(),
                 int line = __builtin_LINE()) {
    const int lane = shim::lane(), source = lane - static_cast<int>(delta);
    return shim::shuffle_from(mask, value, source >= (lane & ~(width - 1)) ? source : lane,
                              {"__shfl_up_sync", file, line});
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                                     int line = __builtin_LINE()) {
    return shim::ballot(mask, predicate != 0, {"__ballot_sync", file, line});
}
static inline int __any_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return shim::ballot(mask, predicate != 0, {"__any_sync", file, line}) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                             int line = __builtin_LINE()) {
    return shim::ballot(mask, predicate != 0, {"__all_sync", file, line}) == mask;
}
static inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, const char *file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
    shim::ballot(mask, false, {"__syncwarp", file, line});
}

// Atomics: one system thread runs everything.
template <typename T> T atomicAdd(T *at, T value) {
    const T before = *at;
    *at = before + value;
    return before;
}
template <typename T> T atomicMax(T *at, T value) {
    const T before = *at;
    *at = before < value ? value : before;
    return before;
}
template <typename T> T atomicMin(T *at, T value) {
    const T before = *at;
    *at = value < before ? value : before;
    return before;
}
template <typename T> T atomicOr(T *at, T value) {
    const T before = *at;
    *at = before | value;
    return before;
}
template <typename T> T atomicExch(T *at, T value) {
    return std::exchange(*at, value);
}
template <typename T> T atomicCAS(T *at, T wanted, T value) {
    const T before = *at;
    if (before == wanted)
        *at = value;
    return before;
}
static inline unsigned atomicInc(unsigned *at, unsigned last) {
    const unsigned before = *at;
    *at = before >= last ? 0 : before + 1;
    return before;
}

// Loads and stores with a hint to the caches.
template <typename T> T __ldg(const T *at) {
    return *at;
}
template <typename T> T __ldcg(const T *at) {
    return *at;
}
template <typename T> T __ldcs(const T *at) {
    return *at;
}
template <typename T> void __stcs(T *at, T value) {
    *at = value;
}
template <typename T> void __stcg(T *at, T value) {
    *at = value;
}

// Numbers as bits, and arithmetic that the compiler must not fuse.
namespace shim {
template <typename To, typename From> To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace shim
static inline unsigned __float_as_uint(float x) {
    return shim::bits_of<unsigned>(x);
}
static inline int __float_as_int(float x) {
    return shim::bits_of<int>(x);
}
static inline float __uint_as_float(unsigned x) {
    return shim::bits_of<float>(x);
}
static inline float __int_as_float(int x) {
    return shim::bits_of<float>(x);
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32);
}
static inline float __fmul_rn(float x, float y) {
    return x * y;
}
static inline float __fadd_rn(float x, float y) {
    return x + y;
}
static inline float __fdividef(float x, float y) {
    return x / y;
}
// The C library has functions of these names, which it keeps to itself.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline int min(int x, int y) {
    return y < x ? y : x;
}
static inline int max(int x, int y) {
    return x < y ? y : x;
}
static inline unsigned min(unsigned x, unsigned y) {
    return y < x ? y : x;
}
static inline unsigned max(unsigned x, unsigned y) {
    return x < y ? y : x;
}
static inline int64_t min(int64_t x, int64_t y) {
    return y < x ? y : x;
}
static inline int64_t max(int64_t x, int64_t y) {
    return x < y ? y : x;
}
static inline float min(float x, float y) {
    return fminf(x, y);
}
static inline float max(float x, float y) {
    return fmaxf(x, y);
}

// The runtime. Memory is the host's, streams do at once what they are told.
typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorLaunchFailure = 719,
} cudaError_t;
typedef struct CUstream_st *cudaStream_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};

typedef struct cudaLaunchAttribute cudaLaunchAttribute;
typedef struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
} cudaLaunchConfig_t;

static inline const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess             ? "no error"
           : error == cudaErrorInvalidValue ? "invalid argument"
                                            : shim::error_message();
}
static inline cudaError_t cudaGetLastError() {
    return shim::error_message()[0] == '\0' ? cudaSuccess : cudaErrorLaunchFailure;
}
static inline cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
// A small chip, so that grids that depend on its size take several rounds.
static inline cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrMultiProcessorCount ? 4 : 227 * 1024;
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t) {
    memset(at, value, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                                          cudaStream_t) {
    memcpy(to, from, bytes);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}

namespace shim {
// Dynamic shared memory that a kernel may have beyond 48 KiB, as on the device only after asking.
std::map<const void *, size_t> &permitted_shared_bytes();
} // namespace shim

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int value) {
    if (value > 227 * 1024)
        return cudaErrorInvalidValue;
    shim::permitted_shared_bytes()[reinterpret_cast<const void *>(kernel)] = static_cast<size_t>(value);
    return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments &&...arguments) {
    size_t permitted = shim::permitted_shared_bytes()[reinterpret_cast<const void *>(kernel)];
    permitted = permitted < 48 * 1024 ? 48 * 1024 : permitted;
    if (config->dynamicSmemBytes > permitted || config->numAttrs != 0)
        return cudaErrorInvalidValue;
    typedef std::tuple<void (*)(Parameters...), std::tuple<Parameters...>> call;
    const call packed(kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...));
    const cudaLaunchConfig_t sizes = *config;
    const auto run = [packed, sizes] {
        const shim::launch_request request = {sizes.gridDim, sizes.blockDim, sizes.dynamicSmemBytes,
                                              [](const void *p) {
                                                  const call *c = static_cast<const call *>(p);
                                                  std::apply(std::get<0>(*c), std::get<1>(*c));
                                              },
                                              &packed};
        return shim::run(request) ? cudaSuccess : cudaErrorLaunchFailure;
    };
    if (shim::recorder() == nullptr)
        return run();
    shim::recorder()->push_back(run);
    return cudaSuccess;
}
