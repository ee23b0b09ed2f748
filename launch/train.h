// `musicrl train`: reinforcement learning of the policy from rewards. Every rank carries one or more of the
// roles rollout, reward and learner (launch/roles.h); a step's samples go as messages from role to role, a
// rank to itself included, so that one rank, many colocated ranks, split roles and workers outside the world
// (launch/train_worker.h) run the same code.
//
// Invariants:
//  1. Step k is sampled with weight version max(0, k - lag), version v being the policy after v updates.
//  2. A sample's tokens depend on seed, step, sample index and weights alone; sample i of a step belongs to
//  fixed
//     members of each role and to gradient slot i / (batch / gradient_slots).
//  3. Sums over samples are added in sample order, sums over gradient slots in one balanced tree.
#pragma once

#include "launch/run_config.h"

#include <stddef.h>

// Bytes of the statistics that learners share of each sample.
size_t train_row_bytes(const run_config *config);

// STATUS_STOPPED if a signal asked to stop and a checkpoint was written.
status train_run(const run_config *config);
