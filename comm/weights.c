#include "comm/weights.h"

#include "comm/group.h"
#include "comm/mpi_call.h"
#include "kernels/memory.h"

#include <inttypes.h>
#include <xxhash.h>

enum {
    PIECE = 1 << 27,  // weights a broadcast: MPI counts are ints
    PIECES_MAX = 128, // up to 2^34 weights
};

struct weights_channel {
    world *world;
    device *device;
    group *group; // NULL where there is nobody to send to, or this rank takes no part
    device_group *devices;
    float *copy; // [count] on the host, where the device has memory of its own and the group is not direct
    bool pinned;
    uint64_t count;
    bool sends, under_way;
    uint64_t last_version;
    bool any_sent;
    void *announcement; // [WEIGHT_UPDATE_BYTES], 64-byte aligned
    int request_count;
    MPI_Request requests[1 + PIECES_MAX];
};

static bool is_direct(const weights_channel *channel) {
    return device_group_is_direct(channel->devices);
}

// What the group needs to pass weights on.
static status connect(weights_channel *channel, char note[DEVICE_GROUP_NOTE]) {
    TRY(device_group_create(&channel->devices, channel->device, channel->group, note));
    if (is_direct(channel) || device_shares_memory(channel->device))
        return STATUS_OK;
    const size_t bytes = channel->count * sizeof(float);
    TRY(memory_allocate((void **)&channel->copy, bytes, "weights under way"));
    channel->pinned = device_pin(channel->device, channel->copy, bytes);
    return STATUS_OK;
}

status weights_create(weights_channel **out, world *world, device *device, int sender, const int *receivers,
                      int receiver_count, uint64_t count, char note[DEVICE_GROUP_NOTE]) {
    *out = NULL;
    note[0] = '\0';
    if (count == 0 || count > (uint64_t)PIECE * PIECES_MAX)
        return FAIL("a weights channel for %" PRIu64 " weights; 1 to %" PRIu64 " are allowed", count,
                    (uint64_t)PIECE * PIECES_MAX);
    weights_channel *channel;
    TRY(memory_allocate((void **)&channel, sizeof *channel, "weights channel"));
    channel->world = world;
    channel->device = device;
    channel->count = count;
    channel->sends = world_rank(world) == sender;
    int *ranks = NULL;
    status result;
    TRY_GOTO(result, memory_allocate(&channel->announcement, WEIGHT_UPDATE_BYTES, "weights announcement"),
             cleanup);
    TRY_GOTO(
        result,
        memory_allocate((void **)&ranks, ((size_t)receiver_count + 1) * sizeof(int), "receivers of weights"),
        cleanup);
    bool takes_part = channel->sends;
    ranks[0] = sender;
    for (int i = 0; i < receiver_count; i++) {
        ranks[i + 1] = receivers[i];
        takes_part |= receivers[i] == world_rank(world);
    }
    if (receiver_count > 0 && takes_part) {
        TRY_GOTO(result, group_create(&channel->group, world, ranks, receiver_count + 1), cleanup);
        TRY_GOTO(result, connect(channel, note), cleanup);
    }
    *out = channel;
    channel = NULL;
cleanup:
    memory_free(ranks);
    weights_destroy(channel);
    return result;
}

void weights_destroy(weights_channel *channel) {
    if (channel == NULL)
        return;
    device_group_destroy(channel->devices);
    group_destroy(channel->group);
    if (channel->pinned)
        device_unpin(channel->device, channel->copy);
    memory_free(channel->copy);
    memory_free(channel->announcement);
    memory_free(channel);
}

status weights_announce(void *announcement, uint64_t version, const float *weights, uint64_t count) {
    const weight_update update = {version, count,
                                  weights == NULL ? 0 : XXH3_64bits(weights, count * sizeof(float))};
    size_t bytes;
    return weight_update_build(&update, announcement, WEIGHT_UPDATE_BYTES, &bytes);
}

