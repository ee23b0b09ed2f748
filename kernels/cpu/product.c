// Products by oneDNN, and by strips.c where that is faster or where oneDNN's rows depend on their batch.
// Weights are packed once into the layout that oneDNN's kernels prefer, and that one layout serves every
// number of rows: only then is a row's result independent of its batch, and with AVX2 not even then. One
// primitive is kept for each number of rows, because an unknown number of rows falls back to a slower layout.
#include "kernels/product.h"

#include "kernels/cpu/device_cpu.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/strips.h"
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
    matrix_layout layout;
    dnnl_primitive_t reorder; // from the plain [outputs, inputs] f32 layout
    dnnl_memory_t from, to;
    void *values;
    size_t bytes;
} packed_copy;

struct weight {
    device *device; // first, as kernels/backend.h wants it
    int64_t outputs, inputs;
    weight_precision precision;
    strip_weight strips, transposed; // instead of `forward` and `backward`, where they serve the products
    packed_copy forward, backward;
    bool has_strips, has_backward;
    prepared_product *products;
    int count, capacity;
};

// The number of rows for which oneDNN is asked which packed layout it prefers.
enum { LAYOUT_ROWS = 64 };

static status checked(dnnl_status_t code, const char *call) {
    return code == dnnl_success ? STATUS_OK : FAIL("oneDNN: %s failed with status %d", call, (int)code);
}
#define DNNL_TRY_GOTO(result, call, label) TRY_GOTO(result, checked(call, #call), label)

// chosen_weights: NULL, or what is asked for instead of the product: the layout that it prefers for weights.
static status create_product(device *d, prepared_product *product, const matrix_layout *source,
                             const matrix_layout *weights, const matrix_layout *destination,
                             matrix_layout *chosen_weights) {
    status result;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t after = NULL;
    dnnl_primitive_desc_t description = NULL;
    matrix_layout scratch = {0};
    DNNL_TRY_GOTO(result, dnnl_primitive_attr_create(&attributes), done);
    DNNL_TRY_GOTO(result, dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user),
                  done);
    if (product->accumulate) {
        DNNL_TRY_GOTO(result, dnnl_post_ops_create(&after), done);
        DNNL_TRY_GOTO(result, append_accumulation(after), done);
        DNNL_TRY_GOTO(result, dnnl_primitive_attr_set_post_ops(attributes, after), done);
    }
    DNNL_TRY_GOTO(result, describe_product(&description, source, weights, destination, attributes, d->engine),
                  done);
    if (chosen_weights != NULL) {
        DNNL_TRY_GOTO(result, layout_query(chosen_weights, description, dnnl_query_weights_md), done);
        goto done;
    }
    DNNL_TRY_GOTO(result, layout_query(&scratch, description, dnnl_query_scratchpad_md), done);
    TRY_GOTO(result,
             device_grow(&d->scratch, &d->scratch_bytes, layout_bytes(&scratch), "product scratchpad"), done);
    DNNL_TRY_GOTO(result, dnnl_primitive_create(&product->primitive, description), done);
    DNNL_TRY_GOTO(result, layout_memory(&product->source, source, d->engine, DNNL_MEMORY_NONE), done);
    DNNL_TRY_GOTO(result, layout_memory(&product->weights, weights, d->engine, DNNL_MEMORY_NONE), done);
    DNNL_TRY_GOTO(result, layout_memory(&product->destination, destination, d->engine, DNNL_MEMORY_NONE),
                  done);
    DNNL_TRY_GOTO(result, layout_memory(&product->scratch, &scratch, d->engine, DNNL_MEMORY_NONE), done);
