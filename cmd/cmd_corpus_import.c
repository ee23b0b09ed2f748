#include "cmd/commands.h"
#include "cmd/option.h"
#include "data/audio_file.h"
#include "data/corpus_import.h"
#include "launch/progress.h"

#include <stdio.h>

enum {
    KEY_SAMPLE_RATE = 256,
    KEY_CLIP_SECONDS,
    KEY_LOUDNESS,
    KEY_CLIPS_PER_SHARD,
    KEY_PREFIX,
    KEY_STRICT,
    KEY_REPLACE,
};

static const struct argp_option option_table[] = {
    {"output", 'o', "FOLDER", 0, "Folder of the shards; created if missing (required)", 0},
    {"sample-rate", KEY_SAMPLE_RATE, "HZ", 0, "Sample rate of the clips (16000)", 0},
    {"clip-seconds", KEY_CLIP_SECONDS, "S", 0, "Length of a clip (5)", 0},
    {"loudness", KEY_LOUDNESS, "LUFS", 0, "Integrated loudness every file is brought to (-18)", 0},
    {"clips-per-shard", KEY_CLIPS_PER_SHARD, "N", 0, "Clips in a shard (512)", 0},
    {"prefix", KEY_PREFIX, "NAME", 0, "Shards are called NAME-00000.h5, ... (clips)", 0},
    {"strict", KEY_STRICT, NULL, 0, "Fail at a bad line or file instead of skipping it; nothing is written",
     0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace shards of the same prefix once the new ones are complete", 0},
    {0},
};

static const char about[] =
    "Makes a corpus from audio files (WAV, FLAC, OGG, MP3, ...) that a manifest names.\v"
    "MANIFEST has one JSON object a line:\n"
    "  {\"audio\": \"songs/waltz.flac\", \"caption\": \"a slow waltz\",\n"
    "   \"attributes\": {\"tempo\": 90}, \"id\": \"waltz\"}\n"
    "'audio' is relative to the manifest; 'attributes' and 'id' may be left out. Every file is mixed to "
    "mono, "
    "resampled, brought to the same loudness (its true peak stays below full scale) and cut into clips from "
    "its start; what is left at the end becomes a clip, padded with silence, if it is at least half a clip "
    "long. A bad line or file (cut, damaged, silent) is named and skipped.";

static error_t parse_option(int key, char *text, struct argp_state *state) {
    corpus_import_options *o = state->input;
    switch (key) {
    case 'o':
        o->folder = text;
        return 0;
    case KEY_SAMPLE_RATE:
        o->sample_rate = (uint32_t)option_integer(state, "sample-rate", text, 1000, 192000);
        return 0;
    case KEY_CLIP_SECONDS:
        o->clip_seconds = option_real(state, "clip-seconds", text, 0.01, 3600);
        return 0;
    case KEY_LOUDNESS:
        o->loudness = option_real(state, "loudness", text, -60, 0);
        return 0;
    case KEY_CLIPS_PER_SHARD:
        o->clips_per_shard = (size_t)option_integer(state, "clips-per-shard", text, 1, 1000000);
        return 0;
    case KEY_PREFIX:
        o->prefix = text;
        return 0;
    case KEY_STRICT:
        o->strict = 1;
        return 0;
    case KEY_REPLACE:
        o->replace = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (o->manifest != NULL)
            argp_error(state, "'%s' is one argument too many", text);
        o->manifest = text;
        return 0;
    case ARGP_KEY_END:
        if (o->manifest == NULL)
            argp_error(state, "MANIFEST is missing: a file of JSON lines");
        if (o->folder == NULL)
            argp_error(state, "-o FOLDER is missing: where the shards go");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

typedef struct view {
    progress line;
    size_t done, total; // total is 0 until the manifest was read
} view;

static void show_skipped(void *context, const char *message) {
    const view *view = context;
    fprintf(stderr, "%sskipped: %s\n", view->line.terminal ? "\r\033[K" : "", message);
}

static void show_progress(void *context, size_t done, size_t total) {
    view *view = context;
    if (done == 0)
        progress_start(&view->line, stderr, "import", "file", 0, (int64_t)total);
    else
        progress_show(&view->line, (int64_t)done, "");
    view->done = done;
    view->total = total;
}

int cmd_corpus_import(int argc, char **argv) {
    view view = {0};
    corpus_import_options options = {
        .prefix = "clips",
        .sample_rate = 16000,
        .clip_seconds = 5,
        .loudness = AUDIO_LOUDNESS_TARGET,
        .clips_per_shard = 512,
        .skipped = show_skipped,
        .progress = show_progress,
        .context = &view,
    };
    struct argp parser = {option_table, parse_option, "MANIFEST", about, NULL, NULL, NULL};
    argp_parse(&parser, argc, argv, 0, NULL, &options);

    corpus_import_summary summary;
    status result = corpus_import(&options, &summary);
    if (view.total > 0)
        progress_finish(&view.line, (int64_t)view.done, "");
    if (result == STATUS_OK)
        printf("%s: %zu clip%s of %g s from %zu file%s (%zu padded at the end), %zu skipped\n",
               options.folder, summary.clips, summary.clips == 1 ? "" : "s", options.clip_seconds,
               summary.files, summary.files == 1 ? "" : "s", summary.padded, summary.skipped);
    return command_finish(result);
}
