#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/collect.h"

int cmd_reward_collect(int argc, char **argv) {
    return run_command(
        argc, argv,
        "Samples clips of captions from the base model of data.base, lets the simulated listeners of "
        "data.listeners vote on pairs of them and score clips for their quality, and writes the "
        "ratings to data.ratings.",
        collect_run);
}
