// The parts of an evaluation: models and their automatic scores, raters' scores, what is written.
#pragma once

#include "core/divergence.h"
#include "core/side_by_side.h"
#include "launch/evaluate.h"
#include "launch/generator.h"
#include "launch/listeners.h"
#include "launch/prompts.h"
#include "launch/scorer.h"

#include <jansson.h>

enum {
    EVALUATE_BATCH = 64,
    EVALUATE_NAME_MAX = 64,
    EVALUATE_RESAMPLES = 10000,
    EVALUATE_BOOTSTRAP_SEED = 0x626f6f74
};

// Automatic rewards, in this order everywhere.
typedef enum automatic_reward {
    AUTOMATIC_TEXT_ADHERENCE,
    AUTOMATIC_QUALITY,
    AUTOMATIC_PREFERENCE,
    AUTOMATIC_REWARDS,
} automatic_reward;

extern const char *const automatic_reward_names[AUTOMATIC_REWARDS];

// Clips of a list of captions, and their scores.
typedef struct drawn_clips {
    size_t count;
    uint16_t *tokens;                // [count, frames, levels]
    float *score[AUTOMATIC_REWARDS]; // [count] each; NULL: no such reward
    float *music;                    // [count, embedding]
    double *kl;                      // [count] nats to the baseline; NULL: not measured
} drawn_clips;

// One model of the evaluation.
typedef struct contestant {
    char name[EVALUATE_NAME_MAX];
    char folder[RUN_CONFIG_PATH_MAX];
    uint64_t step;
    int candidates;       // drawn for each clip, of which the best is kept; 1: every other model
    drawn_clips held_out; // of the held-out captions
    drawn_clips prompted; // of the prompts
    mean_error mean[AUTOMATIC_REWARDS];
    mean_error gain[AUTOMATIC_REWARDS]; // paired, against the baseline
    double better;                      // share of captions with more text adherence than the baseline
    double diversity;
    double kl; // nats a clip to the baseline; of best-of-n an upper bound
    int clipped, silent, stuck;
    double lowest_rms;
    heard_clip *heard; // [prompts] what simulated listeners hear; NULL: there are none
    opinion *opinions; // [opinion_count] of raters
    size_t opinion_count, opinion_capacity;
    interval mean_opinion;
    size_t wins; // over all comparisons
} contestant;

// Two models, side by side.
typedef struct comparison {
    int a, b;            // contestants; b comes first on the command line
    rated_pair *ratings; // [count]
    size_t count, capacity;
    side_by_side result;
    double *choices; // [prompts] probability that a simulated listener chooses a's clip; NULL: people rated
    interval choice; // their mean, 95 % over prompts
} comparison;

typedef struct evaluation {
    const evaluate_options *options;
    run_config config;
    generator *generator;
    divergence *divergence;             // to the baseline
    scorer *scorers[AUTOMATIC_REWARDS]; // NULL: no such reward, or text adherence, which drawing a clip gives
    bool scored[AUTOMATIC_REWARDS];     // there is such a reward
    automatic_reward best_of_reward;
    listeners *listeners;      // NULL: none
    wanted_attributes *wanted; // [prompts.count] what each promises; NULL without listeners
    prompt_list prompts;
    const char **prompt_texts; // [prompts.count]
    char **captions;           // [caption_count]
    size_t caption_count;
    contestant models[EVALUATE_MODELS_MAX + 1]; // [model_count]
    int model_count;
    comparison *comparisons; // [comparison_count], every pair
    int comparison_count;
    const char *judges; // "panel", "file" or NULL: nobody rated
    size_t skipped_ratings, repeated_ratings;
} evaluation;

// Draws and scores the clips of one model, whose weights it loads.
status evaluate_model(evaluation *e, contestant *model);
void evaluate_model_release(contestant *model);

// Loads data.listeners if it is there and no people's ratings were given, and what the prompts promise.
status evaluate_load_panel(evaluation *e);
// Decoded clips of prompts `first` on, [size, samples], as simulated listeners hear them, into model->heard.
status evaluate_hear(const evaluation *e, contestant *model, const float *audio, size_t first, size_t size);
// Simulated listeners rate the prompts' clips; fills opinions and comparisons.
status evaluate_ask_panel(evaluation *e);
// Ratings of people from a file; the same.
status evaluate_read_ratings(evaluation *e);
// Adds one score of a clip, and one rater's scores of both clips of a comparison.
status evaluate_add_opinion(contestant *model, uint32_t prompt, int score);
status evaluate_add_rating(comparison *c, uint32_t prompt, int a, int b);
// Counts and tests what was rated.
status evaluate_judge(evaluation *e);

// The paper's win rate of a over b (Cideron et al., "MusicRL", 2024), for models named base (or musiclm), r,
// u and ru; NaN where it has none.
double evaluate_paper_win_rate(const char *a, const char *b);

// What came of comparing models a and b; an object of evaluation.json's "pairs".
json_t *evaluate_pair_json(const char *a, const char *b, const side_by_side *result);
json_t *evaluate_interval_json(const interval *interval);

status evaluate_write_samples(const evaluation *e);
status evaluate_write_results(const evaluation *e);
void evaluate_print(const evaluation *e);
