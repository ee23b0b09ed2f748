#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/reward_train.h"

static int quality(int argc, char **argv) {
    return run_command(argc, argv,
                       "Trains the quality model, a regressor of the mean opinion score, on the scores of "
                       "data.ratings, and publishes it in data.quality. Taken up again from its newest "
                       "checkpoint. Also under mpirun.",
                       reward_train_quality);
}

static int preference(int argc, char **argv) {
    return run_command(
        argc, argv,
        "Trains the preference model on the votes of data.ratings, starting from the policy in "
        "data.base, and publishes it in data.preference. Selected on held-out captions. Taken "
        "up again from its newest checkpoint. Also under mpirun.",
        reward_train_preference);
}

int cmd_reward_train(int argc, char **argv) {
    static const command_entry entries[] = {
        {"quality", quality, RANKS_ANY, "the regressor of the mean opinion score"},
        {"preference", preference, RANKS_ANY, "the model of pairwise preference"},
    };
    return command_dispatch("musicrl reward train", "Trains a reward model on rated clips.", entries,
                            sizeof entries / sizeof entries[0], argc, argv);
}
