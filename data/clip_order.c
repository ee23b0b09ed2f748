#include "data/clip_order.h"

#include "data/digest.h"
#include "kernels/memory.h"

#include <stdlib.h>
#include <string.h>

struct clip_order {
    size_t count, captions;
    uint64_t seed, epoch;
    bool shuffled_valid;
    size_t *sorted;           // [count] in corpus order
    size_t *plain, *shuffled; // [count]
};

typedef struct named_clip {
    digest caption;
    size_t place; // in corpus order
} named_clip;

static int compare_clips(const void *a, const void *b) {
    const named_clip *left = a, *right = b;
    const int order = memcmp(&left->caption, &right->caption, sizeof left->caption);
    return order != 0 ? order : left->place < right->place ? -1 : left->place > right->place;
}

// Fills plain and captions from `sorted`.
static status find_captions(clip_order *o, const corpus *corpus) {
    named_clip *clips = NULL;
    bool *repeats = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&clips, sizeof *clips * o->count, "captions in order"), done);
    TRY_GOTO(result, memory_allocate((void **)&repeats, o->count, "captions in order"), done);
    for (size_t i = 0; i < o->count; i++) {
        shard_clip clip;
        TRY_GOTO(result, corpus_read_strings(corpus, o->sorted[i], &clip), done);
        clips[i] = (named_clip){digest_bytes(clip.caption, strlen(clip.caption)), i};
    }
    qsort(clips, o->count, sizeof *clips, compare_clips);
    for (size_t i = 1; i < o->count; i++)
        repeats[clips[i].place] = memcmp(&clips[i].caption, &clips[i - 1].caption, sizeof(digest)) == 0;
    for (size_t i = 0; i < o->count; i++)
        if (!repeats[i])
            o->plain[o->captions++] = o->sorted[i];
    for (size_t i = 0, next = o->captions; i < o->count; i++)
        if (repeats[i])
            o->plain[next++] = o->sorted[i];
done:
    memory_free(clips);
    memory_free(repeats);
    return result;
}

status clip_order_create(clip_order **out, const corpus *corpus, bool held_out, uint64_t seed,
                         const char *what) {
    *out = NULL;
    clip_order *o;
    TRY(memory_allocate((void **)&o, sizeof *o, "clip order"));
    o->seed = seed;
    const size_t clips = corpus_clip_count(corpus);
    status result;
    TRY_GOTO(result, memory_allocate((void **)&o->sorted, sizeof(size_t) * (clips + 1), "clip order"),
             failed);
    TRY_GOTO(result, corpus_split(corpus, held_out, o->sorted, &o->count), failed);
    if (o->count == 0) {
        result =
            FAIL("%s has %zu clips and none of them falls to the %s side (one caption in ten is held out); "
                 "add more captions",
                 what, clips, held_out ? "held-out" : "training");
        goto failed;
    }
    TRY_GOTO(result, memory_allocate((void **)&o->plain, sizeof(size_t) * o->count, "clip order"), failed);
    TRY_GOTO(result, find_captions(o, corpus), failed);
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
    memory_free(o->sorted);
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
        memcpy(o->shuffled, o->sorted, sizeof(size_t) * o->count);
        corpus_shuffle(o->shuffled, o->count, o->seed, epoch);
        o->epoch = epoch;
        o->shuffled_valid = true;
    }
    return o->shuffled[position % o->count];
}

size_t clip_order_captions(const clip_order *o) {
    return o->captions;
}

size_t clip_order_plain(const clip_order *o, size_t i) {
    return o->plain[i];
}
