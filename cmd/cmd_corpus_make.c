#include "cmd/commands.h"
#include "cmd/option.h"
#include "data/corpus_make.h"
#include "launch/progress.h"

#include <argp.h>
#include <stdio.h>

enum {
    KEY_SECONDS = 256,
    KEY_SEED,
    KEY_SAMPLE_RATE,
    KEY_IMPERFECT,
    KEY_WORKERS,
    KEY_PER_SHARD,
    KEY_SOUNDFONT,
    KEY_REPLACE
};

static const struct argp_option option_table[] = {
    {"output", 'o', "FOLDER", 0, "Folder of the shards; created if missing (required)", 0},
    {"count", 'n', "N", 0, "Clips to make (6000)", 0},
    {"seconds", KEY_SECONDS, "S", 0, "Length of a clip (5)", 0},
    {"seed", KEY_SEED, "N", 0, "Another seed, another corpus (1)", 0},
    {"sample-rate", KEY_SAMPLE_RATE, "HZ", 0, "Of the audio (16000)", 0},
    {"imperfect", KEY_IMPERFECT, "SHARE", 0,
     "Share of clips that sound like bad recordings: noisy, muffled, distorted or broken (0.25)", 0},
    {"workers", KEY_WORKERS, "N", 0, "Threads (one per usable core); the corpus does not depend on it", 0},
    {"clips-per-shard", KEY_PER_SHARD, "N", 0, "Clips in a shard (1000)", 0},
    {"soundfont", KEY_SOUNDFONT, "FILE", 0, "General MIDI .sf2 file (the distribution's)", 0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace the shards of an earlier run", 0},
    {0},
};

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number) {
    (void)signal_number;
    stop_requested = 1;
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    corpus_make_options *options = state->input;
    switch (key) {
    case 'o':
        options->folder = argument;
        break;
    case 'n':
        options->count = (size_t)option_integer(state, "count", argument, 1, 10000000);
        break;
    case KEY_SECONDS:
        options->seconds = option_real(state, "seconds", argument, 2, 300);
        break;
    case KEY_SEED:
        options->seed = (uint64_t)option_integer(state, "seed", argument, 0, 9007199254740992);
        break;
    case KEY_SAMPLE_RATE:
        options->sample_rate = (uint32_t)option_integer(state, "sample-rate", argument, 8000, 96000);
        break;
    case KEY_IMPERFECT:
        options->imperfect = option_real(state, "imperfect", argument, 0, 1);
        break;
    case KEY_WORKERS:
        options->workers = (int)option_integer(state, "workers", argument, 1, 256);
        break;
    case KEY_PER_SHARD:
        options->clips_per_shard = (size_t)option_integer(state, "clips-per-shard", argument, 1, 1000000);
        break;
    case KEY_SOUNDFONT:
        options->soundfont = argument;
        break;
    case KEY_REPLACE:
        options->replace = 1;
        break;
    case ARGP_KEY_END:
        if (options->folder == NULL)
            argp_error(state, "-o FOLDER is missing: where the shards go");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void show(void *context, size_t done, size_t total) {
    (void)total;
    progress_show(context, (int64_t)done, "");
}

int cmd_corpus_make(int argc, char **argv) {
    static const struct argp parser = {
        option_table,
        parse_option,
        NULL,
        "Composes short pieces of music, renders them with FluidSynth, captions "
        "them in English, and writes them as audio shards.",
        NULL,
        NULL,
        NULL};
    progress progress;
    corpus_make_options options = {.count = 6000,
                                   .seconds = 5,
                                   .seed = 1,
                                   .sample_rate = 16000,
                                   .imperfect = 0.25,
                                   .clips_per_shard = 1000,
                                   .stop = &stop_requested,
                                   .progress = show,
                                   .context = &progress};
    error_t wrong = argp_parse(&parser, argc, argv, 0, NULL, &options);
    if (wrong != 0)
        return STATUS_USAGE;
    struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    progress_start(&progress, stderr, "corpus make", "clip", 0, (int64_t)options.count);
    status result = corpus_make(&options);
    if (result == STATUS_OK) {
        progress_finish(&progress, (int64_t)options.count, "");
        printf("%zu clips of %g s are in %s\n", options.count, options.seconds, options.folder);
    }
    return command_finish(result);
}
