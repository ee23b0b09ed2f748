#include "kernels/cuda/device_query.h"

#include <cstdio>
#include <cuda_runtime_api.h>

int device_query_has_kernels(void) {
    return 1;
}

int device_query(device_description *devices, int capacity, char *reason, int reason_bytes) {
    int driver = 0;
    int runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        snprintf(reason, reason_bytes, "no NVIDIA driver");
        return 0;
    }
    cudaRuntimeGetVersion(&runtime);
    // The count is left untouched where the call fails.
    int count = 0;
    cudaError_t outcome = cudaGetDeviceCount(&count);
    if (outcome == cudaErrorInsufficientDriver) {
        snprintf(reason, reason_bytes, "the driver supports CUDA %d.%d, this build needs %d.%d",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        return 0;
    }
    if (outcome != cudaSuccess || count == 0) {
        snprintf(reason, reason_bytes, "no CUDA-capable device (%s)", cudaGetErrorString(outcome));
        return 0;
    }
    for (int i = 0; i < count && i < capacity; i++) {
        cudaDeviceProp properties;
        outcome = cudaGetDeviceProperties(&properties, i);
        if (outcome != cudaSuccess) {
            snprintf(reason, reason_bytes, "device %d does not answer (%s)", i, cudaGetErrorString(outcome));
            return 0;
        }
        snprintf(devices[i].name, sizeof devices[i].name, "%s", properties.name);
        devices[i].memory_bytes = (int64_t)properties.totalGlobalMem;
        devices[i].compute_major = properties.major;
        devices[i].compute_minor = properties.minor;
    }
    return count;
}
