// `musicrl reward eval` and `musicrl reward ablate`: what reward models are worth, measured on held-out
// captions that selected nothing.
#pragma once

#include "launch/run_config.h"

// Both models of the run: FOLDER/reward.json and a table. Quality: Spearman's correlation with the mean
// ratings and calibration. Preference: accuracy, expected calibration error and the baselines beside it, one
// of which (from scratch) is trained here. Intervals are of a bootstrap over captions, as the votes on one
// caption are not independent.
status reward_eval(const run_config *config);

// The preference model without its parts: FOLDER/ablation.json and a table beside the paper's. Trains what is
// not there yet.
status reward_ablate(const run_config *config);
