#include "comm/batch.h"

#include "comm/messages.pb-c.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

// One array of a message: where it is and what it must look like.
typedef struct array {
    const char *name;
    Musicrl__ElementType type;
    int dimensions;
    uint64_t shape[MESSAGE_DIMENSIONS_MAX];
    const void *data;
} array;

static size_t element_bytes(Musicrl__ElementType type) {
    switch (type) {
    case MUSICRL__ELEMENT_TYPE__ELEMENT_U8:
        return 1;
    case MUSICRL__ELEMENT_TYPE__ELEMENT_U16:
        return 2;
    case MUSICRL__ELEMENT_TYPE__ELEMENT_U32:
    case MUSICRL__ELEMENT_TYPE__ELEMENT_F32:
        return 4;
    default:
        return 0;
    }
}

static uint64_t array_bytes(const array *array) {
    uint64_t bytes = element_bytes(array->type);
    for (int i = 0; i < array->dimensions; i++)
        bytes *= array->shape[i];
    return bytes;
}

// Descriptors of a message that is being built: fixed storage, no allocation.
typedef struct layout {
    Musicrl__ArrayDescriptor descriptors[MESSAGE_ARRAYS_MAX];
    Musicrl__ArrayDescriptor *pointers[MESSAGE_ARRAYS_MAX];
    size_t payload_bytes;
} layout;

static void lay_out(layout *layout, array *arrays, int count) {
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        Musicrl__ArrayDescriptor *descriptor = &layout->descriptors[i];
        musicrl__array_descriptor__init(descriptor);
        descriptor->name = (char *)arrays[i].name;
        descriptor->type = arrays[i].type;
        descriptor->n_shape = (size_t)arrays[i].dimensions;
        descriptor->shape = arrays[i].shape;
        descriptor->offset = offset;
        descriptor->bytes = array_bytes(&arrays[i]);
        layout->pointers[i] = descriptor;
        offset += message_padded(descriptor->bytes);
    }
    layout->payload_bytes = offset;
}

// Header, arrays, frame and checksum into buffer.
static status build(message_kind kind, const ProtobufCMessage *header, const layout *layout,
                    const array *arrays, int count, void *buffer, size_t capacity, size_t *bytes) {
    size_t header_bytes = protobuf_c_message_get_packed_size(header);
    size_t total = message_bytes(header_bytes, layout->payload_bytes);
    if (header_bytes > MESSAGE_HEADER_MAX)
        return FAIL("a %s has a header of %zu bytes, at most %d are allowed", message_kind_name(kind),
                    header_bytes, MESSAGE_HEADER_MAX);
    if (total > capacity)
        return FAIL("a %s of %zu bytes does not fit its buffer of %zu bytes", message_kind_name(kind), total,
                    capacity);
    uint8_t *base = buffer;
    protobuf_c_message_pack(header, base + MESSAGE_FRAME_BYTES);
    uint8_t *payload = base + MESSAGE_FRAME_BYTES + message_padded(header_bytes);
    for (int i = 0; i < count; i++) {
        size_t length = layout->descriptors[i].bytes, offset = layout->descriptors[i].offset;
        if (length > 0)
            memcpy(payload + offset, arrays[i].data, length);
        memset(payload + offset + length, 0, message_padded(length) - length);
    }
    message_seal(buffer, kind, header_bytes, layout->payload_bytes);
    *bytes = total;
    return STATUS_OK;
}

// protobuf-c unpacks into this instead of the heap.
typedef struct scratch {
    _Alignas(16) uint8_t bytes[8192];
    size_t used;
} scratch;

static void *scratch_take(void *data, size_t bytes) {
    scratch *scratch = data;
    size_t padded = (bytes + 15) / 16 * 16;
    if (padded < bytes || padded > sizeof scratch->bytes - scratch->used)
        return NULL;
    void *taken = scratch->bytes + scratch->used;
    scratch->used += padded;
    return taken;
}

static void scratch_give(void *data, void *pointer) {
    (void)data;
    (void)pointer;
}

