// Import of people's ratings: what is taken, what is left out, and one line for everything that is wrong.
#include "data/ratings.h"
#include "data/ratings_import.h"
#include "data/time_text.h"
#include "tests/unit/rated_clips.h"

#include <sys/stat.h>
#include <unistd.h>

static const char *clips_folder;

static int setup(void **state) {
    if (scratch_setup(state) != 0)
        return -1;
    static char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s/tokens", scratch_folder);
    clips_folder = folder;
    rated_clips_write(folder, "clip");
    return 0;
}

static const char *write_text(const char *name, const char *text) {
    const char *path = scratch_path(name);
    assert_int_equal(scratch_write(path, text, strlen(text)), 0);
    return path;
}

typedef struct told {
    int count;
    char last[1024];
} told;

static void tell(void *context, const char *message) {
    told *told = context;
    told->count++;
    snprintf(told->last, sizeof told->last, "%s", message);
}

static status import(const char *const *files, size_t count, const char *folder, int skip, told *told,
                     ratings_import_summary *summary) {
    const ratings_import_options options = {.files = files,
                                            .file_count = count,
                                            .clips = clips_folder,
                                            .folder = scratch_path(folder),
                                            .skip = skip,
                                            .skipped = told != NULL ? tell : NULL,
                                            .context = told};
    return ratings_import(&options, summary);
}

#define HEADER "clip_a,clip_b,vote,heard,rater,time\n"

static void test_json_and_csv(void **state) {
    (void)state;
    const char *files[] = {
        write_text("votes.jsonl",
                   "{\"clip_a\": \"clip-9\", \"clip_b\": \"clip-8\", \"vote\": \"A\", \"heard\": \"both\",\n"
                   " \"rater\": 7}\n"),
        write_text("scores.csv", "\xef\xbb\xbfrater,time,score,clip,model_version\r\n"
                                 "\"anna, the first\",2026-03-01 13:30:00+01:00,5,clip-2,\"one\ntwo\"\r\n"
                                 "\r\n"
                                 "bert,1772368201.5,1,clip-9,\r\n"),
    };
    // JSON lines are one object a line.
    ratings_import_summary summary;
    must_fail(import(files, 1, "out", 0, NULL, &summary), "votes.jsonl:1: not valid JSON");
    files[0] = write_text(
        "votes.jsonl",
        "{\"clip_a\": \"clip-9\", \"clip_b\": \"clip-8\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
        "7, "
        "\"time\": 1772368200}\n"
        "\n"
        "{\"clip_a\": \"clip-9\", \"clip_b\": \"clip-10\", \"vote\": \"Both bad\", \"heard\": \"Both\", "
        "\"rater\": \"anna, the first\", \"time\": \"2026-03-01T12:30:00Z\", \"model_version\": \"two\"}\n"
        "{\"clip_a\": \"clip-9\", \"clip_b\": \"clip-10\", \"vote\": \"tie\", \"heard\": \"one\", \"rater\": "
        "\"carl\", \"time\": \"2026-03-01\"}\n");
    must(import(files, 2, "out", 0, NULL, &summary));
    assert_int_equal(summary.pairs, 2);
    assert_int_equal(summary.scores, 2);
    assert_int_equal(summary.clips, 4);
    assert_int_equal(summary.raters, 3); // of votes that count
    assert_int_equal(summary.model_versions, 3);
    assert_int_equal(summary.heard_one, 1);
    ratings *r;
    must(ratings_open(&r, scratch_path("out")));
    assert_int_equal(ratings_get_origin(r), RATINGS_OF_PEOPLE);
    rating_pair pairs[2];
    rating_score scores[2];
    must(ratings_read_pairs(r, 0, 2, pairs));
    must(ratings_read_scores(r, 0, 2, scores));
    static const char *const wanted_clips[] = {"clip-2", "clip-8", "clip-9", "clip-10"};
    for (size_t i = 0; i < 4; i++) {
        shard_clip clip;
        must(corpus_read_strings(ratings_clips(r), i, &clip));
        assert_string_equal(clip.id, wanted_clips[i]); // in the order of the tokens
    }
    assert_int_equal(pairs[0].clip_a, 2);
    assert_int_equal(pairs[0].clip_b, 1);
    assert_int_equal(pairs[0].vote, RATING_VOTE_A);
    assert_string_equal(ratings_rater_name(r, pairs[0].rater), "7");
    assert_true(pairs[0].time == 1772368200);
    assert_int_equal(pairs[1].vote, RATING_VOTE_BOTH_BAD);
    assert_true(pairs[1].time == 1772368200);
    assert_string_equal(ratings_model_version_name(r, pairs[1].model_version), "two");
    assert_int_equal(scores[0].clip, 0);
    assert_int_equal(scores[0].score, 5);
    assert_true(scores[0].time == 1772368200);
    assert_int_equal(scores[0].rater, pairs[1].rater);
    assert_string_equal(ratings_model_version_name(r, scores[0].model_version), "one\ntwo");
    assert_int_equal(scores[1].score, 1);
    assert_true(scores[1].time == 1772368201);
    uint16_t tokens[6];
    must(corpus_read_tokens(ratings_clips(r), 2, tokens));
    assert_int_equal(tokens[0], 9);
    ratings_close(r);
    must_fail(import(files, 2, "out", 0, NULL, &summary), "is there already");
}

