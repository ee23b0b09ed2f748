// Manifests: JSON lines that name audio files and say what they sound like, one object a line:
//     {"audio": "songs/waltz.flac", "caption": "a slow waltz", "attributes": {"tempo": 90}, "id": "waltz"}
// `audio` is relative to the folder of the manifest unless it starts with '/'; `attributes` (an object) and
// `id` (default: the text of `audio`) are optional. Blank lines are passed over. Any other key is a mistake.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

// One line. If `problem` is not NULL the line is bad and the other strings are NULL.
typedef struct manifest_entry {
    size_t line;                           // from 1
    const char *problem;                   // "MANIFEST:LINE: reason"
    const char *audio;                     // path that can be opened
    const char *source;                    // `audio` as written
    const char *caption, *attributes, *id; // attributes: a JSON object, "{}" if none were given
} manifest_entry;

typedef struct manifest manifest;

// Reads the whole file. Fails if it cannot be read or has no lines but blank ones; bad lines (also one that
// repeats an id) are kept as entries with a `problem`.
status manifest_load(manifest **out, const char *path);
void manifest_destroy(manifest *manifest); // NULL is allowed
size_t manifest_count(const manifest *manifest);
// The entry lives as long as the manifest. index < manifest_count.
const manifest_entry *manifest_get(const manifest *manifest, size_t index);
