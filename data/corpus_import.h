// Makes a corpus of audio shards from a manifest of audio files (data/manifest.h).
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct corpus_import_options {
    const char *manifest; // path of the JSON-lines file
    const char *folder;   // of the shards; created
    const char *prefix;   // of the shards' names
    uint32_t sample_rate; // Hz
    double clip_seconds;  // rounded to whole samples
    double loudness;      // target of every file, LUFS
    size_t clips_per_shard;
    int strict;  // a bad line or file fails the import instead of being skipped
    int replace; // shards of the same prefix give way once the new ones are complete
    // Told what was skipped and why, one line each, in order of the manifest; may be NULL.
    void (*skipped)(void *context, const char *message);
    // Told how many lines of the manifest are done, 0 at the start; may be NULL.
    void (*progress)(void *context, size_t done, size_t total);
    void *context;
} corpus_import_options;

typedef struct corpus_import_summary {
    size_t files;   // that gave clips
    size_t skipped; // lines and files
    size_t clips;
    size_t padded; // clips that end in silence, because the file ended
} corpus_import_summary;

// Every file is resampled, mixed to mono, normalised in loudness as a whole, then cut into clips from its
// start. The rest at the end becomes a clip, padded with zeros, if it is at least half a clip long, and is
// dropped otherwise. A file that gives no clip is a bad file. Clip ids are "ID#0000", "ID#0001", ... with the
// id of the manifest's line; a clip's source is "AUDIO@SECONDS" with where it starts. Files are decoded by
// all OpenMP threads; the shards do not depend on their number. Nothing appears in the folder unless all is
// well.
status corpus_import(const corpus_import_options *options, corpus_import_summary *summary);
