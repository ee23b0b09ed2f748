// Groups, agreement and the tree all-reduce on N ranks. Without an argument: everything that must work. With
// one: a way to fail that must end all ranks (see expect_failure.sh).
#include "check.h"

#include "comm/group.h"
#include "comm/tree.h"
#include "comm/world.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLOTS = 16 };

static double sensitive(uint32_t slot, uint32_t index) {
    philox_block block = philox(11, slot, index, 0, 0);
    double magnitude = ldexp((double)philox_uniform(block.word[0]) + 1.0, (int)(block.word[1] % 24) - 12);
    return block.word[2] & 1 ? magnitude : -magnitude;
}

static void fill(tree_type type, void *values, size_t count, uint32_t slot) {
    for (size_t i = 0; i < count; i++) {
        if (type == TREE_FLOAT)
            ((float *)values)[i] = (float)sensitive(slot, (uint32_t)i);
        else
            ((double *)values)[i] = sensitive(slot, (uint32_t)i);
    }
}

// values becomes the sum of slots [first, first + slots).
static void sum_slots(tree_type type, void *values, size_t count, uint32_t first, uint32_t slots) {
    if (slots == 1) {
        fill(type, values, count, first);
        return;
    }
    void *right;
    CHECK_OK(memory_allocate(&right, count * tree_type_bytes(type) + 64, "right half"));
    sum_slots(type, values, count, first, slots / 2);
    sum_slots(type, right, count, first + slots / 2, slots / 2);
    tree_add(type, values, values, right, count);
    memory_free(right);
}

// The sum of SLOTS slots over the first `members` ranks equals that of one rank, bit for bit.
static void check_all_reduce(world *world, int members, tree_type type, size_t count) {
    int ranks[64];
    for (int i = 0; i < members; i++)
        ranks[i] = members - 1 - i; // the order of members is not that of ranks
    group *group;
    CHECK_OK(group_create(&group, world, ranks, members));
    int index = group_index(group);
    if (index >= 0) {
        size_t bytes = count * tree_type_bytes(type);
        char *own, *alone;
        CHECK_OK(memory_allocate((void **)&own, bytes + 64, "own"));
        CHECK_OK(memory_allocate((void **)&alone, bytes + 64, "alone"));
        uint32_t share = SLOTS / (uint32_t)members;
        sum_slots(type, own, count, (uint32_t)index * share, share);
        sum_slots(type, alone, count, 0, SLOTS);
        uint64_t allocations = memory_read_counters().allocations;
        if (type == TREE_FLOAT)
            CHECK_OK(group_all_reduce_tree(group, (float *)(void *)own, count));
        else
            CHECK_OK(group_all_reduce_tree_double(group, (double *)(void *)own, count));
        CHECK(memory_read_counters().allocations == allocations);
        CHECK(memcmp(own, alone, bytes) == 0);
        memory_free(own);
        memory_free(alone);
    } else {
        float value = 0;
        CHECK(group_all_reduce_tree(group, &value, 1) == STATUS_FAILED);
        CHECK(strstr(status_message(), "does not belong") != NULL);
    }
    group_destroy(group);
}

