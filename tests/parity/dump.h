// What the parity programs share: an owner of buffers, random inputs, and a list of named arrays that ends in
// one safetensors file. Names are CASE/in/NAME for what the oracle is given and CASE/out/NAME for what it
// must reproduce. Every failure ends the program.
#pragma once

#include "data/safetensors.h"
#include "kernels/device.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DUMP_TENSORS_MAX = 4096, DUMP_BUFFERS_MAX = 3 * DUMP_TENSORS_MAX };

typedef struct dump {
    device *device;
    philox_stream stream;
    tensor_view tensors[DUMP_TENSORS_MAX];
    int count;
    void *buffers[DUMP_BUFFERS_MAX]; // everything that dump_release frees
    int buffer_count;
} dump;

// A shape as the two arguments that dump_add wants: SHAPE(3, 5) is 2, {3, 5}; SHAPE_SCALAR is no dimension.
#define SHAPE(...)                                                                                           \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) {                           \
        __VA_ARGS__                                                                                          \
    }
#define SHAPE_SCALAR 0, NULL

static inline void must(status result) {
    if (result == STATUS_OK)
        return;
    fprintf(stderr, "parity: %s\n", status_message());
    exit(1);
}

static inline void *dump_bytes(dump *d, size_t bytes) { // zeroed, owned by the dump
    if (d->buffer_count == DUMP_BUFFERS_MAX)
        must(FAIL("more than %d buffers: raise DUMP_BUFFERS_MAX", DUMP_BUFFERS_MAX));
    void **buffer = &d->buffers[d->buffer_count++];
    must(memory_allocate(buffer, bytes > 0 ? bytes : 1, "parity arrays"));
    return *buffer;
}

static inline float *dump_zeros(dump *d, size_t count) {
    return dump_bytes(d, sizeof(float) * count);
}

static inline float *dump_copy(dump *d, const float *from, size_t count) {
    return memcpy(dump_zeros(d, count), from, sizeof(float) * count);
}

static inline float *dump_normal(dump *d, size_t count, float mean, float deviation) {
    float *out = dump_zeros(d, count);
    for (size_t i = 0; i < count; i++) {
        float u = philox_next_uniform(&d->stream), v = philox_next_uniform(&d->stream);
        out[i] = mean + deviation * sqrtf(-2.0f * logf(1.0f - u)) * cosf(6.28318530718f * v);
    }
    return out;
}

static inline int dump_between(dump *d, int low, int high) { // a whole number, both ends included
    return low + (int)philox_next_below(&d->stream, (uint32_t)(high - low + 1));
}

// Copies data [shape] under a name made with `format`.
static inline void dump_add(dump *d, tensor_type type, const void *data, int rank, const int64_t *shape,
                            const char *format, ...) __attribute__((format(printf, 6, 7)));
static inline void dump_add(dump *d, tensor_type type, const void *data, int rank, const int64_t *shape,
                            const char *format, ...) {
    if (d->count == DUMP_TENSORS_MAX)
        must(FAIL("more than %d arrays: raise DUMP_TENSORS_MAX", DUMP_TENSORS_MAX));
    enum { NAME_BYTES = 160 };
    char *name = dump_bytes(d, NAME_BYTES);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, NAME_BYTES, format, arguments);
    va_end(arguments);
    tensor_view view = tensor_view_make(name, type, data, rank, shape);
    view.data = memcpy(dump_bytes(d, tensor_view_bytes(&view)), data, tensor_view_bytes(&view));
    d->tensors[d->count++] = view;
}

#define dump_f32(d, data, ...) dump_add(d, TENSOR_F32, data, __VA_ARGS__)
#define dump_i32(d, data, ...) dump_add(d, TENSOR_I32, data, __VA_ARGS__)
#define dump_u16(d, data, ...) dump_add(d, TENSOR_U16, data, __VA_ARGS__)

// A scalar that the oracle needs.
static inline void dump_number(dump *d, double value, const char *which, const char *name) {
    dump_add(d, TENSOR_F64, &value, SHAPE_SCALAR, "%s/in/%s", which, name);
}

// gpu: on a GPU in bf16, an emulated one, whose memory the host may touch.
static inline void dump_open(dump *d, uint64_t seed, bool gpu) {
    memset(d, 0, sizeof *d);
    d->stream = (philox_stream){.key = seed, .purpose = 0x70617269u};
    must(gpu ? device_create_gpu(&d->device, &(gpu_options){.threads = 2, .bf16 = true})
             : device_create(&d->device, 2));
}

static inline void dump_write(dump *d, const char *path) {
    must(safetensors_write(path, d->tensors, (size_t)d->count, NULL, 0));
    for (int i = 0; i < d->buffer_count; i++)
        memory_free(d->buffers[i]);
    device_destroy(d->device);
}
