#include "data/shard_read.h"
#include "data/shard_internal.h"
#include "kernels/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct shard {
    char path[PATH_MAX];
    shard_format format;
    shard_link link;
    size_t clips, clip_bytes;
    const uint8_t *file; // [file_bytes] the whole file, mapped
    size_t file_bytes;
    const uint8_t *payload; // [clips, clip_bytes] within `file`
    char *texts;            // all strings
    size_t *at;             // [SHARD_TEXTS, clips] offsets into texts
};

// Maps the file without keeping a descriptor. It is immutable once published, so the mapping stays valid.
static status map_file(shard *s) {
    int file = open(s->path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return FAIL("cannot open shard %s: %s", s->path, strerror(errno));
    struct stat info;
    status result = STATUS_OK;
    if (fstat(file, &info) != 0)
        result = FAIL("cannot look at shard %s: %s", s->path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        result = FAIL("%s is not a shard: it is no regular file", s->path);
    else if (info.st_size == 0)
        result = FAIL("%s is not a shard: it is empty (0 bytes)", s->path);
    else {
        void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        if (map == MAP_FAILED)
            result = FAIL("cannot map shard %s: %s", s->path, strerror(errno));
        else {
            s->file = map;
            s->file_bytes = (size_t)info.st_size;
        }
    }
    close(file);
    return result;
}

// ---- attributes -----------------------------------------------------------------------------------------

// Opens a root attribute and checks that it has `count` elements of the class.
static status attribute_open(hid_t file, const char *path, const char *name, H5T_class_t class, size_t count,
                             hid_t *out) {
    *out = -1;
    if (H5Aexists(file, name) <= 0)
        return FAIL("%s: attribute '%s' is missing", path, name);
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    int right_class = H5Tget_class(type) == class;
    if (class == H5T_STRING && right_class)
        right_class = H5Tis_variable_str(type) > 0;
    hssize_t found = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    H5Tclose(type);
    if (attribute >= 0 && right_class && found == (hssize_t)count) {
        *out = attribute;
        return STATUS_OK;
    }
    H5Aclose(attribute);
    if (!right_class)
        return FAIL("%s: attribute '%s' is not %s", path, name,
                    class == H5T_STRING    ? "a variable-length string"
                    : class == H5T_INTEGER ? "an integer"
                                           : "a floating-point number");
    return FAIL("%s: attribute '%s' has %lld values, wanted %zu", path, name, (long long)found, count);
}

static status read_integers(hid_t file, const char *path, const char *name, size_t count, uint32_t *out) {
    hid_t attribute;
    int64_t value[SHARD_LEVELS_MAX] = {0};
    TRY(attribute_open(file, path, name, H5T_INTEGER, count, &attribute));
    herr_t read = H5Aread(attribute, H5T_NATIVE_INT64, value);
    H5Aclose(attribute);
    if (read < 0)
        return FAIL("%s: attribute '%s' cannot be read", path, name);
    for (size_t i = 0; i < count; i++) {
        if (value[i] < 0 || value[i] > UINT32_MAX)
            return FAIL("%s: attribute '%s' is %lld, wanted 0 to %u", path, name, (long long)value[i],
                        UINT32_MAX);
        out[i] = (uint32_t)value[i];
    }
    return STATUS_OK;
}

static status read_real(hid_t file, const char *path, const char *name, double *out) {
    hid_t attribute;
    TRY(attribute_open(file, path, name, H5T_FLOAT, 1, &attribute));
    herr_t read = H5Aread(attribute, H5T_NATIVE_DOUBLE, out);
    H5Aclose(attribute);
    return read < 0 ? FAIL("%s: attribute '%s' cannot be read", path, name) : STATUS_OK;
}

static status read_text(hid_t file, const char *path, const char *name, char *out, size_t capacity) {
    hid_t attribute;
    TRY(attribute_open(file, path, name, H5T_STRING, 1, &attribute));
    hid_t type = H5Aget_type(attribute);
    char *text = NULL;
    herr_t read = H5Aread(attribute, type, &text);
    H5Tclose(type);
    H5Aclose(attribute);
    status result = STATUS_OK;
    if (read < 0 || text == NULL)
        result = FAIL("%s: attribute '%s' cannot be read", path, name);
    else if (strlen(text) >= capacity)
        result = FAIL("%s: attribute '%s' has %zu characters, wanted at most %zu", path, name, strlen(text),
                      capacity - 1);
    else
        snprintf(out, capacity, "%s", text);
    H5free_memory(text);
    return result;
}

static status read_attributes(shard *s, hid_t file) {
    shard_format *f = &s->format;
    char schema[64], kind[16];
    uint32_t version;
    TRY(read_text(file, s->path, "schema", schema, sizeof schema));
    TRY(read_integers(file, s->path, "schema_version", 1, &version));
    if (strcmp(schema, SHARD_SCHEMA) != 0 || version != SHARD_SCHEMA_VERSION)
        return FAIL("%s: attributes say schema '%s' version %u, the user block '%s' version %d", s->path,
                    schema, version, SHARD_SCHEMA, SHARD_SCHEMA_VERSION);
    TRY(read_text(file, s->path, "kind", kind, sizeof kind));
    if (strcmp(kind, "audio") != 0 && strcmp(kind, "tokens") != 0)
        return FAIL("%s: attribute 'kind' is '%s', wanted 'audio' or 'tokens'", s->path, kind);
    f->kind = strcmp(kind, "audio") == 0 ? SHARD_AUDIO : SHARD_TOKENS;
    TRY(read_integers(file, s->path, "sample_rate", 1, &f->sample_rate));
    TRY(read_integers(file, s->path, "clip_samples", 1, &f->clip_samples));
    TRY(read_integers(file, s->path, "shard_index", 1, &s->link.index));
    TRY(read_text(file, s->path, "previous_shard", s->link.previous, sizeof s->link.previous));
    TRY(read_integers(file, s->path, "last_shard", 1, &s->link.last));
    if ((s->link.index == 0) != (s->link.previous[0] == '\0'))
        return FAIL("%s: attribute 'previous_shard' is '%s' in shard %u; only the first has none", s->path,
                    s->link.previous, s->link.index);
    if (f->kind == SHARD_TOKENS) {
        TRY(read_text(file, s->path, "codec", f->codec, sizeof f->codec));
        TRY(read_real(file, s->path, "frame_rate", &f->frame_rate));
        TRY(read_integers(file, s->path, "frames", 1, &f->frames));
        TRY(read_integers(file, s->path, "levels", 1, &f->levels));
        if (f->levels >= 1 && f->levels <= SHARD_LEVELS_MAX) // otherwise the check below names it
            TRY(read_integers(file, s->path, "codebook_size", f->levels, f->codebook_size));
    }
    return shard_format_check(f, s->path);
}

// ---- datasets -------------------------------------------------------------------------------------------

// Opens a dataset and checks its rank and sizes; size[0] == 0 stands for any number of clips and is filled
// in.
static status dataset_open(hid_t file, const char *path, const char *name, int rank, hsize_t *size,
                           hid_t *out) {
    *out = -1;
    if (H5Lexists(file, name, H5P_DEFAULT) <= 0)
        return FAIL("%s: dataset '%s' is missing", path, name);
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0)
        return FAIL("%s: '%s' is no dataset", path, name);
    hid_t space = H5Dget_space(dataset);
    int found_rank = H5Sget_simple_extent_ndims(space);
    hsize_t found[H5S_MAX_RANK] = {0};
    if (found_rank == rank)
        H5Sget_simple_extent_dims(space, found, NULL);
    H5Sclose(space);
    status result = STATUS_OK;
    if (found_rank != rank)
        result = FAIL("%s: dataset '%s' has rank %d, wanted %d", path, name, found_rank, rank);
    if (size[0] == 0)
        size[0] = found[0];
    for (int axis = 0; result == STATUS_OK && axis < rank; axis++)
        if (found[axis] != size[axis] || found[axis] == 0)
            result = FAIL("%s: dataset '%s' has size %llu on axis %d, wanted %llu", path, name,
                          (unsigned long long)found[axis], axis,
                          (unsigned long long)(size[axis] == 0 ? 1 : size[axis]));
    if (result == STATUS_OK)
        *out = dataset;
    else
        H5Dclose(dataset);
    return result;
}

// Copies one column of strings behind those already in s->texts.
static status copy_column(shard *s, int text, char **column, size_t *used, size_t *capacity) {
    for (size_t clip = 0; clip < s->clips; clip++) {
        if (column[clip] == NULL)
            return FAIL("%s: clip %zu has no %s", s->path, clip, shard_text_names[text]);
        size_t bytes = strlen(column[clip]) + 1;
        if (*used + bytes > *capacity) {
            size_t larger = *capacity * 2 + bytes + 65536;
            char *texts;
            TRY(memory_allocate((void **)&texts, larger, "texts of a shard"));
            if (*used > 0)
                memcpy(texts, s->texts, *used);
            memory_free(s->texts);
            s->texts = texts;
            *capacity = larger;
        }
        s->at[(size_t)text * s->clips + clip] = *used;
        memcpy(s->texts + *used, column[clip], bytes);
        *used += bytes;
    }
    return STATUS_OK;
}

static status read_column(shard *s, hid_t file, int text, size_t *used, size_t *capacity) {
    const char *name = shard_text_names[text];
    hsize_t size[1] = {s->clips};
    hid_t dataset;
    TRY(dataset_open(file, s->path, name, 1, size, &dataset));
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    char **column = NULL;
    status result = STATUS_OK;
    if (s->clips == 0) {
        s->clips = size[0]; // the first column says how many clips there are
        TRY_GOTO(result, memory_allocate((void **)&s->at, SHARD_TEXTS * s->clips * sizeof *s->at, "texts"),
                 done);
    }
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) <= 0) {
        result = FAIL("%s: dataset '%s' does not hold variable-length strings", s->path, name);
        goto done;
    }
    TRY_GOTO(result, memory_allocate((void **)&column, s->clips * sizeof *column, "texts of a shard"), done);
    if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, column) < 0)
        result = FAIL("%s: dataset '%s' cannot be read", s->path, name);
    else
        result = copy_column(s, text, column, used, capacity);
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, column);
done:
    memory_free(column);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
    return result;
}

