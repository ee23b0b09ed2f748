// Sums and copies of device buffers over a group of ranks, from card to card: by NCCL, in a lane beside the
// operators. Where NCCL does not serve (no NCCL, a rank without a card, several ranks on one card, a CPU) the
// group is not direct: whoever uses it goes through the host and comm/group.h instead.
#pragma once

#include "comm/group.h"
#include "kernels/device.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct device_group device_group;

enum { DEVICE_GROUP_NOTE = 1024 };

// Over the members of `group`, which all call it; it and the device must outlive it. Where NCCL serves they
// are connected here. `note`: one line that says how they communicate, and what memory that took so far, or
// why not directly; "" if there is one member or no card. Fails on every member where some have other
// versions of NCCL, or NCCL does not start. The caller owns *out.
status device_group_create(device_group **out, device *device, group *group, char note[DEVICE_GROUP_NOTE]);
void device_group_destroy(device_group *group); // NULL is allowed; collective where it is direct

group *device_group_ranks(const device_group *group);
bool device_group_is_direct(const device_group *group);

// The calls below are for a group that is direct, in the same order on all members. They return once the work
// is in the lane, behind the operators so far: the buffer must neither be read nor written until
// device_group_wait has returned. A failure leaves the group unusable: the run must end, by world_abort.

// values [count] of each member = the sum over members. The order of the sum is NCCL's: it depends on the
// number of members and on how they are connected, and is the same in every run.
status device_group_sum(device_group *group, float *values, size_t count);

// The same, but of values [count] of each member only what lies in [begin, end) and is its part
// (group_part_of with `unit`) becomes the sum; what is outside its part is lost.
status device_group_sum_parts(device_group *group, float *values, size_t count, size_t unit, size_t begin,
                              size_t end);

// values [count] of each member: every member's own part to all.
status device_group_gather_parts(device_group *group, float *values, size_t count, size_t unit);

// values [count], from member `root` to all.
status device_group_broadcast(device_group *group, float *values, size_t count, int root);

// Waits for all of them; the deadline is the world's.
status device_group_wait(device_group *group);
