// NCCL's path on N ranks against a stand-in that computes on host memory: agreement, collectives, the
// watchdog. Without an argument: everything that must work or fail in order. With one: a way to fail that
// must end all ranks (see expect_failure.sh).
#include "check.h"

#include "comm/nccl.h"
#include "kernels/memory.h"
#include "tests/fake_nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LARGE = 50001 }; // elements: several pieces of the stand-in, the last one short

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static status stream_is_done(void *context, bool *done) {
    fake_stream *stream = context;
    *done = atomic_load(&stream->completed) == atomic_load(&stream->launched);
    return STATUS_OK;
}

static status device_is_lost(void *context, bool *done) {
    (void)context;
    *done = false;
    return FAIL("the device does not answer");
}

// All ranks, the last one first, so that a member's index is not its rank.
static group *everyone(world *world) {
    int ranks[64], size = world_size(world);
    for (int i = 0; i < size; i++)
        ranks[i] = size - 1 - i;
    group *group;
    CHECK_OK(group_create(&group, world, ranks, size));
    return group;
}

static nccl_library *open_fake(void) {
    nccl_library *library;
    CHECK_OK(nccl_library_open(&library, FAKE_NCCL_PATH));
    return library;
}

static void check_contains(const char *line, const char *wanted) {
    if (strstr(line, wanted) == NULL)
        fprintf(stderr, "'%s' is not in: %s\n", wanted, line);
    CHECK(strstr(line, wanted) != NULL);
}

// The same text on all ranks.
static void check_same(group *group, const char *line) {
    char own[1024] = "", all[64][1024];
    snprintf(own, sizeof own, "%s", line);
    CHECK_OK(group_all_gather(group, own, sizeof own, all));
    for (int i = 0; i < group_size(group); i++)
        CHECK(strcmp(all[i], own) == 0);
}

static void test_agreement(world *world) {
    group *group = everyone(world);
    nccl_library *library = open_fake();
    nccl_agreement agreement;
    int size = world_size(world), rank = world_rank(world);
    bool last = rank == size - 1;
    char device[NCCL_DEVICE_SIZE], wanted[512];
    snprintf(device, sizeof device, "0000:%02x:00.0", rank);
    CHECK_OK(nccl_agree(group, library, NULL, device, &agreement));
    CHECK(agreement.service == NCCL_SERVES && agreement.line[0] == '\0');

    // A member without NCCL, and one without a card.
    CHECK_OK(nccl_agree(group, last ? NULL : library, "it is not here", device, &agreement));
    CHECK(agreement.service == NCCL_ABSENT);
    snprintf(wanted, sizeof wanted,
             "rank %d on %s has no NCCL, so that the group of %d ranks does without it: it "
             "is not here",
             size - 1, world_host(world), size);
    CHECK(strcmp(agreement.line, wanted) == 0);
    CHECK_OK(nccl_agree(group, library, NULL, rank == 0 ? NULL : device, &agreement));
    CHECK(agreement.service == NCCL_ABSENT);
    snprintf(wanted, sizeof wanted, "rank 0 on %s has no GPU", world_host(world));
    check_contains(agreement.line, wanted);
    check_same(group, agreement.line);

    if (size > 1) {
        // Several ranks on one card: refused, unless the version and the environment of all allow it.
        unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
        const char *shared = rank < 2 ? "0000:3b:00.0" : device;
        CHECK_OK(nccl_agree(group, library, NULL, shared, &agreement));
        CHECK(agreement.service == NCCL_SHARED);
        snprintf(wanted, sizeof wanted,
                 "rank 0 on %s shares GPU 0000:3b:00.0 with rank 1, which NCCL 2.30.7 refuses unless "
                 "NCCL_MULTI_RANK_GPU_ENABLE=1 is set",
                 world_host(world));
        check_contains(agreement.line, wanted);
        check_same(group, agreement.line);
        if (rank != 1)
            setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
        CHECK_OK(nccl_agree(group, library, NULL, shared, &agreement));
        CHECK(agreement.service == NCCL_SHARED);
        setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
        CHECK_OK(nccl_agree(group, library, NULL, shared, &agreement));
        CHECK(agreement.service == NCCL_SERVES);
        check_contains(agreement.line, "as NCCL_MULTI_RANK_GPU_ENABLE=1 allows NCCL 2.30.7");
        setenv("FAKE_NCCL_VERSION", "22809", 1);
        nccl_library *older = open_fake();
        CHECK_OK(nccl_agree(group, older, NULL, shared, &agreement));
        CHECK(agreement.service == NCCL_SHARED);
        check_contains(agreement.line, "which NCCL 2.28.9 refuses (2.30 and newer can)");
        unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
        unsetenv("FAKE_NCCL_VERSION");

        // Different versions are a failure, with one line on every rank. Member 0 is the last rank.
        CHECK(nccl_agree(group, rank == 0 ? older : library, NULL, device, &agreement) == STATUS_FAILED);
        snprintf(wanted, sizeof wanted,
                 "rank 0 on %s has NCCL 2.28.9, rank %d on %s has NCCL 2.30.7: ", world_host(world), size - 1,
                 world_host(world));
        check_contains(status_message(), wanted);
        check_same(group, status_message());
        nccl_library_close(older);
    }
    nccl_library_close(library);
    group_destroy(group);
}

