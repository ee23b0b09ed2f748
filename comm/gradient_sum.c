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
    mirror mirror; // of the values
};

static status create(gradient_sum *s) {
    const size_t levels = (size_t)__builtin_ctz(s->slots);
    TRY(device_allocate(s->device, (void **)&s->values, sizeof(float) * s->count, "gradients"));
    if (levels > 0)
        TRY(device_allocate(s->device, (void **)&s->partial, sizeof(float) * s->stride * levels,
                            "partial sums of gradient slots"));
    return mirror_create(&s->mirror, s->device, s->values, sizeof(float) * s->count, "gradients");
}

status gradient_sum_create(gradient_sum **out, device *device, size_t count, uint32_t slots) {
    *out = NULL;
    if (slots == 0 || (slots & (slots - 1)) != 0)
        return FAIL("a tree sum over %u slots: the number of slots must be a power of two", slots);
    gradient_sum *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "sum of gradients"));
    *s = (gradient_sum){.device = device, .count = count, .slots = slots, .stride = (count + 15) / 16 * 16};
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

void gradient_sum_add(gradient_sum *s) {
    const int complete = __builtin_ctz(s->added + 1); // subtrees that end here
    const bool last = s->added + 1 == s->slots;
    op_add_slot(s->device, s->count, complete, !last, s->stride, s->partial, s->values);
    s->added = last ? 0 : s->added + 1;
}

status gradient_sum_share(gradient_sum *s, group *group) {
    if (group_size(group) == 1)
        return STATUS_OK;
    TRY(mirror_fetch(&s->mirror));
    TRY(group_all_reduce_tree(group, s->mirror.host, s->count));
    return mirror_store(&s->mirror);
}

status gradient_sum_share_part(gradient_sum *s, group *group, size_t unit) {
    if (group_size(group) == 1)
        return STATUS_OK;
    TRY(mirror_fetch(&s->mirror));
    TRY(group_reduce_scatter_tree(group, s->mirror.host, s->count, unit));
    return mirror_store(&s->mirror);
}
