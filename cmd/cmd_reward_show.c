#include "cmd/commands.h"
#include "cmd/option.h"
#include "cmd/print_text.h"
#include "data/ratings.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

enum { KEY_COUNT = 256, BLOCK = 1024, NAMES_SHOWN = 8 };

typedef struct show_options {
    const char *path;
    size_t count;
} show_options;

static const struct argp_option option_table[] = {
    {"count", KEY_COUNT, "K", 0, "Show K votes and K scores, spread over all (5)", 0},
    {0},
};

static const char about[] =
    "Shows what is in a folder of ratings: how many votes and scores, by whom, of what, and some of them.";

static const char *const vote_words[RATING_VOTES] = {"A is better", "B is better", "tie", "both bad"};

static error_t parse_option(int key, char *text, struct argp_state *state) {
    show_options *o = state->input;
    switch (key) {
    case KEY_COUNT:
        o->count = (size_t)option_integer(state, "count", text, 0, 1000000);
        return 0;
    case ARGP_KEY_ARG:
        if (o->path != NULL)
            argp_error(state, "'%s' is one argument too many", text);
        o->path = text;
        return 0;
    case ARGP_KEY_END:
        if (o->path == NULL)
            argp_error(state, "RATINGS is missing: a folder of ratings");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static double share(size_t part, size_t whole) {
    return whole == 0 ? 0.0 : 100.0 * (double)part / (double)whole;
}

typedef struct totals {
    size_t votes[RATING_VOTES], held_out_pairs;
    size_t scores[RATING_SCORE_MAX + 1], held_out_scores;
} totals;

static status count_all(const ratings *r, totals *out) {
    const size_t pairs = ratings_pair_count(r), scores = ratings_score_count(r);
    static rating_pair pair[BLOCK];
    static rating_score score[BLOCK];
    for (size_t first = 0; first < pairs; first += BLOCK) {
        const size_t count = pairs - first < BLOCK ? pairs - first : BLOCK;
        TRY(ratings_read_pairs(r, first, count, pair));
        for (size_t i = 0; i < count; i++) {
            out->votes[pair[i].vote]++;
            out->held_out_pairs += (size_t)ratings_clip_is_held_out(r, pair[i].clip_a);
        }
    }
    for (size_t first = 0; first < scores; first += BLOCK) {
        const size_t count = scores - first < BLOCK ? scores - first : BLOCK;
        TRY(ratings_read_scores(r, first, count, score));
        for (size_t i = 0; i < count; i++) {
            out->scores[score[i].score]++;
            out->held_out_scores += (size_t)ratings_clip_is_held_out(r, score[i].clip);
        }
    }
    return STATUS_OK;
}

static void print_names(const char *title, size_t count, const char *(*name)(const ratings *r, size_t row),
                        const ratings *r) {
    printf("  %-9s %zu:", title, count);
    for (size_t i = 0; i < count && i < NAMES_SHOWN; i++) {
        printf(i == 0 ? " '" : ", '");
        print_text(name(r, i));
        printf("'");
    }
    printf("%s\n", count > NAMES_SHOWN ? ", ..." : "");
}

static void print_time(int64_t seconds) {
    const time_t at = (time_t)seconds;
    struct tm tm;
    char text[64];
    if (gmtime_r(&at, &tm) != NULL && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm) > 0)
        printf("%s", text);
    else
        printf("%" PRId64 " s", seconds);
}

static status show_summary(const ratings *r, const char *path) {
    totals n = {0};
    const size_t pairs = ratings_pair_count(r), scores = ratings_score_count(r);
    TRY(count_all(r, &n));
    printf("%s: ratings of %s\n", path,
           ratings_get_origin(r) == RATINGS_SIMULATED ? "simulated listeners" : "people");
    printf("  clips     %zu\n", corpus_clip_count(ratings_clips(r)));
    printf("  pairs     %zu, %zu of held-out captions: A %.1f %%, B %.1f %%, tie %.1f %%, both bad %.1f %%\n",
           pairs, n.held_out_pairs, share(n.votes[RATING_VOTE_A], pairs),
           share(n.votes[RATING_VOTE_B], pairs), share(n.votes[RATING_VOTE_TIE], pairs),
           share(n.votes[RATING_VOTE_BOTH_BAD], pairs));
    printf("  scores    %zu, %zu of held-out captions:", scores, n.held_out_scores);
    for (int score = RATING_SCORE_MIN; score <= RATING_SCORE_MAX; score++)
        printf("%s %d: %.1f %%", score == RATING_SCORE_MIN ? "" : ",", score, share(n.scores[score], scores));
    printf("\n");
    print_names("raters", ratings_rater_count(r), ratings_rater_name, r);
    print_names("versions", ratings_model_version_count(r), ratings_model_version_name, r);
    return STATUS_OK;
}

static status print_clip(const ratings *r, const char *title, uint32_t number) {
    shard_clip clip;
    TRY(corpus_read_strings(ratings_clips(r), number, &clip));
    printf("    %s  clip %u  ", title, number);
    print_text(clip.id);
    if (clip.source[0] != '\0') {
        printf("  from ");
        print_text(clip.source);
    }
    printf("\n");
    return STATUS_OK;
}

// Who, when, of what; and the caption of the clip.
static status print_circumstances(const ratings *r, uint32_t rater, int64_t time, uint32_t version,
                                  uint32_t clip) {
    shard_clip strings;
    TRY(corpus_read_strings(ratings_clips(r), clip, &strings));
    printf("  by '");
    print_text(ratings_rater_name(r, rater));
    printf("', ");
    print_time(time);
    printf(", of '");
    print_text(ratings_model_version_name(r, version));
    printf("', %s\n    ", ratings_clip_is_held_out(r, clip) ? "held out" : "training");
    print_text(strings.caption);
    printf("\n");
    return STATUS_OK;
}

static status show_pair(const ratings *r, size_t row) {
    rating_pair p;
    TRY(ratings_read_pairs(r, row, 1, &p));
    printf("\npair %zu  %s", row, vote_words[p.vote]);
    TRY(print_circumstances(r, p.rater, p.time, p.model_version, p.clip_a));
    TRY(print_clip(r, "A", p.clip_a));
    return print_clip(r, "B", p.clip_b);
}

static status show_score(const ratings *r, size_t row) {
    rating_score s;
    TRY(ratings_read_scores(r, row, 1, &s));
    printf("\nscore %zu  %d", row, s.score);
    TRY(print_circumstances(r, s.rater, s.time, s.model_version, s.clip));
    return print_clip(r, " ", s.clip);
}

static status show(const ratings *r, const show_options *o) {
    const size_t pairs = ratings_pair_count(r), scores = ratings_score_count(r);
    TRY(show_summary(r, o->path));
    for (size_t i = 0; i < o->count && i < pairs; i++)
        TRY(show_pair(r, o->count < pairs ? i * pairs / o->count : i));
    for (size_t i = 0; i < o->count && i < scores; i++)
        TRY(show_score(r, o->count < scores ? i * scores / o->count : i));
    return STATUS_OK;
}

int cmd_reward_show(int argc, char **argv) {
    show_options options = {.count = 5};
    const struct argp parser = {option_table, parse_option, "RATINGS", about, NULL, NULL, NULL};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    ratings *ratings;
    status result = ratings_open(&ratings, options.path);
    if (result == STATUS_OK)
        result = show(ratings, &options);
    ratings_close(ratings);
    return command_finish(result);
}
