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

// What one member did, told to all: they fail together, with the line of the first that failed. any: whether
// any has `flag`, NULL: not wanted.
static status agree(const device_group *g, status outcome, bool flag, bool *any) {
    struct {
        uint8_t flag, failed;
        char line[512];
    } own = {.flag = flag, .failed = outcome != STATUS_OK}, *all;
    if (own.failed)
        snprintf(own.line, sizeof own.line, "%s", status_message());
    TRY(memory_allocate((void **)&all, sizeof *all * (size_t)group_size(g->group), "members of a group"));
    status result = group_all_gather(g->group, &own, sizeof own, all);
    if (any != NULL)
        *any = false;
    for (int i = 0; result == STATUS_OK && i < group_size(g->group); i++) {
        const int rank = group_rank(g->group, i);
        if (any != NULL)
            *any |= all[i].flag != 0;
        if (all[i].failed)
            result = FAIL("rank %d on %s: %.*s", rank, world_host_of(group_world(g->group), rank),
                          (int)sizeof all[i].line, all[i].line);
    }
    memory_free(all);
    return result;
}

// Opens this member's lane, if it computes on a card, and tells whether any member does.
static status open_lanes(device_group *g, bool *any) {
    const bool has_card = device_card(g->device)[0] != '\0';
    return agree(g, has_card ? device_lane_open(g->device, &g->lane) : STATUS_OK, has_card, any);
}

static status lane_has_ended(void *context, bool *ended) {
    const device_group *g = context;
    return device_lane_ended(g->device, g->lane, ended);
}

status device_group_wait(device_group *g) {
    return nccl_wait(g->communicator, lane_has_ended, g);
}

// NCCL connects members at their first collectives, which end only when all are there, and takes memory for
// it: better now than in the first step. From NCCL 2.22 on it does so for each way of sending by itself, so
// that gradients, which are large, do their own (comm/gradient_sum.h). values: [WARM_UP].
enum { WARM_UP = 1 << 16 };
static status warm_up(device_group *g, float *values) {
    TRY(device_group_sum(g, values, WARM_UP));
    TRY(device_group_broadcast(g, values, WARM_UP, 0));
    return device_group_wait(g);
}

static status start_nccl(device_group *g, char note[DEVICE_GROUP_NOTE]) {
    device_memory before, after;
    float *values = NULL;
    // What a member can fail at by itself comes first: in NCCL the others would wait for it.
    status result = device_read_memory(g->device, &before);
    if (result == STATUS_OK)
        result =
            device_allocate(g->device, (void **)&values, sizeof(float) * WARM_UP, "NCCL's first collectives");
    TRY_GOTO(result, agree(g, result, false, NULL), done);
    TRY_GOTO(result, nccl_communicator_create(&g->communicator, g->library, g->group, 0.0), done);
    TRY_GOTO(result, warm_up(g, values), done);
    TRY_GOTO(result, device_read_memory(g->device, &after), done);
    const uint64_t taken = before.free_bytes > after.free_bytes ? before.free_bytes - after.free_bytes : 0;
    if (note[0] == '\0')
        snprintf(note, DEVICE_GROUP_NOTE,
                 "%d ranks communicate from GPU to GPU by NCCL %s, which took %.1f MiB of this one so far",
                 group_size(g->group), nccl_library_version_text(g->library), (double)taken / (1 << 20));
done:
    device_free(g->device, values);
    return result;
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
    TRY(nccl_settle(g->communicator));
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
