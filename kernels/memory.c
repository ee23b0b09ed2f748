#include "kernels/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A 64-byte header in front of each block holds its size, so that live bytes can be counted.
enum { HEADER = 64 };

static atomic_uint_fast64_t allocations, live_bytes, peak_bytes;

status memory_allocate(void **out, size_t bytes, const char *what) {
    *out = NULL;
    if (bytes > SIZE_MAX - 2 * HEADER)
        return FAIL("out of host memory: %s needs %zu bytes", what, bytes);
    size_t total = HEADER + (bytes + 63) / 64 * 64;
    char *block = aligned_alloc(64, total);
    if (block == NULL)
        return FAIL("out of host memory: %s needs %zu bytes; use a smaller batch or model", what, bytes);
    memset(block, 0, total);
    memcpy(block, &bytes, sizeof bytes);
    atomic_fetch_add(&allocations, 1);
    uint64_t live = atomic_fetch_add(&live_bytes, bytes) + bytes;
    uint64_t peak = atomic_load(&peak_bytes);
    while (live > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, live)) {
    }
    *out = block + HEADER;
    return STATUS_OK;
}

void memory_free(void *pointer) {
    if (pointer == NULL)
        return;
    char *block = (char *)pointer - HEADER;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    atomic_fetch_sub(&live_bytes, bytes);
    free(block);
}

memory_counters memory_read_counters(void) {
    return (memory_counters){atomic_load(&allocations), atomic_load(&live_bytes), atomic_load(&peak_bytes)};
}

static size_t status_field(const char *name) {
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL)
        return 0;
    char line[256];
    size_t kilobytes = 0, length = strlen(name);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ':')
            kilobytes = strtoull(line + length + 1, NULL, 10);
    fclose(file);
    return kilobytes * 1024;
}

size_t memory_resident_bytes(void) {
    return status_field("VmRSS");
}

size_t memory_resident_peak_bytes(void) {
    return status_field("VmHWM");
}

void *arena_take(arena *arena, size_t bytes) {
    if (bytes == 0)
        return NULL;
    size_t offset = arena->used;
    arena->used += (bytes + 63) / 64 * 64;
    if (arena->base == NULL)
        return NULL;
    if (arena->used > arena->capacity) {
        fprintf(stderr, "arena of %zu bytes is too small: a view needs %zu more\n", arena->capacity,
                arena->used - arena->capacity);
        abort();
    }
    return arena->base + offset;
}
