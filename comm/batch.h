// The typed messages of comm/messages.proto: plain structs on one side, bytes in a preallocated, 64-byte
// aligned buffer on the other. A built message is complete and checksummed. Parsing trusts nothing: frame,
// checksum, bounds, overlaps, types and shapes of all arrays are checked, and the parsed struct's arrays are
// views into the buffer.
#pragma once

#include "comm/message.h"

// S samples of F frames of L token levels, with P prefix tokens each.
typedef struct rollout_batch {
    uint64_t step, weight_version, seed;
    double seconds;        // that sampling took
    uint32_t first_sample; // position of sample 0 in the step's batch
    uint32_t samples, frames, levels, prefix_tokens;
    const uint16_t *tokens;          // [S, F, L]
    const float *log_probabilities;  // [S, F, L], nats
    const uint16_t *prefix;          // [S, P], NULL if P is 0
    const uint32_t *caption_indices; // [S]
    const char *captions;            // [caption_bytes]: S texts one after the other, each ended by a 0 byte
    size_t caption_bytes;
} rollout_batch;

// R scores for each of S samples.
typedef struct reward_batch {
    uint64_t step;
    double seconds; // that scoring took
    uint32_t first_sample, samples, reward_count;
    const float *rewards; // [S, R]
} reward_batch;

typedef struct weight_update {
    uint64_t version, count, checksum; // count in f32 numbers, XXH3-64
} weight_update;

enum { WEIGHT_UPDATE_BYTES = 128 }; // of a built weight update, whatever its numbers

// Enough bytes for a message of these sizes, for the plan; rounded up to a multiple of 64.
size_t rollout_batch_bytes(uint32_t samples, uint32_t frames, uint32_t levels, uint32_t prefix_tokens,
                           size_t caption_bytes);
size_t reward_batch_bytes(uint32_t samples, uint32_t reward_count);

// Build a message into buffer [capacity] and give its length. Fail, naming both numbers, if it does not fit,
// and if the struct is not sound (no samples, captions that are not S texts).
status rollout_batch_build(const rollout_batch *batch, void *buffer, size_t capacity, size_t *bytes);
status reward_batch_build(const reward_batch *batch, void *buffer, size_t capacity, size_t *bytes);
status weight_update_build(const weight_update *update, void *buffer, size_t capacity, size_t *bytes);

// Parse a message of exactly `bytes`. On failure the message says what was found; *out is then not to be
// used.
status rollout_batch_parse(rollout_batch *out, const void *buffer, size_t bytes);
status reward_batch_parse(reward_batch *out, const void *buffer, size_t bytes);
status weight_update_parse(weight_update *out, const void *buffer, size_t bytes);

// The text of sample `sample` of a parsed or sound batch.
const char *rollout_batch_caption(const rollout_batch *batch, uint32_t sample);

// The part of a batch that holds samples [first, first + count), counted from the batch's own sample 0: views
// into the same arrays, so that a part can be built as a message of its own.
rollout_batch rollout_batch_slice(const rollout_batch *batch, uint32_t first, uint32_t count);