// Bounds, alignment, sizes and overlaps of all arrays that a header names.
static status check_arrays(const message_view *view, Musicrl__ArrayDescriptor **arrays, size_t count) {
    const char *kind = message_kind_name(view->kind);
    if (count > MESSAGE_ARRAYS_MAX)
        return FAIL("a %s has %zu arrays, at most %d are allowed", kind, count, MESSAGE_ARRAYS_MAX);
    for (size_t i = 0; i < count; i++) {
        const Musicrl__ArrayDescriptor *array = arrays[i];
        uint64_t wanted = element_bytes(array->type);
        if (wanted == 0)
            return FAIL("a %s's array '%s' has the unknown element type %d", kind, array->name,
                        (int)array->type);
        if (array->n_shape < 1 || array->n_shape > MESSAGE_DIMENSIONS_MAX)
            return FAIL("a %s's array '%s' has %zu dimensions, 1 to %d are allowed", kind, array->name,
                        array->n_shape, MESSAGE_DIMENSIONS_MAX);
        bool overflow = false;
        for (size_t d = 0; d < array->n_shape; d++)
            overflow |= __builtin_mul_overflow(wanted, array->shape[d], &wanted);
        if (overflow || wanted != array->bytes)
            return FAIL("a %s's array '%s' has %" PRIu64 " bytes, its type and shape make %s%" PRIu64, kind,
                        array->name, array->bytes, overflow ? "more than " : "",
                        overflow ? UINT64_MAX : wanted);
        if (array->offset % MESSAGE_ALIGNMENT != 0)
            return FAIL("a %s's array '%s' is at offset %" PRIu64 ", which is no multiple of %d", kind,
                        array->name, array->offset, MESSAGE_ALIGNMENT);
        if (array->offset > view->payload_bytes || array->bytes > view->payload_bytes - array->offset)
            return FAIL("a %s's array '%s' (offset %" PRIu64 ", %" PRIu64
                        " bytes) leaves the payload of %zu bytes",
                        kind, array->name, array->offset, array->bytes, view->payload_bytes);
        for (size_t j = 0; j < i; j++) {
            const Musicrl__ArrayDescriptor *other = arrays[j];
            if (array->offset < other->offset + other->bytes && other->offset < array->offset + array->bytes)
                return FAIL("a %s's arrays '%s' and '%s' overlap", kind, other->name, array->name);
            if (strcmp(array->name, other->name) == 0)
                return FAIL("a %s has two arrays named '%s'", kind, array->name);
        }
    }
    return STATUS_OK;
}

// Finds an array that must be there with this type and shape, after check_arrays.
static status find_array(const message_view *view, Musicrl__ArrayDescriptor **arrays, size_t count,
                         const array *wanted, const void **data) {
    const char *kind = message_kind_name(view->kind);
    for (size_t i = 0; i < count; i++) {
        const Musicrl__ArrayDescriptor *found = arrays[i];
        if (strcmp(found->name, wanted->name) != 0)
            continue;
        if (found->type != wanted->type)
            return FAIL("a %s's array '%s' has element type %d, %d is wanted", kind, wanted->name,
                        (int)found->type, (int)wanted->type);
        if (found->n_shape != (size_t)wanted->dimensions)
            return FAIL("a %s's array '%s' has %zu dimensions, %d are wanted", kind, wanted->name,
                        found->n_shape, wanted->dimensions);
        for (int d = 0; d < wanted->dimensions; d++)
            if (found->shape[d] != wanted->shape[d])
                return FAIL("a %s's array '%s' has %" PRIu64 " in dimension %d, the header says %" PRIu64,
                            kind, wanted->name, found->shape[d], d, wanted->shape[d]);
        *data = found->bytes > 0 ? view->payload + found->offset : NULL;
        return STATUS_OK;
    }
    return FAIL("a %s lacks the array '%s'", kind, wanted->name);
}

static status unpack(const message_view *view, const ProtobufCMessageDescriptor *descriptor, scratch *scratch,
                     ProtobufCMessage **out) {
    scratch->used = 0;
    ProtobufCAllocator allocator = {scratch_take, scratch_give, scratch};
    *out = protobuf_c_message_unpack(descriptor, &allocator, view->header_bytes, view->header);
    if (*out == NULL)
        return FAIL("a %s has a header of %zu bytes that cannot be read", message_kind_name(view->kind),
                    view->header_bytes);
    return STATUS_OK;
}

enum { ROLLOUT_ARRAYS = 5 };

// The arrays of a rollout batch, as its numbers say they must be.
static void describe_rollout(const rollout_batch *batch, array arrays[ROLLOUT_ARRAYS]) {
    uint64_t samples = batch->samples, frames = batch->frames, levels = batch->levels;
    const array described[ROLLOUT_ARRAYS] = {
        {"tokens", MUSICRL__ELEMENT_TYPE__ELEMENT_U16, 3, {samples, frames, levels}, batch->tokens},
        {"log_probabilities",
         MUSICRL__ELEMENT_TYPE__ELEMENT_F32,
         3,
         {samples, frames, levels},
         batch->log_probabilities},
        {"prefix", MUSICRL__ELEMENT_TYPE__ELEMENT_U16, 2, {samples, batch->prefix_tokens}, batch->prefix},
        {"caption_indices", MUSICRL__ELEMENT_TYPE__ELEMENT_U32, 1, {samples}, batch->caption_indices},
        {"captions", MUSICRL__ELEMENT_TYPE__ELEMENT_U8, 1, {batch->caption_bytes}, batch->captions},
    };
    memcpy(arrays, described, sizeof described);
}

