// Ratings: votes on pairs of clips and scores of single clips, with the clips that were rated.
//
// A ratings folder holds
//     clips/   token shards (data/shard.h); one clip a record, each clip that a vote or a score names
//     votes/   pairs-00000.h5, pairs-00001.h5, ... and scores-00000.h5, ...; either kind may be missing
// A shard of votes is laid out like a shard of clips: the same user block and chain, and HDF5 with one
// dataset a column,
//     pairs   /clip_a, /clip_b  uint32 [pairs]   the two clips, as numbers of clips/ in name order; of one
//                                                caption
//             /vote             enum   [pairs]   A, B, TIE or BOTH_BAD
//     scores  /clip             uint32 [scores]  the clip
//             /score            uint8  [scores]  1 (bad) to 5 (excellent)
//     both    /rater            uint32 [rows]    row of /rater_name
//             /time             int64  [rows]    seconds since 1970, UTC
//             /model_version    uint32 [rows]    row of /model_version_name
//             /rater_name       variable-length UTF-8 string [raters]
//             /model_version_name  the same [model versions]; what made the clips, "" if unknown
// and root attributes
//     schema, schema_version, created_by, kind      "musicrl ratings", 1, program and version, "pairs"
//     raters                                        "people" or "simulated listeners"
//     clips, clips_digest                           how many clips, and the digest of their ids in order
//     shard_index, previous_shard, last_shard       the chain
// Only votes that count are stored: whoever heard one clip of a pair only has not compared.
//
// HDF5 is not thread safe: of ratings_writer_*, ratings_open and what data/shard.h names, at most one may run
// at a time in a process. What reads from opened ratings may run in any number of threads.
#pragma once

#include "data/shard.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum rating_vote {
    RATING_VOTE_A,        // the first clip is better
    RATING_VOTE_B,        // the second
    RATING_VOTE_TIE,      // both are as good
    RATING_VOTE_BOTH_BAD, // neither is any good
    RATING_VOTES,
} rating_vote;

enum { RATING_SCORE_MIN = 1, RATING_SCORE_MAX = 5 };

// One vote. Clips are numbers of ratings_clips, raters and model versions are rows of the tables of names.
typedef struct rating_pair {
    uint32_t clip_a, clip_b;
    uint32_t rater, model_version;
    int64_t time; // seconds since 1970, UTC
    rating_vote vote;
} rating_pair;

// One score of one clip.
typedef struct rating_score {
    uint32_t clip;
    uint32_t rater, model_version;
    int64_t time;  // seconds since 1970, UTC
    int32_t score; // 1 .. 5
} rating_score;

// Who rated.
typedef enum ratings_origin {
    RATINGS_OF_PEOPLE,
    RATINGS_SIMULATED, // by the panel of simulated listeners
} ratings_origin;

// An opened ratings folder. Votes are read from the files when they are asked for: memory does not grow with
// their number, only with that of clips (their captions and ids), raters and model versions. A descriptor a
// shard of votes stays open.
typedef struct ratings ratings;
// Verifies every shard, the chains, that every clip number, vote, score, rater and model version is in range,
// that the clips of a pair have one caption, and that the clips are those that were rated. Fails with one
// line that names the file.
status ratings_open(ratings **out, const char *folder);
void ratings_close(ratings *ratings);          // NULL is allowed
corpus *ratings_clips(const ratings *ratings); // token shards; lives as long as the ratings
ratings_origin ratings_get_origin(const ratings *ratings);
size_t ratings_pair_count(const ratings *ratings); // 0 if there are scores only
size_t ratings_score_count(const ratings *ratings);
// Copies `count` rows from row `first` on, in the order in which they were written. out: [count].
status ratings_read_pairs(const ratings *ratings, size_t first, size_t count, rating_pair *out);
status ratings_read_scores(const ratings *ratings, size_t first, size_t count, rating_score *out);
// 1 if the caption of the clip is held out (caption_is_held_out); a pair is held out if its clips are.
// Constant time. `clip` must be below the number of clips.
int ratings_clip_is_held_out(const ratings *ratings, uint32_t clip);
size_t ratings_rater_count(const ratings *ratings);
const char *ratings_rater_name(const ratings *ratings, size_t rater);
size_t ratings_model_version_count(const ratings *ratings);
const char *ratings_model_version_name(const ratings *ratings, size_t model_version);

// Row `position` of a deterministic order of `count` rows, which depends on seed and epoch only: a
// permutation that is computed where it is asked for (a keyed Feistel network over the next larger power of
// four, walked until it falls below `count`; Black and Rogaway, "Ciphers with arbitrary finite domains",
// 2002), so that any number of pairs is shuffled without a list of them. position < count.
size_t ratings_order(size_t position, size_t count, uint64_t seed, uint64_t epoch);

// Writes FOLDER/votes. The clips must be in FOLDER/clips already; `clips` is that corpus, opened, and is
// borrowed until the writer is finished. rows_per_shard: rows of a shard of pairs or of scores; memory is
// bounded by one shard of each. The same calls give the same bytes.
typedef struct ratings_writer ratings_writer;
status ratings_writer_create(ratings_writer **out, const char *folder, const corpus *clips,
                             ratings_origin origin, size_t rows_per_shard);
// Rows of the tables of names; a name met before keeps its row. `model_version` may be "".
status ratings_writer_rater(ratings_writer *writer, const char *name, uint32_t *out);
status ratings_writer_model_version(ratings_writer *writer, const char *name, uint32_t *out);
// Refuse what a reader would refuse; the writer is then as it was.
status ratings_writer_add_pair(ratings_writer *writer, const rating_pair *pair);
status ratings_writer_add_score(ratings_writer *writer, const rating_score *score);
// Publishes all shards and frees the writer, also on failure. It is an error if nothing was added.
status ratings_writer_finish(ratings_writer *writer);
void ratings_writer_abort(ratings_writer *writer); // publishes nothing; NULL is allowed
