#include "cmd/commands.h"
#include "cmd/option.h"
#include "launch/codec_job.h"
#include "launch/progress.h"

#include <stdio.h>

enum { KEY_CODEC = 256, KEY_TOKENS, KEY_CLIP, KEY_LEVELS, KEY_ITERATIONS, KEY_REPLACE, CLIPS_MAX = 4096 };

static const struct argp_option option_table[] = {
    {"codec", KEY_CODEC, "FILE", 0, "The codec that made the tokens (required)", 0},
    {"tokens", KEY_TOKENS, "PATH", 0, "A token shard or a folder of them (required)", 0},
    {"clip", KEY_CLIP, "N", 0, "Only clip N, counted from 0; may be given again (all)", 0},
    {"output", 'o', "FOLDER", 0, "Folder of the WAV files; created if missing (required)", 0},
    {"levels", KEY_LEVELS, "N", 0, "Use the first N levels only, the semantic one counted (all)", 0},
    {"iterations", KEY_ITERATIONS, "N", 0, "Iterations of phase reconstruction (32)", 0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace WAV files of an earlier run", 0},
    {0},
};

typedef struct arguments {
    codec_job_decode_options options;
    size_t clips[CLIPS_MAX]; // [options.clip_count]
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state) {
    arguments *arguments = state->input;
    codec_job_decode_options *o = &arguments->options;
    switch (key) {
    case KEY_CODEC:
        o->codec = text;
        return 0;
    case KEY_TOKENS:
        o->tokens = text;
        return 0;
    case KEY_CLIP:
        if (o->clip_count == CLIPS_MAX)
            argp_error(state, "--clip was given more than %d times", CLIPS_MAX);
        arguments->clips[o->clip_count++] = (size_t)option_integer(state, "clip", text, 0, 1000000000);
        return 0;
    case 'o':
        o->output = text;
        return 0;
    case KEY_LEVELS:
        o->levels = (uint32_t)option_integer(state, "levels", text, 1, CODEC_LEVELS_MAX);
        return 0;
    case KEY_ITERATIONS:
        o->iterations = (int)option_integer(state, "iterations", text, 0, CODEC_ITERATIONS_MAX);
        return 0;
    case KEY_REPLACE:
        o->replace = true;
        return 0;
    case ARGP_KEY_END:
        if (o->codec == NULL || o->tokens == NULL || o->output == NULL)
            argp_error(state, "--codec FILE, --tokens PATH and -o FOLDER are required");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void show(void *context, size_t done, size_t total) {
    if (done == 0)
        progress_start(context, stderr, "codec decode", "clip", 0, (int64_t)total);
    else if (done < total)
        progress_show(context, (int64_t)done, "");
    else
        progress_finish(context, (int64_t)done, "");
}

int cmd_codec_decode(int argc, char **argv) {
    static const struct argp parser = {
        option_table, parse_option, NULL, "Decodes clips of tokens to 16-bit mono WAV files NUMBER-ID.wav.",
        NULL,         NULL,         NULL};
    progress progress;
    static arguments arguments;
    arguments.options = (codec_job_decode_options){.clips = arguments.clips,
                                                   .iterations = CODEC_ITERATIONS_LISTEN,
                                                   .progress = show,
                                                   .context = &progress};
    if (argp_parse(&parser, argc, argv, 0, NULL, &arguments) != 0)
        return STATUS_USAGE;
    size_t written = 0;
    status outcome = codec_job_decode(&arguments.options, &written);
    if (outcome == STATUS_OK)
        printf("%zu WAV files are in %s\n", written, arguments.options.output);
    return command_finish(outcome);
}