size_t rollout_batch_bytes(uint32_t samples, uint32_t frames, uint32_t levels, uint32_t prefix_tokens,
                           size_t caption_bytes) {
    size_t tokens = (size_t)samples * frames * levels;
    return message_bytes(MESSAGE_HEADER_MAX,
                         message_padded(tokens * sizeof(uint16_t)) + message_padded(tokens * sizeof(float)) +
                             message_padded((size_t)samples * prefix_tokens * sizeof(uint16_t)) +
                             message_padded(samples * sizeof(uint32_t)) + message_padded(caption_bytes));
}

static status check_rollout(const rollout_batch *batch) {
    if (batch->samples == 0 || batch->frames == 0 || batch->levels == 0)
        return FAIL("a RolloutBatch has %u samples of %u frames of %u levels; each must be at least 1",
                    batch->samples, batch->frames, batch->levels);
    if ((uint64_t)batch->first_sample + batch->samples > UINT32_MAX)
        return FAIL("a RolloutBatch begins at sample %u and has %u: too many", batch->first_sample,
                    batch->samples);
    size_t ends = 0;
    for (size_t i = 0; i < batch->caption_bytes; i++)
        ends += batch->captions[i] == '\0';
    if (ends != batch->samples || batch->captions[batch->caption_bytes - 1] != '\0')
        return FAIL("a RolloutBatch of %u samples has %zu captions, or the last one does not end",
                    batch->samples, ends);
    return STATUS_OK;
}

status rollout_batch_build(const rollout_batch *batch, void *buffer, size_t capacity, size_t *bytes) {
    TRY(check_rollout(batch));
    array arrays[ROLLOUT_ARRAYS];
    layout layout;
    describe_rollout(batch, arrays);
    lay_out(&layout, arrays, ROLLOUT_ARRAYS);
    Musicrl__RolloutBatch header = MUSICRL__ROLLOUT_BATCH__INIT;
    header.step = batch->step;
    header.weight_version = batch->weight_version;
    header.seconds = batch->seconds;
    header.seed = batch->seed;
    header.first_sample = batch->first_sample;
    header.samples = batch->samples;
    header.frames = batch->frames;
    header.levels = batch->levels;
    header.prefix = batch->prefix_tokens;
    header.n_arrays = ROLLOUT_ARRAYS;
    header.arrays = layout.pointers;
    return build(MESSAGE_ROLLOUT_BATCH, &header.base, &layout, arrays, ROLLOUT_ARRAYS, buffer, capacity,
                 bytes);
}

status rollout_batch_parse(rollout_batch *out, const void *buffer, size_t bytes) {
    message_view view;
    scratch scratch;
    ProtobufCMessage *message;
    TRY(message_open(&view, buffer, bytes, MESSAGE_ROLLOUT_BATCH));
    TRY(unpack(&view, &musicrl__rollout_batch__descriptor, &scratch, &message));
    const Musicrl__RolloutBatch *header = (const Musicrl__RolloutBatch *)message;
    TRY(check_arrays(&view, header->arrays, header->n_arrays));
    *out = (rollout_batch){.step = header->step,
                           .weight_version = header->weight_version,
                           .seconds = header->seconds,
                           .seed = header->seed,
                           .first_sample = header->first_sample,
                           .samples = header->samples,
                           .frames = header->frames,
                           .levels = header->levels,
                           .prefix_tokens = header->prefix};
    // The captions' length is known from their descriptor alone.
    for (size_t i = 0; i < header->n_arrays; i++)
        if (strcmp(header->arrays[i]->name, "captions") == 0)
            out->caption_bytes = header->arrays[i]->bytes;
    array arrays[ROLLOUT_ARRAYS];
    const void *data[ROLLOUT_ARRAYS];
    describe_rollout(out, arrays);
    for (int i = 0; i < ROLLOUT_ARRAYS; i++)
        TRY(find_array(&view, header->arrays, header->n_arrays, &arrays[i], &data[i]));
    out->tokens = data[0];
    out->log_probabilities = data[1];
    out->prefix = data[2];
    out->caption_indices = data[3];
    out->captions = data[4];
    return check_rollout(out);
}

