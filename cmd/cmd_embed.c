#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/embed_job.h"

static int train(int argc, char **argv) {
    return run_command_that_replaces(
        argc, argv,
        "Trains the joint text-music embedding, its caption tokenizer and the prefix quantiser on the "
        "token clips of data.tokens, and writes them to data.embedding.",
        embed_train);
}

int cmd_embed(int argc, char **argv) {
    static const command_entry entries[] = {
        {"train", train, RANKS_ONE, "train the joint text-music embedding"},
    };
    return command_dispatch("musicrl embed", "The joint embedding of captions and music.", entries, 1, argc,
                            argv);
}
