// What the parts of the device of a GPU share: its state, and the functions of its table.
#pragma once

#include "kernels/cuda/update.cuh"

extern "C" {
#include "kernels/backend.h"
#include "kernels/cuda/card.h"
#include "kernels/cuda/product_cublas.h"
}

// Values that come back to the host.
struct cuda_values {
    double number;
    float scale;
    int32_t flag;
};

// Work that is done again and again (device_repeat). One that was not used for longest makes room.
struct kept_work {
    const void *owner; // NULL: free
    uint64_t key, used;
    void *recording;
};
constexpr int KEPT_MAX = 16;

struct scratch_memory {
    void *at;
    size_t bytes;
};

struct device {
    const backend *table; // first, as kernels/backend.h wants it
    card *gpu;
    cublas *products;
    cuda_values *values; // on the card
    // On the card, grown when more is needed, never while a kernel uses it: for one operator at a time.
    void *scratch;
    size_t scratch_bytes;
    scratch_memory rounded[2]; // a product's f32 factors as bf16: rows of inputs, and of outputs' gradients
    scratch_memory kept_rounded[2]; // what stood there before a plan
    kept_work kept[KEPT_MAX];
    uint64_t repeats; // so far
    int threads;
    bool one_order, bf16;
    char library[80], architecture[16];
};

struct weight {
    device *owner; // first, as kernels/backend.h wants it
    int64_t outputs, inputs;
    weight_precision precision;
    void *values; // [outputs, inputs] on the card, f32 or bf16
};

namespace cuda_kernels {

inline cudaStream_t stream_of(device *d) {
    return static_cast<cudaStream_t>(card_stream(d->gpu));
}

inline void note(device *d, cudaError_t error, const char *what) {
    card_note(d->gpu, error, what);
}

// Makes a buffer of the device larger if it holds fewer bytes than are wanted.
status grow(device *d, void **buffer, size_t *bytes, size_t wanted, const char *what);

template <typename T> T *stored(activation *x) {
    return reinterpret_cast<T *>(x);
}
template <typename T> const T *stored(const activation *x) {
    return reinterpret_cast<const T *>(x);
}

// Of the table, in backend_products.cu.
#define OPERATOR(name, parameters, arguments)
#define QUESTION(type, name, parameters, arguments)
#define PRODUCT(type, name, parameters, arguments) __typeof__(name) cuda_##name;
#include "kernels/operator_list.h"
__typeof__(weight_create) cuda_weight_create;
__typeof__(weight_destroy) cuda_weight_destroy;

} // namespace cuda_kernels
