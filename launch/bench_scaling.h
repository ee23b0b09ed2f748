// How a step of an RL run scales: measured on 1, 2 and 4 ranks of this machine with the same batch (strong)
// and with as many samples a rank (weak), beside what launch/scaling.h makes of the parts of one rank; and
// what it makes of more.
#pragma once

#include "launch/bench.h"
#include "launch/scaling.h"

enum { BENCH_RANKS_MAX = 8, BENCH_PREDICTIONS_MAX = 16 };

typedef struct bench_scaling_options {
    int ranks[BENCH_RANKS_MAX]; // to measure on, the first being 1
    int count;
    int largest; // ranks to predict up to, doubling from twice the last one measured
    const char
        *parts; // file of what `bench --stages step --json` said elsewhere, of one rank; NULL: measured here
    double latency, network; // between ranks, for predictions: seconds, bytes a second; 0: as measured here
    int cores;               // of this machine; 0: as it says itself
    int repeats, codebook;
    char *const *words; // [word_count] run file, further ones and overrides, as on the command line
    int word_count;
} bench_scaling_options;

typedef struct bench_scaling_row {
    int ranks, batch;
    double seconds, rollout, reward, learn, share, update; // of a step, measured
    scaling_cost predicted;
} bench_scaling_row;

typedef struct bench_scaling_forecast {
    int ranks;
    scaling_layout strong, weak,
        split; // the batch of the run file; a batch that grows; that one with a lag of 1
    scaling_cost strong_cost, weak_cost, split_cost; // no cost (step 0) where no layout is possible
} bench_scaling_forecast;

typedef struct bench_scaling {
    scaling_parts parts;
    int cores, threads; // of this machine, and of a rank
    int row_count, forecast_count;
    bench_scaling_row strong[BENCH_RANKS_MAX], weak[BENCH_RANKS_MAX]; // [row_count]
    bench_scaling_forecast forecasts[BENCH_PREDICTIONS_MAX];          // [forecast_count]
} bench_scaling;

// Runs this program under mpirun for every number of ranks. `listener` hears what is being measured.
status bench_scaling_run(const run_config *config, const bench_scaling_options *options, bench_scaling *out,
                         bench_listener listener, void *context);
