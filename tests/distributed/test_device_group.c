// Sums and copies from card to card, by a stand-in for NCCL, on N ranks: against what goes through the host,
// and what happens where NCCL does not serve.
#include "check.h"

#include "comm/gradient_sum.h"
#include "comm/weights.h"
#include "kernels/memory.h"
#include "tests/distributed/lane_device.h"

#include <stdlib.h>
#include <string.h>

enum { COUNT = 100003, UNIT = 64, SLOTS = 4 };

typedef struct fixture {
    world *world;
    device *device;
    group *group;
    device_group *devices;
    char note[DEVICE_GROUP_NOTE];
} fixture;

static void create(fixture *f, const char *card) {
    int ranks[64];
    for (int i = 0; i < world_size(f->world); i++)
        ranks[i] = i;
    CHECK_OK(device_create(&f->device, 1));
    if (card != NULL)
        lane_device_disguise(f->device, card);
    CHECK_OK(group_create(&f->group, f->world, ranks, world_size(f->world)));
    CHECK_OK(device_group_create(&f->devices, f->device, f->group, f->note));
}

static void destroy(fixture *f) {
    device_group_destroy(f->devices);
    group_destroy(f->group);
    device_destroy(f->device);
}

// Small whole numbers, whose sums are exact in any order.
static float number(int rank, uint32_t slot, size_t i) {
    return (float)((int)((i * 7 + slot * 13) % 101) + 1000 * rank);
}

static float sum_of_numbers(int ranks, size_t i) {
    float sum = 0;
    for (int rank = 0; rank < ranks; rank++)
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            sum += number(rank, slot, i);
    return sum;
}

// The backward pass of a slot: fills the values from the end, and tells how far it is if that is wanted.
static void fill(gradient_sum *sum, int rank, uint32_t slot, bool tell) {
    static const size_t final[] = {96000, 95984, 50000, 160, 0};
    float *values = gradient_sum_values(sum);
    size_t end = COUNT;
    for (size_t i = 0; i < sizeof final / sizeof final[0]; i++) {
        for (size_t at = final[i]; at < end; at++)
            values[at] = number(rank, slot, at);
        end = final[i];
        if (tell)
            CHECK_OK(gradient_sum_final(sum, end));
    }
}

// With `unit` 0 the whole sum, else this rank's part. Twice, as the second round starts from what the first
// left.
static void check_gradients(fixture *f, size_t unit, size_t bucket, bool tell) {
    const int rank = world_rank(f->world), ranks = world_size(f->world);
    const group_part own = unit > 0 ? group_part_of(f->group, COUNT, unit, rank) : (group_part){0, COUNT};
    gradient_sum *sum;
    CHECK_OK(gradient_sum_create(&sum, f->device, COUNT, SLOTS));
    CHECK_OK(gradient_sum_among(sum, f->devices, unit, bucket));
    const uint64_t allocations = memory_read_counters().allocations;
    for (int round = 0; round < 2; round++) {
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            const bool goes_out = gradient_sum_goes_out(sum);
            CHECK(goes_out == (slot == SLOTS - 1 && device_group_is_direct(f->devices)));
            fill(sum, rank, slot, tell && goes_out);
            gradient_sum_add(sum);
        }
        CHECK_OK(gradient_sum_share(sum));
        for (size_t i = own.begin; i < own.end; i++)
            CHECK(gradient_sum_values(sum)[i] == sum_of_numbers(ranks, i));
    }
    CHECK(memory_read_counters().allocations == allocations);
    gradient_sum_destroy(sum);
}

