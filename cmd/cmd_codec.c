#include "cmd/commands.h"

static const command_entry entries[] = {
    {"train", cmd_codec_train, RANKS_ONE, "learns codebooks from a corpus and measures them"},
    {"encode", cmd_codec_encode, RANKS_ONE, "audio -> tokens"},
    {"decode", cmd_codec_decode, RANKS_ONE, "tokens -> WAV files"},
};

int cmd_codec(int argc, char **argv) {
    return command_dispatch(argv[0], "Audio <-> tokens.", entries, (int)(sizeof entries / sizeof entries[0]),
                            argc, argv);
}