// Its two halves over all ranks, as parts at multiples of `unit`: the sums are in the own part, then
// everywhere.
static void check_parts(world *world, size_t count, size_t unit) {
    const int members = world_size(world);
    int ranks[64];
    for (int i = 0; i < members; i++)
        ranks[i] = i;
    group *group;
    float *own, *alone;
    CHECK_OK(group_create(&group, world, ranks, members));
    CHECK_OK(memory_allocate((void **)&own, count * sizeof(float) + 64, "own"));
    CHECK_OK(memory_allocate((void **)&alone, count * sizeof(float) + 64, "alone"));
    const uint32_t share = SLOTS / (uint32_t)members;
    sum_slots(TREE_FLOAT, own, count, (uint32_t)group_index(group) * share, share);
    sum_slots(TREE_FLOAT, alone, count, 0, SLOTS);
    size_t covered = 0;
    for (int i = 0; i < members; i++) {
        const group_part part = group_part_of(group, count, unit, i);
        CHECK(part.begin <= part.end && part.end <= count && (part.begin % unit == 0 || part.begin == count));
        covered += part.end - part.begin;
        for (int j = 0; j < i; j++) {
            const group_part other = group_part_of(group, count, unit, j);
            CHECK(part.end <= other.begin || other.end <= part.begin);
        }
    }
    CHECK(covered == count);
    const group_part part = group_part_of(group, count, unit, group_index(group));
    const size_t bytes = (part.end - part.begin) * sizeof(float);
    CHECK_OK(group_reduce_scatter_tree(group, own, count, unit));
    CHECK(memcmp(own + part.begin, alone + part.begin, bytes) == 0);
    for (size_t i = 0; i < count; i++) // what is not its own must come from the others
        if (i < part.begin || i >= part.end)
            own[i] = -1.0f;
    CHECK_OK(group_all_gather_parts(group, own, count, unit));
    CHECK(memcmp(own, alone, count * sizeof(float)) == 0);
    memory_free(own);
    memory_free(alone);
    group_destroy(group);
}

static void test_parts(world *world) {
    static const size_t counts[] = {0, 1, 5, 48, 1000, 65537, 400001};
    if ((world_size(world) & (world_size(world) - 1)) != 0 || world_size(world) > SLOTS)
        return;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check_parts(world, counts[i], 1);
        check_parts(world, counts[i], 16);
        check_parts(world, counts[i], 16384);
    }
}

static void test_all_reduce(world *world) {
    // The two large counts make several pieces of uneven size in each exchange.
    static const size_t counts[] = {0, 1, 2, 3, 7, 1000, 65537};
    for (int members = 1; members <= world_size(world) && members <= SLOTS; members *= 2) {
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            check_all_reduce(world, members, TREE_FLOAT, counts[i]);
            check_all_reduce(world, members, TREE_DOUBLE, counts[i]);
        }
    }
    if (world_size(world) >= 2) {
        check_all_reduce(world, 2, TREE_FLOAT, 1200003);
        check_all_reduce(world, 2, TREE_DOUBLE, 600001);
    }
}

static void test_collectives(world *world) {
    int size = world_size(world), rank = world_rank(world), ranks[64];
    for (int i = 0; i < size; i++)
        ranks[i] = i;
    group *group;
    CHECK_OK(group_create(&group, world, ranks, size));
    for (int root = 0; root < size; root++) {
        int value = rank == root ? 40 + root : 0, gathered[64] = {0};
        CHECK_OK(group_broadcast(group, &value, sizeof value, root));
        CHECK(value == 40 + root);
        CHECK_OK(group_gather(group, &rank, sizeof rank, rank == root ? gathered : NULL, root));
        for (int i = 0; rank == root && i < size; i++)
            CHECK(gathered[i] == i);
        CHECK_OK(group_all_gather(group, &rank, sizeof rank, gathered));
        for (int i = 0; i < size; i++)
            CHECK(gathered[i] == i);
        CHECK_OK(group_barrier(group));
    }
    if (size == 3 || size == 6) {
        float value = 0;
        CHECK(group_all_reduce_tree(group, &value, 1) == STATUS_FAILED);
    }
    group_destroy(group);
    int twice[2] = {0, 0}, outside[1] = {size};
    CHECK(group_create(&group, world, outside, 1) == STATUS_FAILED);
    if (size >= 2)
        CHECK(group_create(&group, world, twice, 2) == STATUS_FAILED);
}

