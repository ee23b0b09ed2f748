// What the files of the benchmark share.
#pragma once

#include "comm/gradient_sum.h"
#include "core/learner.h"
#include "core/reward_model.h"
#include "kernels/philox.h"
#include "launch/bench.h"

// A step of preference training reads all pairs of the clips of each caption, a caption in a gradient slot.
enum { BENCH_CAPTIONS = 4, BENCH_CAPTION_CLIPS = 8 };

typedef struct bench {
    const run_config *config;
    const bench_options *options;
    bench_listener listener;
    void *context;
    device *device;
    policy_config policy;
    double peak, peak_bf16; // FLOP/s; 0 until measured
    double bandwidth;       // bytes/s
    philox_stream stream;
} bench;

// A result of the device's threads, without ceiling, formula and peer.
bench_result bench_new_result(const bench *b, const char *name, const char *unit, double value);
void bench_fill_random(bench *b, float *out, size_t count); // in [-0.5, 0.5)
// out: [rows, columns]; column i from 0 .. entries[i] - 1.
void bench_fill_tokens(bench *b, uint16_t *out, size_t rows, int columns, const int *entries);

// Random tokens, prefixes and returns of config->train.batch samples.
typedef struct bench_batch {
    uint16_t *prefix, *tokens; // [batch, prefix], [batch, frames, levels]
    float *log_probabilities;  // [batch, frames, levels]
    float *returns;            // [batch]
    float *values;             // [batch, frames]
    uint32_t *samples;         // [batch]
    void *memory;              // of all of them: free with memory_free
} bench_batch;
status bench_create_batch(bench_batch *out, bench *b);
status bench_create_policy(bench *b, weight_precision precision, policy **out);

// A learner with its batch.
typedef struct bench_learner {
    learner *learner;
    gradient_sum *policy_gradients, *value_gradients;
    learner_value_statistics *value_statistics;   // [batch]
    learner_policy_statistics *policy_statistics; // [batch]
    bench_batch batch;
} bench_learner;
status bench_create_learner(bench *b, bench_learner *out);
void bench_destroy_learner(bench_learner *l);
// A step in its two halves: gradients summed over the slots, and the updates.
status bench_learner_pass(bench *b, bench_learner *l);
status bench_learner_update(bench *b, bench_learner *l);

// A learned reward and the clips that it scores.
typedef struct bench_reward {
    reward_model *model;
    reward_pass *pass;
    uint16_t *prefix, *tokens; // [clips, prefix], [clips, frames, levels]
    float *scores;             // [clips]
    size_t clips;
} bench_reward;
// batch: clips of a pass.
status bench_create_reward(bench_reward *out, bench *b, size_t clips, int batch, bool learn,
                           weight_precision precision);
void bench_destroy_reward(bench_reward *r);

status bench_run_reward(bench *b, weight_precision precision);
status bench_run_preference(bench *b);
// A step of several ranks: b->device is of this rank's world.
status bench_run_step(bench *b, world *world);
