// A process that makes rollouts or scores for an RL run, without being a rank of it: started by itself, in
// any number, at any time, it takes up parts of the rounds that the run orders in its folder
// (launch/exchange.h). One that dies costs the part that it was working on, which another one makes again, to
// the same bits.
#pragma once

#include "launch/run_config.h"

// Works with the run file of the run until that is over, under the same settings. `carried`: roles, as bits 1
// << role (launch/roles.h), 0 for all that the run leaves to workers. STATUS_STOPPED if the run, or this
// worker, was asked to stop.
status train_worker_run(const run_config *config, unsigned carried);
