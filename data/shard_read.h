// What a corpus asks of its shards beyond data/shard.h.
#pragma once

#include "data/shard.h"
#include "data/shard_block.h"

const shard_link *shard_get_link(const shard *shard);
const char *shard_get_path(const shard *shard);
