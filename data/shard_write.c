#include "data/byte_pool.h"
#include "data/shard_internal.h"
#include "data/shard_series.h"
#include "kernels/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shard_writer {
    shard_series *series;
    char *folder; // for messages
    shard_format format;
    size_t clips_per_shard, clip_bytes;
    size_t pending;            // clips not yet in a shard
    unsigned char *payload;    // [clips_per_shard, clip_bytes]
    byte_pool texts;           // of the pending clips
    size_t (*at)[SHARD_TEXTS]; // [clips_per_shard] offsets into texts
    const char **column;       // [clips_per_shard] one column of texts
    byte_pool ids, id_at;      // of all clips: text, and offsets as size_t
};

status shard_writer_create(shard_writer **out, const char *folder, const char *prefix,
                           const shard_format *format, size_t clips_per_shard, int replace) {
    *out = NULL;
    shard_writer *w;
    TRY(memory_allocate((void **)&w, sizeof *w, "shard writer"));
    w->format = *format;
    w->clips_per_shard = clips_per_shard;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&w->folder, strlen(folder) + 1, "shard writer"), failed);
    memcpy(w->folder, folder, strlen(folder) + 1);
    TRY_GOTO(result, shard_format_check(&w->format, folder), failed);
    w->clip_bytes = shard_clip_bytes(&w->format);
    size_t bytes;
    if (clips_per_shard == 0 || w->clip_bytes == 0 ||
        __builtin_mul_overflow(w->clip_bytes, clips_per_shard, &bytes) || bytes > SIZE_MAX / 4) {
        result = FAIL("%s: shards of %zu clips cannot be written; choose 1 or more clips a shard that "
                      "together fit into memory",
                      folder, clips_per_shard);
        goto failed;
    }
    TRY_GOTO(result, memory_allocate((void **)&w->payload, bytes, "clips of a shard"), failed);
    TRY_GOTO(result, memory_allocate((void **)&w->at, clips_per_shard * sizeof *w->at, "texts of a shard"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&w->column, clips_per_shard * sizeof *w->column, "texts of a shard"),
             failed);
    TRY_GOTO(result, shard_series_create(&w->series, folder, prefix, &shard_clip_schema, replace), failed);
    *out = w;
    return STATUS_OK;
failed:
    shard_writer_abort(w);
    return result;
}

void shard_writer_abort(shard_writer *w) {
    if (w == NULL)
        return;
    shard_series_abort(w->series);
    memory_free(w->folder);
    memory_free(w->payload);
    memory_free(w->at);
    memory_free(w->column);
    byte_pool_release(&w->texts);
    byte_pool_release(&w->ids);
    byte_pool_release(&w->id_at);
    memory_free(w);
}

static int attributes_write(const shard_image *image, const shard_format *f) {
    int tokens = f->kind == SHARD_TOKENS;
    if (shard_image_text(image, "kind", tokens ? "tokens" : "audio") < 0 ||
        shard_image_integer(image, "sample_rate", f->sample_rate) < 0 ||
        shard_image_integer(image, "clip_samples", f->clip_samples) < 0)
        return -1;
    if (!tokens)
        return 0;
    return shard_image_text(image, "codec", f->codec) < 0 ||
                   shard_image_real(image, "frame_rate", f->frame_rate) < 0 ||
                   shard_image_integer(image, "frames", f->frames) < 0 ||
                   shard_image_integer(image, "levels", f->levels) < 0 ||
                   shard_image_integers(image, "codebook_size", f->levels, f->codebook_size) < 0
               ? -1
               : 0;
}