done:
    layout_release(&scratch);
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
    matrix_layout source = {0}, any = {0}, destination = {0}, plain = {0};
    dnnl_primitive_desc_t reorder = NULL;
    prepared_product probe = {.kind = FORWARD};
    DNNL_TRY_GOTO(result, layout_create(&source, LAYOUT_ROWS, from, type, dnnl_ab), done);
    DNNL_TRY_GOTO(result, layout_create(&any, from, to, type, dnnl_format_tag_any), done);
    DNNL_TRY_GOTO(result, layout_create(&destination, LAYOUT_ROWS, to, dnnl_f32, dnnl_ab), done);
    TRY_GOTO(result, create_product(d, &probe, &source, &any, &destination, &copy->layout), done);
    copy->bytes = layout_bytes(&copy->layout);
    TRY_GOTO(result, device_allocate(d, &copy->values, copy->bytes, "packed weights"), done);
    DNNL_TRY_GOTO(result, layout_create(&plain, from, to, dnnl_f32, tag), done);
    DNNL_TRY_GOTO(result, describe_reorder(&reorder, &plain, &copy->layout, d->engine), done);
    DNNL_TRY_GOTO(result, dnnl_primitive_create(&copy->reorder, reorder), done);
    DNNL_TRY_GOTO(result, layout_memory(&copy->from, &plain, d->engine, DNNL_MEMORY_NONE), done);
    DNNL_TRY_GOTO(result, layout_memory(&copy->to, &copy->layout, d->engine, copy->values), done);
done:
    layout_release(&source);
    layout_release(&any);
    layout_release(&destination);
    layout_release(&plain);
    dnnl_primitive_desc_destroy(reorder);
    return result;
}

static void destroy_copy(device *d, packed_copy *copy) {
    dnnl_primitive_destroy(copy->reorder);
    dnnl_memory_destroy(copy->from);
    dnnl_memory_destroy(copy->to);
    layout_release(&copy->layout);
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
    if (use == WEIGHT_SAMPLE || d->strips_only)
        TRY_GOTO(result, strips_find_chunk(d, outputs, inputs, precision, &chunk), failed);
    w->has_strips = chunk > 0;
    if (w->has_strips)
        TRY_GOTO(result, strips_create(&w->strips, d, outputs, inputs, precision, chunk), failed);
    else
        TRY_GOTO(result, create_copy(w, &w->forward, inputs, outputs, dnnl_ba), failed);
    if (w->has_backward && d->strips_only)
        TRY_GOTO(result, strips_create(&w->transposed, d, inputs, outputs, WEIGHT_F32, chunk), failed);
    else if (w->has_backward)
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
    strips_release(&w->strips, w->device);
    strips_release(&w->transposed, w->device);
    destroy_copy(w->device, &w->forward);
    destroy_copy(w->device, &w->backward);
    memory_free(w);
}

