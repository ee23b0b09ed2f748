// Messages: what is built is parsed back to the same values; anything damaged, truncated or lying is refused.
#include "comm/batch.h"
#include "comm/message.h"
#include "comm/messages.pb-c.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { SAMPLES = 3, FRAMES = 5, LEVELS = 4, PREFIX = 7, REWARDS = 2, CAPACITY = 8192 };

typedef struct fixture {
    _Alignas(64) uint8_t buffer[CAPACITY];
    _Alignas(64) uint8_t copy[CAPACITY];
    uint16_t tokens[SAMPLES * FRAMES * LEVELS];
    float log_probabilities[SAMPLES * FRAMES * LEVELS];
    uint16_t prefix[SAMPLES * PREFIX];
    uint32_t caption_indices[SAMPLES];
    float rewards[SAMPLES * REWARDS];
    rollout_batch rollout;
    reward_batch reward;
} fixture;

static fixture shared; // too large for the stack
static const char captions[] = "a slow waltz\0\0fast drums, \xc3\xa9tude";

static fixture *make_fixture(void) {
    fixture *f = &shared;
    philox_stream stream = {.key = 3};
    for (int i = 0; i < SAMPLES * FRAMES * LEVELS; i++) {
        f->tokens[i] = (uint16_t)philox_next(&stream);
        f->log_probabilities[i] = -philox_next_uniform(&stream);
    }
    for (int i = 0; i < SAMPLES * PREFIX; i++)
        f->prefix[i] = (uint16_t)philox_next(&stream);
    for (int i = 0; i < SAMPLES; i++)
        f->caption_indices[i] = philox_next(&stream);
    for (int i = 0; i < SAMPLES * REWARDS; i++)
        f->rewards[i] = philox_next_uniform(&stream);
    f->rollout = (rollout_batch){12,
                                 11,
                                 0xfeedfacecafebeefu,
                                 1.25,
                                 6,
                                 SAMPLES,
                                 FRAMES,
                                 LEVELS,
                                 PREFIX,
                                 f->tokens,
                                 f->log_probabilities,
                                 f->prefix,
                                 f->caption_indices,
                                 captions,
                                 sizeof captions};
    f->reward = (reward_batch){12, 0.5, 6, SAMPLES, REWARDS, f->rewards};
    return f;
}

static void test_rollout_round_trip(void **state) {
    (void)state;
    fixture *f = make_fixture();
    size_t bytes;
    uint64_t allocations = memory_read_counters().allocations;
    assert_int_equal(rollout_batch_build(&f->rollout, f->buffer, CAPACITY, &bytes), STATUS_OK);
    assert_true(bytes <= rollout_batch_bytes(SAMPLES, FRAMES, LEVELS, PREFIX, sizeof captions));
    assert_int_equal(bytes % 64, 0);
    rollout_batch found;
    assert_int_equal(rollout_batch_parse(&found, f->buffer, bytes), STATUS_OK);
    assert_int_equal(memory_read_counters().allocations, allocations);
    assert_int_equal(found.step, 12);
    assert_int_equal(found.weight_version, 11);
    assert_true(found.seed == 0xfeedfacecafebeefu);
    assert_int_equal(found.first_sample, 6);
    assert_int_equal(found.samples, SAMPLES);
    assert_int_equal(found.frames, FRAMES);
    assert_int_equal(found.levels, LEVELS);
    assert_int_equal(found.prefix_tokens, PREFIX);
    assert_memory_equal(found.tokens, f->tokens, sizeof f->tokens);
    assert_memory_equal(found.log_probabilities, f->log_probabilities, sizeof f->log_probabilities);
    assert_memory_equal(found.prefix, f->prefix, sizeof f->prefix);
    assert_memory_equal(found.caption_indices, f->caption_indices, sizeof f->caption_indices);
    assert_int_equal(found.caption_bytes, sizeof captions);
    assert_memory_equal(found.captions, captions, sizeof captions);
    assert_int_equal((uintptr_t)found.log_probabilities % 64, 0);
    assert_string_equal(rollout_batch_caption(&found, 0), "a slow waltz");
    assert_string_equal(rollout_batch_caption(&found, 1), "");
    assert_string_equal(rollout_batch_caption(&found, 2), "fast drums, \xc3\xa9tude");
    // The same batch gives the same bytes, whatever was in the buffer.
    memset(f->copy, 0xa5, CAPACITY);
    size_t again;
    assert_int_equal(rollout_batch_build(&found, f->copy, CAPACITY, &again), STATUS_OK);
    assert_int_equal(again, bytes);
    assert_memory_equal(f->copy, f->buffer, bytes);
}

