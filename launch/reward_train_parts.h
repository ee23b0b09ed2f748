// What the files of reward training share.
#pragma once

#include "comm/gradient_sum.h"
#include "core/linear_fit.h"
#include "core/optimizer.h"
#include "launch/plan.h"
#include "launch/reward_measure.h"
#include "launch/run_folder.h"
#include "launch/watch.h"

// The training of one member.
typedef struct reward_trainer {
    const run_config *config;
    const run_config_reward_training *settings;
    world *world;
    group *group;
    device_group *devices;
    device *device;
    reward_data data;
    json_t *record; // reward_data_record
    int member;     // of the ensemble; -1 in arguments: a single model, which leaves nothing out
    uint64_t seed;  // of the member
    reward_model *model;
    reward_pass *pass; // of slot_clips
    optimizer *optimizer;
    gradient_sum *gradients;
    int first_slot, slots; // of this rank
    size_t slot_rows;      // rows of a gradient slot
    reward_set slot, selection;
    reward_inputs inputs;   // of a slot's clips
    int *starts;            // [2 * slot_rows] first frames of windows
    float *scores;          // [2 * slot_rows]
    float *d_scores;        // [2 * slot_rows]
    float *selection_score; // [clips of the selection]
    float *best;            // [parameters] of the selected step, on the device
    double *sums;           // [gradient slots, REWARD_SUMS]
    run_folder run;
    saver *saver;                   // on the rank that writes
    watch *watch;                   // from the fit of the head on
    int64_t step, best_step, waits; // evaluations since the best
    double best_loss;
    double save_seconds; // that a checkpoint since the last line of metrics held up the loop
    int64_t skipped_updates;
    double seconds; // of training steps in this process
    size_t seen;    // examples of them
    plan plan;
} reward_trainer;

enum { REWARD_SUM_LOSS, REWARD_SUM_COUNT, REWARD_SUM_RIGHT, REWARD_SUM_DECISIVE, REWARD_SUMS };

// Adds the rows of the training run (slot_rows neighbouring rows) at `position` of the shuffled order.
status reward_add_run(reward_trainer *trainer, reward_set *set, uint64_t position);
// Gives the head a start: a linear model on the pooled vectors of the untrained stage and the features, with
// the penalty that cross-validation over captions finds best; and the thresholds of the likelihood of votes.
status reward_fit_head(reward_trainer *trainer);

// Five folds of captions, and penalties from reward.fit_ridge to 1000 times as much, into ridges.
enum { REWARD_RIDGES = 7 };
fit_options reward_fit_options(const run_config *config, const int *fold, double ridges[REWARD_RIDGES]);