// Finds where in the file the audio or the tokens lie, so that reading them needs no library.
static status find_payload(shard *s, hid_t file) {
    const shard_format *f = &s->format;
    int tokens = f->kind == SHARD_TOKENS;
    const char *name = tokens ? "tokens" : "audio";
    hsize_t size[3] = {s->clips, tokens ? f->frames : f->clip_samples, f->levels};
    hid_t dataset;
    TRY(dataset_open(file, s->path, name, tokens ? 3 : 2, size, &dataset));
    hid_t type = H5Dget_type(dataset), create = H5Dget_create_plist(dataset);
    int right_type = H5Tequal(type, tokens ? H5T_STD_U16LE : H5T_STD_I16LE) > 0;
    int contiguous = H5Pget_layout(create) == H5D_CONTIGUOUS && H5Pget_external_count(create) == 0;
    haddr_t offset = H5Dget_offset(dataset);
    H5Pclose(create);
    H5Tclose(type);
    H5Dclose(dataset);
    if (!right_type)
        return FAIL("%s: dataset '%s' has another type than %s", s->path, name,
                    tokens ? "16-bit unsigned little-endian" : "16-bit signed little-endian");
    s->clip_bytes = shard_clip_bytes(f);
    size_t bytes;
    if (!contiguous || offset == HADDR_UNDEF)
        return FAIL("%s: dataset '%s' is not stored in one piece", s->path, name);
    if (s->clip_bytes == 0 || __builtin_mul_overflow(s->clip_bytes, s->clips, &bytes) ||
        offset > s->file_bytes || bytes > s->file_bytes - offset)
        return FAIL("%s: dataset '%s' reaches beyond the end of the file", s->path, name);
    s->payload = s->file + offset;
    return STATUS_OK;
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
        TRY_GOTO(result, shard_texts_check(texts, s->path, clip), done);
        if (tokens != NULL) {
            TRY_GOTO(result, shard_read_tokens(s, clip, 1, tokens), done);
            TRY_GOTO(result, shard_tokens_check(&s->format, tokens, s->path, clip), done);
        }
    }
