// A growing block of bytes, for texts whose number is not known beforehand.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

typedef struct byte_pool {
    char *base; // [capacity]; moves when the pool grows
    size_t used, capacity;
} byte_pool; // {0} is empty

// Appends a copy; on failure the pool is as it was. `what` names the memory in the error.
status byte_pool_append(byte_pool *pool, const void *bytes, size_t count, const char *what);
void byte_pool_release(byte_pool *pool); // frees the block; the pool is empty again
