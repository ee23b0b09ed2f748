// What the CPU operators share.
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/vector.h"

#include <dnnl.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// Below PARALLEL_ELEMENTS, or PARALLEL_PRODUCTS, a parallel region costs more than it saves. Column sums are
// cut into chunks of columns.
enum { PARALLEL_ELEMENTS = 16384, PARALLEL_PRODUCTS = 1 << 16, COLUMN_CHUNK = 32, PRODUCT_TRIALS_MAX = 64 };

static inline int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static inline int thread_count(void) {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

// Activations are f32 here.
static inline float *f32_of(activation *x) {
    return (float *)(void *)x;
}
static inline const float *f32_in(const activation *x) {
    return (const float *)(const void *)x;
}

// Rows that caches and scratch hold for so many keys.
static inline size_t padded_rows(int rows) {
    return ((size_t)rows + VECTOR_LANES - 1) / VECTOR_LANES * VECTOR_LANES;
}

// What a trial of strips found for one shape; see strips_find_chunk.
typedef struct product_trial {
    int64_t outputs, inputs;
    weight_precision precision;
    int64_t chunk;
} product_trial;

struct device {
    const backend *backend; // first, as kernels/backend.h wants it
    int threads;
    bool strips_only;     // products are left to strips.c, as oneDNN's rows depend on their batch
    bool batch_invariant; // rows of forward products do not
    const vector_operators *vector;
    char library[64];
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    void *scratch; // the products' scratchpad, grown when a product is prepared
    size_t scratch_bytes;
    void *rounded; // bf16 copies of a product's inputs
    size_t rounded_bytes;
    void *packed_rows; // rows of a product in the order in which strips.c reads them
    size_t packed_rows_bytes;
    bool has_bf16;                    // the processor multiplies bf16 values
    struct strip_weight *last_strips; // of the last product of few rows; NULL: none yet, or it is gone
    product_trial trials[PRODUCT_TRIALS_MAX];
    int trial_count;
};

// The CPU's functions for the table of its backend: cpu_NAME for every name of the list.
#define OPERATOR(name, parameters, arguments) __typeof__(name) cpu_##name;
#define QUESTION(type, name, parameters, arguments) __typeof__(name) cpu_##name;
#define PRODUCT(type, name, parameters, arguments) __typeof__(name) cpu_##name;
#include "kernels/operator_list.h"
__typeof__(device_destroy) cpu_device_destroy;
__typeof__(device_free) cpu_device_free;
__typeof__(weight_create) cpu_weight_create;
__typeof__(weight_destroy) cpu_weight_destroy;

status device_grow(void **buffer, size_t *bytes, size_t wanted, const char *what);
