#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/reward_eval.h"

int cmd_reward_ablate(int argc, char **argv) {
    return run_command(
        argc, argv,
        "Measures preference models that lack a part (the caption, the joint embedding, most of "
        "the clip, the policy's weights) and simpler rules beside the model of data.preference, "
        "and writes ablation.json into the run's folder. Models that are not there yet are "
        "trained under data.preference/variants. Also under mpirun.",
        reward_ablate);
}
