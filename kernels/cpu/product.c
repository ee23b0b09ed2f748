// Products by oneDNN. Weights are packed once into the layout that its kernels prefer, and that one layout
// serves every number of rows: only then is a row's result independent of its batch. One primitive is kept
// for each number of rows, because an unknown number of rows falls back to a slower layout.
#include "kernels/product.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/memory.h"

#include <string.h>

typedef enum product_kind {
    FORWARD,
    BACKWARD_DATA,
    BACKWARD_WEIGHT,
} product_kind;

typedef struct prepared_product {
    product_kind kind;
    bool accumulate;
    int64_t rows;
    dnnl_primitive_t primitive;
    dnnl_memory_t source, weights, destination, scratch; // handles are set at each call
} prepared_product;

typedef struct packed_copy {
    dnnl_memory_desc_t descriptor;
    dnnl_primitive_t reorder; // from the plain [outputs, inputs] f32 layout
    dnnl_memory_t from, to;
    void *values;
    size_t bytes;
} packed_copy;

struct weight {
    device *device; // first, as kernels/backend.h wants it
    int64_t outputs, inputs;
    weight_precision precision;
    few_rows_weight few_rows; // instead of `forward`, where few rows are wanted and the bits are the same
    packed_copy forward, backward;
    bool has_few_rows, has_backward;
    prepared_product *products;
    int count, capacity;
};

// The number of rows for which oneDNN is asked which packed layout it prefers.
enum { LAYOUT_ROWS = 64 };

static status checked(dnnl_status_t code, const char *call) {
    return code == dnnl_success ? STATUS_OK : FAIL("oneDNN: %s failed with status %d", call, (int)code);
}
#define DNNL_TRY_GOTO(result, call, label) TRY_GOTO(result, checked(call, #call), label)

static dnnl_status_t matrix_descriptor(dnnl_memory_desc_t *out, int64_t rows, int64_t columns,
                                       dnnl_data_type_t type, dnnl_format_tag_t tag) {
    const dnnl_dims_t dims = {rows, columns};
    return dnnl_memory_desc_init_by_tag(out, 2, dims, type, tag);
}

static status create_product(device *d, prepared_product *product, const dnnl_memory_desc_t *source,
                             const dnnl_memory_desc_t *weights, const dnnl_memory_desc_t *destination,
                             dnnl_memory_desc_t *chosen_weights) {
    status result;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t after = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_matmul_desc_t operation;
    DNNL_TRY_GOTO(result, dnnl_primitive_attr_create(&attributes), done);
    DNNL_TRY_GOTO(result, dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user),
                  done);
    if (product->accumulate) {
        DNNL_TRY_GOTO(result, dnnl_post_ops_create(&after), done);
        DNNL_TRY_GOTO(result, dnnl_post_ops_append_sum(after, 1.0f), done);
        DNNL_TRY_GOTO(result, dnnl_primitive_attr_set_post_ops(attributes, after), done);
    }
    DNNL_TRY_GOTO(result, dnnl_matmul_desc_init(&operation, source, weights, NULL, destination), done);
    DNNL_TRY_GOTO(result, dnnl_primitive_desc_create(&description, &operation, attributes, d->engine, NULL),
                  done);
    if (chosen_weights != NULL) {
        *chosen_weights = *dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        goto done;
    }
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    TRY_GOTO(
        result,
        device_grow(&d->scratch, &d->scratch_bytes, dnnl_memory_desc_get_size(scratch), "product scratchpad"),
        done);
    DNNL_TRY_GOTO(result, dnnl_primitive_create(&product->primitive, description), done);
    DNNL_TRY_GOTO(result, dnnl_memory_create(&product->source, source, d->engine, DNNL_MEMORY_NONE), done);
    DNNL_TRY_GOTO(result, dnnl_memory_create(&product->weights, weights, d->engine, DNNL_MEMORY_NONE), done);
    DNNL_TRY_GOTO(result, dnnl_memory_create(&product->destination, destination, d->engine, DNNL_MEMORY_NONE),
                  done);
    DNNL_TRY_GOTO(result, dnnl_memory_create(&product->scratch, scratch, d->engine, DNNL_MEMORY_NONE), done);
