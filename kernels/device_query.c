// Without nvcc at build time the driver itself is asked: libcuda is opened at run time, so that a program
// built without CUDA can still say what the machine has.
#include "kernels/cuda/device_query.h"

#if !MUSICRL_CUDA

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>

// The few entries of the CUDA driver interface that are needed, by their published signatures.
typedef int (*cu_init)(unsigned int flags);
typedef int (*cu_device_get_count)(int *count);
typedef int (*cu_device_get)(int *device, int ordinal);
typedef int (*cu_device_get_name)(char *name, int bytes, int device);
typedef int (*cu_device_total_mem)(size_t *bytes, int device);
typedef int (*cu_device_get_attribute)(int *value, int attribute, int device);
enum { CU_COMPUTE_CAPABILITY_MAJOR = 75, CU_COMPUTE_CAPABILITY_MINOR = 76 };

int device_query_has_kernels(void) {
    return 0;
}

int device_query(device_description *devices, int capacity, char *reason, int reason_bytes) {
    int result = 0;
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!driver) {
        snprintf(reason, (size_t)reason_bytes, "no NVIDIA driver (libcuda.so.1 not found)");
        return 0;
    }
    cu_init init = (cu_init)dlsym(driver, "cuInit");
    cu_device_get_count get_count = (cu_device_get_count)dlsym(driver, "cuDeviceGetCount");
    cu_device_get get = (cu_device_get)dlsym(driver, "cuDeviceGet");
    cu_device_get_name get_name = (cu_device_get_name)dlsym(driver, "cuDeviceGetName");
    cu_device_total_mem total_mem = (cu_device_total_mem)dlsym(driver, "cuDeviceTotalMem_v2");
    cu_device_get_attribute get_attribute = (cu_device_get_attribute)dlsym(driver, "cuDeviceGetAttribute");
    int count = 0;
    if (!init || !get_count || !get || !get_name || !total_mem || !get_attribute) {
        snprintf(reason, (size_t)reason_bytes, "libcuda.so.1 lacks an entry that every driver has");
        goto done;
    }
    int code = init(0);
    if (code == 0)
        code = get_count(&count);
    if (code != 0 || count == 0) {
        snprintf(reason, (size_t)reason_bytes, "no CUDA-capable device (driver error %d)", code);
        goto done;
    }
    for (int i = 0; i < count && i < capacity; i++) {
        int device = 0;
        size_t bytes = 0;
        if (get(&device, i) != 0 || get_name(devices[i].name, (int)sizeof devices[i].name, device) != 0 ||
            total_mem(&bytes, device) != 0 ||
            get_attribute(&devices[i].compute_major, CU_COMPUTE_CAPABILITY_MAJOR, device) != 0 ||
            get_attribute(&devices[i].compute_minor, CU_COMPUTE_CAPABILITY_MINOR, device) != 0) {
            snprintf(reason, (size_t)reason_bytes, "device %d does not answer", i);
            goto done;
        }
        devices[i].memory_bytes = (int64_t)bytes;
    }
    result = count;
done:
    dlclose(driver);
    return result;
}

#endif
