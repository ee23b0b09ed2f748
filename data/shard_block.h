// What every kind of shard shares: the user block at its head, its name, its place in a chain.
#pragma once

#include "data/digest.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SHARD_BLOCK_BYTES = 512, // HDF5 looks for its signature at 0, 512, 1024, ...
    SHARD_PREFIX_MAX = 64,
    SHARD_INDEX_END = 100000, // five digits in a name
};

// A kind of shard.
typedef struct shard_schema {
    const char *name; // "musicrl clips", at most 31 bytes: in the user block and in the attribute 'schema'
    uint32_t version;
    const char *folder; // what a folder of such shards is called: "corpus"
    const char *mend;   // how to come by one: "make some with ..."
} shard_schema;

// The place of a shard in the chain of its prefix.
typedef struct shard_link {
    uint32_t index;            // 0 for the first
    uint32_t last;             // 1 for the last
    char previous[DIGEST_HEX]; // digest of the shard before, "" for the first
    char digest[DIGEST_HEX];   // of this shard, as in its user block
} shard_link;

// Fills the user block for `body` [body_bytes]; returns the digest of the whole file.
digest shard_block_make(uint8_t block[SHARD_BLOCK_BYTES], const shard_schema *schema, const void *body,
                        size_t body_bytes);

// Checks the user block at the head of `file` [file_bytes]; `path` is for the message. Hands out the digest.
status shard_block_verify(const uint8_t *file, size_t file_bytes, const shard_schema *schema,
                          const char *path, digest *out);

// Splits "PREFIX-00007.h5" (no folder) into prefix and index; 0 if it is not such a name.
int shard_name_parse(const char *name, char prefix[SHARD_PREFIX_MAX], uint32_t *index);

// 1 if the text holds nothing but well-formed UTF-8 (no overlong forms, no surrogates).
int shard_text_is_utf8(const char *text);
