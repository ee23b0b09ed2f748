// New weights from the first learner to the ranks that sample, by version. A rank that learns holds them
// already and takes no part. They go from GPU to GPU where that is possible (comm/device_group.h), otherwise
// through the host, with a checksum.
#pragma once

#include "comm/batch.h"
#include "comm/device_group.h"
#include "comm/world.h"
#include "kernels/device.h"

#include <stdint.h>

typedef struct weights_channel weights_channel;

// `note`: as device_group_create's. For `count` f32 weights on each rank's own device, from world rank
// `sender` to world ranks receivers [receiver_count], which do not include the sender and may be none. The
// sender and all receivers call it, in the same order as other groups; any other rank may, and gets a channel
// on which every call succeeds and does nothing. The caller owns *out.
status weights_create(weights_channel **out, world *world, device *device, int sender, const int *receivers,
                      int receiver_count, uint64_t count, char note[DEVICE_GROUP_NOTE]);
void weights_destroy(weights_channel *channel); // NULL is allowed

// What goes before weights [count], whatever their way: WEIGHT_UPDATE_BYTES with version, count and checksum
// (0 if `weights` is NULL: the host never has them); and the check of what arrived behind it.
status weights_announce(void *announcement, uint64_t version, const float *weights, uint64_t count);
status weights_verify(const void *announcement, uint64_t version, const float *weights, uint64_t count);

// The sender: starts to send weights [count] as `version` and returns; versions rise from call to call. The
// weights must not change until weights_wait has returned (the next forward and backward pass may read them;
// the next optimiser step waits). An earlier send is waited for first.
status weights_send(weights_channel *channel, uint64_t version, const float *weights);

// The sender: waits until the weights of the last send may change. Nothing to do elsewhere.
status weights_wait(weights_channel *channel);

// A receiver: waits for the next weights, which must be `version`, and stores them in weights [count] after
// checking version, count and checksum. Every version sent must be received, in order. Fails after the
// world's deadline.
status weights_receive(weights_channel *channel, uint64_t version, float *weights);