static void check_parts(fixture *f) {
    const int rank = world_rank(f->world), ranks = world_size(f->world);
    float *values;
    CHECK_OK(memory_allocate((void **)&values, sizeof(float) * COUNT, "parameters"));
    const group_part own = group_part_of(f->group, COUNT, UNIT, rank);
    for (size_t i = own.begin; i < own.end; i++)
        values[i] = number(rank, 1, i);
    CHECK_OK(device_group_gather_parts(f->devices, values, COUNT, UNIT));
    CHECK_OK(device_group_wait(f->devices));
    for (int other = 0; other < ranks; other++) {
        const group_part part = group_part_of(f->group, COUNT, UNIT, other);
        for (size_t i = part.begin; i < part.end; i++)
            CHECK(values[i] == number(other, 1, i));
    }
    memory_free(values);
}

// From the last rank to all others, several versions.
static void check_weights(fixture *f, bool direct) {
    const int size = world_size(f->world), sender = size - 1;
    int receivers[64];
    char note[DEVICE_GROUP_NOTE];
    weights_channel *channel;
    float *weights;
    for (int i = 0; i < sender; i++)
        receivers[i] = i;
    CHECK_OK(weights_create(&channel, f->world, f->device, sender, receivers, sender, COUNT, note));
    CHECK((strstr(note, "from GPU to GPU by NCCL 2.30.7") != NULL) == (direct && size > 1));
    CHECK_OK(memory_allocate((void **)&weights, COUNT * sizeof(float), "weights"));
    for (uint64_t version = 3; version < 6; version++) {
        if (world_rank(f->world) == sender) {
            CHECK_OK(weights_wait(channel));
            for (size_t i = 0; i < COUNT; i++)
                weights[i] = number((int)version, 0, i);
            CHECK_OK(weights_send(channel, version, weights));
        } else {
            CHECK_OK(weights_receive(channel, version, weights));
            for (size_t i = 0; i < COUNT; i++)
                CHECK(weights[i] == number((int)version, 0, i));
        }
    }
    CHECK_OK(weights_wait(channel));
    // A version that was not due is refused, on its way as well.
    if (size > 1 && world_rank(f->world) == sender)
        CHECK_OK(weights_send(channel, 9, weights));
    else if (size > 1) {
        CHECK(weights_receive(channel, 8, weights) == STATUS_FAILED);
        CHECK(strstr(status_message(), "weights version 9 arrived, version 8 is wanted") != NULL);
    }
    CHECK_OK(weights_wait(channel));
    weights_destroy(channel);
    memory_free(weights);
}

static void check_all(world *world, const char *card, bool direct, const char *note) {
    fixture f = {.world = world};
    create(&f, card);
    CHECK(device_group_is_direct(f.devices) == (direct && world_size(world) > 1));
    CHECK(world_size(world) > 1 ? strstr(f.note, note) != NULL : f.note[0] == '\0');
    CHECK((note[0] == '\0') == (f.note[0] == '\0') || world_size(world) == 1);
    static const size_t buckets[] = {0, 30000, SIZE_MAX};
    for (size_t i = 0; i < sizeof buckets / sizeof buckets[0]; i++) {
        check_gradients(&f, 0, buckets[i], true);
        check_gradients(&f, UNIT, buckets[i], true);
    }
    check_gradients(&f, 0, 0, false);
    if (device_group_is_direct(f.devices))
        check_parts(&f);
    check_weights(&f, direct);
    destroy(&f);
}

int main(void) {
    world *world;
    char card[32];
    CHECK_OK(world_create(&world, &(world_options){.deadline_seconds = 60}));
    snprintf(card, sizeof card, "0000:%02x:00.0", world_rank(world));
    setenv("MUSICRL_NCCL", FAKE_NCCL_PATH, 1);
    check_all(world, card, true, "ranks communicate from GPU to GPU by NCCL 2.30.7");
    check_all(world, NULL, false, "");                                  // CPUs
    check_all(world, "0000:3b:00.0", false, "shares GPU 0000:3b:00.0"); // all ranks on one card
    setenv("MUSICRL_NCCL", "/nowhere/libnccl.so.2", 1);
    check_all(world, card, false, "has no NCCL, so that the group of ");
    world_destroy(world);
    return 0;
}
