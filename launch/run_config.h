// The configuration of a run: one YAML file, further ones laid over it, then "key.sub=value" overrides,
// checked against one table of settings (run_config_table.c). To add a setting, add its field here and its
// line there.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { RUN_CONFIG_NAME_MAX = 128, RUN_CONFIG_PATH_MAX = 1024, RUN_CONFIG_REWARDS_MAX = 8 };

// What a run computes on (launch/device_choice.h).
typedef enum run_device {
    RUN_DEVICE_AUTO,
    RUN_DEVICE_CPU,
    RUN_DEVICE_CUDA,
} run_device;

typedef enum run_precision {
    RUN_PRECISION_F32,
    RUN_PRECISION_BF16,
} run_precision;

// What a reward model starts from.
typedef enum run_reward_start {
    RUN_REWARD_START_POLICY,
    RUN_REWARD_START_SCRATCH,
} run_reward_start;

// What the head of a reward model reads of the joint embedding; in the order of reward_features.
typedef enum run_reward_features {
    RUN_REWARD_FEATURES_NONE,
    RUN_REWARD_FEATURES_MUSIC,
    RUN_REWARD_FEATURES_MUSIC_TEXT,
} run_reward_features;

// How `train` learns.
typedef enum run_method {
    RUN_METHOD_RL,
    RUN_METHOD_DPO,
} run_method;

// What happens to a score that is not a finite number.
typedef enum run_bad_scores {
    RUN_BAD_SCORES_FAIL,
    RUN_BAD_SCORES_SKIP,
} run_bad_scores;

// The training of one reward model.
typedef struct run_config_reward_training {
    int32_t steps, batch, slot_clips;
    double learning_rate;
    int32_t warm_up, evaluate_every, patience;
} run_config_reward_training;

// What a rollout's return is compared with.
typedef enum run_baseline {
    RUN_BASELINE_VALUE,
    RUN_BASELINE_LEAVE_ONE_OUT,
    RUN_BASELINE_GROUP,
} run_baseline;

typedef enum run_kl_control {
    RUN_KL_FIXED,
    RUN_KL_ADAPTIVE,
} run_kl_control;

// Sizes of one transformer stack.
typedef struct run_config_transformer {
    int32_t layers, width, heads;
    int32_t ffn; // inner width of the gated feed-forward; never 0 after loading
} run_config_transformer;

// The weighted rewards of a run.
typedef struct run_config_rewards {
    int32_t count;
    struct {
        char name[RUN_CONFIG_NAME_MAX];
        double weight;
    } entries[RUN_CONFIG_REWARDS_MAX]; // [count]
} run_config_rewards;

