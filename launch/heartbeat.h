// Signs of life: each rank of a run keeps one small file, RUN_DIR/heartbeats/rank-000003, that says what it
// does and how often it has said so. Whoever sees the count stand still knows that the process is gone or
// stopped, on whatever host, without comparing clocks; whoever looks after a crash knows what the rank was
// doing.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { HEARTBEAT_BYTES = 512, HEARTBEAT_NAME = 64 };

typedef struct heartbeat {
    uint64_t beat;  // counts up as long as the process runs
    uint64_t moves; // counts up as often as what it does changes
    int rank;
    char host[HEARTBEAT_NAME];
    char roles[HEARTBEAT_NAME]; // "reward+learner"
    char phase[HEARTBEAT_NAME]; // "learn"
    int64_t step;               // updates done
    double seconds;             // in this phase
    double overdue;             // seconds past the phase's deadline; negative: until it
    int waits_for;              // world rank, -1 for several
    char wait[HEARTBEAT_NAME];  // what it waits for in comm ("an all-reduce"), "" if it does not wait
} heartbeat;

// Writes the record of beat->rank into `folder`, in place. Nothing is made durable: a heartbeat means nothing
// once the run is over.
status heartbeat_write(const char *folder, const heartbeat *beat);

// Reads a rank's record; false if there is none that can be read.
bool heartbeat_read(const char *folder, int rank, heartbeat *out);

// As text of HEARTBEAT_BYTES bytes, padded, and back; false if it is no record.
void heartbeat_format(const heartbeat *beat, char text[HEARTBEAT_BYTES]);
bool heartbeat_parse(const char text[HEARTBEAT_BYTES], heartbeat *out);

// Removes a rank's record (rank -1: every record, and the verdict), and the folder if nothing is left in it.
void heartbeat_remove(const char *folder, int rank);
