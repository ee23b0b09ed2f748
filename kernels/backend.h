// A backend is one table of functions; a device points at the table of its own, and the public functions look
// it up there. Each backend completes the types device and weight for itself, with these first members:
//     struct device { const backend *backend; ... };
//     struct weight { device *device; ... };
#pragma once

#include "kernels/decode.h"
#include "kernels/device.h"
#include "kernels/operators.h"
#include "kernels/product.h"

typedef struct backend {
#define OPERATOR(name, parameters, arguments) __typeof__(name) *name;
#define QUESTION(type, name, parameters, arguments) __typeof__(name) *name;
#define PRODUCT(type, name, parameters, arguments) __typeof__(name) *name;
#include "kernels/operator_list.h"
    // Never called with NULL.
    __typeof__(device_destroy) *device_destroy;
    __typeof__(device_free) *device_free;
    __typeof__(weight_create) *weight_create;
    __typeof__(weight_destroy) *weight_destroy;
} backend;

extern const backend cpu_backend;

static inline const backend *backend_of(const device *d) {
    return *(const backend *const *)(const void *)d;
}

static inline device *device_of(const weight *w) {
    return *(device *const *)(const void *)w;
}
