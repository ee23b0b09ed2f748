#include "core/optimizer.h"

#include "kernels/memory.h"

#include <math.h>

status optimizer_create(optimizer **out, device *device, const parameter_list *list,
                        const optimizer_config *config) {
    *out = NULL;
    optimizer *o;
    TRY(memory_allocate((void **)&o, sizeof *o, "optimiser"));
    *o = (optimizer){.device = device, .list = list, .config = *config};
    status result =
        device_allocate(device, (void **)&o->moments, sizeof(float) * 2 * list->size, "optimiser moments");
    if (result != STATUS_OK) {
        memory_free(o);
        return result;
    }
    *out = o;
    return STATUS_OK;
}

void optimizer_destroy(optimizer *o) {
    if (o == NULL)
        return;
    device_free(o->device, o->moments);
    memory_free(o);
}

optimizer_result optimizer_update(optimizer *o, float learning_rate, const float *gradients, float *values) {
    const parameter_list *list = o->list;
    optimizer_result result = {.gradient_norm = sqrt(op_sum_squares(o->device, list->size, gradients))};
    if (!isfinite(result.gradient_norm)) {
        result.skipped = true;
        return result;
    }
    o->step++;
    const bool clip =
        o->config.gradient_clip > 0.0f && result.gradient_norm > (double)o->config.gradient_clip;
    adamw_step step = {.learning_rate = learning_rate,
                       .beta1 = o->config.beta1,
                       .beta2 = o->config.beta2,
                       .epsilon = o->config.epsilon,
                       .gradient_scale =
                           clip ? (float)((double)o->config.gradient_clip / result.gradient_norm) : 1.0f,
                       .step = o->step};
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        step.weight_decay = p->decay ? o->config.weight_decay : 0.0f;
        op_adamw(o->device, p->count, &step, gradients + p->offset, values + p->offset,
                 o->moments + p->offset, o->moments + list->size + p->offset);
    }
    return result;
}

float schedule_factor(int64_t step, int64_t warm_up, int64_t total, float final_ratio) {
    if (step < warm_up)
        return (float)(step + 1) / (float)warm_up;
    if (total <= warm_up)
        return 1.0f;
    double progress = (double)(step - warm_up) / (double)(total - warm_up);
    progress = progress > 1.0 ? 1.0 : progress;
    return (float)((double)final_ratio +
                   (1.0 - (double)final_ratio) * 0.5 * (1.0 + cos(progress * 3.14159265358979)));
}
