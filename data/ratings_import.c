#include "data/ratings_import.h"

#include "data/byte_pool.h"
#include "data/name_table.h"
#include "data/publish.h"
#include "data/ratings.h"
#include "data/ratings_lines.h"
#include "data/shard_block.h"
#include "data/time_text.h"
#include "kernels/memory.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { ROWS_PER_SHARD = 65536, CLIPS_PER_SHARD = 1024, NO_CLIP = UINT32_MAX };

// A rating that was read.
typedef struct rating {
    uint32_t clip_a, clip_b; // of the clips folder; a score has NO_CLIP as the second
    uint32_t rater, model_version;
    int64_t time;
    uint32_t file;
    uint8_t value; // vote or score
    uint8_t dropped;
    int64_t line;
} rating;

typedef struct importer {
    const ratings_import_options *options;
    ratings_import_summary *summary;
    corpus *clips;
    name_table *ids; // row = number of the clip
    name_table *raters, *model_versions;
    byte_pool ratings; // rating [count]
    uint32_t file;     // that is being read
    size_t *reason;    // where the summary counts the failure that was recorded last
} importer;

static rating *rating_at(const importer *m, size_t index) {
    return (rating *)(void *)m->ratings.base + index;
}

static size_t rating_count(const importer *m) {
    return m->ratings.used / sizeof(rating);
}

// Records why a rating cannot be used, and where to count it.
#define REFUSE(counter, ...) (m->reason = &m->summary->counter, FAIL(__VA_ARGS__))

// ---- one rating -----------------------------------------------------------------------------------------

static status require_fields(importer *m, const rating_line *line, const rating_field *fields, int count,
                             const char *what) {
    for (int i = 0; i < count; i++)
        if (line->value[fields[i]] == NULL)
            return REFUSE(malformed, "%s is missing, %s has it", rating_field_names[fields[i]], what);
    return STATUS_OK;
}

static status take_clip(importer *m, const rating_line *line, rating_field field, uint32_t *out) {
    if (name_table_find(m->ids, line->value[field], out))
        return STATUS_OK;
    return REFUSE(unknown_clips, "%s is '%.80s', which is no clip of %s; wanted is a clip_id of its shards",
                  rating_field_names[field], line->value[field], m->options->clips);
}

// "both_bad", "both bad" and "Both-bad" are one word.
static int same_word(const char *text, const char *word) {
    for (; *text != '\0' && *word != '\0'; text++, word++)
        if (strncasecmp(text, word, 1) != 0 && !(*word == '_' && (*text == ' ' || *text == '-')))
            return 0;
    return *text == *word;
}

static status take_word(importer *m, const rating_line *line, rating_field field, const char *const *words,
                        int count, const char *wanted, uint8_t *out) {
    for (int i = 0; i < count; i++)
        if (same_word(line->value[field], words[i])) {
            *out = (uint8_t)i;
            return STATUS_OK;
        }
    return REFUSE(out_of_range, "%s is '%.40s', wanted %s", rating_field_names[field], line->value[field],
                  wanted);
}

static status take_vote(importer *m, const rating_line *line, rating *out, int *counts) {
    static const rating_field fields[] = {RATING_FIELD_CLIP_A, RATING_FIELD_CLIP_B, RATING_FIELD_VOTE,
                                          RATING_FIELD_HEARD,  RATING_FIELD_RATER,  RATING_FIELD_TIME};
    static const char *const votes[RATING_VOTES] = {"A", "B", "tie", "both_bad"};
    static const char *const heard_words[] = {"one", "both"};
    uint8_t heard = 0;
    TRY(require_fields(m, line, fields, 6, "a vote"));
    if (line->value[RATING_FIELD_SCORE] != NULL)
        return REFUSE(malformed, "score beside a vote; give a score a line of its own, with 'clip'");
    TRY(take_clip(m, line, RATING_FIELD_CLIP_A, &out->clip_a));
    TRY(take_clip(m, line, RATING_FIELD_CLIP_B, &out->clip_b));
    TRY(take_word(m, line, RATING_FIELD_VOTE, votes, RATING_VOTES, "A, B, tie or both_bad", &out->value));
    TRY(take_word(m, line, RATING_FIELD_HEARD, heard_words, 2, "both or one", &heard));
    shard_clip a, b;
    TRY(corpus_read_strings(m->clips, out->clip_a, &a));
    TRY(corpus_read_strings(m->clips, out->clip_b, &b));
    if (out->clip_a == out->clip_b)
        return REFUSE(two_captions, "clip_a and clip_b are both '%.80s', wanted are two clips", a.id);
    if (strcmp(a.caption, b.caption) != 0)
        return REFUSE(two_captions,
                      "'%.60s' has the caption '%.60s', '%.60s' has '%.60s'; wanted are clips of one", a.id,
                      a.caption, b.id, b.caption);
    *counts = heard;
    return STATUS_OK;
}