static float float_at(int member, size_t index) {
    return (float)((int)(index % 1000) + 1000 * member);
}

// Sums of small whole numbers are exact in any order.
static float float_sum(int members, size_t index) {
    return (float)(members * (int)(index % 1000) + 1000 * (members * (members - 1) / 2));
}

static void check_collectives(nccl_communicator *communicator, group *group, size_t count) {
    int size = group_size(group), index = group_index(group);
    fake_stream stream = {0};
    float *send, *receive;
    size_t bytes = count * sizeof(float);
    CHECK_OK(memory_allocate((void **)&send, bytes, "send"));
    CHECK_OK(memory_allocate((void **)&receive, bytes, "receive"));
    for (size_t i = 0; i < count; i++)
        send[i] = float_at(index, i);
    CHECK_OK(nccl_all_reduce(communicator, send, receive, count, NCCL_FLOAT, &stream));
    CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
    for (size_t i = 0; i < count; i++)
        CHECK(receive[i] == float_sum(size, i));

    for (int root = 0; root < size; root++) {
        for (size_t i = 0; i < count; i++)
            receive[i] = float_at(index, i);
        CHECK_OK(nccl_reduce(communicator, receive, count, NCCL_FLOAT, root, &stream));
        CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
        for (size_t i = 0; i < count; i++)
            CHECK(receive[i] == (index == root ? float_sum(size, i) : float_at(index, i)));
        for (size_t i = 0; i < count; i++)
            receive[i] = index == root ? float_at(root, i) : -1;
        CHECK_OK(nccl_broadcast(communicator, receive, count, NCCL_FLOAT, root, &stream));
        CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
        for (size_t i = 0; i < count; i++)
            CHECK(receive[i] == float_at(root, i));
    }
    memory_free(send);
    memory_free(receive);
}

// Other types; several collectives launched together, and several under way at once.
static void check_types_and_bundles(nccl_communicator *communicator, group *group) {
    int size = group_size(group), index = group_index(group);
    fake_stream stream = {0};
    double large[3] = {1e15 + index, 2, 3};
    uint16_t half[2] = {0x3f80, 0x4000}; // 1 and 2
    unsigned char bytes[5] = {1, 2, 3, 4, (unsigned char)index};
    float value = (float)index;
    uint64_t allocations = memory_read_counters().allocations;
    CHECK_OK(nccl_bundle_begin(communicator));
    CHECK_OK(nccl_all_reduce(communicator, large, large, 3, NCCL_DOUBLE, &stream));
    CHECK_OK(nccl_all_reduce(communicator, half, half, 2, NCCL_BFLOAT16, &stream));
    CHECK(atomic_load(&stream.completed) == 0);
    CHECK_OK(nccl_bundle_end(communicator));
    CHECK_OK(nccl_broadcast(communicator, bytes, 5, NCCL_BYTE, size - 1, &stream));
    CHECK_OK(nccl_all_reduce(communicator, &value, &value, 1, NCCL_FLOAT, &stream));
    CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
    CHECK_OK(nccl_wait(communicator, device_is_lost, NULL)); // nothing is left to be waited for
    CHECK(memory_read_counters().allocations == allocations);
    double sum = size * (size - 1) / 2.0;
    CHECK(large[0] == 1e15 * size + sum && large[2] == 3.0 * size);
    float expected = (float)size;
    uint32_t bits;
    memcpy(&bits, &expected, sizeof bits);
    CHECK(half[0] == bits >> 16);
    CHECK(bytes[0] == 1 && bytes[4] == size - 1);
    CHECK(value == (float)sum);
}

