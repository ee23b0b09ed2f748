#include "core/value.h"

#include "kernels/memory.h"

struct value_network {
    device *device;
    parameter_list list;
    temporal *temporal;
    size_t weight, bias; // [width], [1]
    float *values;
};

struct value_pass {
    device *device;
    int batch, frames;
    temporal_pass *temporal;
    const float *hidden; // [batch * frames, width]
    float *outputs;      // [batch * frames]
    float *d_outputs;    // [batch * frames]
    float *d_hidden;     // [batch * frames, width]
    float *host_outputs; // [batch * frames]
};

status value_create(value_network **out, device *device, const temporal_config *config, bool learn) {
    *out = NULL;
    value_network *n;
    TRY(memory_allocate((void **)&n, sizeof *n, "value network"));
    n->device = device;
    status result;
    TRY_GOTO(result,
             temporal_create(&n->temporal, device, config, &n->list, learn ? WEIGHT_LEARN : WEIGHT_SCORE,
                             WEIGHT_F32),
             failed);
    TRY_GOTO(result,
             parameter_list_add(&n->list, "value.weight", 0, config->transformer.width, INITIALISE_ZEROS,
                                0.0f, &n->weight),
             failed);
    TRY_GOTO(result, parameter_list_add(&n->list, "value.bias", 0, 1, INITIALISE_ZEROS, 0.0f, &n->bias),
             failed);
    TRY_GOTO(result,
             device_allocate(device, (void **)&n->values, sizeof(float) * n->list.size, "value parameters"),
             failed);
    *out = n;
    return STATUS_OK;
failed:
    value_destroy(n);
    return result;
}

void value_destroy(value_network *n) {
    if (n == NULL)
        return;
    temporal_destroy(n->temporal);
    device_free(n->device, n->values);
    parameter_list_release(&n->list);
    memory_free(n);
}

const parameter_list *value_parameters(const value_network *n) {
    return &n->list;
}

float *value_values(value_network *n) {
    return n->values;
}

status value_pack(value_network *n) {
    return temporal_pack(n->temporal, n->values);
}

status value_set_bias(value_network *n, float bias) {
    return device_upload(n->device, n->values + n->bias, &bias, sizeof bias);
}

status value_pass_create(value_pass **out, const value_network *n, int batch, int frames, bool keep) {
    *out = NULL;
    value_pass *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "value pass"));
    p->device = n->device;
    p->batch = batch;
    p->frames = frames;
    const size_t rows = (size_t)batch * frames;
    const size_t width = (size_t)temporal_get_config(n->temporal)->transformer.width;
    status result;
    TRY_GOTO(result, temporal_pass_create(&p->temporal, n->temporal, batch, frames, keep), failed);
    TRY_GOTO(result, device_allocate(n->device, (void **)&p->outputs, sizeof(float) * rows, "values"),
             failed);
    TRY_GOTO(result, memory_allocate((void **)&p->host_outputs, sizeof(float) * rows, "values"), failed);
    if (keep) {
        TRY_GOTO(result,
                 device_allocate(n->device, (void **)&p->d_outputs, sizeof(float) * rows, "value gradients"),
                 failed);
        TRY_GOTO(result,
                 device_allocate(n->device, (void **)&p->d_hidden, sizeof(float) * rows * width,
                                 "value gradients"),
                 failed);
    }
    *out = p;
    return STATUS_OK;
failed:
    value_pass_destroy(p);
    return result;
}

void value_pass_destroy(value_pass *p) {
    if (p == NULL)
        return;
    temporal_pass_destroy(p->temporal);
    device_free(p->device, p->outputs);
    device_free(p->device, p->d_outputs);
    device_free(p->device, p->d_hidden);
    memory_free(p->host_outputs);
    memory_free(p);
}

status value_forward(value_network *n, value_pass *p, int batch, const uint16_t *prefix,
                     const uint16_t *tokens, const float **values) {
    TRY(temporal_forward(n->temporal, n->values, p->temporal, batch, prefix, tokens, &p->hidden));
    op_row_dot(n->device, (int64_t)batch * p->frames, temporal_get_config(n->temporal)->transformer.width,
               p->hidden, n->values + n->weight, n->values + n->bias, p->outputs);
    *values = p->host_outputs;
    return device_download(n->device, p->host_outputs, p->outputs,
                           sizeof(float) * (size_t)batch * (size_t)p->frames);
}

status value_backward(value_network *n, value_pass *p, int batch, const float *d_values, float *gradients,
                      const gradient_watch *watch) {
    TRY(device_upload(n->device, p->d_outputs, d_values, sizeof(float) * (size_t)batch * (size_t)p->frames));
    op_row_dot_backward(n->device, (int64_t)batch * p->frames,
                        temporal_get_config(n->temporal)->transformer.width, p->hidden, n->values + n->weight,
                        p->d_outputs, p->d_hidden, gradients + n->weight, gradients + n->bias);
    return temporal_backward(n->temporal, n->values, gradients, p->temporal, batch, p->d_hidden, watch);
}
