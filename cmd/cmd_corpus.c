#include "cmd/commands.h"

static const command_entry entries[] = {
    {"make", cmd_corpus_make, RANKS_ONE, "composes, captions and renders short pieces -> shards"},
    {"import", cmd_corpus_import, RANKS_ONE, "audio files and captions -> shards"},
    {"show", cmd_corpus_show, RANKS_ONE, "what is in a shard or a corpus"},
};

int cmd_corpus(int argc, char **argv) {
    return command_dispatch(argv[0], "Captioned music as HDF5 shards.", entries,
                            (int)(sizeof entries / sizeof entries[0]), argc, argv);
}
