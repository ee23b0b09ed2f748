// Host memory. Every allocation of our code goes through here, so that a run can prove that its step loop
// allocates nothing, and a plan can be compared with what was taken.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// Zeroed, 64-byte aligned; a large block becomes resident as it is touched. `what` names the purpose in the
// error ("temporal key cache"). Free with memory_free.
status memory_allocate(void **out, size_t bytes, const char *what);
void memory_free(void *pointer); // NULL is allowed

typedef struct memory_counters {
    uint64_t allocations; // calls of memory_allocate so far
    uint64_t live_bytes;
    uint64_t peak_bytes;
} memory_counters;
memory_counters memory_read_counters(void);

// From here on the calling thread's allocations do not count as `allocations`: for a thread that works beside
// the step loop, which allocates nothing.
void memory_leave_uncounted(void);

// Live bytes by purpose, under the names that memory_allocate was given (cut to fit).
typedef struct memory_account {
    char what[48];
    uint64_t live_bytes;
} memory_account;
int memory_read_accounts(memory_account *out, int capacity); // in order of first use; returns how many

// Resident set size of this process now and its peak, in bytes, from /proc/self/status; 0 where unknown.
size_t memory_resident_bytes(void);
size_t memory_resident_peak_bytes(void);

// Bytes of libraries: what the C library's heap took from the system for others than memory_allocate, freed
// but not given back included, and resident pages of files, which is mostly code. Less where the system
// cannot be asked.
size_t memory_library_bytes(void);

// One allocation carved into aligned views: register sizes first, then bind, then take the views.
typedef struct arena {
    char *base;
    size_t used, capacity;
} arena;

// With base == NULL only counts. Returns NULL then, otherwise a 64-byte aligned view. A view of 0 bytes is
// NULL. Binding too small an arena is a programming error and aborts.
void *arena_take(arena *arena, size_t bytes);
