// What the writer and the reader of votes share: the columns of the two kinds of shards.
#pragma once

#include "data/ratings.h"
#include "data/shard_block.h"

#include <hdf5.h>

extern const shard_schema rating_schema;

typedef enum rating_kind {
    RATING_PAIRS,
    RATING_SCORES,
    RATING_KINDS,
} rating_kind;
extern const char *const rating_kind_names[RATING_KINDS]; // attribute 'kind' and prefix of the shards
extern const char *const ratings_origin_names[2];         // attribute 'raters'
extern const char *const rating_vote_names[RATING_VOTES]; // members of the enumeration in the file

enum { RATING_COLUMNS_MAX = 6 };

// Every row is handled as one 64-bit number a column.
typedef struct rating_row {
    int64_t value[RATING_COLUMNS_MAX]; // in the order of the columns of its kind
} rating_row;

typedef enum rating_storage {
    RATING_UINT8,
    RATING_UINT32,
    RATING_INT64,
    RATING_VOTE, // an enumeration over uint8
} rating_storage;

typedef struct rating_column {
    const char *name, *description;
    rating_storage storage;
} rating_column;

typedef struct rating_table {
    int columns;
    rating_column column[RATING_COLUMNS_MAX]; // [columns]
} rating_table;
extern const rating_table rating_tables[RATING_KINDS];

// The type in the file; closed by the caller with H5Tclose. -1 if the library failed.
hid_t rating_storage_type(rating_storage storage);
size_t rating_storage_bytes(rating_storage storage);
const char *rating_storage_words(rating_storage storage); // for messages

rating_row rating_row_of_pair(const rating_pair *pair);
rating_row rating_row_of_score(const rating_score *score);
rating_pair rating_row_to_pair(const rating_row *row);
rating_score rating_row_to_score(const rating_row *row);

// What the numbers of a row may be.
typedef struct rating_limits {
    const corpus *clips;
    size_t raters, model_versions;
} rating_limits;
// `where` and `row` start the message.
status rating_row_check(rating_kind kind, const rating_row *row, const rating_limits *limits,
                        const char *where, size_t index);

// Digest of the clip ids in order, each with its terminator: names the clips that were rated.
status ratings_clips_digest(const corpus *clips, char out[DIGEST_HEX]);
