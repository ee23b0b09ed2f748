#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/pretrain.h"

int cmd_pretrain(int argc, char **argv) {
    return run_command_on_ranks(
        argc, argv,
        "Trains the base policy on the token clips of data.tokens, with prefixes from data.embedding, "
        "into the run folder data.base. Taken up again from its newest checkpoint. Also under mpirun and "
        "srun.",
        "data.base", pretrain_run);
}