done:
    dnnl_primitive_desc_destroy(description);
    dnnl_post_ops_destroy(after);
    dnnl_primitive_attr_destroy(attributes);
    return result;
}

static void destroy_product(prepared_product *product) {
    dnnl_primitive_destroy(product->primitive);
    dnnl_memory_destroy(product->source);
    dnnl_memory_destroy(product->weights);
    dnnl_memory_destroy(product->destination);
    dnnl_memory_destroy(product->scratch);
}

// The packed copy multiplies [rows, from] by [from, to]; `tag` says how the plain matrix reads in that order.
static status create_copy(weight *w, packed_copy *copy, int64_t from, int64_t to, dnnl_format_tag_t tag) {
    device *d = w->device;
    dnnl_data_type_t type = w->precision == WEIGHT_BF16 ? dnnl_bf16 : dnnl_f32;
    status result;
    dnnl_memory_desc_t source, any, destination, plain;
    dnnl_primitive_desc_t reorder = NULL;
    prepared_product probe = {.kind = FORWARD};
    DNNL_TRY_GOTO(result, matrix_descriptor(&source, LAYOUT_ROWS, from, type, dnnl_ab), done);
    DNNL_TRY_GOTO(result, matrix_descriptor(&any, from, to, type, dnnl_format_tag_any), done);
    DNNL_TRY_GOTO(result, matrix_descriptor(&destination, LAYOUT_ROWS, to, dnnl_f32, dnnl_ab), done);
    TRY_GOTO(result, create_product(d, &probe, &source, &any, &destination, &copy->descriptor), done);
    copy->bytes = dnnl_memory_desc_get_size(&copy->descriptor);
    TRY_GOTO(result, device_allocate(d, &copy->values, copy->bytes, "packed weights"), done);
    DNNL_TRY_GOTO(result, matrix_descriptor(&plain, from, to, dnnl_f32, tag), done);
    DNNL_TRY_GOTO(
        result,
        dnnl_reorder_primitive_desc_create(&reorder, &plain, d->engine, &copy->descriptor, d->engine, NULL),
        done);
    DNNL_TRY_GOTO(result, dnnl_primitive_create(&copy->reorder, reorder), done);
    DNNL_TRY_GOTO(result, dnnl_memory_create(&copy->from, &plain, d->engine, DNNL_MEMORY_NONE), done);
    DNNL_TRY_GOTO(result, dnnl_memory_create(&copy->to, &copy->descriptor, d->engine, copy->values), done);
done:
    dnnl_primitive_desc_destroy(reorder);
    return result;
}

static void destroy_copy(device *d, packed_copy *copy) {
    dnnl_primitive_destroy(copy->reorder);
    dnnl_memory_destroy(copy->from);
    dnnl_memory_destroy(copy->to);
    device_free(d, copy->values);
}

status cpu_weight_create(weight **out, device *d, int64_t outputs, int64_t inputs, weight_use use,
                         weight_precision precision) {
    *out = NULL;
    weight *w;
    TRY(memory_allocate((void **)&w, sizeof *w, "weight"));
    *w = (weight){.device = d,
                  .outputs = outputs,
                  .inputs = inputs,
                  .precision = precision,
                  .has_backward = use == WEIGHT_LEARN};
    int64_t chunk = 0;
    status result = STATUS_OK;
    if (use == WEIGHT_SAMPLE)
        TRY_GOTO(result, few_rows_find_chunk(d, outputs, inputs, precision, &chunk), failed);
    w->has_few_rows = chunk > 0;
    if (w->has_few_rows)
        TRY_GOTO(result, few_rows_create(&w->few_rows, d, outputs, inputs, precision, chunk), failed);
    else
        TRY_GOTO(result, create_copy(w, &w->forward, inputs, outputs, dnnl_ba), failed);
    if (w->has_backward)
        TRY_GOTO(result, create_copy(w, &w->backward, outputs, inputs, dnnl_ab), failed);
    *out = w;
    return STATUS_OK;
failed:
    cpu_weight_destroy(w);
    return result;
}

