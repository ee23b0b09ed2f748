// The CUDA runtime behind the table of kernels/cuda/card.h.
#include "kernels/cuda/card.h"
#include "kernels/cuda/cublas_table.h"

#include <cstdio>
#include <cublasLt.h>
#include <cuda_runtime_api.h>

static const cuda_calls calls = {
    [](int *version) -> int { return cudaDriverGetVersion(version); },
    [](int *version) -> int { return cudaRuntimeGetVersion(version); },
    [](int *count) -> int { return cudaGetDeviceCount(count); },
    [](int device) -> int { return cudaSetDevice(device); },
    [](int *value, int attribute, int device) -> int {
        return cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device);
    },
    [](char *out, int bytes, int device) -> int {
        cudaDeviceProp properties;
        const cudaError_t error = cudaGetDeviceProperties(&properties, device);
        if (error == cudaSuccess)
            snprintf(out, static_cast<size_t>(bytes), "%s", properties.name);
        return error;
    },
    [](char *out, int bytes, int device) -> int { return cudaDeviceGetPCIBusId(out, bytes, device); },
    [](size_t *free, size_t *total) -> int { return cudaMemGetInfo(free, total); },
    [](void **out, size_t bytes) -> int { return cudaMalloc(out, bytes); },
    [](void *pointer) -> int { return cudaFree(pointer); },
    [](void *to, const void *from, size_t bytes, int kind, void *stream) -> int {
        return cudaMemcpyAsync(to, from, bytes, static_cast<cudaMemcpyKind>(kind),
                               static_cast<cudaStream_t>(stream));
    },
    [](void *to, int byte, size_t bytes, void *stream) -> int {
        return cudaMemsetAsync(to, byte, bytes, static_cast<cudaStream_t>(stream));
    },
    [](void **out) -> int {
        return cudaStreamCreateWithFlags(reinterpret_cast<cudaStream_t *>(out), cudaStreamNonBlocking);
    },
    [](void *stream) -> int { return cudaStreamDestroy(static_cast<cudaStream_t>(stream)); },
    [](void *stream) -> int { return cudaStreamSynchronize(static_cast<cudaStream_t>(stream)); },
    [](void *stream) -> int {
        const cudaError_t error = cudaStreamQuery(static_cast<cudaStream_t>(stream));
        if (error == cudaErrorNotReady)
            cudaGetLastError(); // no failure
        return error;
    },
    [](void *stream, void *event) -> int {
        return cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<cudaEvent_t>(event), 0);
    },
    [](void **out) -> int {
        return cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t *>(out), cudaEventDisableTiming);
    },
    [](void *event, void *stream) -> int {
        return cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream));
    },
    [](void *event) -> int { return cudaEventDestroy(static_cast<cudaEvent_t>(event)); },
    [](void *host, size_t bytes) -> int {
        const cudaError_t error = cudaHostRegister(host, bytes, cudaHostRegisterDefault);
        if (error != cudaSuccess)
            cudaGetLastError(); // forgets it
        return error;
    },
    [](void *host) -> int { return cudaHostUnregister(host); },
    [](void *stream) -> int {
        return cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeThreadLocal);
    },
    [](void *stream, void **graph) -> int {
        return cudaStreamEndCapture(static_cast<cudaStream_t>(stream),
                                    reinterpret_cast<cudaGraph_t *>(graph));
    },
    [](void **executable, void *graph) -> int {
        return cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t *>(executable),
                                    static_cast<cudaGraph_t>(graph), 0);
    },
    [](void *graph) -> int { return cudaGraphDestroy(static_cast<cudaGraph_t>(graph)); },
    [](void *executable, void *stream) -> int {
        return cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable), static_cast<cudaStream_t>(stream));
    },
    [](void *executable) -> int { return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable)); },
    [](int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); },
};

// What card.c knows by number.
static_assert(cudaErrorMemoryAllocation == 2 && cudaErrorInsufficientDriver == 35 &&
                  cudaErrorDevicesUnavailable == 46 && cudaErrorNoDevice == 100 && cudaErrorNotReady == 600 &&
                  cudaErrorStreamCaptureUnsupported == 900,
              "codes of errors");
static_assert(cudaMemcpyHostToDevice == 1 && cudaMemcpyDeviceToHost == 2, "directions of copies");
static_assert(cudaDevAttrMultiProcessorCount == 16 && cudaDevAttrComputeCapabilityMajor == 75 &&
                  cudaDevAttrComputeCapabilityMinor == 76 &&
                  cudaDevAttrPageableMemoryAccessUsesHostPageTables == 100,
              "attributes");

// What product_cublas.c knows by number and layout.
static constexpr bool is(int known, int value) {
    return known == value;
}
static_assert(is(CUBLASLT_COMPUTE_F32, CUBLAS_COMPUTE_32F) &&
                  is(CUBLASLT_COMPUTE_TF32, CUBLAS_COMPUTE_32F_FAST_TF32),
              "types of computation");
static_assert(is(CUBLASLT_TRANSPOSE_NOT, CUBLAS_OP_N) && is(CUBLASLT_TRANSPOSE, CUBLAS_OP_T),
              "transpositions");
static_assert(is(CUBLASLT_DESC_TRANSPOSE_A, CUBLASLT_MATMUL_DESC_TRANSA) &&
                  is(CUBLASLT_DESC_TRANSPOSE_B, CUBLASLT_MATMUL_DESC_TRANSB) &&
                  is(CUBLASLT_PREFERENCE_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) &&
                  is(CUBLASLT_PREFERENCE_REDUCTIONS, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) &&
                  is(CUBLASLT_PREFERENCE_ALIGNMENT_A, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) &&
                  is(CUBLASLT_PREFERENCE_ALIGNMENT_D, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES) &&
                  is(CUBLASLT_REDUCTION_NONE, CUBLASLT_REDUCTION_SCHEME_NONE) &&
                  is(CUBLASLT_REDUCTION_COMPUTE_TYPE, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) &&
                  is(CUBLASLT_REDUCTION_OUTPUT_TYPE, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE),
              "attributes");
static_assert(sizeof(cublaslt_algorithm) == sizeof(cublasLtMatmulAlgo_t) &&
                  sizeof(cublaslt_choice) == sizeof(cublasLtMatmulHeuristicResult_t) &&
                  offsetof(cublaslt_choice, outcome) == offsetof(cublasLtMatmulHeuristicResult_t, state),
              "layouts");

const cuda_calls *cuda_calls_of_this_build(void) {
    return &calls;
}
