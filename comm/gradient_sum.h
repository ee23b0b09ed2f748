// The gradient of a step: the sum over gradient slots in the order of comm/tree.h, first over those of this
// rank, on the device, then over the ranks that learn. Slots are added one after the other as a binary
// counter does: after slot s, one partial sum is kept for each bit set in s + 1.
//
// Where the ranks communicate from GPU to GPU, what is final of the last slot's gradient is summed over them
// while the backward pass makes the rest.
#pragma once

#include "comm/device_group.h"
#include "kernels/device.h"

#include <stdbool.h>

typedef struct gradient_sum gradient_sum;

// For `slots` (a power of two) gradients of `count` numbers. Takes the gradient and log2(slots) partial sums.
// Free with gradient_sum_destroy, before the device.
status gradient_sum_create(gradient_sum **out, device *device, size_t count, uint32_t slots);
void gradient_sum_destroy(gradient_sum *sum); // NULL is allowed

// [count] on the device: where the next slot's gradient is to be put; the sum, once all slots are added.
float *gradient_sum_values(gradient_sum *sum);

// Over whom the sum goes; takes memory for a copy on the host where it goes that way and the device has
// memory of its own. `group` holds a power of two members and must outlive it; without this call the sum is
// this rank's alone. With `unit` 0 every member gets the whole sum, otherwise only its part (group_part_of),
// and what is outside of it is lost. `bucket`: at least so many numbers are sent at a time while the backward
// pass goes on. Comes before the first slot; where the group is direct it is collective, and sends so many
// zeros.
status gradient_sum_among(gradient_sum *sum, device_group *group, size_t unit, size_t bucket);

// Whether the slot that comes next is the last and goes out while it is made: its backward pass may then tell
// gradient_sum_final how far it is.
bool gradient_sum_goes_out(const gradient_sum *sum);
// The values from `from` to the end are final; `from` falls from call to call. They must not be touched until
// gradient_sum_share has returned.
status gradient_sum_final(gradient_sum *sum, size_t from);

// The values are those of the next slot; they may be overwritten afterwards, but for those of the last, which
// are the sum of all. The bits do not depend on the thread count.
void gradient_sum_add(gradient_sum *sum);

// After the last slot: the values become the sum over the members (collective over the group). Waits for what
// is under way.
status gradient_sum_share(gradient_sum *sum);
