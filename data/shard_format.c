#include "data/shard_internal.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const shard_schema shard_clip_schema = {
    .name = "musicrl clips",
    .version = 1,
    .folder = "corpus",
    .mend = "make some with 'musicrl corpus make' or 'musicrl corpus import'",
};

const char *const shard_text_names[SHARD_TEXTS] = {"caption", "attributes", "clip_id", "source"};
const char *const shard_text_describes[SHARD_TEXTS] = {
    "what the clip sounds like, in words",
    "what is known of the clip, a JSON object",
    "name of the clip, unique in its corpus",
    "where the clip came from",
};

size_t shard_clip_bytes(const shard_format *format) {
    size_t bytes = 2;
    if (format->kind == SHARD_AUDIO)
        return bytes * format->clip_samples;
    if (__builtin_mul_overflow(bytes, (size_t)format->frames, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)format->levels, &bytes))
        return 0;
    return bytes;
}

status shard_format_check(shard_format *f, const char *where) {
    if (f->kind != SHARD_AUDIO && f->kind != SHARD_TOKENS)
        return FAIL("%s: kind %d is neither audio nor tokens", where, (int)f->kind);
    if (f->sample_rate < 1000 || f->sample_rate > 768000)
        return FAIL("%s: sample_rate is %u, wanted 1000 to 768000 Hz", where, f->sample_rate);
    if (f->clip_samples == 0)
        return FAIL("%s: clip_samples is 0, wanted at least 1", where);
    if (f->kind == SHARD_AUDIO) {
        f->frames = f->levels = 0;
        f->frame_rate = 0;
        memset(f->codebook_size, 0, sizeof f->codebook_size);
        memset(f->codec, 0, sizeof f->codec);
        return STATUS_OK;
    }
    if (f->frames == 0)
        return FAIL("%s: frames is 0, wanted at least 1", where);
    if (!isfinite(f->frame_rate) || f->frame_rate <= 0)
        return FAIL("%s: frame_rate is %g, wanted more than 0 frames/s", where, f->frame_rate);
    if (f->levels == 0 || f->levels > SHARD_LEVELS_MAX)
        return FAIL("%s: levels is %u, wanted 1 to %d", where, f->levels, SHARD_LEVELS_MAX);
    for (uint32_t level = 0; level < f->levels; level++)
        if (f->codebook_size[level] == 0 || f->codebook_size[level] > 65536)
            return FAIL("%s: codebook_size of level %u is %u, wanted 1 to 65536", where, level,
                        f->codebook_size[level]);
    for (uint32_t level = f->levels; level < SHARD_LEVELS_MAX; level++)
        f->codebook_size[level] = 0;
    if (memchr(f->codec, 0, sizeof f->codec) == NULL)
        return FAIL("%s: codec is longer than %d bytes", where, SHARD_CODEC_MAX - 1);
    if (f->codec[0] == '\0')
        return FAIL("%s: codec is empty, wanted the identity of the codec that made the tokens", where);
    for (const char *c = f->codec; *c != '\0'; c++)
        if (!isgraph((unsigned char)*c))
            return FAIL("%s: codec holds other than printable characters", where);
    return STATUS_OK;
}

status shard_format_compare(const shard_format *a, const char *path_a, const shard_format *b,
                            const char *path_b) {
#define DIFFERS(field, conversion)                                                                           \
    if (a->field != b->field)                                                                                \
    return FAIL("%s and %s differ in " #field ": " conversion " and " conversion                             \
                "; keep one kind of shard in a folder",                                                      \
                path_a, path_b, a->field, b->field)
    if (a->kind != b->kind)
        return FAIL("%s holds %s and %s holds %s; keep one kind of shard in a folder", path_a,
                    a->kind == SHARD_AUDIO ? "audio" : "tokens", path_b,
                    b->kind == SHARD_AUDIO ? "audio" : "tokens");
    DIFFERS(sample_rate, "%u");
    DIFFERS(clip_samples, "%u");
    DIFFERS(frames, "%u");
    DIFFERS(frame_rate, "%g");
    DIFFERS(levels, "%u");
#undef DIFFERS
    for (uint32_t level = 0; level < a->levels; level++)
        if (a->codebook_size[level] != b->codebook_size[level])
            return FAIL("%s and %s differ in codebook_size of level %u: %u and %u; keep one kind of shard in "
                        "a folder",
                        path_a, path_b, level, a->codebook_size[level], b->codebook_size[level]);
    if (strcmp(a->codec, b->codec) != 0)
        return FAIL("%s and %s were made by different codecs: %s and %s; encode the corpus again", path_a,
                    path_b, a->codec, b->codec);
    return STATUS_OK;
}

status shard_texts_check(const char *const texts[SHARD_TEXTS], const char *where, size_t index) {
    for (int i = 0; i < SHARD_TEXTS; i++) {
        const char *name = shard_text_names[i];
        if (texts[i] == NULL)
            return FAIL("%s: clip %zu has no %s", where, index, name);
        if (!shard_text_is_utf8(texts[i]))
            return FAIL("%s: %s of clip %zu is not UTF-8", where, name, index);
        int may_be_empty = strcmp(name, "source") == 0;
        if (!may_be_empty && texts[i][strspn(texts[i], " \t\r\n")] == '\0')
            return FAIL("%s: %s of clip %zu is empty", where, name, index);
    }
    json_error_t error;
    json_t *object = json_loads(texts[1], JSON_REJECT_DUPLICATES, &error);
    int is_object = json_is_object(object);
    json_decref(object);
    if (!is_object)
        return FAIL("%s: attributes of clip %zu are no JSON object: %.80s", where, index, texts[1]);
    return STATUS_OK;
}

status shard_tokens_check(const shard_format *format, const uint16_t *tokens, const char *where,
                          size_t index) {
    const uint16_t *token = tokens;
    for (uint32_t frame = 0; frame < format->frames; frame++)
        for (uint32_t level = 0; level < format->levels; level++, token++)
            if (*token >= format->codebook_size[level])
                return FAIL("%s: token %u of clip %zu, frame %u, level %u is outside its codebook of %u",
                            where, *token, index, frame, level, format->codebook_size[level]);
    return STATUS_OK;
}