static void check_record(int size) {
    void *handle = dlopen(FAKE_NCCL_PATH, RTLD_NOW | RTLD_NOLOAD);
    CHECK(handle != NULL);
    fake_nccl_calls_function calls;
    void *function = dlsym(handle, "fake_nccl_calls");
    CHECK(function != NULL);
    memcpy(&calls, &function, sizeof calls);
    char wanted[64];
    snprintf(wanted, sizeof wanted, "init %d ", size);
    check_contains(calls(), wanted);
    // Types and operation as NCCL numbers them, and the bundle around what it holds.
    check_contains(calls(), "all_reduce 50001 7 0\nreduce 50001 7 0 0\nbroadcast 50001 7 0\n");
    snprintf(wanted, sizeof wanted, "group_end\nbroadcast 5 1 %d\n", size - 1);
    check_contains(calls(), "group_start\nall_reduce 3 8 0\nall_reduce 2 9 0\ngroup_end\n");
    check_contains(calls(), wanted);
    dlclose(handle);
}

// The first collective connects the members, and is taken only when all of them have started theirs: whoever
// starts it must not wait for that.
static void test_first_collective(world *world) {
    nccl_library *library = open_fake();
    group *group = everyone(world);
    nccl_communicator *communicator;
    fake_stream stream = {0};
    float value = (float)group_index(group);
    CHECK_OK(nccl_communicator_create(&communicator, library, group, 60));
    if (group_index(group) == 0)
        CHECK_OK(nccl_broadcast(communicator, &value, 1, NCCL_FLOAT, 0, &stream));
    CHECK_OK(group_barrier(group));
    if (group_index(group) != 0)
        CHECK_OK(nccl_broadcast(communicator, &value, 1, NCCL_FLOAT, 0, &stream));
    CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
    CHECK(value == 0.0f);
    nccl_communicator_destroy(communicator);
    group_destroy(group);
    nccl_library_close(library);
}

static void test_collectives(world *world) {
    nccl_library *library = open_fake();
    group *group = everyone(world);
    nccl_communicator *communicator;
    CHECK(nccl_communicator_create(&communicator, library, group, -1) == STATUS_USAGE);
    CHECK_OK(nccl_communicator_create(&communicator, library, group, 60));
    check_collectives(communicator, group, LARGE);
    check_collectives(communicator, group, 1);
    check_types_and_bundles(communicator, group);
    check_record(world_size(world));

    // A second communicator beside the first, over half of the ranks.
    int half = world_size(world) / 2, ranks[64];
    for (int i = 0; i < half; i++)
        ranks[i] = 2 * i;
    if (half > 0) {
        struct group *even;
        CHECK_OK(group_create(&even, world, ranks, half));
        if (group_index(even) >= 0) {
            nccl_communicator *second;
            CHECK_OK(nccl_communicator_create(&second, library, even, 60));
            check_collectives(second, even, 777);
            nccl_communicator_destroy(second);
        }
        group_destroy(even);
    }
    check_collectives(communicator, group, 3);
    nccl_communicator_destroy(communicator);
    nccl_communicator_destroy(NULL);
    group_destroy(group);
    nccl_library_close(library);
}

// Starts two collectives and waits; the last rank misbehaves as `variable`=`name` says. Every rank fails
// within seconds; returns the message.
static const char *fail_collectives(world *world, const char *variable, const char *name, nccl_query query) {
    bool last = world_rank(world) == world_size(world) - 1;
    nccl_library *library = open_fake();
    group *group = everyone(world);
    nccl_communicator *communicator;
    double deadline = world_size(world) < 4 ? 1 : 3; // many ranks on few cores are slow to meet
    CHECK_OK(nccl_communicator_create(&communicator, library, group, deadline));
    static fake_stream stream;
    static float values[64];
    atomic_store(&stream.launched, 0);
    atomic_store(&stream.completed, 0);
    CHECK_OK(nccl_broadcast(communicator, values, 3, NCCL_FLOAT, 0, &stream));
    CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
    if (last)
        setenv(variable, name, 1);
    double start = now_seconds();
    status result = nccl_all_reduce(communicator, values, values, 64, NCCL_FLOAT, &stream);
    if (result == STATUS_OK)
        result = nccl_wait(communicator, last ? query : stream_is_done, &stream);
    double seconds = now_seconds() - start;
    CHECK(result == STATUS_FAILED);
    CHECK(seconds < deadline + 5 + 10); // the deadline, the abort's, and a crowded machine's share
    static char line[2048];
    snprintf(line, sizeof line, "%s", status_message());
    // What comes after an abort is refused at once.
    CHECK(nccl_all_reduce(communicator, values, values, 64, NCCL_FLOAT, &stream) == STATUS_FAILED);
    check_contains(status_message(), "after its communicator was aborted");
    CHECK(nccl_wait(communicator, stream_is_done, &stream) == STATUS_FAILED);
    CHECK(nccl_bundle_begin(communicator) == STATUS_FAILED);
    unsetenv(variable);
    nccl_communicator_destroy(communicator);
    CHECK_OK(group_barrier(group));
    group_destroy(group);
    nccl_library_close(library);
    char wanted[128];
    snprintf(wanted, sizeof wanted, "rank %d on %s: ", world_rank(world), world_host(world));
    CHECK(strncmp(line, wanted, strlen(wanted)) == 0);
    CHECK(strchr(line, '\n') == NULL);
    return line;
}

