// Shards: immutable HDF5 files of captioned clips, as audio or as tokens.
//
// Layout of a file: a 512-byte user block (magic, schema name and version, length of the file and XXH3-128
// digest of all of it; checked before the HDF5 library opens the file), then HDF5 with the datasets
//     /caption     variable-length UTF-8 string [clips]
//     /attributes  variable-length UTF-8 string [clips]   JSON object, "{}" if unknown
//     /clip_id     variable-length UTF-8 string [clips]   unique in a corpus
//     /source      variable-length UTF-8 string [clips]   where the clip came from, "" if unknown
//     /audio       int16  [clips, samples]                mono PCM             (audio shards)
//     /tokens      uint16 [clips, frames, levels]         level 0 is semantic  (token shards)
// and root attributes
//     schema, schema_version, created_by, kind            "musicrl clips", 1, program and version, "audio"
//     sample_rate, clip_samples                           Hz, samples a clip
//     codec, frame_rate, frames, levels, codebook_size    token shards only; codebook_size is [levels]
//     shard_index, previous_shard, last_shard             the chain: digest of the shard before, 1 on the
//     last
// The chain lets a reader of a folder name a shard that is missing or of another run.
//
// HDF5 is not thread safe: of all the functions below, at most one of shard_writer_* (of any writer),
// shard_open and corpus_open may run at a time in a process. Everything that reads from an opened shard or
// corpus is free of HDF5 and may run in any number of threads.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum shard_kind {
    SHARD_AUDIO,
    SHARD_TOKENS,
} shard_kind;

enum { SHARD_LEVELS_MAX = 16, SHARD_CODEC_MAX = 64 };

// What all clips of a shard, and all shards of a corpus, share.
typedef struct shard_format {
    shard_kind kind;
    uint32_t sample_rate;                     // Hz
    uint32_t clip_samples;                    // audio samples a clip
    uint32_t frames;                          // token frames a clip               (tokens)
    double frame_rate;                        // token frames a second             (tokens)
    uint32_t levels;                          // semantic + acoustic levels        (tokens)
    uint32_t codebook_size[SHARD_LEVELS_MAX]; // [levels]                          (tokens)
    char codec[SHARD_CODEC_MAX];              // identity of the codec, hex digest (tokens); "" for audio
} shard_format;

// One clip. Strings and arrays are borrowed.
typedef struct shard_clip {
    const char *id, *caption, *attributes, *source; // UTF-8; attributes is a JSON object
    const int16_t *audio;                           // [clip_samples]   (audio)
    const uint16_t *tokens;                         // [frames, levels] (tokens)
} shard_clip;

// Writes a corpus folder of shards PREFIX-00000.h5, PREFIX-00001.h5, ..., each of at most `clips_per_shard`
// clips. The folder is created; shards of the same prefix already there are an error unless `replace`. All
// shards are written in full before the first one appears under its name, so a run that fails leaves what was
// published as it was. The same clips give the same bytes. The prefix is of letters, digits, '.', '_' and
// '-'.
typedef struct shard_writer shard_writer;
status shard_writer_create(shard_writer **out, const char *folder, const char *prefix,
                           const shard_format *format, size_t clips_per_shard, int replace);
// Copies the clip. Refuses one that a reader would refuse (text that is not UTF-8, an empty caption or id,
// attributes that are no JSON object, a token outside its codebook); the writer is then as it was.
status shard_writer_add(shard_writer *writer, const shard_clip *clip);
// Publishes all shards, then removes what `replace` leaves over, and frees the writer, also on failure. It is
// an error if no clip was added or if two clips have the same id.
status shard_writer_finish(shard_writer *writer);
void shard_writer_abort(shard_writer *writer); // publishes nothing; NULL is allowed

// A shard opened for reading: its user block was verified, then everything in it was checked by name. The
// file is mapped into memory; no descriptor stays open.
typedef struct shard shard;
status shard_open(shard **out, const char *path);
void shard_close(shard *shard); // NULL is allowed
const shard_format *shard_get_format(const shard *shard);
size_t shard_clip_count(const shard *shard);
// Strings live until the shard is closed; array pointers of the clip are NULL.
status shard_read_strings(const shard *shard, size_t index, shard_clip *out);
status shard_read_audio(const shard *shard, size_t first, size_t count,
                        int16_t *out); // [count, clip_samples]
status shard_read_tokens(const shard *shard, size_t first, size_t count,
                         uint16_t *out); // [count, frames, levels]

// All shards of a folder (or one file), in name order, checked to be of one format, to follow each other
// without a gap (a single file is taken as it is) and to repeat no clip id.
typedef struct corpus corpus;
status corpus_open(corpus **out, const char *path, shard_kind kind);
status corpus_open_any(corpus **out, const char *path); // of whichever kind the first shard is
void corpus_close(corpus *corpus);                      // NULL is allowed
const shard_format *corpus_get_format(const corpus *corpus);
size_t corpus_clip_count(const corpus *corpus);
size_t corpus_shard_count(const corpus *corpus);
status corpus_read_strings(const corpus *corpus, size_t index, shard_clip *out);
status corpus_read_audio(const corpus *corpus, size_t index, int16_t *out);   // [clip_samples]
status corpus_read_tokens(const corpus *corpus, size_t index, uint16_t *out); // [frames, levels]

// The split is a property of the caption alone, so that no caption is on both sides: held out are the
// captions with XXH3-64(bytes of the caption, seed 0) mod 10 == 0.
int caption_is_held_out(const char *caption);

// Indices of the clips of one side in corpus order. `out` [corpus_clip_count] receives them, `count` how
// many.
status corpus_split(const corpus *corpus, int held_out, size_t *out, size_t *count);

// A deterministic permutation of `indices` [count] for an epoch: depends on seed and epoch only. Fisher-Yates
// from the back; step i draws a 64-bit number from philox(seed; i, epoch), so any size is shuffled evenly.
void corpus_shuffle(size_t *indices, size_t count, uint64_t seed, uint64_t epoch);
