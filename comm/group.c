#include "comm/group.h"

#include "comm/mpi_call.h"
#include "kernels/memory.h"

#include <limits.h>
#include <string.h>

enum {
    PIECE_BYTES =
        512 << 10, // an exchange goes in pieces, so that adding one overlaps the transfer of the next
    WINDOW = 4,    // pieces in flight each way
    TAG_REDUCE = 1,
    TAG_GATHER = 2,
    BROADCAST_PIECE = 1 << 30,
};

struct group {
    world *world;
    MPI_Comm comm; // MPI_COMM_NULL on ranks that are no members
    int size, index;
    int *ranks;    // [size]
    char *scratch; // [WINDOW][PIECE_BYTES]
};

static status check_ranks(const world *world, const int *ranks, int count) {
    if (count < 1 || count > world_size(world))
        return FAIL("a group of %d ranks in a world of %d", count, world_size(world));
    for (int i = 0; i < count; i++) {
        if (ranks[i] < 0 || ranks[i] >= world_size(world))
            return FAIL("a group names rank %d; there are ranks 0 to %d", ranks[i], world_size(world) - 1);
        for (int j = 0; j < i; j++)
            if (ranks[j] == ranks[i])
                return FAIL("a group names rank %d twice", ranks[i]);
    }
    return STATUS_OK;
}

static status join(group *group) {
    MPI_Group everyone = MPI_GROUP_NULL, members = MPI_GROUP_NULL;
    const world *world = group->world;
    status result;
    TRY_GOTO(result, mpi_check(world, MPI_Comm_group(MPI_COMM_WORLD, &everyone), "MPI_Comm_group", -1),
             cleanup);
    TRY_GOTO(
        result,
        mpi_check(world, MPI_Group_incl(everyone, group->size, group->ranks, &members), "MPI_Group_incl", -1),
        cleanup);
    TRY_GOTO(result,
             mpi_check(world, MPI_Comm_create_group(MPI_COMM_WORLD, members, group->ranks[0], &group->comm),
                       "MPI_Comm_create_group", -1),
             cleanup);
    MPI_Comm_set_errhandler(group->comm, MPI_ERRORS_RETURN);
cleanup:
    if (members != MPI_GROUP_NULL)
        MPI_Group_free(&members);
    if (everyone != MPI_GROUP_NULL)
        MPI_Group_free(&everyone);
    return result;
}

status group_create(group **out, world *world, const int *ranks, int count) {
    *out = NULL;
    TRY(check_ranks(world, ranks, count));
    group *group;
    TRY(memory_allocate((void **)&group, sizeof *group, "group"));
    group->world = world;
    group->comm = MPI_COMM_NULL;
    group->size = count;
    group->index = -1;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&group->ranks, (size_t)count * sizeof(int), "group's ranks"),
             cleanup);
    memcpy(group->ranks, ranks, (size_t)count * sizeof(int));
    for (int i = 0; i < count; i++)
        if (ranks[i] == world_rank(world))
            group->index = i;
    if (group->index >= 0 && count > 1)
        TRY_GOTO(
            result,
            memory_allocate((void **)&group->scratch, (size_t)WINDOW * PIECE_BYTES, "all-reduce buffers"),
            cleanup);
    if (group->index >= 0)
        TRY_GOTO(result, join(group), cleanup);
    *out = group;
    group = NULL;
cleanup:
    group_destroy(group);
    return result;
}

status group_create_whole(group **out, world *world) {
    const int count = world_size(world);
    int *ranks;
    *out = NULL;
    TRY(memory_allocate((void **)&ranks, (size_t)count * sizeof(int), "rank list"));
    for (int i = 0; i < count; i++)
        ranks[i] = i;
    const status result = group_create(out, world, ranks, count);
    memory_free(ranks);
    return result;
}

void group_destroy(group *group) {
    if (group == NULL)
        return;
    if (group->comm != MPI_COMM_NULL)
        MPI_Comm_free(&group->comm);
    memory_free(group->scratch);
    memory_free(group->ranks);
    memory_free(group);
}

int group_size(const group *group) {
    return group->size;
}

int group_index(const group *group) {
    return group->index;
}

int group_rank(const group *group, int member) {
    return group->ranks[member];
}

const world *group_world(const group *group) {
    return group->world;
}

MPI_Comm group_communicator(const group *group) {
    return group->comm;
}

static status check_member(const group *group, const char *call) {
    if (group->index < 0)
        return FAIL("rank %d on %s: %s in a group that this rank does not belong to",
                    world_rank(group->world), world_host(group->world), call);
    return STATUS_OK;
}

