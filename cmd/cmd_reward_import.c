#include "cmd/commands.h"
#include "data/ratings_import.h"

#include <argp.h>
#include <stdio.h>

enum { KEY_CLIPS = 256, KEY_SKIP, KEY_REPLACE };

static const struct argp_option option_table[] = {
    {"clips", KEY_CLIPS, "FOLDER", 0, "Token shards that hold the rated clips (required)", 0},
    {"output", 'o', "RATINGS", 0, "Folder of the ratings, which is made (required)", 0},
    {"skip", KEY_SKIP, NULL, 0, "Leave out what cannot be used, and count it, instead of failing", 0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace RATINGS once the new ones are complete", 0},
    {0},
};

static const char about[] =
    "Makes a folder of ratings from files of people's votes and scores (.jsonl or .csv).\v"
    "JSON lines have one rating a line:\n"
    "  {\"clip_a\": \"base-000003-0\", \"clip_b\": \"base-000003-5\", \"vote\": \"A\",\n"
    "   \"heard\": \"both\", \"rater\": \"anna\", \"time\": \"2026-03-01T12:30:00Z\"}\n"
    "  {\"clip\": \"base-000003-0\", \"score\": 4, \"rater\": \"anna\", \"time\": 1772368200}\n"
    "CSV has the same names in its first line, in any order. 'vote' is A, B, tie or both_bad; 'heard' is "
    "both "
    "or one, and a vote of who heard one clip only is counted but not used; 'score' is 1 to 5; 'time' is ISO "
    "8601 or seconds since 1970; 'model_version' may be given. Clips are named by the clip_id of their "
    "shards; the clips of a pair have one caption. The clips that were rated are copied into RATINGS.";

static error_t parse_option(int key, char *text, struct argp_state *state) {
    ratings_import_options *o = state->input;
    switch (key) {
    case KEY_CLIPS:
        o->clips = text;
        return 0;
    case 'o':
        o->folder = text;
        return 0;
    case KEY_SKIP:
        o->skip = 1;
        return 0;
    case KEY_REPLACE:
        o->replace = 1;
        return 0;
    case ARGP_KEY_ARGS:
        o->files = (const char *const *)(state->argv + state->next);
        o->file_count = (size_t)(state->argc - state->next);
        return 0;
    case ARGP_KEY_END:
        if (o->file_count == 0)
            argp_error(state, "FILE is missing: ratings as .jsonl or .csv");
        if (o->clips == NULL)
            argp_error(state, "--clips FOLDER is missing: the token shards of the rated clips");
        if (o->folder == NULL)
            argp_error(state, "-o RATINGS is missing: where the ratings go");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void show_skipped(void *context, const char *message) {
    (void)context;
    fprintf(stderr, "skipped: %s\n", message);
}

static void print_summary(const ratings_import_options *o, const ratings_import_summary *s) {
    printf("%s: %zu pairs and %zu scores of %zu clips by %zu raters, %zu model versions\n", o->folder,
           s->pairs, s->scores, s->clips, s->raters, s->model_versions);
    printf("  heard one clip only, not counted: %zu\n", s->heard_one);
    if (o->skip)
        printf("  skipped: %zu malformed, %zu out of range, %zu of unknown clips, %zu of two captions, %zu "
               "contradictory, %zu repeated\n",
               s->malformed, s->out_of_range, s->unknown_clips, s->two_captions, s->contradictory,
               s->repeated);
}

int cmd_reward_import(int argc, char **argv) {
    ratings_import_options options = {.skipped = show_skipped};
    const struct argp parser = {option_table, parse_option, "FILE...", about, NULL, NULL, NULL};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    ratings_import_summary summary;
    const status result = ratings_import(&options, &summary);
    if (result == STATUS_OK)
        print_summary(&options, &summary);
    return command_finish(result);
}
