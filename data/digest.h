// Digests of files and texts: XXH3 (https://xxhash.com), 128 bits in its canonical byte order. They detect
// damage and name contents; they are no protection against a forger.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct digest {
    uint8_t byte[16]; // most significant first
} digest;

enum { DIGEST_HEX = 33 }; // 32 lower-case hexadecimal digits and the terminator

// Of one buffer.
digest digest_bytes(const void *bytes, size_t count);

// Of two buffers as if they were joined.
digest digest_joined(const void *head, size_t head_count, const void *tail, size_t tail_count);

// The size and digest of a file. On failure errno says why: ENOENT where it is missing, EINVAL where it is no
// file.
status digest_file(const char *path, uint64_t *bytes, digest *out);

// Of bytes that come in pieces.
typedef struct digest_stream digest_stream;
status digest_stream_create(digest_stream **out);
void digest_stream_update(digest_stream *stream, const void *bytes, size_t count);
digest digest_stream_read(const digest_stream *stream); // of the bytes so far
void digest_stream_destroy(digest_stream *stream);      // NULL is allowed

int digest_equal(const digest *a, const digest *b);
void digest_to_hex(const digest *digest, char out[DIGEST_HEX]);

// XXH3-64, seed 0, of the bytes of a text without its terminator.
uint64_t digest_text(const char *text);