void cpu_weight_destroy(weight *w) {
    for (int i = 0; i < w->count; i++)
        destroy_product(&w->products[i]);
    memory_free(w->products);
    few_rows_release(&w->few_rows, w->device);
    destroy_copy(w->device, &w->forward);
    destroy_copy(w->device, &w->backward);
    memory_free(w);
}

size_t cpu_weight_bytes(const weight *w) {
    return w->few_rows.bytes + w->forward.bytes + w->backward.bytes;
}

static status pack(device *d, packed_copy *copy, const float *plain) {
    status result;
    DNNL_TRY_GOTO(result, dnnl_memory_set_data_handle(copy->from, (void *)plain), done);
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, copy->from}, {DNNL_ARG_TO, copy->to}};
    DNNL_TRY_GOTO(result, dnnl_primitive_execute(copy->reorder, d->stream, 2, arguments), done);
    DNNL_TRY_GOTO(result, dnnl_stream_wait(d->stream), done);
done:
    return result;
}

status cpu_weight_pack(weight *w, const float *plain) {
    if (w->has_few_rows) {
        few_rows_pack(&w->few_rows, w->device, plain);
        return STATUS_OK;
    }
    TRY(pack(w->device, &w->forward, plain));
    return w->has_backward ? pack(w->device, &w->backward, plain) : STATUS_OK;
}

static status grow_rounded(weight *w, int64_t rows) {
    return device_grow(&w->device->rounded, &w->device->rounded_bytes, (size_t)(2 * rows * w->inputs),
                       "inputs rounded to bf16");
}

static status add_product(weight *w, product_kind kind, int64_t rows, bool accumulate,
                          prepared_product **out) {
    if (w->count == w->capacity) {
        int capacity = w->capacity == 0 ? 8 : 2 * w->capacity;
        prepared_product *larger;
        TRY(memory_allocate((void **)&larger, sizeof *larger * (size_t)capacity, "prepared products"));
        if (w->count > 0)
            memcpy(larger, w->products, sizeof *larger * (size_t)w->count);
        memory_free(w->products);
        w->products = larger;
        w->capacity = capacity;
    }
    dnnl_data_type_t type = w->precision == WEIGHT_BF16 ? dnnl_bf16 : dnnl_f32;
    prepared_product product = {.kind = kind, .rows = rows, .accumulate = accumulate};
    dnnl_memory_desc_t source, weights, destination;
    status result;
    switch (kind) {
    case FORWARD:
        DNNL_TRY_GOTO(result, matrix_descriptor(&source, rows, w->inputs, type, dnnl_ab), failed);
        weights = w->forward.descriptor;
        DNNL_TRY_GOTO(result, matrix_descriptor(&destination, rows, w->outputs, dnnl_f32, dnnl_ab), failed);
        if (type == dnnl_bf16)
            TRY_GOTO(result, grow_rounded(w, rows), failed);
        break;
    case BACKWARD_DATA:
        DNNL_TRY_GOTO(result, matrix_descriptor(&source, rows, w->outputs, dnnl_f32, dnnl_ab), failed);
        weights = w->backward.descriptor;
        DNNL_TRY_GOTO(result, matrix_descriptor(&destination, rows, w->inputs, dnnl_f32, dnnl_ab), failed);
        break;
    case BACKWARD_WEIGHT:
        DNNL_TRY_GOTO(result, matrix_descriptor(&source, w->outputs, rows, dnnl_f32, dnnl_ba), failed);
        DNNL_TRY_GOTO(result, matrix_descriptor(&weights, rows, w->inputs, dnnl_f32, dnnl_ab), failed);
        DNNL_TRY_GOTO(result, matrix_descriptor(&destination, w->outputs, w->inputs, dnnl_f32, dnnl_ab),
                      failed);
        break;
    }
    TRY_GOTO(result, create_product(w->device, &product, &source, &weights, &destination, NULL), failed);
    *out = &w->products[w->count];
    w->products[w->count++] = product;
    return STATUS_OK;
failed:
    destroy_product(&product);
    return result;
}

