#include "data/digest.h"

#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
// Inlined, so that no state has to be allocated for a digest of two parts.
#define XXH_INLINE_ALL
#include <xxhash.h>

static digest canonical(XXH128_hash_t hash) {
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, hash);
    digest out;
    memcpy(out.byte, bytes.digest, sizeof out.byte);
    return out;
}

digest digest_bytes(const void *bytes, size_t count) {
    return canonical(XXH3_128bits(bytes, count));
}

digest digest_joined(const void *head, size_t head_count, const void *tail, size_t tail_count) {
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, head, head_count);
    XXH3_128bits_update(&state, tail, tail_count);
    return canonical(XXH3_128bits_digest(&state));
}

struct digest_stream {
    XXH3_state_t state;
};

status digest_stream_create(digest_stream **out) {
    TRY(memory_allocate((void **)out, sizeof **out, "digest"));
    XXH3_INITSTATE(&(*out)->state);
    XXH3_128bits_reset(&(*out)->state);
    return STATUS_OK;
}

void digest_stream_update(digest_stream *stream, const void *bytes, size_t count) {
    if (count > 0)
        XXH3_128bits_update(&stream->state, bytes, count);
}

digest digest_stream_read(const digest_stream *stream) {
    return canonical(XXH3_128bits_digest(&stream->state));
}

void digest_stream_destroy(digest_stream *stream) {
    memory_free(stream);
}

status digest_file(const char *path, uint64_t *bytes, digest *out) {
    *bytes = 0;
    int file;
    status result = regular_file_open(&file, NULL, path, "file");
    int error = errno;
    if (result != STATUS_OK) {
        result = error == ENOENT ? FAIL("%s is missing", path) : result;
        errno = error;
        return result;
    }
    error = ENOMEM;
    enum { CHUNK = 1 << 20 };
    digest_stream *stream = NULL;
    unsigned char *chunk = NULL;
    TRY_GOTO(result, digest_stream_create(&stream), done);
    TRY_GOTO(result, memory_allocate((void **)&chunk, CHUNK, "digest chunk"), done);
    for (;;) {
        ssize_t got = read(file, chunk, CHUNK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            error = errno;
            result = FAIL("cannot read %s: %s", path, strerror(error));
            goto done;
        }
        if (got == 0)
            break;
        digest_stream_update(stream, chunk, (size_t)got);
        *bytes += (uint64_t)got;
    }
    *out = digest_stream_read(stream);
done:
    memory_free(chunk);
    digest_stream_destroy(stream);
    close(file);
    errno = error;
    return result;
}

int digest_equal(const digest *a, const digest *b) {
    return memcmp(a->byte, b->byte, sizeof a->byte) == 0;
}

void digest_to_hex(const digest *digest, char out[DIGEST_HEX]) {
    for (size_t i = 0; i < sizeof digest->byte; i++)
        snprintf(out + 2 * i, 3, "%02x", digest->byte[i]);
}

uint64_t digest_text(const char *text) {
    return XXH3_64bits(text, strlen(text));
}
