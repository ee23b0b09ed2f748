// The named tensors of a model, laid out in one flat f32 buffer. Gradients and optimiser moments use the same
// layout, so that they are one allocation each, and a checkpoint is a walk over the list.
#pragma once

#include "kernels/device.h"

enum {
    PARAMETER_NAME_MAX = 96,
    PARAMETER_PADDING = 16, // a tensor's place in the flat buffer is a multiple of so many floats
};

typedef enum parameter_initialisation {
    INITIALISE_NORMAL, // normal(0, scale)
    INITIALISE_ONES,
    INITIALISE_ZEROS,
} parameter_initialisation;

typedef struct parameter {
    char name[PARAMETER_NAME_MAX];
    int64_t rows, columns; // [rows, columns]; a vector is [columns] with rows == 0
    size_t offset, count;  // in floats, within the flat buffer
    parameter_initialisation initialisation;
    float scale;
    bool decay; // weight decay applies
} parameter;

typedef struct parameter_list {
    parameter *items;
    int count, capacity;
    size_t size; // floats of the flat buffer, padding included
} parameter_list;

// Appends a tensor and returns its offset in floats through `offset`.
status parameter_list_add(parameter_list *list, const char *name, int64_t rows, int64_t columns,
                          parameter_initialisation initialisation, float scale, size_t *offset);
void parameter_list_release(parameter_list *list);
const parameter *parameter_list_find(const parameter_list *list, const char *name); // NULL if absent

// Fills values [list->size] on the host: tensor i, element j is a function of seed, the tensor's name and j
// alone.
void parameter_list_initialise(const parameter_list *list, uint64_t seed, float *values);

// Copies every tensor of `to` that `from` has by name and shape, both on the device; returns how many were
// copied.
int parameter_list_copy_shared(device *device, const parameter_list *from, const float *from_values,
                               const parameter_list *to, float *to_values);
// to [list->size] = from, both on the device.
void parameter_list_copy(device *device, const parameter_list *list, const float *from, float *to);
