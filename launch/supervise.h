// A run on several ranks of this machine that is started again after a crash: starts mpirun, hands signals
// on, and says what ended a rank: which one, where, in what role, by which signal, in which step.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct supervision {
    int ranks, max_restarts;
    const char *folder; // the run folder, with checkpoints/ and heartbeats/
    char *const *words; // [count] of the command: program, subcommand, run file, ...
    int count;
} supervision;

// Starts the command under mpirun on `ranks` ranks, and again after every crash, at most max_restarts times;
// no longer once SUPERVISE_STUCK_MOST restarts in a row got no further than the same checkpoint, or if the
// run failed before it began. SIGINT, SIGTERM, SIGHUP and SIGUSR1 become a request to stop to the ranks; a
// second SIGINT or SIGTERM ends them after a while, a third at once. Returns what the run ended with:
// STATUS_OK, STATUS_STOPPED, STATUS_USAGE (without a message: the ranks have said it), or STATUS_FAILED.
status supervise(const supervision *plan);

enum { SUPERVISE_STUCK_MOST = 3 };

// The rule for restarts; slurm/job.sh has the same. `step` is the newest checkpoint, -1 for none.
typedef struct restart_rule {
    int max_restarts;
    int crashes;  // so far
    int stuck;    // restarts in a row without progress
    int64_t step; // newest checkpoint at the last start
} restart_rule;

// After a crash: whether to start again. If not, `reason` [size] says why.
bool restart_rule_allows(restart_rule *rule, int64_t step, char *reason, size_t size);

// What mpirun says of the end of a rank, collected from its lines.
typedef struct crash_cause {
    int rank;       // -1: not known
    int signal;     // 0: none
    int code;       // exit status, 0: not known
    char host[64];  // as mpirun names it
    char line[512]; // the program's own last message ("rank 3 on ...: ..."), "" if there was none
} crash_cause;
void crash_cause_begin(crash_cause *cause);
void crash_cause_read(crash_cause *cause, const char *line);
