#include "kernels/memory.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// A header in front of each block holds what is needed to count live bytes and to free it.
typedef struct block_header {
    size_t bytes, mapped; // asked for; length of the mapping, 0: from the heap
    int account;
} block_header;

// Large blocks are mapped of their own: their pages are zero without being touched, so that a run can sum up
// what it reserves before any of it is resident. AddressSanitizer watches the heap only.
enum { HEADER = 64, ACCOUNTS_MAX = 256, LARGE_PAGE = 2 << 20 };
#if defined(__SANITIZE_ADDRESS__)
static const size_t mapped_from = SIZE_MAX;
#else
static const size_t mapped_from = 64 << 10;
#endif

static atomic_uint_fast64_t allocations, live_bytes, peak_bytes, heap_bytes; // the last of blocks not mapped
static pthread_mutex_t account_lock = PTHREAD_MUTEX_INITIALIZER;
static memory_account accounts[ACCOUNTS_MAX]; // the last one takes what finds no room
static int account_count;
static _Thread_local bool uncounted;

static int find_account(const char *what) {
    char name[sizeof accounts[0].what];
    snprintf(name, sizeof name, "%s", what);
    for (int i = 0; i < account_count; i++)
        if (strcmp(accounts[i].what, name) == 0)
            return i;
    if (account_count == ACCOUNTS_MAX)
        return ACCOUNTS_MAX - 1;
    memcpy(accounts[account_count].what, name, sizeof name);
    return account_count++;
}

static void *take_block(size_t total, size_t *mapped) {
    *mapped = 0;
    if (total < mapped_from) {
        void *block = aligned_alloc(64, total);
        return block == NULL ? NULL : memset(block, 0, total);
    }
    // Large pages save the processor much looking up; they must be aligned to their size.
    const size_t alignment = total >= LARGE_PAGE ? LARGE_PAGE : 0;
    char *block = mmap(NULL, total + alignment, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block == MAP_FAILED)
        return NULL;
    *mapped = total;
    if (alignment > 0) {
        const size_t before = (alignment - (uintptr_t)block % alignment) % alignment,
                     end = (total + 4095) / 4096 * 4096;
        if (before > 0)
            munmap(block, before);
        if (before + end < total + alignment)
            munmap(block + before + end, total + alignment - before - end);
        block += before;
        madvise(block, total, MADV_HUGEPAGE);
    }
    return block;
}

status memory_allocate(void **out, size_t bytes, const char *what) {
    *out = NULL;
    if (bytes > PTRDIFF_MAX) // rounding up further must not wrap
        return FAIL("out of host memory: %s needs %zu bytes", what, bytes);
    size_t mapped, total = HEADER + (bytes + 63) / 64 * 64;
    char *block = take_block(total, &mapped);
    if (block == NULL)
        return FAIL("out of host memory: %s needs %zu bytes; use a smaller batch or model", what, bytes);
    pthread_mutex_lock(&account_lock);
    const int account = find_account(what);
    accounts[account].live_bytes += bytes;
    pthread_mutex_unlock(&account_lock);
    *(block_header *)block = (block_header){bytes, mapped, account};
    if (mapped == 0)
        atomic_fetch_add(&heap_bytes, total);
    if (!uncounted)
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
    const block_header header = *(block_header *)block;
    atomic_fetch_sub(&live_bytes, header.bytes);
    pthread_mutex_lock(&account_lock);
    accounts[header.account].live_bytes -= header.bytes;
    pthread_mutex_unlock(&account_lock);
    if (header.mapped > 0)
        munmap(block, header.mapped);
    else {
        atomic_fetch_sub(&heap_bytes, HEADER + (header.bytes + 63) / 64 * 64);
        free(block);
    }
}

int memory_read_accounts(memory_account *out, int capacity) {
    pthread_mutex_lock(&account_lock);
    const int count = account_count < capacity ? account_count : capacity;
    memcpy(out, accounts, sizeof *out * (size_t)count);
    pthread_mutex_unlock(&account_lock);
    return count;
}

memory_counters memory_read_counters(void) {
    return (memory_counters){atomic_load(&allocations), atomic_load(&live_bytes), atomic_load(&peak_bytes)};
}

void memory_leave_uncounted(void) {
    uncounted = true;
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

size_t memory_library_bytes(void) {
    size_t heap_of_others = 0;
#ifdef __GLIBC__
    const struct mallinfo2 heap = mallinfo2();
    const size_t held = heap.arena + heap.hblkhd, own = atomic_load(&heap_bytes);
    heap_of_others = held > own ? held - own : 0;
#endif
    return heap_of_others + status_field("RssFile");
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
