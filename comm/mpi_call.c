#include "comm/mpi_call.h"

#include <sched.h>
#include <time.h>

enum { SLEEP_FIRST = 20000, SLEEP_LAST = 200000, YIELD_POLLS = 50 }; // ns, ns, polls

status mpi_check(const world *world, int code, const char *call, int peer) {
    if (code == MPI_SUCCESS)
        return STATUS_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(code, text, &length);
    if (peer >= 0)
        return FAIL("rank %d on %s: %s with rank %d on %s failed: %s", world_rank(world), world_host(world),
                    call, peer, world_host_of(world, peer), text);
    return FAIL("rank %d on %s: %s failed: %s", world_rank(world), world_host(world), call, text);
}

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

wait_state wait_begin(const world *world, double deadline_seconds, const char *what, int peer) {
    return (wait_state){.world = world,
                        .what = what,
                        .peer = peer,
                        .deadline = deadline_seconds,
                        .spin_seconds = world_oversubscribed(world) ? 0 : 2e-3,
                        .sleep_nanoseconds = SLEEP_FIRST};
}

void wait_end(wait_state *wait) {
    if (wait->noted)
        world_note_wait(wait->world, NULL, -1);
    wait->noted = false;
}

bool wait_pause(wait_state *wait) {
    // Most waits are over within the first burst of polls, which does not even read the clock.
    if (wait->polls < YIELD_POLLS) {
        wait->polls++;
        sched_yield();
        return true;
    }
    if (!wait->noted) {
        world_note_wait(wait->world, wait->what, wait->peer);
        wait->noted = true;
    }
    double now = now_seconds();
    if (wait->start == 0)
        wait->start = now;
    double waited = now - wait->start;
    if (waited < wait->spin_seconds)
        return true;
    if (wait->deadline > 0 && waited > wait->deadline)
        return false;
    struct timespec pause = {0, wait->sleep_nanoseconds};
    nanosleep(&pause, NULL);
    wait->sleep_nanoseconds *= 2;
    if (wait->sleep_nanoseconds > SLEEP_LAST)
        wait->sleep_nanoseconds = SLEEP_LAST;
    return true;
}

status mpi_wait_all(const world *world, MPI_Request *requests, int count, const char *what, int peer) {
    wait_state wait = wait_begin(world, world_deadline(world), what, peer);
    for (;;) {
        int done = 0;
        int code = MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        if (code != MPI_SUCCESS)
            return mpi_check(world, code, what, peer);
        if (done) {
            wait_end(&wait);
            return STATUS_OK;
        }
        if (!wait_pause(&wait))
            break;
    }
    if (peer >= 0)
        return FAIL(
            "rank %d on %s: waited %g s for %s with rank %d on %s, which is stuck or slow: look at its "
            "output, or raise the deadline",
            world_rank(world), world_host(world), world_deadline(world), what, peer,
            world_host_of(world, peer));
    return FAIL("rank %d on %s: waited %g s for %s; a rank is stuck or slow: look at the others' output, or "
                "raise the deadline",
                world_rank(world), world_host(world), world_deadline(world), what);
}
