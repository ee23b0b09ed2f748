// The thread that watches a rank, beside the rank: what it says of it, and that it is gone afterwards.
#include "comm/group.h"
#include "launch/heartbeat.h"
#include "launch/watch.h"
#include "tests/distributed/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 40 };

static bool nobody_asks(void) {
    return false;
}

// Looks at a rank's heartbeat until it says `step` and beats on.
static void wait_for(const char *folder, int rank, const char *phase, int64_t step) {
    heartbeat seen = {0}, later = {0};
    for (int tries = 0; tries < 2000 && !(seen.step == step && later.beat > seen.beat); tries++) {
        usleep(10000);
        heartbeat *next = seen.step == step ? &later : &seen;
        (void)heartbeat_read(folder, rank, next);
    }
    CHECK(seen.step == step && later.beat > seen.beat && later.moves >= seen.moves);
    CHECK(seen.rank == rank && strcmp(seen.phase, phase) == 0 && strcmp(seen.roles, "learner") == 0);
}

static void test_beats(world *world, const char *folder) {
    char path[128];
    snprintf(path, sizeof path, "%s/heartbeats", folder);
    // Short beats; no deadline that this could pass.
    const watch_plan plan = {.folder = folder,
                             .roles = "learner",
                             .deadlines = {600, 600, 600, 600, 600, 600},
                             .silence = 600,
                             .stop = 0.01,
                             .stop_requested = nobody_asks};
    const int next = (world_rank(world) + 1) % world_size(world);
    for (int times = 0; times < 2; times++) {
        watch *watch;
        CHECK_OK(watch_start(&watch, world, 0, &plan));
        CHECK(world_deadline(world) == 0.0); // waits are the watch's business now
        for (int i = 0; i < ROUNDS; i++) {
            watch_enter(watch, i % 2 == 0 ? WATCH_ROLLOUT : WATCH_LEARN, i);
            CHECK_OK(world_agree(world, STATUS_OK));
            usleep(2000);
        }
        watch_enter(watch, WATCH_SAVE, ROUNDS);
        wait_for(path, world_rank(world), "save", ROUNDS);
        wait_for(path, next, "save", ROUNDS);
        CHECK_OK(world_agree(world, STATUS_OK));
        watch_stop(watch);
        CHECK(world_deadline(world) == 60.0);
        heartbeat gone;
        CHECK(!heartbeat_read(path, world_rank(world), &gone));
        CHECK_OK(world_agree(world, STATUS_OK));
    }
    CHECK(access(path, F_OK) != 0); // whoever is last takes the folder along
}

int main(void) {
    world *world;
    group *all;
    const world_options options = {.threads = 1, .deadline_seconds = 60.0};
    char folder[] = "/tmp/musicrl-watch-XXXXXX";
    CHECK_OK(world_create(&world, &options));
    status made = STATUS_OK;
    if (world_rank(world) == 0 && mkdtemp(folder) == NULL)
        made = FAIL("no folder in /tmp");
    CHECK_OK(world_agree(world, made));
    CHECK_OK(group_create_whole(&all, world));
    CHECK_OK(group_broadcast(all, folder, sizeof folder, 0));
    group_destroy(all);
    test_beats(world, folder);
    if (world_rank(world) == 0)
        CHECK(rmdir(folder) == 0);
    world_destroy(world);
    return 0;
}
