// Watches over a run from a thread of each rank: a phase that takes longer than its deadline, and a rank that
// gives no sign of life, end the run with one line that names rank, host, phase and what is waited for; a
// step that is not finished soon enough after a request to stop is abandoned.
//
// Who is to blame when a deadline passes:
//  - a rank past the deadline of its phase that computes, reads or writes: it reports itself;
//  - a rank that waits in comm is not, as long as some other rank is alive and at work within its own
//    deadline;
//  - a rank whose count of heartbeats (launch/heartbeat.h) stands still: the rank before it, which looks
//    at it at every beat, reports it;
//  - nobody in particular if every rank is alive, waits, and has done so without a change: the one that
//    waits reports what for.
// Time is counted in beats of the watching thread, so that a run which was suspended as a whole is not taken
// for hung.
#pragma once

#include "comm/world.h"
#include "launch/run_config.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum watch_phase {
    WATCH_ROLLOUT,
    WATCH_REWARD,
    WATCH_LEARN,
    WATCH_SYNC, // agreeing with other ranks, and weights on their way
    WATCH_SAVE,
    WATCH_END, // nothing is left to be lost; has the deadline of WATCH_SYNC
    WATCH_PHASES,
} watch_phase;

typedef struct watch_plan {
    const char *folder;             // the run folder, of all ranks
    const char *roles;              // of this rank, "reward+learner"
    double deadlines[WATCH_PHASES]; // seconds in a phase; 0: none
    double silence; // seconds without a heartbeat after which a rank counts as gone; 0: for ever
    double stop; // seconds from a request to stop until the step in flight is abandoned, unless it is being
                 // saved; 0: never
    bool (*stop_requested)(void);
} watch_plan;

// With the deadlines of a run file and its request to stop.
watch_plan watch_plan_make(const run_config *config, const char *folder, const char *roles);

typedef struct watch watch;

// Collective, once the run folder is there and locked; rank `first` clears what an earlier run left. The
// caller owns *out.
status watch_start(watch **out, world *world, int first, const watch_plan *plan);

// Says what this rank does from now on; `step`: updates done. NULL is allowed. Costs two stores.
void watch_enter(watch *watch, watch_phase phase, int64_t step);

// Ends the thread and removes this rank's heartbeat; NULL is allowed. Before world_destroy.
void watch_stop(watch *watch);

// Seconds between two heartbeats.
double watch_interval(const watch_plan *plan, int ranks);