const char *rollout_batch_caption(const rollout_batch *batch, uint32_t sample) {
    const char *text = batch->captions;
    for (uint32_t i = 0; i < sample; i++)
        text += strlen(text) + 1;
    return text;
}

rollout_batch rollout_batch_slice(const rollout_batch *batch, uint32_t first, uint32_t count) {
    size_t tokens = (size_t)batch->frames * batch->levels;
    rollout_batch slice = *batch;
    slice.first_sample += first;
    slice.samples = count;
    slice.tokens += first * tokens;
    slice.log_probabilities += first * tokens;
    if (batch->prefix_tokens > 0)
        slice.prefix += (size_t)first * batch->prefix_tokens;
    slice.caption_indices += first;
    slice.captions = rollout_batch_caption(batch, first);
    slice.caption_bytes = (size_t)(rollout_batch_caption(&slice, count) - slice.captions);
    return slice;
}

static array describe_rewards(const reward_batch *batch) {
    return (array){"rewards",
                   MUSICRL__ELEMENT_TYPE__ELEMENT_F32,
                   2,
                   {batch->samples, batch->reward_count},
                   batch->rewards};
}

size_t reward_batch_bytes(uint32_t samples, uint32_t reward_count) {
    return message_bytes(MESSAGE_HEADER_MAX, message_padded((size_t)samples * reward_count * sizeof(float)));
}

static status check_rewards(const reward_batch *batch) {
    if (batch->samples == 0 || batch->reward_count == 0)
        return FAIL("a RewardBatch has %u samples of %u rewards; each must be at least 1", batch->samples,
                    batch->reward_count);
    if ((uint64_t)batch->first_sample + batch->samples > UINT32_MAX)
        return FAIL("a RewardBatch begins at sample %u and has %u: too many", batch->first_sample,
                    batch->samples);
    return STATUS_OK;
}

status reward_batch_build(const reward_batch *batch, void *buffer, size_t capacity, size_t *bytes) {
    TRY(check_rewards(batch));
    array rewards = describe_rewards(batch);
    layout layout;
    lay_out(&layout, &rewards, 1);
    Musicrl__RewardBatch header = MUSICRL__REWARD_BATCH__INIT;
    header.step = batch->step;
    header.first_sample = batch->first_sample;
    header.samples = batch->samples;
    header.rewards = batch->reward_count;
    header.seconds = batch->seconds;
    header.n_arrays = 1;
    header.arrays = layout.pointers;
    return build(MESSAGE_REWARD_BATCH, &header.base, &layout, &rewards, 1, buffer, capacity, bytes);
}

status reward_batch_parse(reward_batch *out, const void *buffer, size_t bytes) {
    message_view view;
    scratch scratch;
    ProtobufCMessage *message;
    TRY(message_open(&view, buffer, bytes, MESSAGE_REWARD_BATCH));
    TRY(unpack(&view, &musicrl__reward_batch__descriptor, &scratch, &message));
    const Musicrl__RewardBatch *header = (const Musicrl__RewardBatch *)message;
    TRY(check_arrays(&view, header->arrays, header->n_arrays));
    *out = (reward_batch){header->step,    header->seconds, header->first_sample,
                          header->samples, header->rewards, NULL};
    TRY(check_rewards(out));
    array rewards = describe_rewards(out);
    const void *data;
    TRY(find_array(&view, header->arrays, header->n_arrays, &rewards, &data));
    out->rewards = data;
    return STATUS_OK;
}

status weight_update_build(const weight_update *update, void *buffer, size_t capacity, size_t *bytes) {
    if (update->count == 0)
        return FAIL("a WeightUpdate announces no weights");
    Musicrl__WeightUpdate header = MUSICRL__WEIGHT_UPDATE__INIT;
    header.version = update->version;
    header.count = update->count;
    header.checksum = update->checksum;
    layout none = {.payload_bytes = 0};
    return build(MESSAGE_WEIGHT_UPDATE, &header.base, &none, NULL, 0, buffer, capacity, bytes);
}

status weight_update_parse(weight_update *out, const void *buffer, size_t bytes) {
    message_view view;
    scratch scratch;
    ProtobufCMessage *message;
    TRY(message_open(&view, buffer, bytes, MESSAGE_WEIGHT_UPDATE));
    TRY(unpack(&view, &musicrl__weight_update__descriptor, &scratch, &message));
    const Musicrl__WeightUpdate *header = (const Musicrl__WeightUpdate *)message;
    if (view.payload_bytes != 0)
        return FAIL("a WeightUpdate has a payload of %zu bytes, none is wanted", view.payload_bytes);
    *out = (weight_update){header->version, header->count, header->checksum};
    return STATUS_OK;
}
