#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/train.h"
#include "launch/train_worker.h"

int cmd_train(int argc, char **argv) {
    return run_command_with_workers(
        argc, argv,
        "Finetunes the base policy of data.base by reinforcement learning, in the run folder of the run "
        "file. Taken up again from its newest checkpoint. Under mpirun or srun, the setting 'roles' "
        "says which rank does what.",
        "folder", train_run, train_worker_run);
}