static status take_score(importer *m, const rating_line *line, rating *out) {
    static const rating_field fields[] = {RATING_FIELD_CLIP, RATING_FIELD_SCORE, RATING_FIELD_RATER,
                                          RATING_FIELD_TIME};
    TRY(require_fields(m, line, fields, 4, "a score"));
    TRY(take_clip(m, line, RATING_FIELD_CLIP, &out->clip_a));
    out->clip_b = NO_CLIP;
    const char *text = line->value[RATING_FIELD_SCORE];
    if (text[0] < '0' + RATING_SCORE_MIN || text[0] > '0' + RATING_SCORE_MAX || text[1] != '\0')
        return REFUSE(out_of_range, "score is '%.40s', wanted a whole number from %d to %d", text,
                      RATING_SCORE_MIN, RATING_SCORE_MAX);
    out->value = (uint8_t)(text[0] - '0');
    return STATUS_OK;
}

static status take_rating(importer *m, const rating_line *line, rating *out, int *counts) {
    *counts = 1;
    const int vote = line->value[RATING_FIELD_CLIP_A] != NULL || line->value[RATING_FIELD_CLIP_B] != NULL ||
                     line->value[RATING_FIELD_VOTE] != NULL;
    if (!vote && line->value[RATING_FIELD_CLIP] == NULL && line->value[RATING_FIELD_SCORE] == NULL)
        return REFUSE(malformed, "neither a vote (clip_a, clip_b, vote, heard) nor a score (clip, score)");
    if (vote)
        TRY(take_vote(m, line, out, counts));
    else
        TRY(take_score(m, line, out));
    const char *rater = line->value[RATING_FIELD_RATER], *time = line->value[RATING_FIELD_TIME];
    const char *version = line->value[RATING_FIELD_MODEL_VERSION];
    if (rater[strspn(rater, " \t")] == '\0')
        return REFUSE(malformed, "rater is empty; give each one a name or a number");
    if (!shard_text_is_utf8(rater) || (version != NULL && !shard_text_is_utf8(version)))
        return REFUSE(malformed, "rater or model_version is not UTF-8");
    if (!time_text_parse(time, &out->time))
        return REFUSE(out_of_range,
                      "time is '%.40s', wanted ISO 8601 (2026-03-01T12:30:00Z) or seconds since 1970", time);
    TRY(name_table_add(m->raters, rater, &out->rater));
    return name_table_add(m->model_versions, version == NULL ? "" : version, &out->model_version);
}

// Counts and tells the failure recorded last.
static void skip(importer *m, size_t *counter) {
    ++*counter;
    if (m->options->skipped != NULL)
        m->options->skipped(m->options->context, status_message());
}

static status visit(void *context, const rating_line *line, long number) {
    importer *m = context;
    rating next = {.file = m->file, .line = number};
    int counts;
    m->reason = NULL;
    const status result = take_rating(m, line, &next, &counts);
    if (result != STATUS_OK && m->reason != NULL && m->options->skip) {
        status_prefix(result, "%s:%ld: ", m->options->files[m->file], number);
        skip(m, m->reason);
        return STATUS_OK;
    }
    TRY(result);
    if (!counts) {
        m->summary->heard_one++;
        return STATUS_OK;
    }
    return byte_pool_append(&m->ratings, &next, sizeof next, "ratings");
}

// ---- all together ---------------------------------------------------------------------------------------