static status find_product(weight *w, product_kind kind, int64_t rows, bool accumulate,
                           prepared_product **out) {
    for (int i = 0; i < w->count; i++) {
        prepared_product *p = &w->products[i];
        if (p->kind == kind && p->rows == rows && p->accumulate == accumulate) {
            *out = p;
            return STATUS_OK;
        }
    }
    return add_product(w, kind, rows, accumulate, out);
}

status cpu_weight_prepare(weight *w, int64_t rows, bool backward) {
    prepared_product *product;
    if (w->has_few_rows)
        return w->precision == WEIGHT_BF16 ? grow_rounded(w, rows) : STATUS_OK;
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        TRY(find_product(w, FORWARD, rows, accumulate, &product));
        if (!backward)
            continue;
        TRY(find_product(w, BACKWARD_DATA, rows, accumulate, &product));
        TRY(find_product(w, BACKWARD_WEIGHT, rows, accumulate, &product));
    }
    return STATUS_OK;
}

static status run(device *d, prepared_product *p, const void *source, const void *weights,
                  float *destination) {
    status result;
    DNNL_TRY_GOTO(result, dnnl_memory_set_data_handle(p->source, (void *)source), done);
    DNNL_TRY_GOTO(result, dnnl_memory_set_data_handle(p->weights, (void *)weights), done);
    DNNL_TRY_GOTO(result, dnnl_memory_set_data_handle(p->destination, destination), done);
    DNNL_TRY_GOTO(result, dnnl_memory_set_data_handle(p->scratch, d->scratch), done);
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, p->source},
                                         {DNNL_ARG_WEIGHTS, p->weights},
                                         {DNNL_ARG_DST, p->destination},
                                         {DNNL_ARG_SCRATCHPAD, p->scratch}};
    DNNL_TRY_GOTO(result, dnnl_primitive_execute(p->primitive, d->stream, 4, arguments), done);
done:
    return result;
}

status cpu_product_forward(weight *w, int64_t rows, const float *x, float *y, bool accumulate) {
    prepared_product *product = NULL;
    if (w->has_few_rows)
        TRY(cpu_weight_prepare(w, rows, false));
    else
        TRY(find_product(w, FORWARD, rows, accumulate, &product));
    const void *source = x;
    if (w->precision == WEIGHT_BF16) {
        w->device->vector->round_to_bf16((size_t)(rows * w->inputs), x, w->device->rounded);
        source = w->device->rounded;
    }
    if (w->has_few_rows) {
        few_rows_multiply(&w->few_rows, w->device, rows, source, y, accumulate);
        return STATUS_OK;
    }
    return run(w->device, product, source, w->forward.values, y);
}

status cpu_product_backward_data(weight *w, int64_t rows, const float *dy, float *dx, bool accumulate) {
    if (!w->has_backward)
        return FAIL("the weight [%ld, %ld] was created without its backward copy", (long)w->outputs,
                    (long)w->inputs);
    prepared_product *product;
    TRY(find_product(w, BACKWARD_DATA, rows, accumulate, &product));
    return run(w->device, product, dy, w->backward.values, dx);
}

status cpu_product_backward_weight(weight *w, int64_t rows, const float *x, const float *dy, float *dw,
                                   bool accumulate) {
    prepared_product *product;
    TRY(find_product(w, BACKWARD_WEIGHT, rows, accumulate, &product));
    return run(w->device, product, dy, x, dw);
}

few_rows_weight *weight_few_rows(weight *w) {
    return w->has_few_rows ? &w->few_rows : NULL;
}