static void test_watchdog(world *world) {
    bool last = world_rank(world) == world_size(world) - 1;
    char waited[256];
    snprintf(waited, sizeof waited, " s for NCCL's all-reduce 2 (64 float32, 256 bytes) among %d ranks",
             world_size(world));
    // One rank's part never ends: all of them say what they waited for.
    const char *line = fail_collectives(world, "FAKE_NCCL_HANG", "all_reduce", stream_is_done);
    check_contains(line, waited);
    check_contains(line, "the communicator was aborted");
    // An error from behind, seen as the call settles or in the wait.
    line = fail_collectives(world, "FAKE_NCCL_BREAK", "all_reduce", stream_is_done);
    check_contains(line, last ? "all-reduce 2 (64 float32, 256 bytes)" : waited);
    if (last)
        check_contains(line, "fake remote error (broken on purpose)");
    // A call that is refused, one that NCCL never takes, and a device that is lost.
    line = fail_collectives(world, "FAKE_NCCL_REFUSE", "all_reduce", stream_is_done);
    check_contains(line, last ? "NCCL refused all-reduce 2 (64 float32, 256 bytes)" : waited);
    line = fail_collectives(world, "FAKE_NCCL_STALL", "all_reduce", stream_is_done);
    check_contains(line, waited);
    line = fail_collectives(world, "FAKE_NCCL_HANG", "all_reduce", device_is_lost);
    check_contains(line, last ? "the device does not answer; the communicator was aborted" : waited);
}

// With several collectives under way, the line tells which they are.
static void test_several_under_way(world *world) {
    nccl_library *library = open_fake();
    group *group = everyone(world);
    nccl_communicator *communicator;
    CHECK_OK(nccl_communicator_create(&communicator, library, group, world_size(world) < 4 ? 1 : 3));
    fake_stream stream = {0};
    float values[64] = {0};
    CHECK_OK(nccl_all_reduce(communicator, values, values, 64, NCCL_FLOAT, &stream)); // connects the members
    CHECK_OK(nccl_wait(communicator, stream_is_done, &stream));
    if (world_rank(world) == 0)
        setenv("FAKE_NCCL_HANG", "reduce", 1);
    CHECK_OK(nccl_bundle_begin(communicator));
    CHECK_OK(nccl_bundle_end(communicator));
    CHECK_OK(nccl_bundle_begin(communicator));
    CHECK_OK(nccl_reduce(communicator, values, 64, NCCL_FLOAT, 0, &stream));
    CHECK_OK(nccl_broadcast(communicator, values, 64, NCCL_FLOAT, 0, &stream));
    CHECK_OK(nccl_bundle_end(communicator));
    CHECK_OK(nccl_all_reduce(communicator, values, values, 2, NCCL_BFLOAT16, &stream));
    CHECK(nccl_wait(communicator, stream_is_done, &stream) == STATUS_FAILED);
    check_contains(status_message(), "NCCL's 3 collectives, reduce 2 (64 float32, 256 bytes) to all-reduce 4 "
                                     "(2 bfloat16, 4 bytes) among ");
    unsetenv("FAKE_NCCL_HANG");
    nccl_communicator_destroy(communicator);
    CHECK_OK(group_barrier(group));
    group_destroy(group);
    nccl_library_close(library);
}