size_t cpu_weight_bytes(const weight *w) {
    return w->strips.bytes + w->transposed.bytes + w->forward.bytes + w->backward.bytes;
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
    if (w->has_strips)
        strips_pack(&w->strips, w->device, plain);
    else
        TRY(pack(w->device, &w->forward, plain));
    if (w->has_backward && w->device->strips_only)
        strips_pack_transposed(&w->transposed, plain);
    else if (w->has_backward)
        TRY(pack(w->device, &w->backward, plain));
    return STATUS_OK;
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
    matrix_layout source = {0}, weights = {0}, destination = {0};
    const matrix_layout *packed = NULL;
    status result;
    switch (kind) {
    case FORWARD:
        DNNL_TRY_GOTO(result, layout_create(&source, rows, w->inputs, type, dnnl_ab), done);
        packed = &w->forward.layout;
        DNNL_TRY_GOTO(result, layout_create(&destination, rows, w->outputs, dnnl_f32, dnnl_ab), done);
        if (type == dnnl_bf16)
            TRY_GOTO(result, grow_rounded(w, rows), done);
        break;
    case BACKWARD_DATA:
        DNNL_TRY_GOTO(result, layout_create(&source, rows, w->outputs, dnnl_f32, dnnl_ab), done);
        packed = &w->backward.layout;
        DNNL_TRY_GOTO(result, layout_create(&destination, rows, w->inputs, dnnl_f32, dnnl_ab), done);
        break;
    case BACKWARD_WEIGHT:
        DNNL_TRY_GOTO(result, layout_create(&source, w->outputs, rows, dnnl_f32, dnnl_ba), done);
        DNNL_TRY_GOTO(result, layout_create(&weights, rows, w->inputs, dnnl_f32, dnnl_ab), done);
        DNNL_TRY_GOTO(result, layout_create(&destination, w->outputs, w->inputs, dnnl_f32, dnnl_ab), done);
        break;
    }
    TRY_GOTO(
        result,
        create_product(w->device, &product, &source, packed != NULL ? packed : &weights, &destination, NULL),
        done);
    *out = &w->products[w->count];
    w->products[w->count++] = product;
    product = (prepared_product){0};
done:
    layout_release(&source);
    layout_release(&weights);
    layout_release(&destination);
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
    device *d = w->device;
    prepared_product *product;
    if (w->has_strips && w->precision == WEIGHT_BF16)
        TRY(grow_rounded(w, rows));
    if (w->has_strips)
        TRY(strips_prepare(&w->strips, d, rows));
    if (backward && d->strips_only) {
        TRY(strips_prepare(&w->transposed, d, rows));
        return strips_gradient_prepare(d, w->outputs, w->inputs);
    }
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        if (!w->has_strips)
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
    if (w->has_strips)
        TRY(cpu_weight_prepare(w, rows, false));
    else
        TRY(find_product(w, FORWARD, rows, accumulate, &product));
    const void *source = x;
    if (w->precision == WEIGHT_BF16) {
        w->device->vector->round_to_bf16((size_t)(rows * w->inputs), x, w->device->rounded);
        source = w->device->rounded;
    }
    if (w->has_strips) {
        strips_multiply(&w->strips, w->device, rows, source, y, accumulate);
        return STATUS_OK;
    }
    return run(w->device, product, source, w->forward.values, y);
}

status cpu_product_backward_data(weight *w, int64_t rows, const float *dy, float *dx, bool accumulate) {
    if (!w->has_backward)
        return FAIL("the weight [%ld, %ld] was created without its backward copy", (long)w->outputs,
                    (long)w->inputs);
    if (w->device->strips_only) {
        TRY(strips_prepare(&w->transposed, w->device, rows));
        strips_multiply(&w->transposed, w->device, rows, dy, dx, accumulate);
        return STATUS_OK;
    }
    prepared_product *product;
    TRY(find_product(w, BACKWARD_DATA, rows, accumulate, &product));
    return run(w->device, product, dy, w->backward.values, dx);
}

status cpu_product_backward_weight(weight *w, int64_t rows, const float *x, const float *dy, float *dw,
                                   bool accumulate) {
    if (w->device->strips_only) {
        TRY(strips_gradient_prepare(w->device, w->outputs, w->inputs));
        strips_gradient(w->device, w->outputs, w->inputs, rows, x, dy, dw, accumulate);
        return STATUS_OK;
    }
    prepared_product *product;
    TRY(find_product(w, BACKWARD_WEIGHT, rows, accumulate, &product));
    return run(w->device, product, dy, x, dw);
}

status cpu_weight_prepare_block(weight *w, int64_t rows, bool backward) {
    return cpu_weight_prepare(w, rows, backward);
}

status cpu_block_product(weight *w, int64_t rows, const activation *x, activation *y) {
    return cpu_product_forward(w, rows, f32_in(x), f32_of(y), false);
}

status cpu_block_product_add(weight *w, int64_t rows, const activation *x, float *y) {
    return cpu_product_forward(w, rows, f32_in(x), y, true);
}

status cpu_block_backward_data(weight *w, int64_t rows, const activation *dy, activation *dx) {
    return cpu_product_backward_data(w, rows, f32_in(dy), f32_of(dx), false);
}

status cpu_block_backward_weight(weight *w, int64_t rows, const activation *x, const activation *dy,
                                 float *dw) {
    return cpu_product_backward_weight(w, rows, f32_in(x), f32_in(dy), dw, true);
}

strip_weight *weight_strips(weight *w) {
    return w->has_strips ? &w->strips : NULL;
}
