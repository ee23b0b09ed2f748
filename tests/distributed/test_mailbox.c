// Messages between ranks, to oneself included, and weights by version. With an argument: a way to fail.
#include "check.h"

#include "comm/batch.h"
#include "comm/mailbox.h"
#include "comm/weights.h"
#include "kernels/memory.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES = 4, FRAMES = 250, LEVELS = 4, WEIGHTS = 1000003 };

static void send_rewards(mailbox *mailbox, int rank, uint64_t step, uint32_t samples, uint32_t rewards) {
    void *buffer;
    size_t capacity, bytes;
    static float values[1 << 18];
    for (uint32_t i = 0; i < samples * rewards; i++)
        values[i] = (float)(step + i);
    CHECK_OK(mailbox_compose(mailbox, &buffer, &capacity));
    reward_batch batch = {step, 0.0, 0, samples, rewards, values};
    CHECK_OK(reward_batch_build(&batch, buffer, capacity, &bytes));
    CHECK_OK(mailbox_send(mailbox, buffer, bytes, rank));
}

static void receive_rewards(mailbox *mailbox, int rank, uint64_t step, uint32_t samples, uint32_t rewards) {
    const void *buffer;
    size_t bytes;
    reward_batch batch;
    CHECK_OK(mailbox_receive(mailbox, rank, MESSAGE_REWARD_BATCH, "test", &buffer, &bytes));
    CHECK_OK(reward_batch_parse(&batch, buffer, bytes));
    CHECK(batch.step == step && batch.samples == samples && batch.reward_count == rewards);
    for (uint32_t i = 0; i < samples * rewards; i++)
        CHECK(batch.rewards[i] == (float)(step + i));
    mailbox_release(mailbox, buffer);
}

// Small and large messages (beyond MPI's eager limit) to every rank, oneself included, all sent before any is
// received.
static void test_everyone(world *world, mailbox *mailbox) {
    int size = world_size(world), rank = world_rank(world);
    uint64_t allocations = memory_read_counters().allocations;
    for (uint64_t step = 0; step < 20; step++) {
        uint32_t rewards = step % 2 == 0 ? 3 : 50000;
        for (int peer = 0; peer < size; peer++)
            send_rewards(mailbox, peer, step * 100 + (uint64_t)rank, SAMPLES, rewards);
        CHECK_OK(mailbox_progress(mailbox));
        for (int peer = size - 1; peer >= 0; peer--)
            receive_rewards(mailbox, peer, step * 100 + (uint64_t)peer, SAMPLES, rewards);
    }
    CHECK_OK(mailbox_flush(mailbox));
    CHECK(memory_read_counters().allocations == allocations);
}

// A rollout batch goes round the ring and comes back unchanged; messages of another kind may overtake it.
static void test_ring(world *world, mailbox *mailbox) {
    int size = world_size(world), rank = world_rank(world);
    int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    static uint16_t tokens[SAMPLES * FRAMES * LEVELS];
    static float log_probabilities[SAMPLES * FRAMES * LEVELS];
    uint32_t indices[SAMPLES] = {9, 8, 7, 6};
    for (int i = 0; i < SAMPLES * FRAMES * LEVELS; i++) {
        tokens[i] = (uint16_t)(i * 31 + rank);
        log_probabilities[i] = -(float)i / (float)(rank + 1);
    }
    rollout_batch own = {
        5, 4, 3, 0.0, 0, SAMPLES, FRAMES, LEVELS, 0, tokens, log_probabilities, NULL, indices, "a\0b\0c\0d",
        8};
    void *buffer;
    size_t capacity, bytes;
    CHECK_OK(mailbox_compose(mailbox, &buffer, &capacity));
    CHECK_OK(rollout_batch_build(&own, buffer, capacity, &bytes));
    CHECK_OK(mailbox_send(mailbox, buffer, bytes, next));
    send_rewards(mailbox, next, 77, 1, 1);
    receive_rewards(mailbox, previous, 77, 1, 1);
    for (int hop = 1; hop <= size; hop++) {
        const void *arrived;
        CHECK_OK(mailbox_receive(mailbox, previous, MESSAGE_ROLLOUT_BATCH, "ring", &arrived, &bytes));
        if (hop < size) {
            CHECK_OK(mailbox_compose(mailbox, &buffer, &capacity));
            memcpy(buffer, arrived, bytes);
            CHECK_OK(mailbox_send(mailbox, buffer, bytes, next));
        } else {
            rollout_batch found;
            CHECK_OK(rollout_batch_parse(&found, arrived, bytes));
            CHECK(memcmp(found.tokens, tokens, sizeof tokens) == 0);
            CHECK(memcmp(found.log_probabilities, log_probabilities, sizeof log_probabilities) == 0);
            CHECK(strcmp(rollout_batch_caption(&found, 3), "d") == 0);
        }
        mailbox_release(mailbox, arrived);
    }
    CHECK_OK(mailbox_flush(mailbox));
}

static void test_misuse(world *world, mailbox *mailbox) {
    void *buffer;
    size_t capacity;
    CHECK_OK(mailbox_compose(mailbox, &buffer, &capacity));
    CHECK(mailbox_send(mailbox, buffer, 64, 0) == STATUS_FAILED); // nothing was built in it
    CHECK(mailbox_send(mailbox, buffer, 64, 0) == STATUS_FAILED); // and now it is the mailbox's again
    send_rewards(mailbox, world_rank(world), 1, 1, 1);
    receive_rewards(mailbox, world_rank(world), 1, 1, 1);
    CHECK_OK(mailbox_compose(mailbox, &buffer, &capacity));
    size_t bytes;
    float value = 1;
    CHECK_OK(reward_batch_build(&(reward_batch){1, 0.0, 0, 1, 1, &value}, buffer, capacity, &bytes));
    CHECK(mailbox_send(mailbox, buffer, bytes, world_size(world)) == STATUS_FAILED);
    CHECK(strstr(status_message(), "there are ranks 0 to") != NULL);
}

