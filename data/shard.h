// Shards: immutable HDF5 files of captioned clips, as audio or as tokens.
//
// Layout of a file: a 512-byte user block (magic, schema, length and digest of the rest; checked before the
// HDF5 library opens the file), then HDF5 with the datasets
//     /caption     variable-length UTF-8 string [clips]
//     /attributes  variable-length UTF-8 string [clips]   JSON object, "{}" if unknown
//     /clip_id     variable-length UTF-8 string [clips]   unique in a corpus
//     /source      variable-length UTF-8 string [clips]   where the clip came from
//     /audio       int16  [clips, samples]                mono PCM             (audio shards)
//     /tokens      uint16 [clips, frames, levels]         level 0 is semantic  (token shards)
// and root attributes that describe them (schema, schema_version, sample_rate, frame_rate, codec, ...).
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

// Writes a corpus folder of shards NAME-00000.h5, NAME-00001.h5, ..., each of at most `clips_per_shard`
// clips. The folder is created; shards of the same prefix already there are an error unless `replace`.
typedef struct shard_writer shard_writer;
status shard_writer_create(shard_writer **out, const char *folder, const char *prefix,
                           const shard_format *format, size_t clips_per_shard, int replace);
status shard_writer_add(shard_writer *writer, const shard_clip *clip);
// Publishes the last shard and frees the writer, also on failure.
status shard_writer_finish(shard_writer *writer);
void shard_writer_abort(shard_writer *writer); // publishes nothing more; NULL is allowed

// A shard opened for reading, after its user block was verified.
typedef struct shard shard;
status shard_open(shard **out, const char *path);
void shard_close(shard *shard); // NULL is allowed
const shard_format *shard_get_format(const shard *shard);
size_t shard_clip_count(const shard *shard);
// Strings live until the shard is closed; array pointers of the clip are NULL.
status shard_read_strings(const shard *shard, size_t index, shard_clip *out);
status shard_read_audio(shard *shard, size_t first, size_t count, int16_t *out);   // [count, clip_samples]
status shard_read_tokens(shard *shard, size_t first, size_t count, uint16_t *out); // [count, frames, levels]

// All shards of a folder (or one file), in name order, checked to be of one format.
typedef struct corpus corpus;
status corpus_open(corpus **out, const char *path, shard_kind kind);
void corpus_close(corpus *corpus); // NULL is allowed
const shard_format *corpus_get_format(const corpus *corpus);
size_t corpus_clip_count(const corpus *corpus);
status corpus_read_strings(const corpus *corpus, size_t index, shard_clip *out);
status corpus_read_audio(corpus *corpus, size_t index, int16_t *out);   // [clip_samples]
status corpus_read_tokens(corpus *corpus, size_t index, uint16_t *out); // [frames, levels]

// The split is a property of the caption alone, so that no caption is on both sides: 1 in 10 is held out.
int caption_is_held_out(const char *caption);

// Indices of the clips of one side in corpus order. `out` [corpus_clip_count] receives them, `count` how
// many.
status corpus_split(const corpus *corpus, int held_out, size_t *out, size_t *count);

// A deterministic permutation of `indices` [count] for an epoch: depends on seed and epoch only.
void corpus_shuffle(size_t *indices, size_t count, uint64_t seed, uint64_t epoch);
