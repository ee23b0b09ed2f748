#include "data/digest.h"
#include "data/shard_chain.h"
#include "data/shard_internal.h"
#include "data/shard_read.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct corpus {
    size_t shards, clips;
    shard **shard; // [shards]
    size_t *first; // [shards + 1] index in the corpus of a shard's first clip
};

static status reserve(corpus *c, size_t shards) {
    TRY(memory_allocate((void **)&c->shard, shards * sizeof(shard *), "corpus"));
    return memory_allocate((void **)&c->first, (shards + 1) * sizeof *c->first, "corpus");
}

static status take_shard(corpus *c, const char *path) {
    shard *next;
    TRY(shard_open(&next, path));
    c->shard[c->shards] = next;
    c->first[c->shards + 1] = c->first[c->shards] + shard_clip_count(next);
    c->clips = c->first[++c->shards];
    if (c->shards == 1)
        return STATUS_OK;
    return shard_format_compare(shard_get_format(c->shard[0]), shard_get_path(c->shard[0]),
                                shard_get_format(next), path);
}

static status open_folder(corpus *c, const char *folder) {
    shard_name *name;
    size_t count;
    TRY(shard_chain_list(folder, &shard_clip_schema, &name, &count));
    status result;
    TRY_GOTO(result, reserve(c, count), done);
    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX];
        TRY_GOTO(result, shard_chain_path(folder, &name[i], path), done);
        TRY_GOTO(result, take_shard(c, path), done);
    }
    for (size_t i = 0; i < count; i++)
        TRY_GOTO(result,
                 shard_chain_check(folder, &shard_clip_schema, name, count, i,
                                   i == 0 ? NULL : shard_get_link(c->shard[i - 1]),
                                   shard_get_link(c->shard[i])),
                 done);
done:
    memory_free(name);
    return result;
}

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static status check_ids(const corpus *c, const char *path) {
    const char **id;
    TRY(memory_allocate((void **)&id, c->clips * sizeof *id, "clip ids"));
    status result = STATUS_OK;
    for (size_t i = 0; i < c->clips; i++) {
        shard_clip clip;
        TRY_GOTO(result, corpus_read_strings(c, i, &clip), done);
        id[i] = clip.id;
    }
    qsort(id, c->clips, sizeof *id, compare_texts);
    for (size_t i = 1; i < c->clips; i++)
        if (strcmp(id[i - 1], id[i]) == 0) {
            result = FAIL("%s: two clips have the id '%s'; ids must be unique in a corpus", path, id[i]);
            break;
        }
done:
    memory_free(id);
    return result;
}

status corpus_open_any(corpus **out, const char *path) {
    *out = NULL;
    struct stat info;
    if (stat(path, &info) != 0)
        return FAIL("cannot open corpus %s: %s; name shards that 'musicrl corpus' (audio) or 'musicrl codec "
                    "encode' (tokens, data.tokens) has made",
                    path, strerror(errno));
    corpus *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "corpus"));
    status result;
    if (S_ISDIR(info.st_mode))
        result = open_folder(c, path);
    else {
        result = reserve(c, 1);
        if (result == STATUS_OK)
            result = take_shard(c, path);
    }
    if (result == STATUS_OK)
        result = check_ids(c, path);
    if (result != STATUS_OK) {
        corpus_close(c);
        return result;
    }
    *out = c;
    return STATUS_OK;
}

status corpus_open(corpus **out, const char *path, shard_kind kind) {
    TRY(corpus_open_any(out, path));
    if (corpus_get_format(*out)->kind == kind)
        return STATUS_OK;
    corpus_close(*out);
    *out = NULL;
    if (kind == SHARD_TOKENS)
        return FAIL("%s holds audio, tokens are needed; encode it with 'musicrl codec encode'", path);
    return FAIL("%s holds tokens, audio is needed; give the corpus that they were made from", path);
}

void corpus_close(corpus *c) {
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->shards; i++)
        shard_close(c->shard[i]);
    memory_free(c->shard);
    memory_free(c->first);
    memory_free(c);
}

const shard_format *corpus_get_format(const corpus *c) {
    return shard_get_format(c->shard[0]);
}

size_t corpus_clip_count(const corpus *c) {
    return c->clips;
}

size_t corpus_shard_count(const corpus *c) {
    return c->shards;
}

// The shard that holds clip `index`, and the clip's index in it.
static status find_clip(const corpus *c, size_t index, const shard **out, size_t *within) {
    if (index >= c->clips)
        return FAIL("the corpus of %s has %zu clips, clip %zu was asked for", shard_get_path(c->shard[0]),
                    c->clips, index);
    size_t low = 0, high = c->shards; // first[low] <= index < first[high]
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (c->first[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    *out = c->shard[low];
    *within = index - c->first[low];
    return STATUS_OK;
}

status corpus_read_strings(const corpus *c, size_t index, shard_clip *out) {
    const shard *holder = NULL;
    size_t within = 0;
    TRY(find_clip(c, index, &holder, &within));
    return shard_read_strings(holder, within, out);
}

status corpus_read_audio(const corpus *c, size_t index, int16_t *out) {
    const shard *holder = NULL;
    size_t within = 0;
    TRY(find_clip(c, index, &holder, &within));
    return shard_read_audio(holder, within, 1, out);
}

status corpus_read_tokens(const corpus *c, size_t index, uint16_t *out) {
    const shard *holder = NULL;
    size_t within = 0;
    TRY(find_clip(c, index, &holder, &within));
    return shard_read_tokens(holder, within, 1, out);
}

int caption_is_held_out(const char *caption) {
    return digest_text(caption) % 10 == 0;
}

status corpus_split(const corpus *c, int held_out, size_t *out, size_t *count) {
    *count = 0;
    for (size_t i = 0; i < c->clips; i++) {
        shard_clip clip;
        TRY(corpus_read_strings(c, i, &clip));
        if (caption_is_held_out(clip.caption) == (held_out != 0))
            out[(*count)++] = i;
    }
    return STATUS_OK;
}

void corpus_shuffle(size_t *indices, size_t count, uint64_t seed, uint64_t epoch) {
    enum { PURPOSE = 0x53485546 }; // keeps these draws apart from other uses of the seed
    for (uint64_t i = count; i > 1; i--) {
        philox_block block = philox(seed, (uint32_t)i, (uint32_t)(i >> 32), (uint32_t)epoch,
                                    (uint32_t)(epoch >> 32) ^ PURPOSE);
        uint64_t random = (uint64_t)block.word[1] << 32 | block.word[0];
        uint64_t chosen = (uint64_t)(((unsigned __int128)random * i) >> 64);
        size_t kept = indices[i - 1];
        indices[i - 1] = indices[chosen];
        indices[chosen] = kept;
    }
}