static int fill_shard(const shard_image *image, void *context) {
    const shard_writer *w = context;
    const shard_format *f = &w->format;
    hsize_t size[3] = {w->pending, f->clip_samples, 0};
    if (attributes_write(image, f) < 0)
        return -1;
    for (int text = 0; text < SHARD_TEXTS; text++) {
        for (size_t clip = 0; clip < w->pending; clip++)
            w->column[clip] = w->texts.base + w->at[clip][text];
        if (shard_image_dataset(image, shard_text_names[text], shard_text_describes[text], image->text_type,
                                image->text_type, 1, size, w->column) < 0)
            return -1;
    }
    if (f->kind == SHARD_AUDIO)
        return shard_image_dataset(image, "audio", "[clip, sample] mono PCM", H5T_STD_I16LE, H5T_NATIVE_INT16,
                                   2, size, w->payload);
    size[1] = f->frames;
    size[2] = f->levels;
    return shard_image_dataset(image, "tokens",
                               "[clip, frame, level] level 0 is semantic, then coarse to fine", H5T_STD_U16LE,
                               H5T_NATIVE_UINT16, 3, size, w->payload);
}

// Writes the pending clips as one shard.
static status seal_pending(shard_writer *w, int last) {
    const size_t bytes = w->pending * (w->clip_bytes + 512) + 2 * w->texts.used + (1 << 20);
    TRY(shard_series_seal(w->series, bytes, fill_shard, w, last));
    w->pending = 0;
    w->texts.used = 0;
    return STATUS_OK;
}

status shard_writer_add(shard_writer *w, const shard_clip *clip) {
    const char *texts[SHARD_TEXTS];
    shard_clip_texts(clip, texts);
    size_t index = shard_series_count(w->series) * w->clips_per_shard + w->pending;
    TRY(shard_texts_check(texts, w->folder, index));
    const void *payload = w->format.kind == SHARD_AUDIO ? (const void *)clip->audio : clip->tokens;
    if (payload == NULL)
        return FAIL("%s: clip %zu has no %s", w->folder, index,
                    w->format.kind == SHARD_AUDIO ? "audio" : "tokens");
    if (w->format.kind == SHARD_TOKENS)
        TRY(shard_tokens_check(&w->format, clip->tokens, w->folder, index));
    if (w->pending == w->clips_per_shard)
        TRY(seal_pending(w, 0));
    size_t text_mark = w->texts.used, id_mark = w->ids.used;
    status result = STATUS_OK;
    for (int i = 0; i < SHARD_TEXTS; i++) {
        w->at[w->pending][i] = w->texts.used;
        TRY_GOTO(result, byte_pool_append(&w->texts, texts[i], strlen(texts[i]) + 1, "texts of a shard"),
                 failed);
    }
    TRY_GOTO(result, byte_pool_append(&w->ids, clip->id, strlen(clip->id) + 1, "clip ids"), failed);
    TRY_GOTO(result, byte_pool_append(&w->id_at, &id_mark, sizeof id_mark, "clip ids"), failed);
    memcpy(w->payload + w->pending * w->clip_bytes, payload, w->clip_bytes);
    w->pending++;
    return STATUS_OK;
failed:
    w->texts.used = text_mark;
    w->ids.used = id_mark;
    return result;
}

static int compare_ids(const void *a, const void *b, void *base) {
    size_t at_a, at_b;
    memcpy(&at_a, a, sizeof at_a);
    memcpy(&at_b, b, sizeof at_b);
    return strcmp((const char *)base + at_a, (const char *)base + at_b);
}

static status refuse_equal_ids(shard_writer *w) {
    size_t count = w->id_at.used / sizeof(size_t);
    size_t *at = (size_t *)(void *)w->id_at.base;
    qsort_r(at, count, sizeof *at, compare_ids, w->ids.base);
    for (size_t i = 1; i < count; i++)
        if (strcmp(w->ids.base + at[i - 1], w->ids.base + at[i]) == 0)
            return FAIL("%s: two clips have the id '%s'; ids must be unique in a corpus", w->folder,
                        w->ids.base + at[i]);
    return STATUS_OK;
}

status shard_writer_finish(shard_writer *w) {
    status result;
    if (w->pending == 0) {
        result = FAIL("%s: no clip was added, so there is nothing to publish", w->folder);
        goto done;
    }
    TRY_GOTO(result, refuse_equal_ids(w), done);
    TRY_GOTO(result, seal_pending(w, 1), done);
    shard_series *series = w->series;
    w->series = NULL; // publishing frees it, whatever happens
    result = shard_series_publish(series);
done:
    shard_writer_abort(w);
    return result;
}
