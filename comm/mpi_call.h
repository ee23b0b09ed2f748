// Inside comm only: MPI's error codes as status lines, and the one way in which comm waits.
#pragma once

#include "comm/group.h"
#include "comm/world.h"

#include <mpi.h>

// OK if `code` is MPI_SUCCESS; otherwise "rank R on HOST: CALL [with rank P on its host] failed: MPI's text".
// `peer` is a world rank, or -1 if the call has none.
status mpi_check(const world *world, int code, const char *call, int peer);

// A wait that does not starve the threads it waits for. Yields between the first polls, then, for 2 ms, polls
// at full speed where every thread has its core, or not at all where the host is oversubscribed; then sleeps
// between polls, 20 us doubling to 200 us.
typedef struct wait_state {
    const world *world;
    const char *what; // as in world_wait
    int peer;
    bool noted;             // for whoever watches
    double start, deadline; // seconds of the monotonic clock; deadline 0: none
    double spin_seconds;
    long sleep_nanoseconds;
    int polls;
} wait_state;
wait_state wait_begin(const world *world, double deadline_seconds, const char *what, int peer);
// Once what was waited for is there; not needed after a failure, which ends the run.
void wait_end(wait_state *wait);

// Passes some time; false once the deadline is over.
bool wait_pause(wait_state *wait);

// Waits for all of requests [count]; `what` names the phase, `peer` the world rank waited for or -1. On a
// passed deadline: "rank R on HOST: waited S s for WHAT ...". The requests then stay active: their buffers
// must not be reused, the run must end.
status mpi_wait_all(const world *world, MPI_Request *requests, int count, const char *what, int peer);

const world *group_world(const group *group);

// A group's communicator; MPI_COMM_NULL on a rank that is no member.
MPI_Comm group_communicator(const group *group);
