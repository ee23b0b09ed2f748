// The frame of a message: what every message between ranks has in common. Little-endian, all parts padded
// with zeros to multiples of 64 bytes:
//
//     0  magic "MUSICRLM"         8  XXH3-64 of every byte after this field
//    16  u32 format version      20  u32 kind
//    24  u64 header bytes        32  u64 payload bytes (a multiple of 64)       40  zeros
//    64  header (protobuf)        .  payload: raw arrays, each at a multiple of 64
//
// The same bytes may be written to a file. Building and parsing allocate nothing.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    MESSAGE_ALIGNMENT = 64,
    MESSAGE_FRAME_BYTES = 64,
    MESSAGE_HEADER_MAX = 1024,
    MESSAGE_ARRAYS_MAX = 8,
    MESSAGE_DIMENSIONS_MAX = 4,
};

typedef enum message_kind {
    MESSAGE_ROLLOUT_BATCH = 1,
    MESSAGE_REWARD_BATCH = 2,
    MESSAGE_WEIGHT_UPDATE = 3,
} message_kind;

const char *message_kind_name(message_kind kind); // "RolloutBatch"

static inline size_t message_padded(size_t bytes) {
    return (bytes + MESSAGE_ALIGNMENT - 1) / MESSAGE_ALIGNMENT * MESSAGE_ALIGNMENT;
}

// An opened message: views into the caller's buffer.
typedef struct message_view {
    message_kind kind;
    const uint8_t *header; // [header_bytes]
    size_t header_bytes;
    const uint8_t *payload; // [payload_bytes]
    size_t payload_bytes;
} message_view;

// Bytes of a whole message.
size_t message_bytes(size_t header_bytes, size_t payload_bytes);

// Writes frame and checksum around a header that already stands at buffer + 64 and a payload of payload_bytes
// (a multiple of 64) that already stands behind the padded header. The buffer is 64-byte aligned and holds
// message_bytes(...).
void message_seal(void *buffer, message_kind kind, size_t header_bytes, size_t payload_bytes);

// Checks frame, lengths, kind and checksum of a message of `bytes` in a 64-byte aligned buffer. A failure
// says what was found and what was wanted.
status message_open(message_view *out, const void *buffer, size_t bytes, message_kind kind);

// The kind that a message claims in its frame, which is not checked further; 0 if it has no frame.
message_kind message_peek_kind(const void *buffer, size_t bytes);
