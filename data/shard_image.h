// An HDF5 file built in memory, behind a user block, with what writing one kind of shard shares with another.
// The functions that write return 0, or -1 if the library failed.
#pragma once

#include "data/shard_block.h"

#include <hdf5.h>

typedef struct shard_image {
    hid_t access, create_file, file, text_type, scalar, create_dataset;
    uint8_t *bytes; // [count] user block included; belongs to the library until the image is closed
    size_t count;
} shard_image;

// Starts an image; `name` names memory only: there is no backing file. `bytes` is an estimate of its size, so
// that the library need not grow it. Must be closed whatever the outcome.
int shard_image_open(shard_image *image, const char *name, size_t bytes);
void shard_image_close(shard_image *image);

// Root attributes.
int shard_image_text(const shard_image *image, const char *name, const char *value);
int shard_image_integer(const shard_image *image, const char *name, uint32_t value);
int shard_image_integers(const shard_image *image, const char *name, size_t count,
                         const uint32_t *values); // [count]
int shard_image_real(const shard_image *image, const char *name, double value);

// A dataset stored in one piece, with a line for people who look into the file.
int shard_image_dataset(const shard_image *image, const char *name, const char *description, hid_t file_type,
                        hid_t memory_type, int rank, const hsize_t *size, const void *values);

// Flushes and finds the bytes. The library's memory is used as it is: a copy of a shard would double what
// writing it takes.
int shard_image_finish(shard_image *image);
