// What a step costs on any number of ranks, from parts that were measured on one or two: a model of its own,
// to be checked against what 1, 2 and 4 ranks take, and to choose roles for more of them. Times are seconds.
//
// Sampling, scoring and learning a share of the batch take a fixed time and a time for each sample: the
// weights are read for a frame however few samples it has. Collectives are those of comm/group.h and
// comm/weights.h, over exchanges that take `latency` and go at `bandwidth`. Everything is taken to be evenly
// spread, and no rank to disturb another.
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct scaling_line {
    double fixed, sample; // of one rank that has n samples: fixed + n sample
} scaling_line;

typedef struct scaling_parts {
    scaling_line rollout, reward, learn; // learn: gradients of policy and value network
    double update;                       // both optimisers, packing, and the sampler's copy
    double latency, bandwidth;           // between two ranks: seconds, bytes a second
    double gradient_bytes, weight_bytes; // of both networks; of the policy, which goes to ranks that sample
    double rollout_bytes, score_bytes;   // of a sample in messages
    double row_bytes; // statistics of a sample, which learners add up SCALING_ROW_SUMS times a step
} scaling_parts;
enum { SCALING_ROW_SUMS = 3 };

typedef struct scaling_layout {
    int ranks, rollouts, rewards, learners; // colocated: all of them are `ranks`
    bool colocated;
    bool overlapped; // a lag of 1: rollouts of the next step run beside the learning of this one
    bool sharded;    // train.shard_optimizer
    int batch;
    double crowding; // threads that share a core, where there are fewer cores: work takes so many times as
                     // long; 0: 1
} scaling_layout;

// Every rank carries all roles.
scaling_layout scaling_colocated(int ranks, int batch);

typedef struct scaling_cost {
    double rollout, reward, learn, share, update,
        transfer; // share: all-reduces; transfer: messages and weights
    double step;
    double rollout_share;               // of the step
    double share_bytes, transfer_bytes; // that a learner sends in all-reduces; that messages carry
} scaling_cost;

scaling_cost scaling_predict(const scaling_parts *parts, const scaling_layout *layout);

// Of `bytes` over `ranks`, a power of two: recursive halving and its way back.
double scaling_all_reduce(const scaling_parts *parts, int ranks, double bytes);
// To `ranks` others, in pieces along a tree.
double scaling_broadcast(const scaling_parts *parts, int ranks, double bytes);

// The layout of least step time for a batch: colocated, or, if it may be overlapped, split into roles in any
// way that launch/roles.h allows.
scaling_layout scaling_recommend(const scaling_parts *parts, int ranks, int batch, int gradient_slots,
                                 bool overlapped);

// Through what one rank took for two numbers of samples; never negative.
scaling_line scaling_fit(int few, double seconds_few, int many, double seconds_many);