static status check_gather(const group *group, const char *call, size_t bytes) {
    TRY(check_member(group, call));
    if (bytes > INT_MAX / (size_t)group->size)
        return FAIL("rank %d on %s: %s of %zu bytes from each of %d members; at most %d bytes in all",
                    world_rank(group->world), world_host(group->world), call, bytes, group->size, INT_MAX);
    return STATUS_OK;
}

status group_barrier(group *group) {
    TRY(check_member(group, "barrier"));
    MPI_Request request;
    TRY(mpi_check(group->world, MPI_Ibarrier(group->comm, &request), "MPI_Ibarrier", -1));
    return mpi_wait_all(group->world, &request, 1, "a barrier", -1);
}

status group_broadcast(group *group, void *data, size_t bytes, int root) {
    TRY(check_member(group, "broadcast"));
    for (size_t begin = 0; begin < bytes; begin += BROADCAST_PIECE) {
        int length = (int)(bytes - begin < BROADCAST_PIECE ? bytes - begin : BROADCAST_PIECE);
        MPI_Request request;
        TRY(mpi_check(group->world,
                      MPI_Ibcast((char *)data + begin, length, MPI_BYTE, root, group->comm, &request),
                      "MPI_Ibcast", group->ranks[root]));
        TRY(mpi_wait_all(group->world, &request, 1, "a broadcast", group->ranks[root]));
    }
    return STATUS_OK;
}

status group_gather(group *group, const void *data, size_t bytes, void *gathered, int root) {
    TRY(check_gather(group, "gather", bytes));
    MPI_Request request;
    TRY(mpi_check(
        group->world,
        MPI_Igather(data, (int)bytes, MPI_BYTE, gathered, (int)bytes, MPI_BYTE, root, group->comm, &request),
        "MPI_Igather", group->ranks[root]));
    return mpi_wait_all(group->world, &request, 1, "a gather", group->ranks[root]);
}

status group_all_gather(group *group, const void *data, size_t bytes, void *gathered) {
    TRY(check_gather(group, "all-gather", bytes));
    MPI_Request request;
    TRY(mpi_check(
        group->world,
        MPI_Iallgather(data, (int)bytes, MPI_BYTE, gathered, (int)bytes, MPI_BYTE, group->comm, &request),
        "MPI_Iallgather", -1));
    return mpi_wait_all(group->world, &request, 1, "an all-gather", -1);
}

typedef struct range {
    size_t begin, end; // elements
} range;

// A range of elements cut into the pieces of an exchange.
typedef struct pieces {
    range whole;
    size_t elements, count; // elements a piece, pieces
} pieces;

static pieces cut(range whole, tree_type type) {
    size_t elements = PIECE_BYTES / tree_type_bytes(type);
    return (pieces){whole, elements, (whole.end - whole.begin + elements - 1) / elements};
}

static range piece_range(const pieces *pieces, size_t piece) {
    size_t begin = pieces->whole.begin + piece * pieces->elements, end = begin + pieces->elements;
    return (range){begin, end < pieces->whole.end ? end : pieces->whole.end};
}

// One step with one partner: sends buffer[give], receives the partner's buffer[take]. With `add`, what comes
// is added to buffer[take], the lower member's operand first; otherwise it is stored in buffer[take].
static status exchange(group *group, tree_type type, char *buffer, int partner, range give, range take,
                       bool add) {
    const world *world = group->world;
    size_t element = tree_type_bytes(type);
    pieces giving = cut(give, type), taking = cut(take, type);
    size_t steps = giving.count > taking.count ? giving.count : taking.count;
    MPI_Request sends[WINDOW], receives[WINDOW];
    for (int i = 0; i < WINDOW; i++)
        sends[i] = receives[i] = MPI_REQUEST_NULL;
    int tag = add ? TAG_REDUCE : TAG_GATHER, peer = group->ranks[partner];
    bool lower = group->index < partner;
    // Step s posts piece s and finishes piece s - WINDOW + 1, so that WINDOW pieces are in flight.
    for (size_t step = 0; step < steps + WINDOW - 1; step++) {
        size_t slot = step % WINDOW;
        if (step < taking.count) {
            range piece = piece_range(&taking, step);
            char *target = add ? group->scratch + slot * PIECE_BYTES : buffer + piece.begin * element;
            TRY(mpi_check(world,
                          MPI_Irecv(target, (int)((piece.end - piece.begin) * element), MPI_BYTE, partner,
                                    tag, group->comm, &receives[slot]),
                          "MPI_Irecv", peer));
        }
        if (step < giving.count) {
            range piece = piece_range(&giving, step);
            TRY(mpi_check(world,
                          MPI_Isend(buffer + piece.begin * element,
                                    (int)((piece.end - piece.begin) * element), MPI_BYTE, partner, tag,
                                    group->comm, &sends[slot]),
                          "MPI_Isend", peer));
        }
        if (step + 1 < WINDOW)
            continue;
        size_t oldest = step + 1 - WINDOW, done = oldest % WINDOW;
        if (oldest < taking.count) {
            TRY(mpi_wait_all(world, &receives[done], 1, "an all-reduce", peer));
            if (add) {
                range piece = piece_range(&taking, oldest);
                char *own = buffer + piece.begin * element, *other = group->scratch + done * PIECE_BYTES;
                tree_add(type, own, lower ? own : other, lower ? other : own, piece.end - piece.begin);
            }
        }
        if (oldest < giving.count)
            TRY(mpi_wait_all(world, &sends[done], 1, "an all-reduce", peer));
    }
    return STATUS_OK;
}