// Rank by rank: the line of the member that knows most reaches all.
static void test_start_that_fails(world *world) {
    int size = world_size(world), rank = world_rank(world);
    nccl_library *library = open_fake();
    group *group = everyone(world);
    nccl_communicator *communicator;
    char wanted[256];
    const char *const variables[] = {"FAKE_NCCL_REFUSE", "FAKE_NCCL_BREAK", "FAKE_NCCL_HANG"};
    for (int i = 0; i < 3; i++) {
        if (rank == 0)
            setenv(variables[i], "init", 1);
        double start = now_seconds();
        CHECK(nccl_communicator_create(&communicator, library, group, 1) == STATUS_FAILED);
        CHECK(communicator == NULL);
        CHECK(now_seconds() - start < 1 + 5 + 10);
        unsetenv(variables[i]);
        check_same(group, status_message());
        // A call that was refused left no communicator to abort.
        CHECK((strstr(status_message(), "aborted") == NULL) == (i == 0));
        snprintf(wanted, sizeof wanted, "rank 0 on %s: NCCL refused a communicator", world_host(world));
        check_contains(status_message(),
                       i < 2 ? wanted : " s for NCCL to take a communicator in a group of ");
    }
    // Member 0, the last rank, makes the unique id.
    if (rank == size - 1)
        setenv("FAKE_NCCL_REFUSE", "unique_id", 1);
    CHECK(nccl_communicator_create(&communicator, library, group, 1) == STATUS_FAILED);
    unsetenv("FAKE_NCCL_REFUSE");
    snprintf(wanted, sizeof wanted, "rank %d on %s: NCCL makes no unique id: fake system error", size - 1,
             world_host(world));
    CHECK(strcmp(status_message(), wanted) == 0);
    // Nothing of that spoils the next one.
    CHECK_OK(nccl_communicator_create(&communicator, library, group, 60));
    check_collectives(communicator, group, 9);
    nccl_communicator_destroy(communicator);
    // An end that one rank never comes to keeps the others no longer than the deadline.
    CHECK_OK(nccl_communicator_create(&communicator, library, group, 5));
    if (rank == 0)
        setenv("FAKE_NCCL_REFUSE", "finalize", 1);
    double start = now_seconds();
    nccl_communicator_destroy(communicator);
    CHECK(now_seconds() - start < 5 + 5 + 10);
    unsetenv("FAKE_NCCL_REFUSE");
    group_destroy(group);
    nccl_library_close(library);
}

// An abort that never returns keeps nobody either.
static void test_abort_that_hangs(world *world) {
    setenv("FAKE_NCCL_HANG", "abort", 1);
    const char *line = fail_collectives(world, "FAKE_NCCL_REFUSE", "all_reduce", stream_is_done);
    check_contains(line, "NCCL refused all-reduce 2");
    check_contains(line, "the communicator's abort did not return either");
    unsetenv("FAKE_NCCL_HANG");
}

// Ways to fail: every rank must be gone soon after.
static int fail_on_purpose(world *world, const char *how) {
    bool last = world_rank(world) == world_size(world) - 1;
    group *group = everyone(world);
    char device[NCCL_DEVICE_SIZE];
    snprintf(device, sizeof device, "card %d", world_rank(world));
    if (last && strcmp(how, "versions") == 0)
        setenv("FAKE_NCCL_VERSION", "22809", 1);
    nccl_library *library = open_fake();
    nccl_agreement agreement;
    status result = world_agree(world, nccl_agree(group, library, NULL, device, &agreement));
    if (result != STATUS_OK) {
        if (world_rank(world) == 0)
            fprintf(stderr, "musicrl: %s\n", status_message());
        world_destroy(world);
        return (int)result;
    }
    nccl_communicator *communicator;
    CHECK_OK(nccl_communicator_create(&communicator, library, group, 2));
    if (last)
        setenv("FAKE_NCCL_HANG", "all_reduce", 1);
    fake_stream stream = {0};
    float values[64] = {0};
    if (nccl_all_reduce(communicator, values, values, 64, NCCL_FLOAT, &stream) != STATUS_OK ||
        nccl_wait(communicator, stream_is_done, &stream) != STATUS_OK)
        world_abort(world, status_message());
    return 0;
}

int main(int argc, char **argv) {
    world *world;
    CHECK_OK(world_create(&world, &(world_options){.deadline_seconds = 60}));
    if (argc > 1)
        return fail_on_purpose(world, argv[1]);
    test_agreement(world);
    test_first_collective(world);
    test_collectives(world);
    test_watchdog(world);
    test_several_under_way(world);
    test_start_that_fails(world);
    if (world_size(world) == 1)
        test_abort_that_hangs(world);
    world_destroy(world);
    return 0;
}
