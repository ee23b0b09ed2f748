#include "data/ratings_internal.h"

#include <string.h>

const shard_schema rating_schema = {
    .name = "musicrl ratings",
    .version = 1,
    .folder = "ratings",
    .mend = "make some with 'musicrl reward import' or 'musicrl reward collect'",
};

const char *const rating_kind_names[RATING_KINDS] = {"pairs", "scores"};
const char *const ratings_origin_names[2] = {"people", "simulated listeners"};
const char *const rating_vote_names[RATING_VOTES] = {"A", "B", "TIE", "BOTH_BAD"};

#define RATER                                                                                                \
    { "rater", "who rated: row of rater_name", RATING_UINT32 }
#define TIME                                                                                                 \
    { "time", "when, in seconds since 1970-01-01 UTC", RATING_INT64 }
#define MODEL_VERSION                                                                                        \
    { "model_version", "what made the music: row of model_version_name", RATING_UINT32 }

const rating_table rating_tables[RATING_KINDS] = {
    {6,
     {{"clip_a", "the first clip: its number in the clips folder, shards in order of their names",
       RATING_UINT32},
      {"clip_b", "the second clip, of the same caption", RATING_UINT32},
      {"vote", "which is better", RATING_VOTE},
      RATER,
      TIME,
      MODEL_VERSION}},
    {5,
     {{"clip", "the clip: its number in the clips folder, shards in order of their names", RATING_UINT32},
      {"score", "1 (bad) to 5 (excellent)", RATING_UINT8},
      RATER,
      TIME,
      MODEL_VERSION}},
};

hid_t rating_storage_type(rating_storage storage) {
    switch (storage) {
    case RATING_UINT8:
        return H5Tcopy(H5T_STD_U8LE);
    case RATING_UINT32:
        return H5Tcopy(H5T_STD_U32LE);
    case RATING_INT64:
        return H5Tcopy(H5T_STD_I64LE);
    default:
        break;
    }
    hid_t type = H5Tenum_create(H5T_STD_U8LE);
    for (uint8_t vote = 0; vote < RATING_VOTES; vote++)
        if (H5Tenum_insert(type, rating_vote_names[vote], &vote) < 0) {
            H5Tclose(type);
            return -1;
        }
    return type;
}

size_t rating_storage_bytes(rating_storage storage) {
    return storage == RATING_INT64 ? 8 : storage == RATING_UINT32 ? 4 : 1;
}

const char *rating_storage_words(rating_storage storage) {
    switch (storage) {
    case RATING_UINT8:
        return "8-bit unsigned";
    case RATING_UINT32:
        return "32-bit unsigned little-endian";
    case RATING_INT64:
        return "64-bit signed little-endian";
    default:
        return "an enumeration of A, B, TIE and BOTH_BAD";
    }
}

rating_row rating_row_of_pair(const rating_pair *p) {
    return (rating_row){{p->clip_a, p->clip_b, (int64_t)p->vote, p->rater, p->time, p->model_version}};
}

rating_row rating_row_of_score(const rating_score *s) {
    return (rating_row){{s->clip, s->score, s->rater, s->time, s->model_version}};
}

rating_pair rating_row_to_pair(const rating_row *row) {
    const int64_t *v = row->value;
    return (rating_pair){.clip_a = (uint32_t)v[0],
                         .clip_b = (uint32_t)v[1],
                         .vote = (rating_vote)v[2],
                         .rater = (uint32_t)v[3],
                         .time = v[4],
                         .model_version = (uint32_t)v[5]};
}

rating_score rating_row_to_score(const rating_row *row) {
    const int64_t *v = row->value;
    return (rating_score){.clip = (uint32_t)v[0],
                          .score = (int32_t)v[1],
                          .rater = (uint32_t)v[2],
                          .time = v[3],
                          .model_version = (uint32_t)v[4]};
}

static status check_range(const char *name, int64_t value, int64_t low, int64_t high, const char *where,
                          size_t index) {
    if (value >= low && value <= high)
        return STATUS_OK;
    return FAIL("%s: %s of row %zu is %lld, wanted %lld to %lld", where, name, index, (long long)value,
                (long long)low, (long long)high);
}

status rating_row_check(rating_kind kind, const rating_row *row, const rating_limits *limits,
                        const char *where, size_t index) {
    const int64_t *v = row->value, clips = (int64_t)corpus_clip_count(limits->clips);
    const int common = kind == RATING_PAIRS ? 3 : 2; // where rater, time and model version start
    TRY(check_range("rater", v[common], 0, (int64_t)limits->raters - 1, where, index));
    TRY(check_range("model_version", v[common + 2], 0, (int64_t)limits->model_versions - 1, where, index));
    if (kind == RATING_SCORES) {
        TRY(check_range("clip", v[0], 0, clips - 1, where, index));
        return check_range("score", v[1], RATING_SCORE_MIN, RATING_SCORE_MAX, where, index);
    }
    TRY(check_range("clip_a", v[0], 0, clips - 1, where, index));
    TRY(check_range("clip_b", v[1], 0, clips - 1, where, index));
    TRY(check_range("vote", v[2], 0, RATING_VOTES - 1, where, index));
    shard_clip a, b;
    TRY(corpus_read_strings(limits->clips, (size_t)v[0], &a));
    TRY(corpus_read_strings(limits->clips, (size_t)v[1], &b));
    if (v[0] == v[1])
        return FAIL("%s: row %zu compares clip '%s' with itself", where, index, a.id);
    if (strcmp(a.caption, b.caption) != 0)
        return FAIL("%s: row %zu compares clips of two captions: '%s' (%.60s) and '%s' (%.60s)", where, index,
                    a.id, a.caption, b.id, b.caption);
    return STATUS_OK;
}

status ratings_clips_digest(const corpus *clips, char out[DIGEST_HEX]) {
    digest_stream *stream;
    TRY(digest_stream_create(&stream));
    status result = STATUS_OK;
    for (size_t i = 0; i < corpus_clip_count(clips); i++) {
        shard_clip clip;
        TRY_GOTO(result, corpus_read_strings(clips, i, &clip), done);
        digest_stream_update(stream, clip.id, strlen(clip.id) + 1);
    }
    digest all = digest_stream_read(stream);
    digest_to_hex(&all, out);
done:
    digest_stream_destroy(stream);
    return result;
}
