#include "cmd/commands.h"
#include "cmd/option.h"
#include "launch/codec_job.h"
#include "launch/progress.h"

#include <stdio.h>

enum { KEY_CODEC = 256, KEY_CORPUS, KEY_AUDIO, KEY_CAPTION, KEY_PER_SHARD, KEY_REPLACE };

static const struct argp_option option_table[] = {
    {"codec", KEY_CODEC, "FILE", 0, "The codec (required)", 0},
    {"corpus", KEY_CORPUS, "FOLDER", 0, "Audio shards to encode", 0},
    {"audio", KEY_AUDIO, "FILE", 0, "Or one audio file: WAV, FLAC, OGG, MP3, ...", 0},
    {"caption", KEY_CAPTION, "TEXT", 0, "Caption of the audio file (its name)", 0},
    {"output", 'o', "FOLDER", 0, "Folder of the token shards tokens-00000.h5, ... (required)", 0},
    {"clips-per-shard", KEY_PER_SHARD, "N", 0, "Clips in a shard (1000)", 0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace the shards of an earlier run", 0},
    {0},
};

static error_t parse_option(int key, char *text, struct argp_state *state) {
    codec_job_encode_options *o = state->input;
    switch (key) {
    case KEY_CODEC:
        o->codec = text;
        return 0;
    case KEY_CORPUS:
        o->corpus = text;
        return 0;
    case KEY_AUDIO:
        o->audio = text;
        return 0;
    case KEY_CAPTION:
        o->caption = text;
        return 0;
    case 'o':
        o->output = text;
        return 0;
    case KEY_PER_SHARD:
        o->clips_per_shard = (size_t)option_integer(state, "clips-per-shard", text, 1, 1000000);
        return 0;
    case KEY_REPLACE:
        o->replace = 1;
        return 0;
    case ARGP_KEY_END:
        if (o->codec == NULL || o->output == NULL)
            argp_error(state, "--codec FILE and -o FOLDER are required");
        if ((o->corpus == NULL) == (o->audio == NULL))
            argp_error(state, "give either --corpus FOLDER or --audio FILE");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// The number of clips is known once the corpus is open: the first call starts the display.
static void show(void *context, size_t done, size_t total) {
    if (done == 0)
        progress_start(context, stderr, "codec encode", "clip", 0, (int64_t)total);
    else if (done < total)
        progress_show(context, (int64_t)done, "");
    else
        progress_finish(context, (int64_t)done, "");
}

int cmd_codec_encode(int argc, char **argv) {
    static const struct argp parser = {
        option_table,
        parse_option,
        NULL,
        "Encodes audio to tokens: the clips of a corpus with their captions, or one "
        "audio file as one clip.",
        NULL,
        NULL,
        NULL};
    progress progress;
    codec_job_encode_options options = {.clips_per_shard = 1000, .progress = show, .context = &progress};
    if (argp_parse(&parser, argc, argv, 0, NULL, &options) != 0)
        return STATUS_USAGE;
    size_t clips = 0, frames = 0;
    status outcome = codec_job_encode(&options, &clips, &frames);
    if (outcome == STATUS_OK)
        printf("%zu clips, %zu frames of tokens are in %s\n", clips, frames, options.output);
    return command_finish(outcome);
}
