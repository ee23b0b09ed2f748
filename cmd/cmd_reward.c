#include "cmd/commands.h"

static const command_entry entries[] = {
    {"listeners", cmd_reward_listeners, RANKS_ONE, "simulated listeners: what they hear, how they vote"},
    {"collect", cmd_reward_collect, RANKS_ONE, "simulated listeners' votes and scores -> ratings"},
    {"import", cmd_reward_import, RANKS_ONE, "people's votes and scores, as JSON lines or CSV -> ratings"},
    {"show", cmd_reward_show, RANKS_ONE, "what is in a folder of ratings"},
    {"train", cmd_reward_train, RANKS_ANY, "train the quality or the preference model; also under mpirun"},
    {"eval", cmd_reward_eval, RANKS_ANY, "what both models are worth on held-out captions, beside baselines"},
    {"ablate", cmd_reward_ablate, RANKS_ANY, "the preference model without its parts"},
};

int cmd_reward(int argc, char **argv) {
    return command_dispatch(argv[0], "Ratings of clips, and reward models learned from them.", entries,
                            (int)(sizeof entries / sizeof entries[0]), argc, argv);
}
