#include "core/parameters.h"

#include "kernels/memory.h"
#include "kernels/operators.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PARALLEL_VALUES = 16384 }; // below, threads cost more than they bring

static size_t padded(size_t count) {
    return (count + PARAMETER_PADDING - 1) / PARAMETER_PADDING * PARAMETER_PADDING;
}

status parameter_list_add(parameter_list *list, const char *name, int64_t rows, int64_t columns,
                          parameter_initialisation initialisation, float scale, size_t *offset) {
    if (list->count == list->capacity) {
        int capacity = list->capacity == 0 ? 32 : 2 * list->capacity;
        parameter *larger;
        TRY(memory_allocate((void **)&larger, sizeof *larger * (size_t)capacity, "parameter list"));
        if (list->count > 0)
            memcpy(larger, list->items, sizeof *larger * (size_t)list->count);
        memory_free(list->items);
        list->items = larger;
        list->capacity = capacity;
    }
    parameter *p = &list->items[list->count++];
    *p = (parameter){.rows = rows,
                     .columns = columns,
                     .offset = list->size,
                     .count = (size_t)((rows > 0 ? rows : 1) * columns),
                     .initialisation = initialisation,
                     .scale = scale,
                     .decay = rows > 1};
    snprintf(p->name, sizeof p->name, "%s", name);
    list->size += padded(p->count);
    *offset = p->offset;
    return STATUS_OK;
}

void parameter_list_release(parameter_list *list) {
    memory_free(list->items);
    *list = (parameter_list){0};
}

const parameter *parameter_list_find(const parameter_list *list, const char *name) {
    for (int i = 0; i < list->count; i++)
        if (strcmp(list->items[i].name, name) == 0)
            return &list->items[i];
    return NULL;
}

// FNV-1a: a tensor's random numbers depend on its name, not on its place in the list.
static uint32_t name_hash(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash;
}

static float normal(float scale, uint32_t first, uint32_t second) { // Box-Muller
    const float u = philox_uniform(first), v = philox_uniform(second);
    return scale * sqrtf(-2.0f * logf(1.0f - u)) * cosf(6.28318530718f * v);
}

// A value takes two words of the tensor's stream, so a block of it gives two values.
static void fill_normal(const parameter *p, uint64_t seed, float *out) {
    const uint32_t purpose = name_hash(p->name);
    const int64_t count = (int64_t)p->count;
#pragma omp parallel for schedule(static) if (count >= PARALLEL_VALUES)
    for (int64_t i = 0; i < count; i += 2) {
        const philox_block b = philox_stream_block(seed, purpose, (uint64_t)i / 2);
        out[i] = normal(p->scale, b.word[0], b.word[1]);
        if (i + 1 < count)
            out[i + 1] = normal(p->scale, b.word[2], b.word[3]);
    }
}

void parameter_list_initialise(const parameter_list *list, uint64_t seed, float *values) {
    memset(values, 0, sizeof(float) * list->size);
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        float *out = values + p->offset;
        if (p->initialisation == INITIALISE_NORMAL)
            fill_normal(p, seed, out);
        else if (p->initialisation == INITIALISE_ONES)
            for (size_t j = 0; j < p->count; j++)
                out[j] = 1.0f;
    }
}

// With the padding behind it.
static void copy(device *d, size_t count, const float *from, float *to) {
    const int64_t width = (int64_t)padded(count);
    op_copy_rows(d, 1, width, from, width, to, width, false);
}

int parameter_list_copy_shared(device *d, const parameter_list *from, const float *from_values,
                               const parameter_list *to, float *to_values) {
    int copied = 0;
    for (int i = 0; i < to->count; i++) {
        const parameter *target = &to->items[i], *source = parameter_list_find(from, target->name);
        if (source == NULL || source->rows != target->rows || source->columns != target->columns)
            continue;
        copy(d, target->count, from_values + source->offset, to_values + target->offset);
        copied++;
    }
    return copied;
}

void parameter_list_copy(device *d, const parameter_list *list, const float *from, float *to) {
    copy(d, list->size, from, to);
}
