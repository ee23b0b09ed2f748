#include "data/digest.h"

#include <stdio.h>
#include <string.h>
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
