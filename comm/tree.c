#include "comm/tree.h"

#include "kernels/memory.h"

#include <stdbool.h>
#include <string.h>

enum { BLOCK = 4096 }; // elements that go through all levels while they are in the first cache

struct tree_accumulator {
    tree_type type;
    size_t count;
    uint32_t slots, added;
    char *levels;  // [log2(slots)][stride]: level l holds a sum of 2^l slots
    size_t stride; // bytes
};

size_t tree_type_bytes(tree_type type) {
    return type == TREE_DOUBLE ? sizeof(double) : sizeof(float);
}

static void add_float(float *into, const float *left, const float *right, size_t count) {
    for (size_t i = 0; i < count; i++)
        into[i] = left[i] + right[i];
}

static void add_double(double *into, const double *left, const double *right, size_t count) {
    for (size_t i = 0; i < count; i++)
        into[i] = left[i] + right[i];
}

void tree_add(tree_type type, void *into, const void *left, const void *right, size_t count) {
    if (type == TREE_DOUBLE)
        add_double(into, left, right, count);
    else
        add_float(into, left, right, count);
}

static size_t level_stride(tree_type type, size_t count) {
    return (count * tree_type_bytes(type) + 63) / 64 * 64;
}

size_t tree_accumulator_bytes(tree_type type, size_t count, uint32_t slots) {
    return slots > 1 ? (size_t)__builtin_ctz(slots) * level_stride(type, count) : 0;
}

status tree_accumulator_create(tree_accumulator **out, tree_type type, size_t count, uint32_t slots) {
    *out = NULL;
    if (slots == 0 || (slots & (slots - 1)) != 0)
        return FAIL("a tree sum over %u slots: the number of slots must be a power of two", slots);
    tree_accumulator *accumulator;
    TRY(memory_allocate((void **)&accumulator, sizeof *accumulator, "tree accumulator"));
    *accumulator = (tree_accumulator){type, count, slots, 0, NULL, level_stride(type, count)};
    size_t bytes = tree_accumulator_bytes(type, count, slots);
    if (bytes > 0) {
        status result =
            memory_allocate((void **)&accumulator->levels, bytes, "partial sums of gradient slots");
        if (result != STATUS_OK) {
            memory_free(accumulator);
            return result;
        }
    }
    *out = accumulator;
    return STATUS_OK;
}

void tree_accumulator_destroy(tree_accumulator *accumulator) {
    if (accumulator == NULL)
        return;
    memory_free(accumulator->levels);
    memory_free(accumulator);
}

void tree_accumulator_add(tree_accumulator *accumulator, void *values) {
    uint32_t depth = (uint32_t)__builtin_ctz(accumulator->added + 1); // complete subtrees that end here
    bool last = accumulator->added + 1 == accumulator->slots;
    size_t element = tree_type_bytes(accumulator->type), count = accumulator->count;
    size_t blocks = (count + BLOCK - 1) / BLOCK;
    // Each element takes its own way through the levels, so threads may share the blocks out as they like.
#pragma omp parallel for schedule(static)
    for (size_t block = 0; block < blocks; block++) {
        size_t begin = block * BLOCK, length = count - begin < BLOCK ? count - begin : BLOCK;
        char *sum = (char *)values + begin * element;
        char *partial = accumulator->levels + begin * element;
        for (uint32_t level = 0; level < depth; level++, partial += accumulator->stride)
            tree_add(accumulator->type, sum, partial, sum, length);
        if (!last)
            memcpy(partial, sum, length * element);
    }
    accumulator->added = last ? 0 : accumulator->added + 1;
}

uint32_t tree_accumulator_slots(const tree_accumulator *accumulator) {
    return accumulator->added;
}

void tree_accumulator_reset(tree_accumulator *accumulator) {
    accumulator->added = 0;
}
