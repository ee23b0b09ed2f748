// `musicrl evaluate`: base against finetuned policy on held-out captions, with the same random numbers for
// both. Writes evaluation.json and samples/ (WAV files of both for the same captions, samples.json) into the
// run folder.
#pragma once

#include "launch/run_config.h"

status evaluate_run(const run_config *config);
