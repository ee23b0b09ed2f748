// A run folder while a run writes to it: the resolved configuration, metrics, events, checkpoints, and the
// request to stop.
#pragma once

#include "comm/world.h"
#include "core/optimizer.h"
#include "data/metrics.h"
#include "launch/model_setup.h"
#include "launch/run_config.h"

#include <stdbool.h>

enum { RUN_STAGE_KEEPS = 2 }; // newest checkpoints of the stages before the RL run

typedef struct run_folder {
    char path[RUN_CONFIG_PATH_MAX];
    char checkpoints[RUN_CONFIG_PATH_MAX + 16];
    bool writes; // this rank writes; the others only read
    int lock;    // descriptor of the locked PATH/run.lock on the writing rank, 0: none
    event_file *events;
    metrics *metrics;
} run_folder;

// Rank `writer` creates the folder, locks it against a second run and sweeps what a killed run left
// half-written. Then it chooses the newest sound checkpoint, and every rank opens that one into `resume`,
// NULL if there is none; the caller closes it. Damaged ones after it are named and set aside, as their steps
// will be written again; one that cannot be read, and may be sound, is a failure. Collective over the world.
status run_folder_open(run_folder *run, world *world, const char *path, int writer, checkpoint **resume);
// Writes config.yaml and opens metrics and events for step `step` and later ones, forgetting what they said
// about those; 0 starts afresh (writing rank only).
status run_folder_start(run_folder *run, const run_config *config, int64_t step);
void run_folder_close(run_folder *run);

// Lets the saver write the checkpoint of a stage before the RL run (writing rank only; *run is used until the
// write has ended): after the metrics; the newest RUN_STAGE_KEEPS stay. `state` is taken over, as
// saver_start does.
status run_folder_save(run_folder *run, saver *saver, int64_t step, json_t *state);

// Records of an optimiser in a checkpoint: the flat moments and the update count in NAME.safetensors; or,
// where several learners hold a part of it, in NAME-part-0000-of-0004.safetensors and so on, which say where
// they begin.
enum { RUN_OPTIMIZER_TENSORS = 3, RUN_OPTIMIZER_NAME = 64, RUN_OPTIMIZER_PARTS = 4096 };
void run_optimizer_name(const char *name, int part, int parts, char text[RUN_OPTIMIZER_NAME]);
// Returns the number of views. moments [2, count] of `optimizer`, on the host or the device.
int run_optimizer_views(const optimizer *optimizer, const float *moments,
                        tensor_view views[RUN_OPTIMIZER_TENSORS]);
// Adds an optimiser that is part `part` of `parts` to every checkpoint of the saver.
status run_add_optimizer(saver *saver, const char *name, const optimizer *optimizer, int part, int parts);
// Whatever parts the checkpoint holds it in, and whatever part `optimizer` is.
status run_load_optimizer(const checkpoint *checkpoint, const char *name, optimizer *optimizer);

// Whether a run ever wrote to the folder: only then may what is left in it half-written be removed.
bool run_folder_began(const char *folder);
// Locks FOLDER/run.lock until the process ends or closes *descriptor; fails if another process holds it.
status run_lock_folder(const char *folder, int *descriptor);

// Agreed failures carry one message on every rank: the first prints it, and all forget it. To be called
// before world_destroy, after which a rank may end, and the launcher then ends the others, whatever they had
// to say.
void run_speak_once(const world *world, status outcome);

// SIGTERM, SIGINT, SIGHUP and SIGUSR1 ask a run to stop at the next step, with a checkpoint.
void run_catch_signals(void);
bool run_stop_requested(void);
