// The memory that a run will need, told before it becomes resident. A run creates all its buffers first: they
// are reserved, but not yet touched, so that their sum, with what libraries took meanwhile, is the plan.
#pragma once

#include "comm/world.h"
#include "kernels/device.h"

#include <stdint.h>

typedef struct plan {
    uint64_t resident_before; // bytes of this process when planning began
    uint64_t live_before;     // bytes that our code held then
    uint64_t library_before;  // bytes that libraries held then
    uint64_t library_bytes;   // that they took since
    uint64_t bytes;           // planned for this rank: what it reserved since, libraries included
    uint64_t device_bytes;    // planned on a device with memory of its own
} plan;

// What takes the memory of a device, and what gives all of it back, also after a failure half-way.
typedef struct plan_parts {
    status (*create)(void *context);
    void (*destroy)(void *context);
    void *context;
} plan_parts;

// Before the parts are created (collective over the world): where the device has memory of its own, which it
// takes at once, the parts are created on paper first (device_plan_begin), and destroyed again. Rank
// `speaker` prints what is needed. Fails with the numbers if the ranks on a GPU together need more than it
// has free.
status plan_device(plan *plan, world *world, device *device, int speaker, const char *title,
                   const plan_parts *parts);

// Before the buffers are created.
void plan_begin(plan *plan);

// After they were created and before they are used (collective over the world): rank `speaker` prints what is
// needed, by purpose. Fails with the numbers if the ranks of a host together need more than the host, or the
// control group, has left.
status plan_check(plan *plan, world *world, int speaker, const char *title);

// Bytes that this process may still take: MemAvailable, or less if its control group allows less. UINT64_MAX
// if neither is known.
uint64_t plan_available_bytes(void);
