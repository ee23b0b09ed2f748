// Measures the speed of every stage of a run on this machine, each beside the ceiling that the machine itself
// allows, and optionally beside a peer.
#pragma once

#include "core/policy.h"
#include "launch/run_config.h"

#include <stdbool.h>

// What can be asked for, as bits. The two ceilings are measured whenever a stage needs them.
typedef enum bench_stage {
    BENCH_PRODUCTS = 1,      // f32 matrix products, GFLOP/s
    BENCH_BANDWIDTH = 2,     // reading memory, GB/s
    BENCH_ROLLOUT = 4,       // sampling with a cache, frames/s
    BENCH_ROLLOUT_BF16 = 8,  // the same with weights in bf16
    BENCH_LEARNER = 16,      // a whole learner step, frames/s
    BENCH_REWARD = 32,       // scoring clips with a learned reward, clips/s
    BENCH_PREFERENCE = 64,   // training a preference model, pairs/s
    BENCH_REWARD_BF16 = 128, // scoring with weights in bf16
    BENCH_ALL = 255,
    BENCH_STEP = 256, // a whole step on the ranks of this world, part by part; only if asked for by name
} bench_stage;

// Reads "rollout,learner" into a set of stages; STATUS_USAGE names the word that is none.
status bench_parse_stages(const char *text, unsigned *stages);

typedef struct bench_result {
    const char *name; // "rollout"
    const char *unit; // "frames/s"; a frame of one sample counts as one
    double value;
    double ceiling;    // in the same unit; 0: none
    char formula[400]; // how the value, and the ceiling if any, come about
    int threads, ranks;
    char peer[64];     // "PyTorch 2.4.0, compiled"; "" where none was run
    double peer_value; // in the same unit
} bench_result;

typedef struct bench_options {
    unsigned stages;
    int codebook;            // entries of every level's codebook
    int repeats;             // the best of so many counts
    const char *peer_python; // interpreter that runs the peer; NULL: none
    const char *peer_script; // tests/parity/peer.py
} bench_options;

// Receives each result as soon as it is there, and before that what is being measured (`result` NULL).
typedef void (*bench_listener)(void *context, const char *what, const bench_result *result);

// Runs the stages with the model, batch, frames and threads of `config`, on random weights: no data are
// needed. Under mpirun only BENCH_STEP makes sense, and the first rank tells.
status bench_run(const run_config *config, const bench_options *options, bench_listener listener,
                 void *context);

// The peer's rate for one stage ("rollout", "learner", "reward", "preference") in result->peer and
// result->peer_value.
status bench_run_peer(const run_config *config, const bench_options *options, int threads, const char *stage,
                      bench_result *result);

// What the machine can do.
typedef struct bench_roofline {
    double peak;      // FLOP/s
    double bandwidth; // bytes/s
    int weight_bytes; // of one weight
    int cache_bytes;  // of one value of keys and values
} bench_roofline;
// Seconds that a frame step of `batch` samples takes at least: over the temporal and the depth stage, the
// longer of products over peak and bytes over bandwidth.
double bench_rollout_seconds(const policy_config *config, int batch, int frames,
                             const bench_roofline *machine);
// FLOP of the model's matrix products for one frame of a learner step: policy and value network forward and
// backward (three products each for one forward), reference forward; positions of the prefix included.
double bench_learner_flop(const policy_config *config, int frames);
// FLOP of the matrix products that score one clip: a forward pass of the temporal stage over the prefix,
// `begin` and every frame.
double bench_reward_flop(const policy_config *config, int frames);