static void test_slice(void **state) {
    (void)state;
    fixture *f = make_fixture();
    rollout_batch part = rollout_batch_slice(&f->rollout, 1, 2), found;
    size_t bytes;
    assert_int_equal(rollout_batch_build(&part, f->buffer, CAPACITY, &bytes), STATUS_OK);
    assert_int_equal(rollout_batch_parse(&found, f->buffer, bytes), STATUS_OK);
    assert_int_equal(found.first_sample, 7);
    assert_int_equal(found.samples, 2);
    assert_memory_equal(found.tokens, f->tokens + FRAMES * LEVELS, 2 * FRAMES * LEVELS * sizeof(uint16_t));
    assert_memory_equal(found.prefix, f->prefix + PREFIX, 2 * PREFIX * sizeof(uint16_t));
    assert_int_equal(found.caption_indices[1], f->caption_indices[2]);
    assert_string_equal(rollout_batch_caption(&found, 1), "fast drums, \xc3\xa9tude");
    f->rollout.prefix_tokens = 0;
    f->rollout.prefix = NULL;
    part = rollout_batch_slice(&f->rollout, 0, 1);
    assert_int_equal(rollout_batch_build(&part, f->buffer, CAPACITY, &bytes), STATUS_OK);
    assert_int_equal(rollout_batch_parse(&found, f->buffer, bytes), STATUS_OK);
    assert_null(found.prefix);
    assert_string_equal(found.captions, "a slow waltz");
}

static void test_reward_and_weights_round_trip(void **state) {
    (void)state;
    fixture *f = make_fixture();
    size_t bytes;
    reward_batch reward;
    assert_int_equal(reward_batch_build(&f->reward, f->buffer, CAPACITY, &bytes), STATUS_OK);
    assert_true(bytes <= reward_batch_bytes(SAMPLES, REWARDS));
    assert_int_equal(reward_batch_parse(&reward, f->buffer, bytes), STATUS_OK);
    assert_int_equal(reward.step, 12);
    assert_int_equal(reward.first_sample, 6);
    assert_int_equal(reward.samples, SAMPLES);
    assert_int_equal(reward.reward_count, REWARDS);
    assert_memory_equal(reward.rewards, f->rewards, sizeof f->rewards);
    // A message of another kind is refused by name.
    rollout_batch rollout;
    assert_int_equal(rollout_batch_parse(&rollout, f->buffer, bytes), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "a RolloutBatch was expected, a RewardBatch is there"));
    static const weight_update updates[] = {
        {0, 1, 0}, {UINT64_MAX, UINT64_MAX, UINT64_MAX}, {7, 1000, 0x1234}};
    for (size_t i = 0; i < sizeof updates / sizeof updates[0]; i++) {
        weight_update update;
        assert_int_equal(weight_update_build(&updates[i], f->buffer, CAPACITY, &bytes), STATUS_OK);
        assert_int_equal(bytes, WEIGHT_UPDATE_BYTES);
        assert_int_equal(weight_update_parse(&update, f->buffer, bytes), STATUS_OK);
        assert_memory_equal(&update, &updates[i], sizeof update);
    }
}

static status parse_kind(message_kind kind, const void *buffer, size_t bytes) {
    rollout_batch rollout;
    reward_batch reward;
    weight_update update;
    switch (kind) {
    case MESSAGE_ROLLOUT_BATCH:
        return rollout_batch_parse(&rollout, buffer, bytes);
    case MESSAGE_REWARD_BATCH:
        return reward_batch_parse(&reward, buffer, bytes);
    default:
        return weight_update_parse(&update, buffer, bytes);
    }
}

static size_t build_kind(fixture *f, message_kind kind) {
    size_t bytes = 0;
    weight_update update = {3, 1000, 99};
    if (kind == MESSAGE_ROLLOUT_BATCH)
        assert_int_equal(rollout_batch_build(&f->rollout, f->buffer, CAPACITY, &bytes), STATUS_OK);
    else if (kind == MESSAGE_REWARD_BATCH)
        assert_int_equal(reward_batch_build(&f->reward, f->buffer, CAPACITY, &bytes), STATUS_OK);
    else
        assert_int_equal(weight_update_build(&update, f->buffer, CAPACITY, &bytes), STATUS_OK);
    return bytes;
}

