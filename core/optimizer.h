// AdamW with global-norm clipping over a flat parameter buffer, and learning-rate schedules.
#pragma once

#include "core/parameters.h"
#include "kernels/operators.h"

typedef struct optimizer_config {
    float beta1, beta2, epsilon, weight_decay;
    float gradient_clip; // of the global norm; 0 turns clipping off
} optimizer_config;

typedef struct optimizer {
    device *device;
    const parameter_list *list;
    optimizer_config config;
    float *moments; // [2, list->size]: first, second
    int64_t step;   // updates done
} optimizer;

status optimizer_create(optimizer **out, device *device, const parameter_list *list,
                        const optimizer_config *config);
void optimizer_destroy(optimizer *optimizer); // NULL is allowed

typedef struct optimizer_result {
    double gradient_norm; // before clipping
    bool skipped;         // the gradient held a value that is not finite; nothing was changed
} optimizer_result;

// One update of values [list->size] from gradients [list->size].
optimizer_result optimizer_update(optimizer *optimizer, float learning_rate, const float *gradients,
                                  float *values);

// Linear warm-up over `warm_up` steps, then a cosine from 1 down to `final_ratio` at `total` steps;
// final_ratio 1 keeps it constant. step counts from 0.
float schedule_factor(int64_t step, int64_t warm_up, int64_t total, float final_ratio);
