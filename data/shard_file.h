// An opened shard of any kind: mapped, its user block verified, then read through the HDF5 library. What is
// found of the columns lies in the mapped file, so that later reads need no library.
#pragma once

#include "data/byte_pool.h"
#include "data/shard_block.h"

#include <hdf5.h>
#include <limits.h>

typedef struct shard_file {
    char path[PATH_MAX];
    const shard_schema *schema;
    shard_link link;
    const uint8_t *bytes; // [count] the whole file, mapped
    size_t count;
    hid_t hdf5; // -1 once finished
} shard_file;

// Maps and verifies the file, opens it with the library, checks schema and link. On failure there is nothing
// to close. No descriptor is kept after shard_file_finish; a published file is immutable.
status shard_file_open(shard_file *file, const char *path, const shard_schema *schema);
void shard_file_finish(shard_file *file); // lets go of the library, keeps the mapping
void shard_file_close(shard_file *file);  // both; a file that is all zero is allowed

// Root attributes, checked for class and size.
status shard_file_integers(const shard_file *file, const char *name, size_t count, uint32_t *out); // [count]
status shard_file_real(const shard_file *file, const char *name, double *out);
status shard_file_text(const shard_file *file, const char *name, char *out, size_t capacity);

// Where a dataset lies that is stored in one piece as `type`, which the message calls `type_words`. size:
// [rank] wanted; size[0] == 0 stands for any number of rows above 0 and receives it. out: in the mapped file,
// not aligned.
status shard_file_column(const shard_file *file, const char *name, hid_t type, const char *type_words,
                         int rank, hsize_t *size, const uint8_t **out);

// A column of variable-length strings, appended to `texts`, each terminated. count: rows wanted; 0 stands for
// any number above 0 and receives it. at: receives offsets into texts [count], freed by the caller; NULL on
// failure.
status shard_file_texts(const shard_file *file, const char *name, size_t *count, byte_pool *texts,
                        size_t **at);
