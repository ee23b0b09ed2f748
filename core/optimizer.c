#include "core/optimizer.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

status optimizer_create(optimizer **out, device *device, const parameter_list *list,
                        const optimizer_config *config) {
    *out = NULL;
    optimizer *o;
    TRY(memory_allocate((void **)&o, sizeof *o, "optimiser"));
    *o = (optimizer){.device = device, .list = list, .config = *config, .count = list->size};
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

status optimizer_keep_part(optimizer *o, size_t first, size_t count) {
    device_free(o->device, o->moments);
    o->moments = NULL;
    o->first = first;
    o->count = count;
    return device_allocate(o->device, (void **)&o->moments, sizeof(float) * 2 * (count + 1),
                           "optimiser moments");
}

size_t optimizer_units(const optimizer *o) {
    return (o->list->size + OPTIMIZER_UNIT - 1) / OPTIMIZER_UNIT;
}

// Where every question costs a launch, one sum stands for all units of the part.
void optimizer_sum_squares(const optimizer *o, const float *gradients, double *sums) {
    const size_t end = o->first + o->count,
                 unit = device_shares_memory(o->device) ? OPTIMIZER_UNIT : o->count;
    memset(sums, 0, sizeof *sums * optimizer_units(o));
    for (size_t at = o->first; at < end; at += unit)
        sums[at / OPTIMIZER_UNIT] =
            op_sum_squares(o->device, end - at < unit ? end - at : unit, gradients + at);
}

double optimizer_norm(const optimizer *o, const double *sums) {
    double sum = 0.0;
    for (size_t i = 0; i < optimizer_units(o); i++)
        sum += sums[i];
    return sqrt(sum);
}

void optimizer_apply(optimizer *o, float learning_rate, double gradient_norm, const float *gradients,
                     float *values) {
    const size_t end = o->first + o->count;
    const bool clip = o->config.gradient_clip > 0.0f && gradient_norm > (double)o->config.gradient_clip;
    o->step++;
    adamw_step step = {.learning_rate = learning_rate,
                       .beta1 = o->config.beta1,
                       .beta2 = o->config.beta2,
                       .epsilon = o->config.epsilon,
                       .gradient_scale =
                           clip ? (float)((double)o->config.gradient_clip / gradient_norm) : 1.0f,
                       .step = o->step};
    for (int i = 0; i < o->list->count; i++) {
        const parameter *p = &o->list->items[i];
        const size_t from = p->offset > o->first ? p->offset : o->first,
                     to = p->offset + p->count < end ? p->offset + p->count : end;
        step.weight_decay = p->decay ? o->config.weight_decay : 0.0f;
        if (from < to)
            op_adamw(o->device, to - from, &step, gradients + from, values + from,
                     o->moments + from - o->first, o->moments + o->count + from - o->first);
    }
}

optimizer_result optimizer_update(optimizer *o, float learning_rate, const float *gradients, float *values) {
    optimizer_result result = {.gradient_norm = sqrt(op_sum_squares(o->device, o->list->size, gradients))};
    result.skipped = !isfinite(result.gradient_norm);
    if (!result.skipped)
        optimizer_apply(o, learning_rate, result.gradient_norm, gradients, values);
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
