#include "cmd/commands.h"
#include "cmd/option.h"
#include "cmd/print_text.h"
#include "data/audio_file.h"
#include "data/shard.h"
#include "kernels/memory.h"
#include "launch/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { KEY_CLIP = 256, KEY_COUNT, KEY_WAV, GRID_FRAMES = 16 };

typedef struct show_options {
    const char *path, *wav;
    long long clip; // -1: a sample of clips
    size_t count;
} show_options;

static const struct argp_option option_table[] = {
    {"count", KEY_COUNT, "K", 0, "Show K clips, spread over the corpus (5)", 0},
    {"clip", KEY_CLIP, "N", 0, "Show clip N, counted from 0, and nothing else", 0},
    {"wav", KEY_WAV, "FILE", 0, "With --clip: write its audio to a WAV file", 0},
    {0},
};

static const char about[] =
    "Shows what is in a shard or in a folder of shards.\v"
    "Clips are listed with the side of the split that their caption puts them on; audio with its peak and "
    "RMS level, tokens as a grid of the first frames, one row a level.";

static error_t parse_option(int key, char *text, struct argp_state *state) {
    show_options *o = state->input;
    switch (key) {
    case KEY_COUNT:
        o->count = (size_t)option_integer(state, "count", text, 0, 1000000);
        return 0;
    case KEY_CLIP:
        o->clip = option_integer(state, "clip", text, 0, INT64_MAX);
        return 0;
    case KEY_WAV:
        o->wav = text;
        return 0;
    case ARGP_KEY_ARG:
        if (o->path != NULL)
            argp_error(state, "'%s' is one argument too many", text);
        o->path = text;
        return 0;
    case ARGP_KEY_END:
        if (o->path == NULL)
            argp_error(state, "PATH is missing: a shard or a folder of shards");
        if (o->wav != NULL && o->clip < 0)
            argp_error(state, "--wav needs --clip: which clip to write");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_level(const char *name, double level) {
    if (level > 0)
        printf("  %s %.1f dBFS", name, 20 * log10(level));
    else
        printf("  %s -inf dBFS", name);
}

static status show_audio(const corpus *corpus, size_t clip, int16_t *audio) {
    size_t samples = corpus_get_format(corpus)->clip_samples;
    TRY(corpus_read_audio(corpus, clip, audio));
    int peak = 0;
    double square = 0;
    for (size_t i = 0; i < samples; i++) {
        int size = abs((int)audio[i]);
        peak = size > peak ? size : peak;
        square += (double)audio[i] * audio[i];
    }
    print_level("peak", peak / 32768.0);
    print_level("RMS", sqrt(square / (double)samples) / 32768.0);
    printf("\n");
    return STATUS_OK;
}

static status show_tokens(const corpus *corpus, size_t clip, uint16_t *tokens) {
    const shard_format *f = corpus_get_format(corpus);
    TRY(corpus_read_tokens(corpus, clip, tokens));
    printf("\n");
    uint32_t frames = f->frames < GRID_FRAMES ? f->frames : GRID_FRAMES;
    for (uint32_t level = 0; level < f->levels; level++) {
        printf("    %-9s%2u ", level == 0 ? "semantic" : "acoustic", level);
        for (uint32_t frame = 0; frame < frames; frame++)
            printf(" %5u", tokens[(size_t)frame * f->levels + level]);
        printf("%s\n", frames < f->frames ? "  ..." : "");
    }
    return STATUS_OK;
}

// buffer: room for one clip.
static status show_clip(const corpus *corpus, size_t clip, void *buffer) {
    shard_clip strings;
    TRY(corpus_read_strings(corpus, clip, &strings));
    printf("\nclip %zu  ", clip);
    print_text(strings.id);
    printf("  %s", caption_is_held_out(strings.caption) ? "held out" : "training");
    if (corpus_get_format(corpus)->kind == SHARD_AUDIO)
        TRY(show_audio(corpus, clip, buffer));
    else
        TRY(show_tokens(corpus, clip, buffer));
    printf("    ");
    print_text(strings.caption);
    printf("\n    ");
    print_text(strings.attributes);
    if (strings.source[0] != '\0') {
        printf("\n    from ");
        print_text(strings.source);
    }
    printf("\n");
    return STATUS_OK;
}

static status show_summary(const corpus *corpus, const char *path) {
    const shard_format *f = corpus_get_format(corpus);
    size_t clips = corpus_clip_count(corpus), shards = corpus_shard_count(corpus), held_out;
    size_t *index;
    TRY(memory_allocate((void **)&index, clips * sizeof *index, "clips of a split"));
    status result = corpus_split(corpus, 1, index, &held_out);
    memory_free(index);
    TRY(result);
    double seconds = (double)f->clip_samples / f->sample_rate;
    char length[64];
    progress_format_duration(length, sizeof length, seconds * (double)clips);
    printf("%s: %s, %zu shard%s\n", path, f->kind == SHARD_AUDIO ? "audio" : "tokens", shards,
           shards == 1 ? "" : "s");
    printf("  clips     %zu of %g s, %s in all\n", clips, seconds, length);
    printf("  split     %zu training, %zu held out (%.1f %%)\n", clips - held_out, held_out,
           100.0 * (double)held_out / (double)clips);
    printf("  audio     %u Hz, mono, %u samples a clip\n", f->sample_rate, f->clip_samples);
    if (f->kind == SHARD_TOKENS) {
        printf("  codec     ");
        print_text(f->codec);
        printf("\n  tokens    %u frames a clip, %g frames/s, %u levels\n  codebooks", f->frames,
               f->frame_rate, f->levels);
        for (uint32_t level = 0; level < f->levels; level++)
            printf(" %u%s", f->codebook_size[level], level == 0 ? " (semantic)" : "");
        printf("\n");
    }
    return STATUS_OK;
}

static status show(const corpus *corpus, const show_options *o) {
    const shard_format *f = corpus_get_format(corpus);
    size_t clips = corpus_clip_count(corpus);
    int audio = f->kind == SHARD_AUDIO;
    void *buffer;
    TRY(memory_allocate(&buffer, 2 * (audio ? f->clip_samples : (size_t)f->frames * f->levels), "a clip"));
    status result = STATUS_OK;
    if (o->clip >= 0) {
        if (o->wav != NULL && !audio)
            result =
                FAIL("%s holds tokens, which --wav cannot write; decode them with 'musicrl codec decode'",
                     o->path);
        else
            result = show_clip(corpus, (size_t)o->clip, buffer);
        if (result == STATUS_OK && o->wav != NULL)
            result = audio_file_write_pcm(o->wav, buffer, f->clip_samples, f->sample_rate);
    } else {
        result = show_summary(corpus, o->path);
        size_t count = o->count < clips ? o->count : clips;
        for (size_t i = 0; result == STATUS_OK && i < count; i++)
            result = show_clip(corpus, (size_t)((unsigned __int128)i * clips / count), buffer);
    }
    memory_free(buffer);
    return result;
}

int cmd_corpus_show(int argc, char **argv) {
    show_options options = {.clip = -1, .count = 5};
    struct argp parser = {option_table, parse_option, "PATH", about, NULL, NULL, NULL};
    argp_parse(&parser, argc, argv, 0, NULL, &options);

    corpus *corpus;
    status result = corpus_open_any(&corpus, options.path);
    if (result != STATUS_OK)
        return command_finish(result);
    result = show(corpus, &options);
    corpus_close(corpus);
    return command_finish(result);
}
