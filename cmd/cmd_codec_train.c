#include "cmd/commands.h"
#include "cmd/option.h"
#include "launch/codec_job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_CORPUS = 256,
    KEY_REPORT,
    KEY_LEVELS,
    KEY_CODEBOOK,
    KEY_SEMANTIC,
    KEY_CLIPS,
    KEY_FRAMES,
    KEY_HELD_OUT,
    KEY_DECODED,
    KEY_ITERATIONS,
    KEY_SEED,
    KEY_SETTING,
    KEY_REPLACE,
};

static const struct argp_option option_table[] = {
    {"corpus", KEY_CORPUS, "FOLDER", 0, "Audio shards to learn from (required)", 0},
    {"output", 'o', "FILE", 0, "The codec, a .safetensors file (required)", 0},
    {"report", KEY_REPORT, "FILE", 0, "Also write the table as JSON", 0},
    {"levels", KEY_LEVELS, "N", 0, "Acoustic levels (6)", 0},
    {"codebook", KEY_CODEBOOK, "N", 0, "Codes of an acoustic level, a multiple of 16 (256)", 0},
    {"semantic-codebook", KEY_SEMANTIC, "N", 0, "Semantic codes, a multiple of 16 (256)", 0},
    {"clips", KEY_CLIPS, "N", 0, "Clips to train on (as many as make two hours)", 0},
    {"frames", KEY_FRAMES, "N", 0, "Token frames of these clips to train on, evenly spaced (60000)", 0},
    {"held-out", KEY_HELD_OUT, "N", 0, "Held-out clips to measure on (200)", 0},
    {"decoded", KEY_DECODED, "N", 0, "Of these, clips to decode and encode again (32)", 0},
    {"kmeans-iterations", KEY_ITERATIONS, "N", 0, "Iterations of each clustering (12)", 0},
    {"seed", KEY_SEED, "N", 0, "Of the clustering and the choice of clips (1)", 0},
    {"set", KEY_SETTING, "NAME=VALUE", 0, "Another setting of the codec; --set help=1 lists them", 0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace the codec of an earlier run", 0},
    {0},
};

static void list_settings(const codec_config *config) {
    size_t count;
    const codec_setting *settings = codec_settings(&count);
    for (size_t i = 0; i < count; i++) {
        const void *field = (const char *)config + settings[i].offset;
        double value = settings[i].is_real ? (double)*(const float *)field : *(const uint32_t *)field;
        printf("  %-18s %-8g %s\n", settings[i].name, value, settings[i].meaning);
    }
}

static void apply_setting(struct argp_state *state, const char *text, codec_config *config) {
    size_t count, length = strcspn(text, "=");
    const codec_setting *settings = codec_settings(&count);
    if (strcmp(text, "help=1") == 0) {
        list_settings(config);
        exit(STATUS_OK);
    }
    for (size_t i = 0; i < count; i++) {
        if (text[length] != '=' || strlen(settings[i].name) != length ||
            strncmp(settings[i].name, text, length) != 0)
            continue;
        char name[64];
        snprintf(name, sizeof name, "set %s", settings[i].name);
        void *field = (char *)config + settings[i].offset;
        if (settings[i].is_real)
            *(float *)field = (float)option_real(state, name, text + length + 1, 0, 1e6);
        else
            *(uint32_t *)field = (uint32_t)option_integer(state, name, text + length + 1, 0, 1000000);
        return;
    }
    argp_error(state, "--set %s: wanted NAME=VALUE with one of the names that --set help=1 lists", text);
}

// A policy's rows of logits are multiples of 16.
static uint32_t codebook_size(struct argp_state *state, const char *name, const char *text) {
    const uint32_t size = (uint32_t)option_integer(state, name, text, 16, 65520);
    if (size % 16 != 0)
        argp_error(state, "--%s %s: wanted a multiple of 16, such as %u", name, text, size / 16 * 16);
    return size;
}

static error_t parse_option(int key, char *text, struct argp_state *state) {
    codec_job_train_options *o = state->input;
    codec_config *config = &o->settings.config;
    switch (key) {
    case KEY_CORPUS:
        o->corpus = text;
        return 0;
    case 'o':
        o->output = text;
        return 0;
    case KEY_REPORT:
        o->report = text;
        return 0;
    case KEY_LEVELS:
        config->acoustic_levels = (uint32_t)option_integer(state, "levels", text, 1, CODEC_LEVELS_MAX - 1);
        return 0;
    case KEY_CODEBOOK:
        config->acoustic_codebook = codebook_size(state, "codebook", text);
        return 0;
    case KEY_SEMANTIC:
        config->semantic_codebook = codebook_size(state, "semantic-codebook", text);
        return 0;
    case KEY_CLIPS:
        o->clips = (size_t)option_integer(state, "clips", text, 1, 1000000);
        return 0;
    case KEY_FRAMES:
        o->settings.frames = (uint32_t)option_integer(state, "frames", text, 1, 100000000);
        return 0;
    case KEY_HELD_OUT:
        o->held_out = (size_t)option_integer(state, "held-out", text, 1, 1000000);
        return 0;
    case KEY_DECODED:
        o->decoded = (size_t)option_integer(state, "decoded", text, 1, 1000000);
        return 0;
    case KEY_ITERATIONS:
        o->settings.iterations = (uint32_t)option_integer(state, "kmeans-iterations", text, 1, 1000);
        return 0;
    case KEY_SEED:
        o->settings.seed = (uint64_t)option_integer(state, "seed", text, 0, 9007199254740992);
        return 0;
    case KEY_SETTING:
        apply_setting(state, text, config);
        return 0;
    case KEY_REPLACE:
        o->replace = 1;
        return 0;
    case ARGP_KEY_END:
        if (o->corpus == NULL || o->output == NULL)
            argp_error(state, "--corpus FOLDER and -o FILE are required");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_table(const codec_job_train_result *result) {
    const codec_measurement *m = &result->measurement;
    printf("codec %s\n", result->identity);
    printf("trained on %zu clips in %.1f s; measured on %zu %s clips, %zu of them decoded\n", result->clips,
           result->train_seconds, m->clips, m->held_out ? "held-out" : "TRAINING", m->decoded_clips);
    printf("%u acoustic levels of %u codes, %.4g frames/s\n\n", m->levels - 1, m->codebook_size[1],
           m->frame_rate);
    printf("  level        error   codes  perplexity  used  dead");
    for (int pass = 0; pass < CODEC_MEASURE_PASSES; pass++)
        printf("  kept/%d", m->iterations[pass]);
    printf("\n");
    for (uint32_t level = 0; level < m->levels; level++) {
        if (level == 0)
            printf("  semantic         ");
        else
            printf("  acoustic %-2u %6.3f", level, m->error[level]);
        printf("  %6u  %10.0f  %4u  %4u", m->codebook_size[level], m->perplexity[level], m->used[level],
               m->dead[level]);
        for (int pass = 0; pass < CODEC_MEASURE_PASSES; pass++)
            printf("  %*.2f", m->iterations[pass] < 10 ? 6 : 7, m->survival[pass][level]);
        printf("\n");
    }
    printf("  acoustic mean                                   ");
    for (int pass = 0; pass < CODEC_MEASURE_PASSES; pass++) {
        double mean = 0;
        for (uint32_t level = 1; level < m->levels; level++)
            mean += m->survival[pass][level] / (m->levels - 1);
        printf("  %*.2f", m->iterations[pass] < 10 ? 6 : 7, mean);
    }
    printf("\n\nerror: mean |log-mel difference| in nats with the levels up to this one (%.3f without any)\n"
           "kept/N: share of tokens that encode(decode(tokens)) keeps, N iterations of phase reconstruction\n"
           "dead: used less than 1/%u as often as on an even use\n",
           m->error[0], m->dead_share);
    printf("one core, one clip: encoding %.1f ms; decoding", 1e3 * m->encode_seconds);
    for (int pass = 0; pass < CODEC_MEASURE_PASSES; pass++)
        printf("%s %.1f ms (%d iterations)", pass == 0 ? "" : ",", 1e3 * m->decode_seconds[pass],
               m->iterations[pass]);
    printf("; greatest peak %.2f\n", m->peak);
}

int cmd_codec_train(int argc, char **argv) {
    static const struct argp parser = {
        option_table,
        parse_option,
        NULL,
        "Learns the codec from audio shards: semantic clusters and residual codebooks of log-mel. Prints, on "
        "held-out clips, the error by number of levels, how the codes are used and how many tokens survive "
        "decoding.",
        NULL,
        NULL,
        NULL};
    codec_job_train_options options = codec_job_train_default();
    if (argp_parse(&parser, argc, argv, 0, NULL, &options) != 0)
        return STATUS_USAGE;
    codec_job_train_result result;
    status outcome = codec_job_train(&options, &result);
    if (outcome == STATUS_OK)
        print_table(&result);
    return command_finish(outcome);
}