done:
    memory_free(tokens);
    return result;
}

static status read_file(shard *s) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    // Immutable files need no lock, and some shared file systems have none to give.
    H5Pset_file_locking(access, 0, 1);
    hid_t file = H5Fopen(s->path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (file < 0)
        return FAIL("%s: the HDF5 library cannot open it, though it is as it was written", s->path);
    size_t used = 0, capacity = 0;
    status result;
    TRY_GOTO(result, read_attributes(s, file), done);
    for (int text = 0; text < SHARD_TEXTS; text++)
        TRY_GOTO(result, read_column(s, file, text, &used, &capacity), done);
    TRY_GOTO(result, find_payload(s, file), done);
    result = check_clips(s);
done:
    H5Fclose(file);
    return result;
}

status shard_open(shard **out, const char *path) {
    *out = NULL;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); // a failure is told once, by us
    if (strlen(path) >= PATH_MAX)
        return FAIL("path is too long: %.60s...", path);
    shard *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "shard"));
    snprintf(s->path, sizeof s->path, "%s", path);
    digest whole;
    status result;
    TRY_GOTO(result, map_file(s), failed);
    TRY_GOTO(result, shard_block_verify(s->file, s->file_bytes, path, &whole), failed);
    digest_to_hex(&whole, s->link.digest);
    TRY_GOTO(result, read_file(s), failed);
    *out = s;
    return STATUS_OK;
