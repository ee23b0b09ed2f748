#include "cmd/commands.h"

int cmd_reward(int argc, char **argv) {
    static const command_entry entries[] = {
        {"train", cmd_reward_train, "train the quality or the preference model; also under mpirun"},
    };
    return command_dispatch("musicrl reward", "Ratings of clips, and reward models learned from them.",
                            entries, sizeof entries / sizeof entries[0], argc, argv);
}