static int compare_numbers(int64_t a, int64_t b) {
    return (a > b) - (a < b);
}

// By kind, rater and clips whatever their order, then as they came.
static int compare_ratings(const void *left, const void *right) {
    const rating *a = left, *b = right;
    const uint32_t low_a = a->clip_a < a->clip_b ? a->clip_a : a->clip_b,
                   low_b = b->clip_a < b->clip_b ? b->clip_a : b->clip_b;
    const int64_t keys[][2] = {{a->rater, b->rater},
                               {low_a, low_b},
                               {(int64_t)a->clip_a + a->clip_b, (int64_t)b->clip_a + b->clip_b},
                               {a->file, b->file},
                               {a->line, b->line}};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const int order = compare_numbers(keys[i][0], keys[i][1]);
        if (order != 0)
            return order;
    }
    return 0;
}

static int compare_places(const void *left, const void *right) {
    const rating *a = left, *b = right;
    const int order = compare_numbers(a->file, b->file);
    return order != 0 ? order : compare_numbers(a->line, b->line);
}

static int same_question(const rating *a, const rating *b) {
    return a->rater == b->rater && ((a->clip_a == b->clip_a && a->clip_b == b->clip_b) ||
                                    (a->clip_a == b->clip_b && a->clip_b == b->clip_a));
}

// What a rating says, whatever the order of its clips: the clip that is preferred, or a negative number for a
// tie, both bad, and each score.
static int64_t answer(const rating *r) {
    if (r->clip_b == NO_CLIP || r->value > RATING_VOTE_B)
        return -1 - (int64_t)r->value;
    return r->value == RATING_VOTE_A ? r->clip_a : r->clip_b;
}

static status describe_answer(const importer *m, const rating *r, char *out, size_t capacity) {
    if (r->clip_b == NO_CLIP) {
        snprintf(out, capacity, "gives %d", (int)r->value);
        return STATUS_OK;
    }
    shard_clip clip;
    TRY(corpus_read_strings(m->clips, (size_t)answer(r), &clip));
    snprintf(out, capacity, "prefers '%.60s'", clip.id);
    return STATUS_OK;
}

static const char *place(const importer *m, const rating *r, char *out, size_t capacity) {
    snprintf(out, capacity, "%s:%lld", m->options->files[r->file], (long long)r->line);
    return out;
}

// What one rater said of one pair or clip: ratings `first` .. `last` - 1 of the sorted ones.
static status check_question(importer *m, size_t first, size_t last) {
    rating *opinion = NULL;
    char here[PATH_MAX + 32], there[PATH_MAX + 32], says[96], said[96];
    int contradictory = 0;
    for (size_t i = first; i < last; i++) {
        rating *r = rating_at(m, i);
        for (size_t j = first; j < i && !r->dropped; j++) {
            if (rating_at(m, j)->time != r->time || answer(rating_at(m, j)) != answer(r))
                continue;
            status result =
                FAIL("%s: the same rating as in %s; a rating counts once", place(m, r, here, sizeof here),
                     place(m, rating_at(m, j), there, sizeof there));
            if (!m->options->skip)
                return result;
            r->dropped = 1;
            skip(m, &m->summary->repeated);
        }
        // A tie contradicts no preference: one may hear a difference one time and not the other.
        if (r->dropped || (r->clip_b != NO_CLIP && answer(r) < 0))
            continue;
        if (opinion != NULL && answer(opinion) != answer(r) && !contradictory) {
            TRY(describe_answer(m, r, says, sizeof says));
            TRY(describe_answer(m, opinion, said, sizeof said));
            status result =
                FAIL("%s: rater '%.60s' %s, but in %s %s of the same %s; wanted is one opinion",
                     place(m, r, here, sizeof here), name_table_at(m->raters, r->rater), says,
                     place(m, opinion, there, sizeof there), said, r->clip_b == NO_CLIP ? "clip" : "pair");
            if (!m->options->skip)
                return result;
            contradictory = 1;
            if (m->options->skipped != NULL)
                m->options->skipped(m->options->context, status_message());
        }
        opinion = opinion == NULL ? r : opinion;
    }
    // None of them can be trusted then.
    for (size_t i = first; i < last && contradictory; i++)
        if (!rating_at(m, i)->dropped) {
            rating_at(m, i)->dropped = 1;
            m->summary->contradictory++;
        }
    return STATUS_OK;
}

