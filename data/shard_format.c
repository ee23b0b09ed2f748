#include "data/shard_internal.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const shard_text_names[SHARD_TEXTS] = {"caption", "attributes", "clip_id", "source"};
const char *const shard_text_describes[SHARD_TEXTS] = {
    "what the clip sounds like, in words",
    "what is known of the clip, a JSON object",
    "name of the clip, unique in its corpus",
    "where the clip came from",
};

// Byte positions in the user block. Numbers are little-endian. The digest covers the whole file with its own
// sixteen bytes taken as zero.
enum { AT_MAGIC = 0, AT_SCHEMA = 16, AT_VERSION = 48, AT_LENGTH = 56, AT_DIGEST = 64, AT_NOTE = 96 };

// A file that went through a text conversion or lost its high bits no longer starts like this.
static const uint8_t magic[16] = "\x89musicrl shard\r\n";
static const uint8_t hdf5_magic[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};

static void put(uint8_t *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

digest shard_block_make(uint8_t block[SHARD_BLOCK_BYTES], const void *body, size_t body_bytes) {
    memset(block, 0, SHARD_BLOCK_BYTES);
    memcpy(block + AT_MAGIC, magic, sizeof magic);
    memcpy(block + AT_SCHEMA, SHARD_SCHEMA, sizeof SHARD_SCHEMA);
    put(block + AT_VERSION, SHARD_SCHEMA_VERSION, 4);
    put(block + AT_LENGTH, SHARD_BLOCK_BYTES + (uint64_t)body_bytes, 8);
    snprintf((char *)block + AT_NOTE, SHARD_BLOCK_BYTES - AT_NOTE,
             "\nAn HDF5 file behind a user block of %d bytes: h5dump and h5py open it as it is.\n",
             SHARD_BLOCK_BYTES);
    digest all = digest_joined(block, SHARD_BLOCK_BYTES, body, body_bytes);
    memcpy(block + AT_DIGEST, all.byte, sizeof all.byte);
    return all;
}

status shard_block_verify(const uint8_t *file, size_t file_bytes, const char *path, digest *out) {
    if (file_bytes < sizeof magic || memcmp(file, magic, sizeof magic) != 0) {
        int foreign = (file_bytes >= sizeof hdf5_magic && memcmp(file, hdf5_magic, sizeof hdf5_magic) == 0) ||
                      (file_bytes >= SHARD_BLOCK_BYTES + sizeof hdf5_magic &&
                       memcmp(file + SHARD_BLOCK_BYTES, hdf5_magic, sizeof hdf5_magic) == 0);
        return FAIL("%s is not a shard: it starts with no musicrl user block%s; make shards with 'musicrl "
                    "corpus make' or 'musicrl corpus import'",
                    path, foreign ? " (an HDF5 file of another program)" : "");
    }
    if (file_bytes <= SHARD_BLOCK_BYTES)
        return FAIL("%s is truncated: %zu bytes, less than its user block of %d; copy or make it again", path,
                    file_bytes, SHARD_BLOCK_BYTES);
    char schema[33] = {0};
    memcpy(schema, file + AT_SCHEMA, 32);
    if (strcmp(schema, SHARD_SCHEMA) != 0)
        return FAIL("%s has another schema than '%s', or is damaged there; copy or make it again", path,
                    SHARD_SCHEMA);
    uint64_t version = get(file + AT_VERSION, 4), length = get(file + AT_LENGTH, 8);
    if (version != SHARD_SCHEMA_VERSION)
        return FAIL("%s has schema version %llu, this program reads %d; %s", path,
                    (unsigned long long)version, SHARD_SCHEMA_VERSION,
                    version > SHARD_SCHEMA_VERSION ? "use a newer musicrl" : "make the shard again");
    if (length != file_bytes)
        return FAIL("%s is %s: %zu bytes, its user block says %llu; copy or make it again", path,
                    length > file_bytes ? "truncated" : "longer than it was written", file_bytes,
                    (unsigned long long)length);
    uint8_t block[SHARD_BLOCK_BYTES];
    memcpy(block, file, sizeof block);
    memset(block + AT_DIGEST, 0, sizeof out->byte);
    digest found = digest_joined(block, sizeof block, file + SHARD_BLOCK_BYTES, file_bytes - sizeof block);
    memcpy(out->byte, file + AT_DIGEST, sizeof out->byte);
    if (!digest_equal(&found, out)) {
        char found_hex[DIGEST_HEX], wanted_hex[DIGEST_HEX];
        digest_to_hex(&found, found_hex);
        digest_to_hex(out, wanted_hex);
        return FAIL("%s is damaged: digest %s, its user block says %s; copy or make it again", path,
                    found_hex, wanted_hex);
    }
    return STATUS_OK;
}

int shard_name_parse(const char *name, char prefix[SHARD_PREFIX_MAX], uint32_t *index) {
    enum { TAIL = 9 }; // "-00000.h5"
    size_t length = strlen(name);
    if (length <= TAIL || length - TAIL >= SHARD_PREFIX_MAX)
        return 0;
    const char *tail = name + length - TAIL;
    if (tail[0] != '-' || strcmp(tail + 6, ".h5") != 0)
        return 0;
    *index = 0;
    for (int i = 1; i <= 5; i++) {
        if (!isdigit((unsigned char)tail[i]))
            return 0;
        *index = *index * 10 + (uint32_t)(tail[i] - '0');
    }
    memcpy(prefix, name, length - TAIL);
    prefix[length - TAIL] = '\0';
    return 1;
}

static int text_is_utf8(const char *text) {
    const uint8_t *s = (const uint8_t *)text;
    while (*s != 0) {
        uint32_t code;
        int more;
        if (*s < 0x80) {
            code = *s;
            more = 0;
        } else if (*s >= 0xC2 && *s < 0xE0) {
            code = *s & 0x1Fu;
            more = 1;
        } else if (*s >= 0xE0 && *s < 0xF0) {
            code = *s & 0x0Fu;
            more = 2;
        } else if (*s >= 0xF0 && *s < 0xF5) {
            code = *s & 0x07u;
            more = 3;
        } else
            return 0;
        s++;
        for (int i = 0; i < more; i++, s++) {
            if ((*s & 0xC0) != 0x80) // also the terminator
                return 0;
            code = code << 6 | (*s & 0x3Fu);
        }
        int overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
        if (overlong || (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF)
            return 0;
    }
    return 1;
}

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
        if (!text_is_utf8(texts[i]))
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
