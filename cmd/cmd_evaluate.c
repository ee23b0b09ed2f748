#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/evaluate.h"

int cmd_evaluate(int argc, char **argv) {
    return run_command(
        argc, argv,
        "Compares the base policy with the finetuned one of the run folder on held-out captions, and "
        "writes evaluation.json and samples/ (both models on the same captions) there.",
        evaluate_run);
}
