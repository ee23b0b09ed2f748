// Checkpoints. A run's checkpoint folder holds step-000100/, step-000200/, ... Each holds any number of files
// and manifest.json: step, kind, what made it, size and XXH3-128 digest of every file, and free JSON state.
// A checkpoint is built in step-000100.tmp/ and renamed when everything is durable, so it is there whole or
// not at all; what happens to it later is found by the digests, of which the manifest carries its own.
//
// Invariants:
//  1. step-N/ under its final name was complete and durable when it was named.
//  2. Nothing under a final name is ever changed; it is only removed or set aside, as a whole.
//  3. What checkpoint_open accepts is, byte for byte, what was written.
#pragma once

#include "data/safetensors.h"
#include "kernels/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHECKPOINT_TEXT = 64, CHECKPOINT_HOLDS = 256 };

// One line for a person about something that was not an error of the call ("passed over PATH: ...").
typedef void (*checkpoint_listener)(void *context, const char *line);

// Writing.

typedef struct checkpoint_writer checkpoint_writer;

// Starts step `step` in `folder`, which is created if missing; a stale unfinished one is removed. `kind` says
// what is in it ("policy", "embedding"). The build, the instruction set and the versions of the libraries are
// recorded. Refuses a step that is there already. `out` is NULL on failure.
status checkpoint_begin(checkpoint_writer **out, const char *folder, uint64_t step, const char *kind);

// Adds a safetensors file (see safetensors_write) or a file of any bytes under a plain name. After a failure
// the writer must be aborted.
status checkpoint_add_tensors(checkpoint_writer *writer, const char *name, const tensor_view *tensors,
                              size_t count, const safetensors_pair *metadata, size_t metadata_count);
status checkpoint_add_bytes(checkpoint_writer *writer, const char *name, const void *bytes, size_t count);

// Writes the manifest with `state` (a JSON object, borrowed; NULL for none), makes the checkpoint durable
// under its name and frees the writer, also on failure (then nothing of it remains).
status checkpoint_commit(checkpoint_writer *writer, const json_t *state);

void checkpoint_abort(checkpoint_writer *writer); // NULL is allowed

// Several processes may write one checkpoint: one begins it, the others then join, add their files and hand
// receipts to the first, which admits them into the manifest and commits. A file without a receipt is not
// part of it; one whose receipt was admitted and that is missing later is found like any other.

// Takes part in step `step` of `folder`, which another process has begun and not committed.
status checkpoint_join(checkpoint_writer **out, const char *folder, uint64_t step);
// Name, size and digest of every file added by this writer, as text [size].
status checkpoint_receipts(const checkpoint_writer *writer, char *text, size_t size);
// Frees a writer that joined; its files stay where they are. NULL is allowed.
void checkpoint_leave(checkpoint_writer *writer);
status checkpoint_admit(checkpoint_writer *writer, const char *receipts);

// Reading.

typedef struct checkpoint checkpoint;

typedef struct checkpoint_summary {
    uint64_t step;
    char kind[CHECKPOINT_TEXT];
    char build[CHECKPOINT_TEXT];           // version of the program that wrote it
    char instruction_set[CHECKPOINT_TEXT]; // of its matrix products
    size_t files;                          // without the manifest
    char holds[CHECKPOINT_HOLDS]; // their names without .safetensors: "policy, value in 4 parts"; cut to fit
    uint64_t bytes;               // of those files
    int64_t written;              // seconds since 1970, from the manifest's file
} checkpoint_summary;

// Opens a checkpoint folder (".../checkpoints/step-000100") after verifying the manifest and every file
// against its digest. The failure names the file and what is wrong with it.
status checkpoint_open(checkpoint **out, const char *path);
// The same; *unread says of a failure whether something could not be read, as a disk or a file server fails,
// so that nothing is known of the rest. Damage, and files that are missing, are no such failure.
status checkpoint_try(checkpoint **out, const char *path, bool *unread);
void checkpoint_close(checkpoint *checkpoint); // NULL is allowed

const checkpoint_summary *checkpoint_describe(const checkpoint *checkpoint);
const char *checkpoint_path(const checkpoint *checkpoint);
const json_t *checkpoint_state(const checkpoint *checkpoint); // a JSON object; lives until close

// A file of the checkpoint. The caller closes `out`.
status checkpoint_open_tensors(const checkpoint *checkpoint, const char *name, safetensors **out);
// `out` [count] is freed with memory_free.
status checkpoint_read_bytes(const checkpoint *checkpoint, const char *name, void **out, size_t *count);
int checkpoint_has(const checkpoint *checkpoint, const char *name);

// What the manifest says, verified itself, without looking at the files.
status checkpoint_peek(const char *path, checkpoint_summary *out);

// The folder of a run's checkpoints. Stale step-N.tmp/ are removed with publish_sweep.

typedef struct checkpoint_entry {
    uint64_t step;
    char *path; // owned by the list
} checkpoint_entry;

typedef struct checkpoint_list {
    checkpoint_entry *entries; // [count], by ascending step
    size_t count;
} checkpoint_list;

// All checkpoints by name, unverified. A missing folder is an empty list. Free with checkpoint_list_free.
status checkpoint_list_folder(checkpoint_list *out, const char *folder);
void checkpoint_list_free(checkpoint_list *list); // an empty list is allowed

// Verifies every file of a checkpoint, and that it is the step that its name says. The failure names the
// first that is damaged.
status checkpoint_verify(const checkpoint_entry *entry);

// Tells `listener` of every file of a checkpoint that is damaged or missing; fails if one is.
status checkpoint_tell_damage(const checkpoint_entry *entry, checkpoint_listener listener, void *context);

// Opens the newest checkpoint that verifies. Damaged ones are named to `listener` (NULL is allowed) and
// passed over. `out` is NULL if the folder holds no checkpoint at all; if all it holds are damaged, fails,
// and also if one cannot be read, as it may be sound.
status checkpoint_find_newest(checkpoint **out, const char *folder, checkpoint_listener listener,
                              void *context);

// Opens one step's; fails if it is missing or damaged.
status checkpoint_open_step(checkpoint **out, const char *folder, uint64_t step);

// Opens the newest checkpoint, for those who use what another run made and must not get something else
// unasked: fails if it is damaged. `out` is NULL if the folder holds no checkpoint.
status checkpoint_open_newest(checkpoint **out, const char *folder);

// Renames a checkpoint to PATH.damaged (.damaged-2, ...), where nothing lists it, so that its step can be
// written again.
status checkpoint_set_aside(const char *path);

typedef struct checkpoint_keep {
    size_t last;             // how many of the newest that verify, at least 1
    uint64_t every;          // steps that are a multiple of this; 0 for none
    int64_t best;            // this step; negative for none
    const int64_t *selected; // [1] and this one; NULL for none
    bool first;              // step 0
    bool only_tell;          // remove nothing, tell what would be
} checkpoint_keep;

// Removes the checkpoints that no rule of `keep` names. The newest ones are verified until `last` good ones
// are found, so that a damaged checkpoint never displaces a good one. Damaged ones met on the way are left
// where they are. `listener` hears of each one removed ("removed PATH", "would remove PATH") or found
// damaged.
status checkpoint_prune(const char *folder, const checkpoint_keep *keep, checkpoint_listener listener,
                        void *context);