// One bad line among good ones: fails with a line that names it, or is skipped and counted.
static void test_bad_lines(void **state) {
    (void)state;
    const struct {
        const char *name, *text, *part;
        size_t counter; // offset in the summary
        size_t pairs;   // left if it is skipped
    } cases[] = {
#define AT(member) offsetof(ratings_import_summary, member)
#define GOOD "clip-0,clip-1,A,both,anna,5\n"
        {"a.csv", HEADER GOOD "clip-0,clip-1,C,both,bert,5\n",
         "a.csv:3: vote is 'C', wanted A, B, tie or both_bad", AT(out_of_range), 1},
        {"b.csv", HEADER GOOD "clip-0,clip-1,A,none,bert,5\n", "b.csv:3: heard is 'none', wanted both or one",
         AT(out_of_range), 1},
        {"c.csv", HEADER "clip-0,nobody,A,both,bert,5\n" GOOD,
         "c.csv:2: clip_b is 'nobody', which is no clip of", AT(unknown_clips), 1},
        {"d.csv", HEADER GOOD "clip-0,clip-4,A,both,bert,5\n", "d.csv:3: 'clip-0' has the caption",
         AT(two_captions), 1},
        {"e.csv", HEADER GOOD "clip-0,clip-0,A,both,bert,5\n", "e.csv:3: clip_a and clip_b are both 'clip-0'",
         AT(two_captions), 1},
        {"f.csv", HEADER GOOD "clip-0,clip-1,A,both,,5\n", "f.csv:3: rater is missing", AT(malformed), 1},
        {"g.csv", HEADER GOOD "clip-0,clip-1,A,both,bert,yesterday\n",
         "g.csv:3: time is 'yesterday', wanted ISO 8601", AT(out_of_range), 1},
        {"h.csv", HEADER GOOD "clip-0,clip-1,A,both\n", "h.csv:3: 4 cells, the header names 6 columns",
         AT(malformed), 1},
        {"i.csv",
         HEADER GOOD "clip-0,cl\"ip-1,A,both,bert,5\n"
                     "clip-2,clip-3,A,both,bert,5\n",
         "i.csv:3: not valid CSV", AT(malformed), 2},
        {"j.csv", HEADER GOOD "clip-0,clip-1,A,both,b\xff,5\n",
         "j.csv:3: rater or model_version is not UTF-8", AT(malformed), 1},
        {"k.csv", HEADER GOOD "clip-0,clip-1,A,both,\"bert,5\n", "k.csv:3: not valid CSV", AT(malformed), 1},
        {"l.jsonl",
         "{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
         "1, "
         "\"time\": 1}\n{\"clip\": \"clip-0\", \"score\": 6, \"rater\": 1, \"time\": 1}\n",
         "l.jsonl:2: score is '6', wanted a whole number from 1 to 5", AT(out_of_range), 1},
        {"m.jsonl",
         "{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
         "1, "
         "\"time\": 1}\n{\"clip\": \"clip-0\", \"score\": 4.5, \"rater\": 1, \"time\": 1}\n",
         "m.jsonl:2: score is '4.5", AT(out_of_range), 1},
        {"n.jsonl",
         "{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
         "1, "
         "\"time\": 1}\n{\"rater\": 1, \"time\": 1}\n",
         "n.jsonl:2: neither a vote", AT(malformed), 1},
        {"o.jsonl",
         "{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
         "1, "
         "\"time\": 1}\n{\"clips\": 1}\n",
         "o.jsonl:2: unknown field 'clips'; wanted are rater, time", AT(malformed), 1},
        {"p.jsonl",
         "{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
         "1, "
         "\"time\": 1}\nnonsense\n",
         "p.jsonl:2: not valid JSON", AT(malformed), 1},
        {"q.jsonl",
         "{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": \"both\", \"rater\": "
         "1, "
         "\"time\": 1}\n{\"clip_a\": \"clip-0\", \"clip_b\": \"clip-1\", \"vote\": \"A\", \"heard\": true, "
         "\"rater\": 1, \"time\": 1}\n",
         "q.jsonl:2: heard is neither a text nor a number", AT(malformed), 1},
        {"r.csv", HEADER GOOD "clip-0,clip-1,tie,both,anna,6\n" GOOD, "r.csv:4: the same rating as in",
         AT(repeated), 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *file = write_text(cases[i].name, cases[i].text);
        ratings_import_summary summary;
        must_fail(import(&file, 1, "bad", 0, NULL, &summary), cases[i].part);
        assert_int_equal(access(scratch_path("bad"), F_OK), -1);
        assert_int_equal(access(scratch_path("bad.tmp"), F_OK), -1);
        char folder[32];
        snprintf(folder, sizeof folder, "skip-%zu", i);
        must(import(&file, 1, folder, 1, NULL, &summary));
        size_t counted;
        memcpy(&counted, (const char *)&summary + cases[i].counter, sizeof counted);
        if (counted != 1 || summary.pairs != cases[i].pairs)
            fail_msg("%s: counted %zu, wanted 1; %zu pairs, wanted %zu", cases[i].name, counted,
                     summary.pairs, cases[i].pairs);
    }
}

static void test_contradictory(void **state) {
    (void)state;
    const char *files[] = {
        write_text("one.csv", HEADER "clip-0,clip-1,A,both,anna,5\n"
                                     "clip-0,clip-1,B,both,bert,5\n"     // another rater
                                     "clip-1,clip-2,tie,both,anna,6\n"   // another pair
                                     "clip-0,clip-1,tie,both,anna,7\n"), // no opposite, but of the same pair
        write_text("two.csv", HEADER "clip-1,clip-0,B,both,anna,8\n" // the same opinion the other way round
                                     "clip-1,clip-0,A,both,anna,9\n"),
    };
    ratings_import_summary summary;
    must_fail(import(files, 2, "never", 0, NULL, &summary),
              "two.csv:3: rater 'anna' prefers 'clip-1', but in");
    assert_non_null(strstr(status_message(), "one.csv:2 prefers 'clip-0' of the same pair"));
    told told = {0};
    must(import(files, 2, "kept", 1, &told, &summary));
    assert_int_equal(summary.contradictory, 4);
    assert_int_equal(summary.pairs, 2);
    assert_int_equal(told.count, 1);
    assert_non_null(strstr(told.last, "two.csv:3"));
    ratings *r;
    must(ratings_open(&r, scratch_path("kept")));
    rating_pair pairs[2];
    must(ratings_read_pairs(r, 0, 2, pairs));
    assert_string_equal(ratings_rater_name(r, pairs[0].rater), "bert");
    assert_int_equal(pairs[1].vote, RATING_VOTE_TIE);
    ratings_close(r);
}

static void test_contradictory_scores(void **state) {
    (void)state;
    const char *file = write_text("scores.csv", "clip,score,rater,time\nclip-0,5,anna,5\nclip-0,4,bert,5\n"
                                                "clip-0,5,anna,6\nclip-0,2,anna,7\nclip-1,2,anna,8\n");
    ratings_import_summary summary;
    must_fail(import(&file, 1, "never", 0, NULL, &summary), "scores.csv:5: rater 'anna' gives 2, but in");
    assert_non_null(strstr(status_message(), "scores.csv:2 gives 5 of the same clip"));
    must(import(&file, 1, "kept-scores", 1, NULL, &summary));
    assert_int_equal(summary.contradictory, 3);
    assert_int_equal(summary.scores, 2);
}

static void test_bad_files(void **state) {
    (void)state;
    const struct {
        const char *name, *text, *part;
    } cases[] = {
        {"h1.csv", "", "is empty"},
        {"h2.csv", "clip_a;clip_b;vote\n", "h2.csv:1: unknown column 'clip_a;clip_b;vote' in the header"},
        {"h3.csv", "clip_a,clip_b,vote,rater,time\n", "h3.csv:1: the header lacks columns"},
        {"h4.csv", "clip,score,rater,time,rater\n", "h4.csv:1: the header names column 'rater' twice"},
        {"h5.csv", HEADER, "no rating can be used"},
        {"h6.csv", HEADER "clip-0,clip-1,A,one,anna,5\n", "1 votes were of people who heard one clip only"},
        {"h7.txt", HEADER, "ends neither in .csv nor in .jsonl"},
    };
    ratings_import_summary summary;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int skip = 0; skip < 2; skip++) { // a file that cannot be used is no line to skip
            const char *file = write_text(cases[i].name, cases[i].text);
            must_fail(import(&file, 1, "bad", skip, NULL, &summary), cases[i].part);
            assert_int_equal(access(scratch_path("bad"), F_OK), -1);
        }
    const char *missing = scratch_path("missing.csv");
    must_fail(import(&missing, 1, "bad", 0, NULL, &summary), "missing.csv: No such file");
    const char *good = write_text("good.csv", HEADER GOOD);
    const ratings_import_options options = {
        .files = &good, .file_count = 1, .clips = scratch_path("nowhere"), .folder = scratch_path("bad")};
    must_fail(ratings_import(&options, &summary), "nowhere");
}

