#include "comm/device_group.h"

#include "comm/mpi_call.h"
#include "comm/nccl.h"
#include "kernels/memory.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct device_group {
    device *device;
    group *group;
    nccl_library *library;
    nccl_communicator *communicator; // NULL: not direct
    device_lane *lane;
};

// Opens this member's lane, if it computes on a card, and tells whether any member does. All fail with the
// line of the first that has no lane.
static status open_lanes(device_group *g, bool *any) {
    struct {
        uint8_t has_card, failed;
        char line[512];
    } own = {.has_card = device_card(g->device)[0] != '\0'}, *all;
    if (own.has_card && device_lane_open(g->device, &g->lane) != STATUS_OK) {
        own.failed = 1;
        snprintf(own.line, sizeof own.line, "%s", status_message());
    }
    *any = false;
    TRY(memory_allocate((void **)&all, sizeof *all * (size_t)group_size(g->group), "lanes of a group"));
    status result = group_all_gather(g->group, &own, sizeof own, all);
    for (int i = 0; result == STATUS_OK && i < group_size(g->group); i++) {
        const int rank = group_rank(g->group, i);
        *any |= all[i].has_card != 0;
        if (all[i].failed)
            result = FAIL("rank %d on %s: %.*s", rank, world_host_of(group_world(g->group), rank),
                          (int)sizeof all[i].line, all[i].line);
    }
    memory_free(all);
    return result;
}

static status lane_has_ended(void *context, bool *ended) {
    const device_group *g = context;
    return device_lane_ended(g->device, g->lane, ended);
}

status device_group_wait(device_group *g) {
    return nccl_wait(g->communicator, lane_has_ended, g);
}

// NCCL connects members at their first collectives, which end only when all are there, and takes memory for
// it: better now than in the first step.
static status warm_up(device_group *g) {
    enum { NUMBERS = 1 << 16 };
    float *values;
    TRY(device_allocate(g->device, (void **)&values, sizeof(float) * NUMBERS, "NCCL's first collectives"));
    status result = device_group_sum(g, values, NUMBERS);
    if (result == STATUS_OK)
        result = device_group_broadcast(g, values, NUMBERS, 0);
    if (result == STATUS_OK)
        result = device_group_wait(g);
    device_free(g->device, values);
    return result;
}

static status start_nccl(device_group *g, char note[DEVICE_GROUP_NOTE]) {
    device_memory before, after;
    TRY(device_read_memory(g->device, &before));
    TRY(nccl_communicator_create(&g->communicator, g->library, g->group, 0.0));
    TRY(warm_up(g));
    TRY(device_read_memory(g->device, &after));
    const uint64_t taken = before.free_bytes > after.free_bytes ? before.free_bytes - after.free_bytes : 0;
    if (note[0] == '\0')
        snprintf(note, DEVICE_GROUP_NOTE,
                 "%d ranks communicate from GPU to GPU by NCCL %s, which took %.1f MiB of this one",
                 group_size(g->group), nccl_library_version_text(g->library), (double)taken / (1 << 20));
    return STATUS_OK;
}

static status connect(device_group *g, char note[DEVICE_GROUP_NOTE]) {
    bool any;
    TRY(open_lanes(g, &any));
    if (!any)
        return STATUS_OK;
    char missing[512] = "";
    nccl_agreement agreement;
    if (nccl_library_open(&g->library, NULL) != STATUS_OK)
        snprintf(missing, sizeof missing, "%s", status_message());
    TRY(nccl_agree(g->group, g->library, missing, device_card(g->device), &agreement));
    snprintf(note, DEVICE_GROUP_NOTE, "%s", agreement.line);
    if (agreement.service != NCCL_SERVES)
        return STATUS_OK;
    return start_nccl(g, note);
}

status device_group_create(device_group **out, device *device, group *group, char note[DEVICE_GROUP_NOTE]) {
    *out = NULL;
    note[0] = '\0';
    device_group *g;
    TRY(memory_allocate((void **)&g, sizeof *g, "group of devices"));
    *g = (device_group){.device = device, .group = group};
    const status result = group_size(group) > 1 && group_index(group) >= 0 ? connect(g, note) : STATUS_OK;
    if (result != STATUS_OK)
        device_group_destroy(g);
    else
        *out = g;
    return result;
}

void device_group_destroy(device_group *g) {
    if (g == NULL)
        return;
    nccl_communicator_destroy(g->communicator);
    device_lane_close(g->device, g->lane);
    nccl_library_close(g->library);
    memory_free(g);
}

group *device_group_ranks(const device_group *g) {
    return g->group;
}

bool device_group_is_direct(const device_group *g) {
    return g->communicator != NULL;
}

// The lane's stream, behind the operators so far.
static status follow(device_group *g, void **stream) {
    *stream = device_lane_stream(g->device, g->lane);
    return device_lane_follow(g->device, g->lane);
}

status device_group_sum(device_group *g, float *values, size_t count) {
    void *stream;
    TRY(follow(g, &stream));
    return nccl_all_reduce(g->communicator, values, values, count, NCCL_FLOAT, stream);
}

// A part of each member, which may be empty, reduced to it or sent from it. NCCL's own reduce-scatter and
// all-gather want parts of one size; in one bundle these move as many bytes.
static status each_part(device_group *g, float *values, size_t count, size_t unit, size_t begin, size_t end,
                        bool reduce) {
    void *stream;
    TRY(follow(g, &stream));
    TRY(nccl_bundle_begin(g->communicator));
    for (int member = 0; member < group_size(g->group); member++) {
        const group_part part = group_part_of(g->group, count, unit, member);
        const size_t from = part.begin > begin ? part.begin : begin, to = part.end < end ? part.end : end;
        if (from >= to)
            continue;
        TRY(reduce ? nccl_reduce(g->communicator, values + from, to - from, NCCL_FLOAT, member, stream)
                   : nccl_broadcast(g->communicator, values + from, to - from, NCCL_FLOAT, member, stream));
    }
    return nccl_bundle_end(g->communicator);
}

status device_group_sum_parts(device_group *g, float *values, size_t count, size_t unit, size_t begin,
                              size_t end) {
    return each_part(g, values, count, unit, begin, end, true);
}

status device_group_gather_parts(device_group *g, float *values, size_t count, size_t unit) {
    return each_part(g, values, count, unit, 0, count, false);
}

status device_group_broadcast(device_group *g, float *values, size_t count, int root) {
    void *stream;
    TRY(follow(g, &stream));
    return nccl_broadcast(g->communicator, values, count, NCCL_FLOAT, root, stream);
}