// Plain data without pointers, padding zeroed: may be compared and broadcast as bytes. Every field is
// described by its line in run_config_table.c ('musicrl train --help-settings').
typedef struct run_config {
    char name[RUN_CONFIG_NAME_MAX];
    char folder[RUN_CONFIG_PATH_MAX];
    int64_t seed;
    int32_t threads;
    run_device device;
    double gradient_bucket;
    bool one_order;
    run_precision gpu_precision;
    char roles[RUN_CONFIG_NAME_MAX];
    struct {
        char tokens[RUN_CONFIG_PATH_MAX];
        char codec[RUN_CONFIG_PATH_MAX];
        char embedding[RUN_CONFIG_PATH_MAX];
        char base[RUN_CONFIG_PATH_MAX];
        char quality[RUN_CONFIG_PATH_MAX];
        char preference[RUN_CONFIG_PATH_MAX];
        char listeners[RUN_CONFIG_PATH_MAX];
        char ratings[RUN_CONFIG_PATH_MAX];
    } data;
    struct {
        run_config_transformer temporal, depth;
        int32_t coarse_levels;
        int32_t prefix, prefix_codebook;
    } model;
    struct {
        int32_t layers, width, heads, ffn, output; // the first four as run_config_transformer, per tower
        int32_t frames, rhythm_channels, rhythm_lags, text_length, vocabulary;
        bool variation;
        double word_dropout;
        int32_t batch, steps;
        double learning_rate;
        int32_t warm_up;
        double weight_decay, initial_temperature;
    } embedding;
    struct {
        int32_t batch, steps, frames;
        double learning_rate, final_learning_rate_ratio;
        int32_t warm_up;
        double weight_decay, beta1, beta2, epsilon, gradient_clip;
        int32_t gradient_slots;
        int32_t evaluate_every, evaluate_clips, save_every;
    } pretrain;
    struct {
        run_method method;
        int32_t steps, batch, group, frames;
        run_baseline baseline;
        bool whiten_group;
        double temperature, alpha;
        run_kl_control kl_control;
        double kl_target, kl_gain, entropy_bonus;
        int32_t ppo_epochs;
        double clip, learning_rate, value_learning_rate;
        int32_t warm_up;
        double beta1, beta2, epsilon, weight_decay, gradient_clip;
        int32_t gradient_slots;
        bool shard_optimizer;
        bool whiten_advantage;
        double advantage_std_floor;
        bool whiten_reward;
        int32_t whiten_samples, lag;
        double importance_cap;
        int32_t evaluate_every, evaluate_captions, save_every, keep, keep_every;
        run_precision rollout_precision, reward_precision;
        int32_t save_rollouts_every;
        run_config_rewards rewards;
        run_bad_scores bad_scores;
        int32_t alarm_clips;
        struct {
            double diversity, text_adherence; // shares of the base's
        } select;
        struct {
            double kl;         // nats a sequence; 0: no limit
            int32_t diversity; // evaluations in a row; 0: no limit
            double alarms, disagreement;
        } stop;
    } train;
    struct {
        int32_t batch;
        double beta;
    } dpo;
    struct {
        double start, rollout, reward, learn, sync, save; // seconds; 0: none
        double silence, stop;
    } deadlines;
    struct {
        run_reward_start start;
        run_reward_features features;
        bool text;
        int32_t crop, ensemble;
        int32_t fit_examples;
        double fit_ridge;
        run_config_reward_training quality, preference;
        double weight_decay, beta1, beta2, epsilon, gradient_clip;
        int32_t gradient_slots, evaluate_limit, test_limit, bootstrap;
    } reward;
    struct {
        int32_t training_clips, held_out_clips, damaged_clips, captions, clips_per_caption;
        double least_kappa, agreement;
        int64_t label_seed, evaluation_seed;
    } listeners;
    struct {
        int32_t captions, held_out_captions, clips, raters, votes;
        int32_t corpus_clips, degraded_clips, generated_clips, scores;
        int32_t second_votes;
    } ratings;
    struct {
        int32_t count, iterations;
    } samples;
} run_config;

// Fills `out` [1]: defaults, then the file at `path`, then those of `words` [count] that are run files
// ("over.yaml": its settings replace those below, a list as a whole), then the other words ("key.sub=value";
// the last of equal keys wins), then the values that follow from others: name (stem of the first file),
// folder (runs/NAME), ffn (8 * width / 3 rounded up to 64). Fails with one line that names place, setting,
// value found and value wanted: on an unknown or doubled key, a wrong type, a value out of range, sizes that
// exclude each other. STATUS_USAGE if an override is to blame.
status run_config_load(run_config *out, const char *path, char *const *words, int count);

// Every setting at its default; what follows from others is not worked out. Like run_config_load not for
// several threads at a time.
status run_config_set_defaults(run_config *out);

// Fails if the text setting `key` ("data.codec") is empty, and says what it is for.
status run_config_require(const run_config *config, const char *key);

// Fails as well if there is no file or folder of that name. run_file: the config.yaml of a run folder that
// the setting stands in, whose relative paths are those of another working folder perhaps; NULL: another one.
status run_config_require_path(const run_config *config, const char *key, const char *run_file);

// Publishes every setting with its resolved value; the file loads back to the same struct.
status run_config_write(const run_config *config, const char *path);

// Lists every setting: key, default, range or words, help.
void run_config_print_settings(FILE *stream);