static status check_together(importer *m) {
    const size_t count = rating_count(m);
    if (count == 0)
        return STATUS_OK;
    qsort(m->ratings.base, count, sizeof(rating), compare_ratings);
    for (size_t first = 0, last; first < count; first = last) {
        for (last = first + 1; last < count && same_question(rating_at(m, first), rating_at(m, last));)
            last++;
        TRY(check_question(m, first, last));
    }
    qsort(m->ratings.base, count, sizeof(rating), compare_places); // as they came again
    return STATUS_OK;
}

// ---- writing --------------------------------------------------------------------------------------------

// Copies the clips that were rated; number: [clips] receives what each is called there.
static status write_clips(importer *m, const char *folder, uint32_t *number) {
    const shard_format *format = corpus_get_format(m->clips);
    const size_t clips = corpus_clip_count(m->clips);
    shard_writer *writer = NULL;
    uint16_t *tokens;
    uint32_t written = 0;
    TRY(memory_allocate((void **)&tokens, sizeof(uint16_t) * format->frames * format->levels,
                        "tokens of a clip"));
    status result;
    TRY_GOTO(result, shard_writer_create(&writer, folder, "clips", format, CLIPS_PER_SHARD, 0), done);
    for (size_t i = 0; i < rating_count(m); i++) {
        const rating *r = rating_at(m, i);
        if (r->dropped)
            continue;
        number[r->clip_a] = 1;
        if (r->clip_b != NO_CLIP)
            number[r->clip_b] = 1;
    }
    for (size_t i = 0; i < clips; i++) {
        shard_clip clip;
        if (!number[i])
            continue;
        TRY_GOTO(result, corpus_read_strings(m->clips, i, &clip), done);
        TRY_GOTO(result, corpus_read_tokens(m->clips, i, tokens), done);
        clip.tokens = tokens;
        TRY_GOTO(result, shard_writer_add(writer, &clip), done);
        number[i] = written++;
    }
    m->summary->clips = written;
    result = shard_writer_finish(writer);
    writer = NULL;
done:
    shard_writer_abort(writer);
    memory_free(tokens);
    return result;
}

static status write_rating(importer *m, const rating *r, const uint32_t *number, ratings_writer *writer) {
    uint32_t rater, version;
    TRY(ratings_writer_rater(writer, name_table_at(m->raters, r->rater), &rater));
    TRY(ratings_writer_model_version(writer, name_table_at(m->model_versions, r->model_version), &version));
    // The tables of names grow by one row at a time.
    m->summary->raters = rater >= m->summary->raters ? rater + 1 : m->summary->raters;
    m->summary->model_versions =
        version >= m->summary->model_versions ? version + 1 : m->summary->model_versions;
    if (r->clip_b == NO_CLIP) {
        m->summary->scores++;
        return ratings_writer_add_score(writer, &(rating_score){.clip = number[r->clip_a],
                                                                .score = r->value,
                                                                .rater = rater,
                                                                .model_version = version,
                                                                .time = r->time});
    }
    m->summary->pairs++;
    return ratings_writer_add_pair(writer, &(rating_pair){.clip_a = number[r->clip_a],
                                                          .clip_b = number[r->clip_b],
                                                          .vote = (rating_vote)r->value,
                                                          .rater = rater,
                                                          .model_version = version,
                                                          .time = r->time});
}

static status write_votes(importer *m, const char *folder, const char *clips_folder, const uint32_t *number) {
    corpus *clips;
    ratings_writer *writer = NULL;
    TRY(corpus_open(&clips, clips_folder, SHARD_TOKENS));
    status result;
    TRY_GOTO(result, ratings_writer_create(&writer, folder, clips, RATINGS_OF_PEOPLE, ROWS_PER_SHARD), done);
    for (size_t i = 0; i < rating_count(m); i++) {
        const rating *r = rating_at(m, i);
        if (r->dropped)
            continue;
        status written = write_rating(m, r, number, writer);
        if (written != STATUS_OK) {
            char here[PATH_MAX + 32];
            result = status_prefix(written, "%s: ", place(m, r, here, sizeof here));
            goto done;
        }
    }
    result = ratings_writer_finish(writer);
    writer = NULL;
done:
    ratings_writer_abort(writer);
    corpus_close(clips);
    return result;
}