static void test_agreement(world *world) {
    int size = world_size(world), rank = world_rank(world);
    CHECK_OK(world_agree(world, STATUS_OK));
    for (int broken = 0; broken < size; broken++) {
        status own = rank >= broken ? FAIL("shard %d is broken", rank) : STATUS_OK;
        CHECK(world_agree(world, own) == STATUS_FAILED);
        char wanted[256];
        snprintf(wanted, sizeof wanted, "rank %d on %s: shard %d is broken", broken, world_host(world),
                 broken);
        CHECK(strcmp(status_message(), wanted) == 0);
    }
    // A failure outweighs a request to stop, and a request to stop reaches all.
    status own = rank == size - 1 ? FAIL("no room") : status_set(STATUS_STOPPED, "stopped");
    CHECK(world_agree(world, own) == STATUS_FAILED);
    CHECK(strstr(status_message(), "no room") != NULL);
    CHECK(world_agree(world, rank == size - 1 ? status_set(STATUS_STOPPED, "stopped") : STATUS_OK) ==
          STATUS_STOPPED);
    bool any = true;
    CHECK_OK(world_any(world, false, &any));
    CHECK(!any);
    CHECK_OK(world_any(world, rank == size - 1, &any));
    CHECK(any);
}

static void test_identity(world *world) {
    char warning[1024];
    CHECK_OK(world_compare_identity(world, "musicrl 1; avx512; oneDNN 2.6.3", warning, sizeof warning));
    CHECK(warning[0] == '\0');
    if (world_size(world) == 1)
        return;
    bool last = world_rank(world) == world_size(world) - 1;
    CHECK_OK(world_compare_identity(
        world, last ? "musicrl 1; avx2; oneDNN 2.6.3" : "musicrl 1; avx512; oneDNN 2.6.3", warning,
        sizeof warning));
    char wanted[256];
    snprintf(wanted, sizeof wanted, "rank %d on %s has 'avx2', rank 0 on %s has 'avx512' (1 of %d ranks",
             world_size(world) - 1, world_host(world), world_host(world), world_size(world));
    CHECK(strncmp(warning, wanted, strlen(wanted)) == 0);
}

static void test_placement(world *world) {
    CHECK(world_threads(world) >= 1);
    CHECK(world_usable_cores(world) >= 1);
    CHECK(world_local_size(world) >= 1 && world_local_size(world) <= world_size(world));
    CHECK(world_local_rank(world) < world_local_size(world));
    if (world_local_size(world) > world_usable_cores(world)) {
        CHECK(world_threads(world) == 1);
        CHECK(world_oversubscribed(world));
        CHECK(strstr(world_placement_warning(world), "oversubscribed") != NULL);
    }
    struct world *second;
    CHECK(world_create(&second, &(world_options){0}) == STATUS_FAILED);
}

// Ways to fail: every rank must be gone soon after.
static int fail_on_purpose(world *world, const char *how) {
    bool last = world_rank(world) == world_size(world) - 1;
    if (strcmp(how, "abort") == 0) {
        if (last)
            world_abort(world, "broken on purpose");
        sleep(60);
    } else if (strcmp(how, "agree") == 0) {
        status result = world_agree(world, last ? FAIL("broken on purpose") : STATUS_OK);
        if (world_rank(world) == 0)
            fprintf(stderr, "musicrl: %s\n", status_message());
        world_destroy(world);
        return (int)result;
    } else if (strcmp(how, "killed") == 0) {
        if (last)
            kill(getpid(), SIGKILL);
        if (world_barrier(world) != STATUS_OK)
            world_abort(world, status_message());
    } else if (strcmp(how, "stuck") == 0) {
        if (last)
            sleep(60);
        if (world_barrier(world) != STATUS_OK)
            world_abort(world, status_message());
    }
    return 0;
}

int main(int argc, char **argv) {
    world *world;
    CHECK_OK(world_create(&world, &(world_options){.deadline_seconds = argc > 1 ? 2 : 60}));
    if (argc > 1)
        return fail_on_purpose(world, argv[1]);
    test_placement(world);
    test_agreement(world);
    test_identity(world);
    test_collectives(world);
    test_all_reduce(world);
    test_parts(world);
    world_destroy(world);
    return 0;
}
