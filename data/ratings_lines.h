// Files of people's ratings, as text: JSON lines or CSV (data/ratings_import.h tells what they hold).
#pragma once

#include "data/json_lines.h"
#include "kernels/status.h"

#include <stddef.h>

typedef enum rating_field {
    RATING_FIELD_CLIP_A,
    RATING_FIELD_CLIP_B,
    RATING_FIELD_VOTE,
    RATING_FIELD_HEARD,
    RATING_FIELD_CLIP,
    RATING_FIELD_SCORE,
    RATING_FIELD_RATER,
    RATING_FIELD_TIME,
    RATING_FIELD_MODEL_VERSION,
    RATING_FIELDS,
} rating_field;
extern const char *const rating_field_names[RATING_FIELDS]; // "clip_a"

// One rating: the text of each field, NULL where there is none. Borrowed for the call.
typedef struct rating_line {
    const char *value[RATING_FIELDS];
} rating_line;

// Is given each rating in turn, `number` the line that it starts on, counted from 1. What fails is reported
// with file and line before the message.
typedef status (*rating_line_visit)(void *context, const rating_line *line, long number);

// Reads a file that ends in .jsonl, .ndjson or .json (one JSON object a line) or in .csv (RFC 4180, UTF-8,
// the first line names the columns). An unknown field, a doubled one or a value that is no text or number is
// an error, and so is a header that lacks what every rating has. malformed: takes lines that cannot be read
// instead of failing; may be NULL. A header that cannot be used always fails.
status rating_lines_read(const char *path, rating_line_visit visit, void *context, skipped_lines *malformed);
