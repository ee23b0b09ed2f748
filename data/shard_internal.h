// What the writer and the reader of clips share: the names inside a shard, the checks of a clip.
#pragma once

#include "data/shard.h"
#include "data/shard_block.h"

extern const shard_schema shard_clip_schema;

enum { SHARD_TEXTS = 4 };

// The strings of a clip, in the order of shard_text_names.
extern const char *const shard_text_names[SHARD_TEXTS];     // names of datasets
extern const char *const shard_text_describes[SHARD_TEXTS]; // for people who look into a file

static inline void shard_clip_texts(const shard_clip *clip, const char *out[SHARD_TEXTS]) {
    out[0] = clip->caption;
    out[1] = clip->attributes;
    out[2] = clip->id;
    out[3] = clip->source;
}

// `where` starts the message ("corpus/a-00000.h5"). Fields that do not belong to the kind are set to zero.
status shard_format_check(shard_format *format, const char *where);

// Names the first field in which two formats differ, with both values.
status shard_format_compare(const shard_format *a, const char *path_a, const shard_format *b,
                            const char *path_b);

// texts: as shard_clip_texts gives them.
status shard_texts_check(const char *const texts[SHARD_TEXTS], const char *where, size_t index);

// tokens: [frames, levels] of clip `index`.
status shard_tokens_check(const shard_format *format, const uint16_t *tokens, const char *where,
                          size_t index);

// Bytes of audio or tokens of one clip; 0 if that does not fit a size_t.
size_t shard_clip_bytes(const shard_format *format);
