#include "comm/message.h"

#include <inttypes.h>
#include <string.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "messages are little-endian");

enum { FORMAT_VERSION = 1, CHECKSUM_FROM = 16 };

typedef struct frame {
    char magic[8];
    uint64_t checksum;
    uint32_t version, kind;
    uint64_t header_bytes, payload_bytes;
    uint8_t zeros[24];
} frame;
_Static_assert(sizeof(frame) == MESSAGE_FRAME_BYTES, "a frame is 64 bytes");

static const char magic[8] = {'M', 'U', 'S', 'I', 'C', 'R', 'L', 'M'};

const char *message_kind_name(message_kind kind) {
    switch (kind) {
    case MESSAGE_ROLLOUT_BATCH:
        return "RolloutBatch";
    case MESSAGE_REWARD_BATCH:
        return "RewardBatch";
    case MESSAGE_WEIGHT_UPDATE:
        return "WeightUpdate";
    }
    return "message of an unknown kind";
}

size_t message_bytes(size_t header_bytes, size_t payload_bytes) {
    return MESSAGE_FRAME_BYTES + message_padded(header_bytes) + payload_bytes;
}

void message_seal(void *buffer, message_kind kind, size_t header_bytes, size_t payload_bytes) {
    char *bytes = buffer;
    memset(bytes + MESSAGE_FRAME_BYTES + header_bytes, 0, message_padded(header_bytes) - header_bytes);
    frame frame = {.version = FORMAT_VERSION,
                   .kind = (uint32_t)kind,
                   .header_bytes = header_bytes,
                   .payload_bytes = payload_bytes};
    memcpy(frame.magic, magic, sizeof magic);
    memcpy(bytes, &frame, sizeof frame);
    frame.checksum =
        XXH3_64bits(bytes + CHECKSUM_FROM, message_bytes(header_bytes, payload_bytes) - CHECKSUM_FROM);
    memcpy(bytes, &frame, sizeof frame);
}

message_kind message_peek_kind(const void *buffer, size_t bytes) {
    frame frame;
    if (bytes < sizeof frame)
        return (message_kind)0;
    memcpy(&frame, buffer, sizeof frame);
    return memcmp(frame.magic, magic, sizeof magic) == 0 ? (message_kind)frame.kind : (message_kind)0;
}

status message_open(message_view *out, const void *buffer, size_t bytes, message_kind kind) {
    const uint8_t *base = buffer;
    const char *name = message_kind_name(kind);
    if ((uintptr_t)buffer % MESSAGE_ALIGNMENT != 0)
        return FAIL("a %s lies at an address that is no multiple of %d", name, MESSAGE_ALIGNMENT);
    frame frame;
    if (bytes < sizeof frame)
        return FAIL("a %s of %zu bytes is shorter than its frame of %d: it is truncated", name, bytes,
                    MESSAGE_FRAME_BYTES);
    memcpy(&frame, base, sizeof frame);
    if (memcmp(frame.magic, magic, sizeof magic) != 0)
        return FAIL("a %s does not begin with MUSICRLM: these %zu bytes are no message", name, bytes);
    if (frame.version != FORMAT_VERSION)
        return FAIL("a %s has format version %u, this program reads version %d", name, frame.version,
                    FORMAT_VERSION);
    if (frame.header_bytes > MESSAGE_HEADER_MAX)
        return FAIL("a %s has a header of %" PRIu64 " bytes, at most %d are allowed", name,
                    frame.header_bytes, MESSAGE_HEADER_MAX);
    size_t fixed = message_bytes(frame.header_bytes, 0);
    if (fixed > bytes || frame.payload_bytes != bytes - fixed)
        return FAIL("a %s has %zu bytes, its frame announces a header of %" PRIu64
                    " and a payload of %" PRIu64 ": it is truncated or damaged",
                    name, bytes, frame.header_bytes, frame.payload_bytes);
    if (frame.payload_bytes % MESSAGE_ALIGNMENT != 0)
        return FAIL("a %s has a payload of %" PRIu64 " bytes, which is no multiple of %d", name,
                    frame.payload_bytes, MESSAGE_ALIGNMENT);
    uint64_t found = XXH3_64bits(base + CHECKSUM_FROM, bytes - CHECKSUM_FROM);
    if (found != frame.checksum)
        return FAIL("a %s says its checksum is %016" PRIx64 ", its bytes give %016" PRIx64 ": it is damaged",
                    name, frame.checksum, found);
    if (frame.kind != (uint32_t)kind)
        return FAIL("a %s was expected, a %s is there (kind %u)", name,
                    message_kind_name((message_kind)frame.kind), frame.kind);
    *out = (message_view){kind, base + MESSAGE_FRAME_BYTES, frame.header_bytes, base + fixed,
                          frame.payload_bytes};
    return STATUS_OK;
}
