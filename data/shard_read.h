// What a corpus asks of its shards beyond data/shard.h.
#pragma once

#include "data/digest.h"
#include "data/shard.h"

// The place of a shard in the chain of its prefix.
typedef struct shard_link {
    uint32_t index;            // 0 for the first
    uint32_t last;             // 1 for the last
    char previous[DIGEST_HEX]; // digest of the shard before, "" for the first
    char digest[DIGEST_HEX];   // of this shard, as in its user block
} shard_link;

const shard_link *shard_get_link(const shard *shard);
const char *shard_get_path(const shard *shard);
