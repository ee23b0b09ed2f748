// A compute device. Buffers handed to operators are device buffers, made by device_allocate: on the CPU plain
// host memory, elsewhere memory that the host must not touch. What crosses goes through device_upload and
// device_download; arrays of pointers, shapes and other parameter structures stay on the host.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct device device;

// The CPU of one rank. threads >= 1. Chooses the instruction set (AVX-512 where the processor has it, else
// AVX2) and measures at once whether a row's product is the same whatever the batch around it
// (device_is_batch_invariant).
status device_create(device **out, int threads);
void device_destroy(device *device); // NULL is allowed

int device_threads(const device *device);
const char *device_instruction_set(const device *device); // "avx512" or "avx2"
// "oneDNN 2.6.3": what results depend on besides our own build.
const char *device_library(const device *device);
// True if one-token decoding and teacher-forced scoring agree to the last bit here.
bool device_is_batch_invariant(const device *device);
// Whether the host may touch device buffers, as on the CPU (see kernels/mirror.h).
bool device_shares_memory(const device *device);

// 64-byte aligned and zeroed; `what` names the purpose in the error. Free with device_free.
status device_allocate(device *device, void **out, size_t bytes, const char *what);
void device_free(device *device, void *pointer); // NULL is allowed

// Copies between the host and the device, in the order of the operators before and after. The host's memory
// may be reused or read as soon as the call returns. A failed operator that had no status to return makes the
// next of these calls fail.
status device_upload(device *device, void *to, const void *from, size_t bytes);
status device_download(device *device, void *to, const void *from, size_t bytes);

// Waits until all operators so far are done; the first failure of one that had no status to return.
status device_finish(device *device);