status weights_verify(const void *announcement, uint64_t version, const float *weights, uint64_t count) {
    weight_update update;
    // The header of an announcement always takes one unit of 64 bytes.
    TRY(weight_update_parse(&update, announcement, WEIGHT_UPDATE_BYTES));
    if (update.version != version)
        return FAIL("weights version %" PRIu64 " arrived, version %" PRIu64 " is wanted", update.version,
                    version);
    if (update.count != count)
        return FAIL("weights version %" PRIu64 " has %" PRIu64 " numbers, %" PRIu64 " are wanted", version,
                    update.count, count);
    if (weights == NULL)
        return STATUS_OK;
    const uint64_t found = XXH3_64bits(weights, count * sizeof(float));
    if (found != update.checksum)
        return FAIL("weights version %" PRIu64 " arrived damaged: checksum %016" PRIx64 ", %016" PRIx64
                    " is wanted",
                    version, found, update.checksum);
    return STATUS_OK;
}

// Starts the broadcasts of announcement and weights: the same calls on both sides. The weights are on the
// device if the group is direct, else on the host.
static status post(weights_channel *channel, float *weights) {
    const world *world = channel->world;
    MPI_Comm comm = group_communicator(channel->group);
    int sender = group_rank(channel->group, 0);
    channel->request_count = 0;
    TRY(mpi_check(
        world,
        MPI_Ibcast(channel->announcement, WEIGHT_UPDATE_BYTES, MPI_BYTE, 0, comm, &channel->requests[0]),
        "MPI_Ibcast", sender));
    channel->request_count = 1;
    channel->under_way = true;
    if (is_direct(channel))
        return device_group_broadcast(channel->devices, weights, channel->count, 0);
    for (uint64_t begin = 0; begin < channel->count; begin += PIECE) {
        int length = (int)(channel->count - begin < PIECE ? channel->count - begin : PIECE);
        TRY(mpi_check(world,
                      MPI_Ibcast(weights + begin, length, MPI_FLOAT, 0, comm,
                                 &channel->requests[channel->request_count]),
                      "MPI_Ibcast", sender));
        channel->request_count++;
    }
    return STATUS_OK;
}

status weights_wait(weights_channel *channel) {
    if (!channel->under_way)
        return STATUS_OK;
    TRY(mpi_wait_all(channel->world, channel->requests, channel->request_count, "a transfer of weights",
                     channel->sends ? -1 : group_rank(channel->group, 0)));
    if (is_direct(channel))
        TRY(device_group_wait(channel->devices));
    channel->under_way = false;
    return STATUS_OK;
}

status weights_send(weights_channel *channel, uint64_t version, const float *weights) {
    if (channel->group == NULL)
        return STATUS_OK;
    const world *world = channel->world;
    if (!channel->sends)
        return FAIL("rank %d on %s: only rank %d sends weights", world_rank(world), world_host(world),
                    group_rank(channel->group, 0));
    if (channel->any_sent && version <= channel->last_version)
        return FAIL("rank %d on %s: weights version %" PRIu64 " is sent after version %" PRIu64,
                    world_rank(world), world_host(world), version, channel->last_version);
    TRY(weights_wait(channel));
    float *sent = (float *)weights; // which is only read
    if (channel->copy != NULL) {
        sent = channel->copy;
        TRY(device_download(channel->device, sent, weights, channel->count * sizeof(float)));
    }
    TRY(weights_announce(channel->announcement, version, is_direct(channel) ? NULL : sent, channel->count));
    channel->any_sent = true;
    channel->last_version = version;
    return post(channel, sent);
}

status weights_receive(weights_channel *channel, uint64_t version, float *weights) {
    if (channel->group == NULL)
        return STATUS_OK;
    const world *world = channel->world;
    if (channel->sends)
        return FAIL("rank %d on %s: the rank that sends weights does not receive them", world_rank(world),
                    world_host(world));
    float *received = channel->copy != NULL ? channel->copy : weights;
    TRY(post(channel, received));
    TRY(weights_wait(channel));
    const status result =
        weights_verify(channel->announcement, version, is_direct(channel) ? NULL : received, channel->count);
    if (result != STATUS_OK)
        return status_prefix(result, "rank %d on %s: ", world_rank(world), world_host(world));
    if (received == weights)
        return STATUS_OK;
    TRY(device_upload(channel->device, weights, received, channel->count * sizeof(float)));
    return channel->pinned ? device_finish(channel->device) : STATUS_OK;
}
