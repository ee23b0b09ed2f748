// `musicrl pretrain`: the base policy, by next-token prediction on captioned token clips whose prefix comes
// from the music itself. Writes a run folder at data.base of the run file; taken up again from its newest
// checkpoint. Under mpirun the gradient slots are shared out; the result is the same to the last bit.
#pragma once

#include "launch/run_config.h"

// STATUS_STOPPED if a signal asked to stop and a checkpoint was written.
status pretrain_run(const run_config *config);
