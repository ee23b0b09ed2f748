// Training of the quality and the preference model.
#pragma once

#include "comm/world.h"
#include "launch/reward_data.h"

// `musicrl reward train quality|preference`: into data.quality or data.preference. Collective over mpirun's
// ranks; the same bits on 1, 2, 4, ... ranks. Taken up again from the newest checkpoint; nothing is done
// where the published model was trained with the same settings on the same rows.
status reward_train_quality(const run_config *config);
status reward_train_preference(const run_config *config);

// The same within a world that exists, by a plan: the members of the ensemble one after the other, each in a
// run folder of its own, the last of them (member 0) in plan->folder. A member is selected by its loss on the
// selection half of the held-out captions, the untrained model with its fitted head included, and its
// training ends when the loss has not fallen for `patience` evaluations. Published when all members are done.
status reward_train(world *world, const run_config *config, const reward_plan *plan);
