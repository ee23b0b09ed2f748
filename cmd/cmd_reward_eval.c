#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/reward_eval.h"

int cmd_reward_eval(int argc, char **argv) {
    return run_command(
        argc, argv,
        "Measures the models of data.quality and data.preference on held-out captions that "
        "selected nothing, with baselines beside them, and writes reward.json into the run's "
        "folder. Baselines that are models are trained when they are not there yet. Also under "
        "mpirun.",
        reward_eval);
}
