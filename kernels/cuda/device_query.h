// What NVIDIA devices this machine offers. The same function whether or not the program was built with CUDA.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct device_description {
    char name[256];
    int64_t memory_bytes;
    int compute_major; // compute capability major.minor
    int compute_minor;
} device_description;

// Fills `devices` [capacity] and returns how many devices there are (may exceed `capacity`). Returns 0 and
// says in `reason` [reason_bytes] why there is none to use: no driver, a driver too old, no device. Touches
// no device's memory.
int device_query(device_description *devices, int capacity, char *reason, int reason_bytes);

// 1 if the program was built with CUDA kernels, otherwise 0 (device_query then asks the driver alone).
int device_query_has_kernels(void);

#ifdef __cplusplus
}
#endif