// Weights go from rank 0 to the upper half of the ranks, several versions one after the other.
static void test_weights(world *world) {
    int size = world_size(world), rank = world_rank(world), receivers[64], count = 0;
    for (int peer = (size + 1) / 2; peer < size; peer++)
        receivers[count++] = peer;
    device *device;
    CHECK_OK(device_create(&device, 1));
    weights_channel *channel;
    char note[DEVICE_GROUP_NOTE];
    CHECK_OK(weights_create(&channel, world, device, 0, receivers, count, WEIGHTS, note));
    CHECK(note[0] == '\0');
    float *weights;
    CHECK_OK(memory_allocate((void **)&weights, WEIGHTS * sizeof(float), "weights"));
    uint64_t allocations = memory_read_counters().allocations;
    bool receives = count > 0 && rank >= receivers[0];
    for (uint64_t version = 0; version < 4; version++) {
        if (rank == 0) {
            CHECK_OK(weights_wait(channel));
            for (int i = 0; i < WEIGHTS; i++)
                weights[i] = (float)i + (float)version;
            CHECK_OK(weights_send(channel, version, weights));
        } else if (receives) {
            CHECK_OK(weights_receive(channel, version, weights));
            for (int i = 0; i < WEIGHTS; i++)
                CHECK(weights[i] == (float)i + (float)version);
        } else {
            CHECK_OK(weights_receive(channel, version, weights));
        }
    }
    CHECK_OK(weights_wait(channel));
    CHECK(memory_read_counters().allocations == allocations);
    if (count > 0 && rank == 0)
        CHECK(weights_send(channel, 3, weights) == STATUS_FAILED);
    // A version that was not asked for is named.
    if (rank == 0)
        CHECK_OK(weights_send(channel, 9, weights));
    if (receives) {
        CHECK(weights_receive(channel, 8, weights) == STATUS_FAILED);
        CHECK(strstr(status_message(), "weights version 9 arrived, version 8 is wanted") != NULL);
    }
    CHECK_OK(weights_wait(channel));
    memory_free(weights);
    weights_destroy(channel);
    device_destroy(device);
}

static double now_seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// A receive whose message never comes fails at its deadline with everything named, and sleeps until then.
static void test_deadline(world *world, mailbox *mailbox) {
    const void *buffer;
    size_t bytes;
    int peer = (world_rank(world) + 1) % world_size(world);
    double start = now_seconds(CLOCK_MONOTONIC), busy = now_seconds(CLOCK_PROCESS_CPUTIME_ID);
    CHECK(mailbox_receive(mailbox, peer, MESSAGE_ROLLOUT_BATCH, "rollouts of step 3", &buffer, &bytes) ==
          STATUS_FAILED);
    double waited = now_seconds(CLOCK_MONOTONIC) - start;
    busy = now_seconds(CLOCK_PROCESS_CPUTIME_ID) - busy;
    char wanted[256];
    snprintf(wanted, sizeof wanted,
             "rank %d on %s: waited 2 s for a RolloutBatch from rank %d on %s (rollouts of step 3)",
             world_rank(world), world_host(world), peer, world_host(world));
    CHECK(strncmp(status_message(), wanted, strlen(wanted)) == 0);
    CHECK(waited >= 1.9);
    CHECK(busy < waited / 2);
    // The mailbox still works.
    send_rewards(mailbox, world_rank(world), 5, 2, 2);
    receive_rewards(mailbox, world_rank(world), 5, 2, 2);
    CHECK_OK(mailbox_flush(mailbox));
}

// More messages to oneself than there are buffers: an error, not a hang.
static void exhaust(world *world, mailbox *mailbox, int sends) {
    void *buffer;
    size_t capacity;
    for (int i = 0; i < sends; i++)
        send_rewards(mailbox, world_rank(world), 1, SAMPLES, 50000);
    if (mailbox_compose(mailbox, &buffer, &capacity) != STATUS_OK)
        world_abort(world, status_message());
}

int main(int argc, char **argv) {
    world *world;
    mailbox *mailbox;
    CHECK_OK(world_create(&world, &(world_options){.deadline_seconds = argc > 1 ? 2 : 60}));
    mailbox_plan plan = {reward_batch_bytes(SAMPLES, 50000), world_size(world) + 1, 2};
    CHECK_OK(mailbox_create(&mailbox, world, &plan));
    if (argc > 1 && strcmp(argv[1], "deadline") == 0) {
        test_deadline(world, mailbox);
    } else if (argc > 1 && strcmp(argv[1], "exhaust") == 0) {
        exhaust(world, mailbox, plan.sends);
    } else if (argc > 1) {
        // The last rank leaves without a word; the others wait for its message.
        if (world_rank(world) == world_size(world) - 1)
            _exit(3);
        receive_rewards(mailbox, world_size(world) - 1, 0, 1, 1);
    } else {
        test_misuse(world, mailbox);
        test_everyone(world, mailbox);
        test_ring(world, mailbox);
        test_weights(world);
    }
    mailbox_destroy(mailbox);
    world_destroy(world);
    return 0;
}
