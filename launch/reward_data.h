// What reward models are trained and measured on: the rows of a ratings folder (pairs or scores) by side, and
// the inputs of rated clips. Rows are read by position, so that memory does not grow with their number.
#pragma once

#include "core/policy.h"
#include "core/reward_model.h"
#include "data/digest.h"
#include "data/ratings.h"
#include "launch/conditioner.h"
#include "launch/run_config.h"

#include <jansson.h>

// A caption decides its side, so that no caption is on two. Held-out captions (caption_is_held_out) are
// halved: one half selects among models, the other half only measures the one that was selected.
typedef enum reward_side {
    REWARD_SIDE_TRAINING,
    REWARD_SIDE_SELECTION,
    REWARD_SIDE_TEST,
} reward_side;
reward_side reward_caption_side(const char *caption);

// How reward models are made from a run file, and what an ablation changes.
typedef struct reward_plan {
    bool quality;                 // else preference
    run_reward_start start;       // policy or scratch
    run_reward_features features; // of the joint embedding in the head
    bool text;                    // the caption's prefix is read
    bool fit;                     // the head is fitted in closed form first
    int crop;                     // frames of a window, 0: min(train.frames, frames of a rated clip)
    int listen;                   // frames of a clip that exist, from its middle; 0: all
    int members;                  // of the ensemble
    char folder[RUN_CONFIG_PATH_MAX];
} reward_plan;
// As the run file has it. kind: "quality" (which never reads the caption) or "preference".
status reward_plan_make(reward_plan *out, const run_config *config, const char *kind);
const char *reward_plan_kind(const reward_plan *plan); // "quality" or "preference"

typedef struct reward_data {
    const run_config *config;
    reward_plan plan;
    device *device;
    ratings *ratings;
    corpus *clips;
    conditioner *conditioner;
    reward_model_config shape; // of the models over these data
    int start, frames, levels; // first frame of a rated clip, frames from there on, levels that models read
    size_t embedding;          // width of the joint embedding
    size_t rows;               // pairs or scores
    char embedding_identity[DIGEST_HEX];
    uint32_t *cached;    // [entries] clip + 1 whose vectors an entry holds, 0: none
    float *text, *music; // [entries, embedding]
    uint16_t *scratch;   // a clip
} reward_data;

// Opens data.ratings and data.embedding. Fails if they do not go together (codec, levels, codebooks).
status reward_data_open(reward_data *out, device *device, const run_config *config, const reward_plan *plan);
void reward_data_close(reward_data *data); // one that was zeroed is allowed

// What models of these data are trained with, to be compared with settings_record_compare: the settings as
// the plan has them, the joint embedding, what the models start from, and every row. The caller owns it.
status reward_data_record(const reward_data *data, json_t **out);
// The policy in data.base; the caller destroys it.
status reward_data_load_base(const reward_data *data, policy **out);

// Inputs of a number of clips.
typedef struct reward_inputs {
    size_t capacity;
    uint16_t *prefix;    // [capacity, prefix]
    uint16_t *tokens;    // [capacity, frames, levels]
    float *features;     // [capacity, feature count]
    float *text, *music; // [capacity, embedding]
} reward_inputs;
status reward_inputs_create(reward_inputs *out, const reward_data *data, size_t capacity);
void reward_inputs_destroy(reward_inputs *inputs);
// Reads clips [count], count <= capacity.
status reward_data_load(reward_data *data, const uint32_t *clips, size_t count, reward_inputs *inputs);

status reward_data_side(const reward_data *data, uint32_t clip, reward_side *side);
// Captions fall into REWARD_FOLDS parts, for cross-validation.
enum { REWARD_FOLDS = 5 };
status reward_data_fold(const reward_data *data, uint32_t clip, int *fold);

// A vote or a score with its clips as indices of a list of different clips.
typedef struct reward_example {
    int a, b;             // of the list; b == a for a score
    preference_vote vote; // of a pair
    float target;         // of a score: [1, 5] mapped to [0, 1]
} reward_example;

// Examples and the different clips that they speak of, in order of first mention.
typedef struct reward_set {
    reward_example *examples; // [capacity]
    uint32_t *clips;          // [2 * capacity]
    size_t count, clip_count, capacity;
    uint32_t *slots; // hash table of clips, for the making
    size_t slot_count;
} reward_set;
status reward_set_create(reward_set *out, size_t capacity);
void reward_set_destroy(reward_set *set);
void reward_set_clear(reward_set *set);
// Appends those of rows [first, first + count) that are on `side`, as far as there is room. member >= 0
// leaves out every fifth training caption, another fifth for each member of an ensemble; -1: none.
status reward_set_add_rows(reward_set *set, reward_data *data, size_t first, size_t count, reward_side side,
                           int member);
// Rows of a side, evenly spread over all of them where the set has no room for all.
status reward_set_fill(reward_set *set, reward_data *data, reward_side side);
