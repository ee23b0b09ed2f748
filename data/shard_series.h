// Writes a chain of shards PREFIX-00000.h5, PREFIX-00001.h5, ... into a folder. All are written in full
// before the first one appears under its name, so a run that fails leaves what was published as it was.
#pragma once

#include "data/shard_image.h"

typedef struct shard_series shard_series;

// The folder is created; shards of the prefix already there are an error unless `replace`. The prefix is of
// letters, digits, '.', '_' and '-'. schema: kept by the caller.
status shard_series_create(shard_series **out, const char *folder, const char *prefix,
                           const shard_schema *schema, int replace);
size_t shard_series_count(const shard_series *series); // shards sealed so far

// Writes the next shard, durable but not yet visible. `fill` puts its own attributes and datasets into the
// image behind those that all shards have; it returns 0, or -1 if the library failed. bytes: an estimate of
// the shard's size; last: no shard follows.
typedef int (*shard_fill)(const shard_image *image, void *context);
status shard_series_seal(shard_series *series, size_t bytes, shard_fill fill, void *context, int last);

// Publishes all shards, then removes what `replace` leaves over, and frees the series, also on failure.
status shard_series_publish(shard_series *series);
void shard_series_abort(shard_series *series); // publishes nothing; NULL is allowed
