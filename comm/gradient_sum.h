// The gradient of a step: the sum over gradient slots in the order of comm/tree.h, first over those of this
// rank, on the device, then over the ranks that learn. Slots are added one after the other as a binary
// counter does: after slot s, one partial sum is kept for each bit set in s + 1.
#pragma once

#include "comm/group.h"
#include "kernels/device.h"

typedef struct gradient_sum gradient_sum;

// For `slots` (a power of two) gradients of `count` numbers. Takes all its memory here: the gradient,
// log2(slots) partial sums, and a copy on the host where the device has memory of its own. Free with
// gradient_sum_destroy, before the device.
status gradient_sum_create(gradient_sum **out, device *device, size_t count, uint32_t slots);
void gradient_sum_destroy(gradient_sum *sum); // NULL is allowed

// [count] on the device: where the next slot's gradient is to be put; the sum, once all slots are added.
float *gradient_sum_values(gradient_sum *sum);

// The values are those of the next slot; they may be overwritten afterwards, but for those of the last, which
// are the sum of all. The bits do not depend on the thread count.
void gradient_sum_add(gradient_sum *sum);

// After the last slot: the values become the sum over the members, of which there is a power of two
// (collective over the group).
status gradient_sum_share(gradient_sum *sum, group *group);
// The same, but only for this member's part of it (group_part_of): the other values are lost.
status gradient_sum_share_part(gradient_sum *sum, group *group, size_t unit);
