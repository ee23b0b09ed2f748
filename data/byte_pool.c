#include "data/byte_pool.h"

#include "kernels/memory.h"

#include <string.h>

status byte_pool_append(byte_pool *pool, const void *bytes, size_t count, const char *what) {
    if (pool->used + count > pool->capacity) {
        size_t capacity = pool->capacity * 2 + count + 4096;
        char *base;
        TRY(memory_allocate((void **)&base, capacity, what));
        if (pool->used > 0)
            memcpy(base, pool->base, pool->used);
        memory_free(pool->base);
        pool->base = base;
        pool->capacity = capacity;
    }
    if (count > 0) // an empty pool may have no memory yet
        memcpy(pool->base + pool->used, bytes, count);
    pool->used += count;
    return STATUS_OK;
}

void byte_pool_release(byte_pool *pool) {
    memory_free(pool->base);
    *pool = (byte_pool){0};
}
