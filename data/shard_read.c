#include "data/shard_read.h"

#include "data/shard_file.h"
#include "data/shard_internal.h"
#include "kernels/memory.h"

#include <string.h>

struct shard {
    shard_file file;
    shard_format format;
    size_t clips, clip_bytes;
    const uint8_t *payload;  // [clips, clip_bytes] within the mapped file
    byte_pool texts;         // all strings
    size_t *at[SHARD_TEXTS]; // [clips] each, offsets into texts
};

static status read_attributes(shard *s) {
    shard_format *f = &s->format;
    const shard_file *file = &s->file;
    char kind[16];
    TRY(shard_file_text(file, "kind", kind, sizeof kind));
    if (strcmp(kind, "audio") != 0 && strcmp(kind, "tokens") != 0)
        return FAIL("%s: attribute 'kind' is '%s', wanted 'audio' or 'tokens'", file->path, kind);
    f->kind = strcmp(kind, "audio") == 0 ? SHARD_AUDIO : SHARD_TOKENS;
    TRY(shard_file_integers(file, "sample_rate", 1, &f->sample_rate));
    TRY(shard_file_integers(file, "clip_samples", 1, &f->clip_samples));
    if (f->kind == SHARD_TOKENS) {
        TRY(shard_file_text(file, "codec", f->codec, sizeof f->codec));
        TRY(shard_file_real(file, "frame_rate", &f->frame_rate));
        TRY(shard_file_integers(file, "frames", 1, &f->frames));
        TRY(shard_file_integers(file, "levels", 1, &f->levels));
        if (f->levels >= 1 && f->levels <= SHARD_LEVELS_MAX) // otherwise the check below names it
            TRY(shard_file_integers(file, "codebook_size", f->levels, f->codebook_size));
    }
    return shard_format_check(f, file->path);
}

// Finds where in the file the audio or the tokens lie, so that reading them needs no library.
static status find_payload(shard *s) {
    const shard_format *f = &s->format;
    const int tokens = f->kind == SHARD_TOKENS;
    s->clip_bytes = shard_clip_bytes(f);
    hsize_t size[3] = {s->clips, tokens ? f->frames : f->clip_samples, f->levels};
    return shard_file_column(&s->file, tokens ? "tokens" : "audio", tokens ? H5T_STD_U16LE : H5T_STD_I16LE,
                             tokens ? "16-bit unsigned little-endian" : "16-bit signed little-endian",
                             tokens ? 3 : 2, size, &s->payload);
}

static status check_clips(const shard *s) {
    uint16_t *tokens = NULL;
    status result = STATUS_OK;
    if (s->format.kind == SHARD_TOKENS)
        TRY(memory_allocate((void **)&tokens, s->clip_bytes, "tokens of a clip"));
    for (size_t clip = 0; clip < s->clips; clip++) {
        shard_clip strings;
        const char *texts[SHARD_TEXTS];
        TRY_GOTO(result, shard_read_strings(s, clip, &strings), done);
        shard_clip_texts(&strings, texts);
        TRY_GOTO(result, shard_texts_check(texts, s->file.path, clip), done);
        if (tokens != NULL) {
            TRY_GOTO(result, shard_read_tokens(s, clip, 1, tokens), done);
            TRY_GOTO(result, shard_tokens_check(&s->format, tokens, s->file.path, clip), done);
        }
    }
done:
    memory_free(tokens);
    return result;
}

static status read_file(shard *s) {
    TRY(read_attributes(s));
    for (int text = 0; text < SHARD_TEXTS; text++)
        TRY(shard_file_texts(&s->file, shard_text_names[text], &s->clips, &s->texts, &s->at[text]));
    TRY(find_payload(s));
    return check_clips(s);
}

status shard_open(shard **out, const char *path) {
    *out = NULL;
    shard *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "shard"));
    status result = shard_file_open(&s->file, path, &shard_clip_schema);
    if (result == STATUS_OK)
        result = read_file(s);
    shard_file_finish(&s->file);
    if (result != STATUS_OK)
        shard_close(s);
    else
        *out = s;
    return result;
}

void shard_close(shard *s) {
    if (s == NULL)
        return;
    shard_file_close(&s->file);
    byte_pool_release(&s->texts);
    for (int text = 0; text < SHARD_TEXTS; text++)
        memory_free(s->at[text]);
    memory_free(s);
}

const shard_format *shard_get_format(const shard *s) {
    return &s->format;
}

size_t shard_clip_count(const shard *s) {
    return s->clips;
}

const char *shard_get_path(const shard *s) {
    return s->file.path;
}

const shard_link *shard_get_link(const shard *s) {
    return &s->file.link;
}

status shard_read_strings(const shard *s, size_t index, shard_clip *out) {
    if (index >= s->clips)
        return FAIL("%s has %zu clips, clip %zu was asked for", s->file.path, s->clips, index);
    const char *text[SHARD_TEXTS];
    for (size_t i = 0; i < SHARD_TEXTS; i++)
        text[i] = s->texts.base + s->at[i][index];
    *out = (shard_clip){.caption = text[0], .attributes = text[1], .id = text[2], .source = text[3]};
    return STATUS_OK;
}

static status read_payload(const shard *s, shard_kind kind, size_t first, size_t count, void *out) {
    if (s->format.kind != kind)
        return FAIL("%s holds %s, %s asked for", s->file.path, kind == SHARD_AUDIO ? "tokens" : "audio",
                    kind == SHARD_AUDIO ? "audio was" : "tokens were");
    if (first > s->clips || count > s->clips - first)
        return FAIL("%s has %zu clips, %zu from clip %zu on were asked for", s->file.path, s->clips, count,
                    first);
    memcpy(out, s->payload + first * s->clip_bytes, count * s->clip_bytes); // both are little-endian
    return STATUS_OK;
}

status shard_read_audio(const shard *s, size_t first, size_t count, int16_t *out) {
    return read_payload(s, SHARD_AUDIO, first, count, out);
}

status shard_read_tokens(const shard *s, size_t first, size_t count, uint16_t *out) {
    return read_payload(s, SHARD_TOKENS, first, count, out);
}