static status write_folder(importer *m, const char *folder) {
    char clips[PATH_MAX];
    if (snprintf(clips, sizeof clips, "%s/clips", folder) >= (int)sizeof clips)
        return FAIL("path is too long: %.60s...", folder);
    uint32_t *number;
    TRY(memory_allocate((void **)&number, sizeof *number * corpus_clip_count(m->clips), "numbers of clips"));
    status result = write_clips(m, clips, number);
    if (result == STATUS_OK)
        result = write_votes(m, folder, clips, number);
    memory_free(number);
    return result;
}

// Builds the folder beside its place, so that an earlier one stays until this one is whole.
static status publish(importer *m) {
    const char *folder = m->options->folder;
    char building[PATH_MAX], fresh[PATH_MAX];
    struct stat info;
    const int there = lstat(folder, &info) == 0;
    if (there && !m->options->replace)
        return FAIL("%s is there already; choose another name, or replace it with --replace", folder);
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    if (snprintf(fresh, sizeof fresh, "%.*s.new", (int)length, folder) >= (int)sizeof fresh)
        return FAIL("path is too long: %.60s...", folder);
    TRY(publish_make_parent(folder));
    const char *target = there ? fresh : folder;
    TRY(publish_begin_folder(target, building));
    status result;
    TRY_GOTO(result, write_folder(m, building), failed);
    TRY_GOTO(result, publish_commit_folder(target), failed);
    if (!there)
        return STATUS_OK;
    TRY(publish_remove_folder(folder));
    return publish_rename(fresh, folder);
failed:
    publish_abort_folder(target);
    return result;
}

static status read_all(importer *m) {
    TRY(corpus_open(&m->clips, m->options->clips, SHARD_TOKENS));
    const size_t clips = corpus_clip_count(m->clips);
    if (clips >= NO_CLIP)
        return FAIL("%s: %zu clips are more than a vote can name", m->options->clips, clips);
    for (size_t i = 0; i < clips; i++) {
        shard_clip clip;
        uint32_t row;
        TRY(corpus_read_strings(m->clips, i, &clip));
        TRY(name_table_add(m->ids, clip.id, &row)); // ids are unique, so row is i
    }
    skipped_lines malformed = {.tell = m->options->skipped, .context = m->options->context};
    for (m->file = 0; m->file < m->options->file_count; m->file++)
        TRY(rating_lines_read(m->options->files[m->file], visit, m, m->options->skip ? &malformed : NULL));
    m->summary->malformed += malformed.count;
    TRY(check_together(m));
    for (size_t i = 0; i < rating_count(m); i++)
        if (!rating_at(m, i)->dropped)
            return STATUS_OK;
    return FAIL(
        "no rating can be used: %zu lines were left out, %zu votes were of people who heard one clip only",
        m->summary->malformed + m->summary->out_of_range + m->summary->unknown_clips +
            m->summary->two_captions + m->summary->contradictory + m->summary->repeated,
        m->summary->heard_one);
}

status ratings_import(const ratings_import_options *options, ratings_import_summary *summary) {
    *summary = (ratings_import_summary){0};
    importer m = {.options = options, .summary = summary};
    status result;
    TRY_GOTO(result, name_table_create(&m.ids, "clip ids"), done);
    TRY_GOTO(result, name_table_create(&m.raters, "raters"), done);
    TRY_GOTO(result, name_table_create(&m.model_versions, "model versions"), done);
    TRY_GOTO(result, read_all(&m), done);
    result = publish(&m);
done:
    name_table_destroy(m.ids);
    name_table_destroy(m.raters);
    name_table_destroy(m.model_versions);
    byte_pool_release(&m.ratings);
    corpus_close(m.clips);
    return result;
}