failed:
    shard_close(s);
    return result;
}

void shard_close(shard *s) {
    if (s == NULL)
        return;
    if (s->file != NULL)
        munmap((void *)s->file, s->file_bytes);
    memory_free(s->texts);
    memory_free(s->at);
    memory_free(s);
}

const shard_format *shard_get_format(const shard *s) {
    return &s->format;
}

size_t shard_clip_count(const shard *s) {
    return s->clips;
}

const char *shard_get_path(const shard *s) {
    return s->path;
}

const shard_link *shard_get_link(const shard *s) {
    return &s->link;
}

status shard_read_strings(const shard *s, size_t index, shard_clip *out) {
    if (index >= s->clips)
        return FAIL("%s has %zu clips, clip %zu was asked for", s->path, s->clips, index);
    const char *text[SHARD_TEXTS];
    for (size_t i = 0; i < SHARD_TEXTS; i++)
        text[i] = s->texts + s->at[i * s->clips + index];
    *out = (shard_clip){.caption = text[0], .attributes = text[1], .id = text[2], .source = text[3]};
    return STATUS_OK;
}

static status read_payload(const shard *s, shard_kind kind, size_t first, size_t count, void *out) {
    if (s->format.kind != kind)
        return FAIL("%s holds %s, %s asked for", s->path, kind == SHARD_AUDIO ? "tokens" : "audio",
                    kind == SHARD_AUDIO ? "audio was" : "tokens were");
    if (first > s->clips || count > s->clips - first)
        return FAIL("%s has %zu clips, %zu from clip %zu on were asked for", s->path, s->clips, count, first);
    memcpy(out, s->payload + first * s->clip_bytes, count * s->clip_bytes); // both are little-endian
    return STATUS_OK;
}

status shard_read_audio(const shard *s, size_t first, size_t count, int16_t *out) {
    return read_payload(s, SHARD_AUDIO, first, count, out);
}

status shard_read_tokens(const shard *s, size_t first, size_t count, uint16_t *out) {
    return read_payload(s, SHARD_TOKENS, first, count, out);
}
