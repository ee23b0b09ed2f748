// Messages between ranks. Their checksum would stop every mutation, so it is made right again.
#include "comm/batch.h"
#include "comm/message.h"
#include "tests/fuzz/fuzz.h"

#include <xxhash.h>

enum { CHECKSUM_AT = 8, CHECKED_FROM = 16 };

static volatile double sink; // so that every number is read

static void walk_rollouts(const rollout_batch *b) {
    const size_t tokens = (size_t)b->samples * b->frames * b->levels;
    double sum = 0;
    for (size_t i = 0; i < tokens; i++)
        sum += b->tokens[i] + (double)b->log_probabilities[i];
    for (size_t i = 0; i < (size_t)b->samples * b->prefix_tokens; i++)
        sum += b->prefix[i];
    for (uint32_t i = 0; i < b->samples; i++)
        sum += b->caption_indices[i] + (double)strlen(rollout_batch_caption(b, i));
    sink = sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *bytes = aligned_alloc(64, (size + 64) / 64 * 64); // as messages lie
    memcpy(bytes, data, size);
    if (size >= CHECKED_FROM) {
        const uint64_t checksum = XXH3_64bits(bytes + CHECKED_FROM, size - CHECKED_FROM);
        memcpy(bytes + CHECKSUM_AT, &checksum, sizeof checksum);
    }
    rollout_batch rollouts;
    reward_batch rewards;
    weight_update update;
    status outcome = rollout_batch_parse(&rollouts, bytes, size);
    fuzz_check(outcome);
    if (outcome == STATUS_OK)
        walk_rollouts(&rollouts);
    outcome = reward_batch_parse(&rewards, bytes, size);
    fuzz_check(outcome);
    if (outcome == STATUS_OK)
        for (size_t i = 0; i < (size_t)rewards.samples * rewards.reward_count; i++)
            sink = (double)rewards.rewards[i];
    fuzz_check(weight_update_parse(&update, bytes, size));
    free(bytes);
    return 0;
}
