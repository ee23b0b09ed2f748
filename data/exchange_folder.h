// Messages between processes that share nothing but a folder, RUN_DIR/exchange/. The run that needs work done
// opens a session and posts orders; workers, which come and go, look for them and publish what they make.
// Every file is published whole (data/publish.h) under a name that says what it holds.
//
//     exchange/session.json          the session in force and what it asks of workers,
//                                    or how the last one ended
//     exchange/session-1841.../      one session: orders, messages and weights, by the
//                                    names that the caller gives
//     exchange/session-1841.../claims/    who works on what
//
// Invariants:
//  1. A name holds what it says, of this session, whole; content carries its own checksum.
//  2. Whoever makes the file of a name makes the same content: it does not matter who did, nor that two did.
//  3. A claim only saves work. It lives no longer than the process that holds it.
#pragma once

#include "kernels/status.h"

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

enum { EXCHANGE_NAME = 128, EXCHANGE_OWNER = 128 };

typedef enum exchange_state {
    EXCHANGE_ABSENT, // no session was ever opened
    EXCHANGE_OPEN,
    EXCHANGE_FINISHED, // the run is done
    EXCHANGE_STOPPED,  // the run stopped on request and is to be continued
} exchange_state;

typedef struct exchange_folder {
    char root[PATH_MAX / 2], session[64], path[PATH_MAX]; // RUN_DIR/exchange, "session-...", both together
} exchange_folder;

// Opens a session in RUN_DIR, which no other process may do meanwhile (launch/run_folder.h locks it), and
// removes what earlier ones left. `terms` (taken over, also on failure) is told to workers.
status exchange_folder_begin(exchange_folder *out, const char *run, json_t *terms);
// Ends it, as FINISHED or STOPPED, and removes its files.
status exchange_folder_end(const exchange_folder *folder, exchange_state how);

// The session in force in RUN_DIR, its state, and its terms, which the caller owns; NULL is allowed and they
// are NULL where *state is not OPEN.
status exchange_folder_look(exchange_folder *out, const char *run, exchange_state *state, json_t **terms);

// Publishes bytes [count] as `name`.
status exchange_folder_publish(const exchange_folder *folder, const char *name, const void *bytes,
                               size_t count);
bool exchange_folder_has(const exchange_folder *folder, const char *name);
// Reads a file into buffer [capacity]; *there: whether it is there (yet). *bytes is what it has, also where
// that is more than the buffer holds, which then has the beginning.
status exchange_folder_fetch(const exchange_folder *folder, const char *name, void *buffer, size_t capacity,
                             bool *there, size_t *bytes);
// Removes the files and claims whose names begin so; those of others that are being read stay readable.
status exchange_folder_discard(const exchange_folder *folder, const char *prefix);

// The names that begin so, in alphabetical order, at most `capacity`; the others are left out.
status exchange_folder_list(const exchange_folder *folder, const char *prefix, char (*names)[EXCHANGE_NAME],
                            int capacity, int *count);

// Tries to claim a name in the name of `owner`: *claim is a descriptor to be released, or -1 if another
// process has it, which then stands in `holder` [EXCHANGE_OWNER].
status exchange_folder_claim(const exchange_folder *folder, const char *name, const char *owner, int *claim,
                             char *holder);
void exchange_folder_release(int claim); // -1 is allowed
