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
    size_t first, count; // floats of the list that it updates: all of them, or a part
    float *moments;      // [2, count]: first, second
    int64_t step;        // updates done
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

// Several optimisers of one list, each with a part of it: together they do what one of the whole does, on the
// CPU to the same bits, if parts begin at multiples of OPTIMIZER_UNIT.
enum { OPTIMIZER_UNIT = 16384 };

// Gives up all moments but those of floats [first, first + count) of the list. Before the first update.
status optimizer_keep_part(optimizer *optimizer, size_t first, size_t count);
// Units of the whole list.
size_t optimizer_units(const optimizer *optimizer);
// The squares of gradients [list->size] summed by unit: sums [units], 0 outside the part.
void optimizer_sum_squares(const optimizer *optimizer, const float *gradients, double *sums);
// From the sums of all parts, added; not finite if one of the gradients is not.
double optimizer_norm(const optimizer *optimizer, const double *sums);
// The update of the part: values and gradients [list->size].
void optimizer_apply(optimizer *optimizer, float learning_rate, double gradient_norm, const float *gradients,
                     float *values);

// Linear warm-up over `warm_up` steps, then a cosine from 1 down to `final_ratio` at `total` steps;
// final_ratio 1 keeps it constant. step counts from 0.
float schedule_factor(int64_t step, int64_t warm_up, int64_t total, float final_ratio);
