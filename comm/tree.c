#include "comm/tree.h"

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