// The old folder stays until the new one is whole.
static void test_replace(void **state) {
    (void)state;
    const char *good = write_text("good.csv", HEADER GOOD "clip-4,clip-5,B,both,anna,5\n"),
               *bad = write_text("wrong.csv", HEADER "clip-0,clip-1,A,both,anna,x\n"),
               *other = write_text("other.csv", HEADER GOOD);
    ratings_import_summary summary;
    must(import(&good, 1, "again", 0, NULL, &summary));
    ratings_import_options options = {
        .files = &bad, .file_count = 1, .clips = clips_folder, .folder = scratch_path("again"), .replace = 1};
    must_fail(ratings_import(&options, &summary), "wrong.csv:2");
    ratings *r;
    must(ratings_open(&r, options.folder));
    assert_int_equal(ratings_pair_count(r), 2);
    ratings_close(r);
    options.files = &other;
    char slash[PATH_MAX];
    snprintf(slash, sizeof slash, "%s/", scratch_path("again"));
    options.folder = slash;
    must(ratings_import(&options, &summary));
    must(ratings_open(&r, scratch_path("again")));
    assert_int_equal(ratings_pair_count(r), 1);
    ratings_close(r);
    assert_int_equal(access(scratch_path("again.new"), F_OK), -1);
}

static void test_time(void **state) {
    (void)state;
    const struct {
        const char *text;
        int64_t seconds;
    } good[] = {
        {"0", 0},
        {"-5", -5},
        {"1772368200", 1772368200},
        {"1772368200.75", 1772368200},
        {"2026-03-01T12:30:00Z", 1772368200},
        {"2026-03-01 12:30:00", 1772368200},
        {"2026-03-01T13:30:00.123+01:00", 1772368200},
        {"2026-03-01T07:00:00-0530", 1772368200},
        {"2026-03-01T14:30:00+02", 1772368200},
        {"2026-03-01", 1772323200},
        {"2024-02-29", 1709164800},
    };
    static const char *const bad[] = {
        "",
        "x",
        "2026-02-29",
        "2026-13-01",
        "2026-3-1",
        "12:30",
        "2026-03-01T",
        "2026-03-01T12:30",
        "2026-03-01T24:00:00",
        "2026-03-01T12:30:00 Z",
        "1e9",
        "99999999999999999999",
        "2026-03-01T12:30:00.",
        "2026-03-01T12:30:00+",
        "5 ",
        " 5",
    };
    int64_t seconds;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!time_text_parse(good[i].text, &seconds) || seconds != good[i].seconds)
            fail_msg("'%s' is not read as %lld", good[i].text, (long long)good[i].seconds);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (time_text_parse(bad[i], &seconds))
            fail_msg("'%s' is read", bad[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_and_csv),  cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_contradictory), cmocka_unit_test(test_contradictory_scores),
        cmocka_unit_test(test_bad_files),     cmocka_unit_test(test_replace),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
