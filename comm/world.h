// All ranks of a run: who they are, how many threads each may use, and how they agree that something failed.
// One process may make one world; without mpirun it is a world of one rank.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct world world;

typedef struct world_options {
    int threads;             // threads a rank; 0: usable local cores / local ranks, at least 1
    double deadline_seconds; // for every wait in comm; 0: wait for ever
} world_options;

// Starts MPI (collective; thread level SERIALIZED: any thread may call comm, one at a time) and finds out
// host, local ranks and cores. The caller owns *out. MPI errors return as status lines from here on. A
// failure after MPI's start ends every rank (world_abort), as the others cannot be told in any other way yet.
status world_create(world **out, const world_options *options);

// Ends MPI after a barrier, so that nothing durable on another rank is cut short; NULL is allowed. MPI cannot
// be started again in this process. A caller whose other ranks may not arrive uses world_abort instead.
void world_destroy(world *world);

int world_rank(const world *world);
int world_size(const world *world);
const char *world_host(const world *world);
const char *world_host_of(const world *world, int rank);
int world_cards_of(const world *world, int rank); // GPUs that the environment of that rank grants it
int world_local_rank(const world *world);         // rank among those on this host
int world_local_size(const world *world);         // ranks on this host
int world_usable_cores(const world *world);       // cores that the ranks of this host may use together
int world_threads(const world *world);            // threads for this rank
bool world_oversubscribed(const world *world);    // this host's ranks * threads exceed its cores
double world_deadline(const world *world);        // seconds, as in the options or set later
void world_set_deadline(world *world, double seconds);

// What this rank waits for in comm, for a thread that watches over it; such a thread may look at any time.
typedef struct world_wait {
    const char *what;         // "an all-reduce", lives as long as the program; NULL: it does not wait
    int peer;                 // world rank that is waited for, -1 for several
    unsigned long long count; // of waits so far that were more than a moment
} world_wait;
void world_look_at_wait(const world *world, world_wait *out);
// Sets it, for waits outside comm (for another process' file); `what` NULL: nothing is waited for.
void world_note_wait(const world *world, const char *what, int peer);

// One line on how ranks and threads sit on this host's cores: "" if all is well, otherwise a warning that
// binding leaves cores idle or that there are more threads than cores, with what to type.
const char *world_placement_warning(const world *world);

// The agreement point: every rank calls it with its own outcome (and its status_message). If any rank failed,
// every rank returns non-zero with "rank R on HOST: message" of the lowest failing rank. STATUS_STOPPED
// counts only where no rank has a worse outcome. One small collective when all is well, two otherwise.
status world_agree(world *world, status outcome);

// For failures between agreement points, where the other ranks wait for something that will not come: prints
// "musicrl: rank R on HOST: message" and ends every rank with status 1 within seconds. world may be NULL. If
// the message is that of the last agreement, all ranks are here, and it is printed once.
_Noreturn void world_abort(world *world, const char *message);

// Makes every rank wait for all (collective).
status world_barrier(world *world);

// Whether any rank has its flag set (collective): a signal caught by one rank becomes a decision of all.
status world_any(world *world, bool flag, bool *any);

// The largest of all ranks' numbers (collective): what one rank chose becomes known to the others, which say
// less than it.
status world_largest(world *world, int number, int *largest);

// Compares `identity` over the ranks (collective): items separated by "; " that must be equal for results to
// be equal to the last bit ("musicrl 0.1.0; avx512; oneDNN 2.6.3"). Writes to `warning` [size] "" if all are
// equal, otherwise one line that names the first differing rank, its host, its item and rank 0's; the same
// text on every rank.
status world_compare_identity(world *world, const char *identity, char *warning, size_t size);
