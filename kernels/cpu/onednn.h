// oneDNN's matrices and products as kernels/cpu/product.c needs them, the same over the C interfaces of its
// versions 2 and 3: descriptors of memory are values in the one and handles with an owner in the other.
// Functions return oneDNN's own status.
#pragma once

#include <dnnl.h>

#include <stddef.h>
#include <stdint.h>

// Rows, columns, type and layout of a matrix. Zeroed: none. Release with layout_release.
typedef struct matrix_layout {
    dnnl_memory_desc_t descriptor;
} matrix_layout;

#if DNNL_VERSION_MAJOR >= 3
#define LAYOUT_DESCRIPTOR(layout) ((layout)->descriptor)
#else
#define LAYOUT_DESCRIPTOR(layout) (&(layout)->descriptor)
#endif

// tag: dnnl_format_tag_any leaves the layout to a product.
static inline dnnl_status_t layout_create(matrix_layout *out, int64_t rows, int64_t columns,
                                          dnnl_data_type_t type, dnnl_format_tag_t tag) {
    const dnnl_dims_t dims = {rows, columns};
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(&out->descriptor, 2, dims, type, tag);
#else
    return dnnl_memory_desc_init_by_tag(&out->descriptor, 2, dims, type, tag);
#endif
}

// A copy of what a described product has chosen: dnnl_query_weights_md, dnnl_query_scratchpad_md.
static inline dnnl_status_t layout_query(matrix_layout *out, dnnl_primitive_desc_t description,
                                         dnnl_query_t what) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_clone(&out->descriptor, dnnl_primitive_desc_query_md(description, what, 0));
#else
    out->descriptor = *dnnl_primitive_desc_query_md(description, what, 0);
    return dnnl_success;
#endif
}

static inline void layout_release(matrix_layout *layout) {
#if DNNL_VERSION_MAJOR >= 3
    if (layout->descriptor != NULL)
        dnnl_memory_desc_destroy(layout->descriptor);
#endif
    *layout = (matrix_layout){0};
}

static inline size_t layout_bytes(const matrix_layout *layout) {
    return dnnl_memory_desc_get_size(LAYOUT_DESCRIPTOR(layout));
}

// values: borrowed; DNNL_MEMORY_NONE where they are set later.
static inline dnnl_status_t layout_memory(dnnl_memory_t *out, const matrix_layout *layout,
                                          dnnl_engine_t engine, void *values) {
    return dnnl_memory_create(out, LAYOUT_DESCRIPTOR(layout), engine, values);
}

// destination = source * weights. Free with dnnl_primitive_desc_destroy.
static inline dnnl_status_t describe_product(dnnl_primitive_desc_t *out, const matrix_layout *source,
                                             const matrix_layout *weights, const matrix_layout *destination,
                                             dnnl_primitive_attr_t attributes, dnnl_engine_t engine) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_matmul_primitive_desc_create(out, engine, source->descriptor, weights->descriptor, NULL,
                                             destination->descriptor, attributes);
#else
    dnnl_matmul_desc_t operation;
    const dnnl_status_t code = dnnl_matmul_desc_init(&operation, &source->descriptor, &weights->descriptor,
                                                     NULL, &destination->descriptor);
    return code == dnnl_success ? dnnl_primitive_desc_create(out, &operation, attributes, engine, NULL)
                                : code;
#endif
}

static inline dnnl_status_t describe_reorder(dnnl_primitive_desc_t *out, const matrix_layout *from,
                                             const matrix_layout *to, dnnl_engine_t engine) {
    return dnnl_reorder_primitive_desc_create(out, LAYOUT_DESCRIPTOR(from), engine, LAYOUT_DESCRIPTOR(to),
                                              engine, NULL);
}

// destination += instead of =.
static inline dnnl_status_t append_accumulation(dnnl_post_ops_t after) {
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_sum(after, 1.0f, 0, dnnl_data_type_undef);
#else
    return dnnl_post_ops_append_sum(after, 1.0f);
#endif
}
