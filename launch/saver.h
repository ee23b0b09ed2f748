// Checkpoints that are written while training goes on. The step loop waits only for the copy of everything
// that is saved into host buffers, which are allocated once; a thread writes and publishes them. One write is
// under way at a time.
#pragma once

#include "data/checkpoint.h"
#include "data/safetensors.h"
#include "kernels/device.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct saver saver;

// `kind` of its checkpoints (data/checkpoint.h). The caller owns *out.
status saver_create(saver **out, const char *kind);

// Waits for the write under way, whose outcome is dropped (see saver_wait), and frees. NULL is allowed.
void saver_destroy(saver *saver);

typedef struct saved_tensor {
    tensor_view view;
    device *device; // that has its data; NULL: the host
} saved_tensor;
// A file of every checkpoint from here on: tensors [count], whose data stay where they are as long as the
// saver lives. Allocates room for the copy. Names are copied.
status saver_add_tensors(saver *saver, const char *name, const saved_tensor *tensors, size_t count);

// What the thread does around a checkpoint; NULL for nothing. A failure is the failure of the write.
typedef struct saver_hooks {
    status (*before)(void *context); // before anything is written
    status (*after)(void *context);  // once the checkpoint is durable
    void *context;                   // used by the thread until saver_wait or the next saver_start
} saver_hooks;

// Copies the data of every file and lets the thread write step `step` in `folder`, with `state` (taken over,
// also on failure; nobody else holds any part of it). Waits for the write before it, and fails if that
// failed.
status saver_start(saver *saver, const char *folder, uint64_t step, json_t *state, const saver_hooks *hooks);

// Fails if a write has failed, without waiting for one that is under way. A failure is told once.
status saver_check(saver *saver);
// The same after waiting: STATUS_OK means that every checkpoint started is durable under its name.
status saver_wait(saver *saver);

// Several savers, one a process, may write each checkpoint together: every one writes its files into it, and
// the first commits it once it has the receipts of all. To be called before the first start, with `first` on
// one of them. saver_start of the first then returns with the checkpoint begun; the others are started after
// that.
status saver_share(saver *saver, bool first, int others);
enum { SAVER_RECEIPTS = 1024 };
// Whether the files of this saver are written, or there are none to wait for.
bool saver_is_written(saver *saver);
// Receipts of the files written, as text [SAVER_RECEIPTS].
status saver_receipts(saver *saver, char *text);
// The first: lets the thread commit, with the receipts of the others, [others][SAVER_RECEIPTS]. After that
// saver_wait means what it says above.
status saver_commit(saver *saver, const char *receipts);

// That writes took which completed since this was last asked, hooks included.
double saver_write_seconds(saver *saver);