enum { LEVELS_MAX = 32 };

static range half_of(range whole, size_t unit, bool low) {
    const size_t half = ((whole.end - whole.begin) / 2 + unit / 2) / unit * unit; // to the nearest
    const size_t middle = whole.begin + half < whole.end ? whole.begin + half : whole.end;
    return low ? (range){whole.begin, middle} : (range){middle, whole.end};
}

// kept[l]: what `member` is responsible for before step l, and after the last; returns the number of steps.
static int halve(const group *group, size_t count, size_t unit, int member, range kept[LEVELS_MAX + 1]) {
    int levels = 0;
    kept[0] = (range){0, count};
    for (int distance = 1; distance < group->size; distance *= 2, levels++)
        kept[levels + 1] = half_of(kept[levels], unit, (member & distance) == 0);
    return levels;
}

static status check_halving(const group *group, const char *call) {
    TRY(check_member(group, call));
    if ((group->size & (group->size - 1)) != 0)
        return FAIL("%s over %d members: the balanced tree needs a power of two", call, group->size);
    return STATUS_OK;
}

// Members 2^l apart hold the same range with complete sums of 2^l neighbours each; they share it out.
static status reduce_scatter(group *group, tree_type type, char *buffer, size_t count, size_t unit) {
    range kept[LEVELS_MAX + 1];
    const int levels = halve(group, count, unit, group->index, kept);
    for (int level = 0; level < levels; level++) {
        const bool keeps_low = (group->index & 1 << level) == 0;
        TRY(exchange(group, type, buffer, group->index ^ 1 << level, half_of(kept[level], unit, !keeps_low),
                     kept[level + 1], true));
    }
    return STATUS_OK;
}

static status gather_parts(group *group, tree_type type, char *buffer, size_t count, size_t unit) {
    range kept[LEVELS_MAX + 1];
    for (int level = halve(group, count, unit, group->index, kept) - 1; level >= 0; level--) {
        const bool kept_low = (group->index & 1 << level) == 0;
        TRY(exchange(group, type, buffer, group->index ^ 1 << level, kept[level + 1],
                     half_of(kept[level], unit, !kept_low), false));
    }
    return STATUS_OK;
}

static status all_reduce(group *group, tree_type type, char *buffer, size_t count) {
    TRY(check_halving(group, "an all-reduce"));
    TRY(reduce_scatter(group, type, buffer, count, 1));
    return gather_parts(group, type, buffer, count, 1);
}

group_part group_part_of(const group *group, size_t count, size_t unit, int member) {
    range kept[LEVELS_MAX + 1];
    const range own = kept[halve(group, count, unit, member, kept)];
    return (group_part){own.begin, own.end};
}

status group_reduce_scatter_tree(group *group, float *buffer, size_t count, size_t unit) {
    TRY(check_halving(group, "a reduce-scatter"));
    return reduce_scatter(group, TREE_FLOAT, (char *)buffer, count, unit);
}

status group_all_gather_parts(group *group, float *buffer, size_t count, size_t unit) {
    TRY(check_halving(group, "an all-gather"));
    return gather_parts(group, TREE_FLOAT, (char *)buffer, count, unit);
}

status group_all_reduce_tree(group *group, float *buffer, size_t count) {
    return all_reduce(group, TREE_FLOAT, (char *)buffer, count);
}

status group_all_reduce_tree_double(group *group, double *buffer, size_t count) {
    return all_reduce(group, TREE_DOUBLE, (char *)buffer, count);
}
