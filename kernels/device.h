// A compute device: today the CPU of one rank, with a fixed number of threads. Buffers handed to operators
// are device buffers (on the CPU, plain host memory).
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct device device;

// threads >= 1. Chooses the instruction set (AVX-512 where the processor has it, else AVX2) and measures at
// once whether a row's product is the same whatever the batch around it (device_is_batch_invariant).
status device_create(device **out, int threads);
void device_destroy(device *device); // NULL is allowed

int device_threads(const device *device);
const char *device_instruction_set(const device *device); // "avx512" or "avx2"
// "oneDNN 2.6.3": what results depend on besides our own build.
const char *device_library(const device *device);
// True if one-token decoding and teacher-forced scoring agree to the last bit here.
bool device_is_batch_invariant(const device *device);

status device_allocate(device *device, void **out, size_t bytes, const char *what); // zeroed
void device_free(device *device, void *pointer);
