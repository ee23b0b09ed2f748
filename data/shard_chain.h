// The shards of a folder, and whether they are all there.
#pragma once

#include "data/shard_block.h"

#include <limits.h>

typedef struct shard_name {
    char prefix[SHARD_PREFIX_MAX];
    uint32_t index;
} shard_name;

// Names of the shards of a folder by prefix and index; freed by the caller. An HDF5 file of another name is
// refused rather than passed over, and so is a folder without shards.
status shard_chain_list(const char *folder, const shard_schema *schema, shard_name **out, size_t *count);

// FOLDER/PREFIX-00000.h5 into `out`.
status shard_chain_path(const char *folder, const shard_name *name, char out[PATH_MAX]);

// Checks the link of shard i of a list against that of shard i - 1: every prefix must run from 0 to its last
// shard without a gap or a stranger. Called for each i in turn; `previous` is NULL for the first.
status shard_chain_check(const char *folder, const shard_schema *schema, const shard_name *name, size_t count,
                         size_t i, const shard_link *previous, const shard_link *link);
