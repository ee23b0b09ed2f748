#include "data/clip_order.h"

#include "kernels/memory.h"

#include <string.h>

struct clip_order {
    size_t count;
    uint64_t seed, epoch;
    bool shuffled_valid;
    size_t *plain, *shuffled; // [count]
};

status clip_order_create(clip_order **out, const corpus *corpus, bool held_out, uint64_t seed,
                         const char *what) {
    *out = NULL;
    clip_order *o;
    TRY(memory_allocate((void **)&o, sizeof *o, "clip order"));
    o->seed = seed;
    const size_t clips = corpus_clip_count(corpus);
    status result;
    TRY_GOTO(result, memory_allocate((void **)&o->plain, sizeof(size_t) * (clips + 1), "clip order"), failed);
    TRY_GOTO(result, corpus_split(corpus, held_out, o->plain, &o->count), failed);
    if (o->count == 0) {
        result =
            FAIL("%s has %zu clips and none of them falls to the %s side (one caption in ten is held out); "
                 "add more captions",
                 what, clips, held_out ? "held-out" : "training");
        goto failed;
    }
    TRY_GOTO(result, memory_allocate((void **)&o->shuffled, sizeof(size_t) * o->count, "clip order"), failed);
    *out = o;
    return STATUS_OK;
failed:
    clip_order_destroy(o);
    return result;
}

void clip_order_destroy(clip_order *o) {
    if (o == NULL)
        return;
    memory_free(o->plain);
    memory_free(o->shuffled);
    memory_free(o);
}

size_t clip_order_count(const clip_order *o) {
    return o->count;
}

size_t clip_order_at(clip_order *o, uint64_t position) {
    const uint64_t epoch = position / o->count;
    if (!o->shuffled_valid || o->epoch != epoch) {
        memcpy(o->shuffled, o->plain, sizeof(size_t) * o->count);
        corpus_shuffle(o->shuffled, o->count, o->seed, epoch);
        o->epoch = epoch;
        o->shuffled_valid = true;
    }
    return o->shuffled[position % o->count];
}

size_t clip_order_plain(const clip_order *o, size_t i) {
    return o->plain[i];
}