static void test_every_flipped_bit_is_refused(void **state) {
    (void)state;
    fixture *f = make_fixture();
    for (message_kind kind = MESSAGE_ROLLOUT_BATCH; kind <= MESSAGE_WEIGHT_UPDATE; kind++) {
        size_t bytes = build_kind(f, kind);
        for (size_t bit = 0; bit < bytes * 8; bit++) {
            f->buffer[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            assert_int_equal(parse_kind(kind, f->buffer, bytes), STATUS_FAILED);
            assert_null(strchr(status_message(), '\n'));
            f->buffer[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        f->buffer[bytes - 1] ^= 4;
        assert_int_equal(parse_kind(kind, f->buffer, bytes), STATUS_FAILED);
        assert_non_null(strstr(status_message(), "its bytes give"));
        f->buffer[bytes - 1] ^= 4;
        assert_int_equal(parse_kind(kind, f->buffer, bytes), STATUS_OK);
    }
}

static void test_every_truncation_is_refused(void **state) {
    (void)state;
    fixture *f = make_fixture();
    for (message_kind kind = MESSAGE_ROLLOUT_BATCH; kind <= MESSAGE_WEIGHT_UPDATE; kind++) {
        size_t bytes = build_kind(f, kind);
        for (size_t length = 0; length < bytes; length++)
            assert_int_equal(parse_kind(kind, f->buffer, length), STATUS_FAILED);
        memset(f->buffer + bytes, 0, 64);
        assert_int_equal(parse_kind(kind, f->buffer, bytes + 64), STATUS_FAILED);
    }
}

// A message whose checksum is right and whose header lies: `change` edits the unpacked header.
static void refuse_lie(fixture *f, void (*change)(Musicrl__RolloutBatch *header), const char *line) {
    size_t bytes = build_kind(f, MESSAGE_ROLLOUT_BATCH);
    message_view view;
    assert_int_equal(message_open(&view, f->buffer, bytes, MESSAGE_ROLLOUT_BATCH), STATUS_OK);
    Musicrl__RolloutBatch *header = musicrl__rollout_batch__unpack(NULL, view.header_bytes, view.header);
    assert_non_null(header);
    change(header);
    size_t header_bytes = musicrl__rollout_batch__get_packed_size(header);
    musicrl__rollout_batch__pack(header, f->copy + MESSAGE_FRAME_BYTES);
    memcpy(f->copy + MESSAGE_FRAME_BYTES + message_padded(header_bytes), view.payload, view.payload_bytes);
    message_seal(f->copy, MESSAGE_ROLLOUT_BATCH, header_bytes, view.payload_bytes);
    musicrl__rollout_batch__free_unpacked(header, NULL);
    rollout_batch found;
    assert_int_equal(rollout_batch_parse(&found, f->copy, message_bytes(header_bytes, view.payload_bytes)),
                     line == NULL ? STATUS_OK : STATUS_FAILED);
    if (line != NULL && strstr(status_message(), line) == NULL)
        fail_msg("'%s' lacks '%s'", status_message(), line);
}

static void change_nothing(Musicrl__RolloutBatch *header) {
    (void)header;
}
static void change_offset(Musicrl__RolloutBatch *header) {
    header->arrays[4]->offset += 64;
}
static void change_offset_overflow(Musicrl__RolloutBatch *header) {
    header->arrays[1]->offset = UINT64_MAX - 63;
}
static void change_alignment(Musicrl__RolloutBatch *header) {
    header->arrays[3]->offset += 4;
}
static void change_overlap(Musicrl__RolloutBatch *header) {
    header->arrays[1]->offset = header->arrays[0]->offset;
}
static void change_bytes(Musicrl__RolloutBatch *header) {
    header->arrays[0]->bytes -= 2;
}
static void change_shape_overflow(Musicrl__RolloutBatch *header) {
    header->arrays[0]->shape[0] = UINT64_C(1) << 62;
    header->arrays[0]->shape[1] = UINT64_C(1) << 62;
}
static void change_shape_order(Musicrl__RolloutBatch *header) {
    header->arrays[0]->shape[1] = LEVELS;
    header->arrays[0]->shape[2] = FRAMES;
}
static void change_samples(Musicrl__RolloutBatch *header) {
    header->samples = 2;
}
static void change_no_samples(Musicrl__RolloutBatch *header) {
    header->samples = 0;
    for (size_t i = 0; i < 5; i++) {
        header->arrays[i]->shape[0] = 0;
        header->arrays[i]->bytes = 0;
    }
}
static void change_type(Musicrl__RolloutBatch *header) {
    header->arrays[3]->type = MUSICRL__ELEMENT_TYPE__ELEMENT_F32;
}
static void change_unknown_type(Musicrl__RolloutBatch *header) {
    header->arrays[3]->type = (Musicrl__ElementType)77;
}
static void change_name(Musicrl__RolloutBatch *header) {
    header->arrays[2]->name[0] = 'q';
}
static void change_missing(Musicrl__RolloutBatch *header) {
    musicrl__array_descriptor__free_unpacked(header->arrays[4], NULL);
    header->n_arrays = 4;
}
static void change_captions(Musicrl__RolloutBatch *header) {
    header->arrays[4]->shape[0] -= 1;
    header->arrays[4]->bytes -= 1;
}
static void change_first_sample(Musicrl__RolloutBatch *header) {
    header->first_sample = UINT32_MAX;
}

static void test_lies_are_refused(void **state) {
    (void)state;
    fixture *f = make_fixture();
    refuse_lie(f, change_nothing, NULL);
    refuse_lie(f, change_offset, "array 'captions'");
    refuse_lie(f, change_offset_overflow, "leaves the payload");
    refuse_lie(f, change_alignment, "which is no multiple of 64");
    refuse_lie(f, change_overlap, "arrays 'tokens' and 'log_probabilities' overlap");
    refuse_lie(f, change_bytes, "has 118 bytes, its type and shape make 120");
    refuse_lie(f, change_shape_overflow, "its type and shape make more than");
    refuse_lie(f, change_shape_order, "has 4 in dimension 1, the header says 5");
    refuse_lie(f, change_samples, "array 'tokens' has 3 in dimension 0, the header says 2");
    refuse_lie(f, change_no_samples, "has 0 samples");
    refuse_lie(f, change_type, "array 'caption_indices' has element type 4, 3 is wanted");
    refuse_lie(f, change_unknown_type, "unknown element type 77");
    refuse_lie(f, change_name, "lacks the array 'prefix'");
    refuse_lie(f, change_missing, "lacks the array 'captions'");
    refuse_lie(f, change_captions, "has 2 captions, or the last one does not end");
    refuse_lie(f, change_first_sample, "too many");
    // A header that is no protobuf, with a right checksum.
    memset(f->buffer + MESSAGE_FRAME_BYTES, 0xff, 64);
    message_seal(f->buffer, MESSAGE_REWARD_BATCH, 64, 0);
    reward_batch reward;
    assert_int_equal(reward_batch_parse(&reward, f->buffer, 128), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "cannot be read"));
}

static void test_building_refuses(void **state) {
    (void)state;
    fixture *f = make_fixture();
    size_t bytes, needed = build_kind(f, MESSAGE_ROLLOUT_BATCH);
    assert_int_equal(rollout_batch_build(&f->rollout, f->buffer, needed - 1, &bytes), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "does not fit its buffer"));
    rollout_batch wrong = f->rollout;
    wrong.caption_bytes -= 1;
    assert_int_equal(rollout_batch_build(&wrong, f->buffer, CAPACITY, &bytes), STATUS_FAILED);
    wrong = f->rollout;
    wrong.samples = 0;
    assert_int_equal(rollout_batch_build(&wrong, f->buffer, CAPACITY, &bytes), STATUS_FAILED);
    assert_int_equal(weight_update_build(&(weight_update){1, 0, 0}, f->buffer, CAPACITY, &bytes),
                     STATUS_FAILED);
    needed = build_kind(f, MESSAGE_ROLLOUT_BATCH);
    memmove(f->buffer + 8, f->buffer, needed);
    assert_int_equal(parse_kind(MESSAGE_ROLLOUT_BATCH, f->buffer + 8, needed), STATUS_FAILED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rollout_round_trip),
        cmocka_unit_test(test_slice),
        cmocka_unit_test(test_reward_and_weights_round_trip),
        cmocka_unit_test(test_every_flipped_bit_is_refused),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_lies_are_refused),
        cmocka_unit_test(test_building_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
