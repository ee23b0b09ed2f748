#include "comm/gradient_sum.h"

#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "kernels/operators.h"

struct gradient_sum {
    device *device;
    size_t count;
    uint32_t slots, added;
    float *values;  // [count]
    float *partial; // [log2(slots)][stride]: row l holds a sum of 2^l slots
    size_t stride;
    mirror mirror;       // of the values
    device_group *group; // NULL: this rank alone
    size_t unit, bucket;
    size_t out; // of the last slot: values from here on are added, and on their way to the other ranks
};

static status create(gradient_sum *s) {
    const size_t levels = (size_t)__builtin_ctz(s->slots);
    TRY(device_allocate(s->device, (void **)&s->values, sizeof(float) * s->count, "gradients"));
    if (levels > 0)
        TRY(device_allocate(s->device, (void **)&s->partial, sizeof(float) * s->stride * levels,
                            "partial sums of gradient slots"));
    return STATUS_OK;
}

status gradient_sum_create(gradient_sum **out, device *device, size_t count, uint32_t slots) {
    *out = NULL;
    if (slots == 0 || (slots & (slots - 1)) != 0)
        return FAIL("a tree sum over %u slots: the number of slots must be a power of two", slots);
    gradient_sum *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "sum of gradients"));
    *s = (gradient_sum){
        .device = device, .count = count, .slots = slots, .stride = (count + 15) / 16 * 16, .out = count};
    const status result = create(s);
    if (result != STATUS_OK)
        gradient_sum_destroy(s);
    else
        *out = s;
    return result;
}

void gradient_sum_destroy(gradient_sum *s) {
    if (s == NULL)
        return;
    mirror_release(&s->mirror);
    device_free(s->device, s->values);
    device_free(s->device, s->partial);
    memory_free(s);
}

float *gradient_sum_values(gradient_sum *s) {
    return s->values;
}

static bool is_direct(const gradient_sum *s) {
    return s->group != NULL && device_group_is_direct(s->group);
}

static bool next_is_last(const gradient_sum *s) {
    return s->added + 1 == s->slots;
}

bool gradient_sum_goes_out(const gradient_sum *s) {
    return is_direct(s) && next_is_last(s);
}

// Adds values [begin, end) of the next slot.
static void add(gradient_sum *s, size_t begin, size_t end) {
    if (begin == end)
        return;
    const int complete = __builtin_ctz(s->added + 1); // subtrees that end here
    op_add_slot(s->device, end - begin, complete, !next_is_last(s), s->stride,
                s->partial == NULL ? NULL : s->partial + begin, s->values + begin);
}

// Sends the sums of values [begin, s->out).
static status send(gradient_sum *s, size_t begin) {
    const size_t end = s->out;
    s->out = begin;
    if (begin == end)
        return STATUS_OK;
    return s->unit == 0 ? device_group_sum(s->group, s->values + begin, end - begin)
                        : device_group_sum_parts(s->group, s->values, s->count, s->unit, begin, end);
}

// NCCL connects its members, and takes memory for it, when a way of sending that fits the size is first used:
// better now than in the first step. Zeros stay zeros.
static status warm_up(gradient_sum *s) {
    s->out = s->count;
    TRY(send(s, s->bucket < s->count ? s->count - (s->bucket > 0 ? s->bucket : 1) : 0));
    s->out = s->count;
    return device_group_wait(s->group);
}

status gradient_sum_among(gradient_sum *s, device_group *group, size_t unit, size_t bucket) {
    s->group = group;
    s->unit = unit;
    s->bucket = bucket;
    if (is_direct(s))
        return warm_up(s);
    if (group_size(device_group_ranks(group)) == 1)
        return STATUS_OK;
    mirror_release(&s->mirror);
    return mirror_create(&s->mirror, s->device, s->values, sizeof(float) * s->count, "gradients");
}

status gradient_sum_final(gradient_sum *s, size_t from) {
    if (s->out - from < s->bucket && from > 0)
        return STATUS_OK;
    add(s, from, s->out);
    return send(s, from);
}

void gradient_sum_add(gradient_sum *s) {
    add(s, 0, s->out);
    s->added = next_is_last(s) ? 0 : s->added + 1;
}

static status share_through_host(gradient_sum *s) {
    group *ranks = device_group_ranks(s->group);
    if (group_size(ranks) == 1)
        return STATUS_OK;
    TRY(mirror_fetch(&s->mirror));
    TRY(s->unit == 0 ? group_all_reduce_tree(ranks, s->mirror.host, s->count)
                     : group_reduce_scatter_tree(ranks, s->mirror.host, s->count, s->unit));
    return mirror_store(&s->mirror);
}

status gradient_sum_share(gradient_sum *s) {
    if (s->group == NULL)
        return STATUS_OK;
    if (!is_direct(s))
        return share_through_host(s);
    TRY(send(s, 0));
    s->out = s->count;
    return device_group_wait(s->group);
}
