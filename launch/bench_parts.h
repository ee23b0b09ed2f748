// What the files of the benchmark share.
#pragma once

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

status bench_run_reward(bench *b, weight_precision precision);
status bench_run_preference(bench *b);
