// Makes a folder of ratings from files of people's votes and scores.
//
// A rating is a JSON object or a row of CSV with these fields; others are refused.
//     clip_a, clip_b  ids of two clips of one caption
//     vote            "A", "B", "tie" or "both_bad"
//     heard           "both" or "one" of the two clips; a vote of who heard one does not count
//     clip            id of a clip
//     score           1 (bad) to 5 (excellent)
//     rater           who: a text or a number
//     time            ISO 8601 or seconds since 1970 (data/time_text.h)
//     model_version   what made the music; may be left out
// It is a vote with clip_a, clip_b, vote and heard, or a score with clip and score; each has rater and time.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

typedef struct ratings_import_options {
    const char *const *files; // [file_count] .jsonl or .csv
    size_t file_count;
    const char *clips;  // folder of token shards that holds the rated clips
    const char *folder; // of the ratings; published as a whole
    int skip;           // leave out and count what cannot be used, instead of failing
    int replace;        // the folder's place may be taken
    // Told what was skipped and why, one line each; may be NULL.
    void (*skipped)(void *context, const char *message);
    void *context;
} ratings_import_options;

typedef struct ratings_import_summary {
    size_t pairs, scores, clips, raters, model_versions; // imported
    size_t heard_one;                                    // votes that do not count
    // Skipped:
    size_t malformed;     // no JSON, no CSV, a field missing, unknown or wrong
    size_t out_of_range;  // a vote, score, time or `heard` that is none
    size_t unknown_clips; // clips that are not in the clips folder
    size_t two_captions;  // pairs of different captions, or of a clip with itself
    size_t contradictory; // votes of one rater for both clips of a pair: all on that pair
    size_t repeated;      // the same rating at the same time again
} ratings_import_summary;

// The clips that were rated are copied in the order of the clips folder. Takes memory in proportion to the
// number of ratings (64 bytes each). The same files give the same bytes. `folder` is as before if it fails.
status ratings_import(const ratings_import_options *options, ratings_import_summary *summary);
