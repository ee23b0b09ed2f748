#include "data/publish.h"
#include "data/shard_internal.h"
#include "kernels/memory.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <hdf5.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A growing block of bytes.
typedef struct pool {
    char *base;
    size_t used, capacity;
} pool;

struct shard_writer {
    char folder[PATH_MAX];
    char prefix[SHARD_PREFIX_MAX];
    shard_format format;
    int replace;
    size_t clips_per_shard, clip_bytes;
    size_t pending;            // clips not yet in a shard
    unsigned char *payload;    // [clips_per_shard, clip_bytes]
    pool texts;                // of the pending clips
    size_t (*at)[SHARD_TEXTS]; // [clips_per_shard] offsets into texts
    pool ids, id_at;           // of all clips: text, and offsets as size_t
    publisher **sealed;        // [sealed_count] shards written but not yet visible
    size_t sealed_count, sealed_capacity;
    digest previous; // of the newest sealed shard
};

static status pool_append(pool *pool, const void *bytes, size_t count, const char *what) {
    if (pool->used + count > pool->capacity) {
        size_t capacity = pool->capacity * 2 + count + 4096;
        char *base;
        TRY(memory_allocate((void **)&base, capacity, what));
        if (pool->used > 0)
            memcpy(base, pool->base, pool->used);
        memory_free(pool->base);
        pool->base = base;
        pool->capacity = capacity;
    }
    memcpy(pool->base + pool->used, bytes, count);
    pool->used += count;
    return STATUS_OK;
}

static status shard_path(const shard_writer *w, size_t index, char out[PATH_MAX]) {
    int length = snprintf(out, PATH_MAX, "%s/%s-%05zu.h5", w->folder, w->prefix, index);
    return length < PATH_MAX ? STATUS_OK : FAIL("path is too long: %.60s...", w->folder);
}

// Looks through the folder: shards of our prefix with index >= first (remove them, or refuse them), and what
// a killed writer of our prefix left behind.
static status settle_folder(const shard_writer *w, size_t first, int remove_shards) {
    DIR *stream = opendir(w->folder);
    if (stream == NULL)
        return FAIL("cannot open folder %s: %s", w->folder, strerror(errno));
    status result = STATUS_OK;
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;) {
        char name[NAME_MAX + 1], prefix[SHARD_PREFIX_MAX], path[PATH_MAX];
        uint32_t index;
        snprintf(name, sizeof name, "%s", entry->d_name);
        size_t length = strlen(name);
        int stale = length > 4 && strcmp(name + length - 4, ".tmp") == 0;
        if (stale)
            name[length - 4] = '\0';
        if (!shard_name_parse(name, prefix, &index) || strcmp(prefix, w->prefix) != 0 || index < first)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", w->folder, entry->d_name) >= (int)sizeof path)
            result = FAIL("path is too long: %.60s...", w->folder);
        else if (stale || remove_shards)
            result = publish_remove(path);
        else if (!w->replace)
            result = FAIL("%s is already there; choose another folder, or replace it with --replace", path);
    }
    closedir(stream);
    return result;
}

status shard_writer_create(shard_writer **out, const char *folder, const char *prefix,
                           const shard_format *format, size_t clips_per_shard, int replace) {
    *out = NULL;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); // a failure is told once, by us
    if (strlen(folder) >= PATH_MAX - SHARD_PREFIX_MAX - 16)
        return FAIL("path is too long: %.60s...", folder);
    if (prefix[0] == '\0' || strlen(prefix) >= SHARD_PREFIX_MAX)
        return FAIL("'%.80s' cannot be the prefix of shards: wanted 1 to %d characters", prefix,
                    SHARD_PREFIX_MAX - 1);
    for (const char *c = prefix; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("._-", *c) == NULL)
            return FAIL("'%s' cannot be the prefix of shards: wanted letters, digits, '.', '_' or '-'",
                        prefix);
    shard_writer *w;
    TRY(memory_allocate((void **)&w, sizeof *w, "shard writer"));
    snprintf(w->folder, sizeof w->folder, "%s", folder);
    snprintf(w->prefix, sizeof w->prefix, "%s", prefix);
    w->format = *format;
    w->replace = replace;
    w->clips_per_shard = clips_per_shard;
    status result;
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
    TRY_GOTO(result, publish_make_folder(folder), failed);
    TRY_GOTO(result, settle_folder(w, 0, 0), failed);
    *out = w;
    return STATUS_OK;
failed:
    shard_writer_abort(w);
    return result;
}

void shard_writer_abort(shard_writer *w) {
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->sealed_count; i++)
        publish_abort(w->sealed[i]);
    memory_free(w->sealed);
    memory_free(w->payload);
    memory_free(w->texts.base);
    memory_free(w->at);
    memory_free(w->ids.base);
    memory_free(w->id_at.base);
    memory_free(w);
}

// ---- the HDF5 image -------------------------------------------------------------------------------------

// An HDF5 file in memory, and the handles that building it takes.
typedef struct image {
    hid_t access, create_file, file, text_type, scalar, create_dataset;
    uint8_t *bytes; // [count] user block included; belongs to the library until the image is closed
    size_t count;
} image;

static void image_close(image *image) {
    H5Pclose(image->create_dataset);
    H5Sclose(image->scalar);
    H5Tclose(image->text_type);
    H5Fclose(image->file);
    H5Pclose(image->create_file);
    H5Pclose(image->access);
}

static int attribute_write(hid_t where, const char *name, hid_t file_type, hid_t memory_type, hid_t space,
                           const void *value) {
    hid_t attribute = H5Acreate2(where, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0)
        return -1;
    herr_t written = H5Awrite(attribute, memory_type, value);
    return H5Aclose(attribute) < 0 || written < 0 ? -1 : 0;
}

static int attribute_text(const image *image, hid_t where, const char *name, const char *value) {
    return attribute_write(where, name, image->text_type, image->text_type, image->scalar, &value);
}

static int attribute_integer(const image *image, const char *name, uint32_t value) {
    return attribute_write(image->file, name, H5T_STD_U32LE, H5T_NATIVE_UINT32, image->scalar, &value);
}

static int dataset_write(const image *image, const char *name, const char *description, hid_t file_type,
                         hid_t memory_type, int rank, const hsize_t *size, const void *values) {
    hid_t space = H5Screate_simple(rank, size, NULL);
    if (space < 0)
        return -1;
    int result = -1;
    hid_t dataset =
        H5Dcreate2(image->file, name, file_type, space, H5P_DEFAULT, image->create_dataset, H5P_DEFAULT);
    if (dataset >= 0) {
        result = H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0 ||
                         attribute_text(image, dataset, "description", description) < 0
                     ? -1
                     : 0;
        if (H5Dclose(dataset) < 0)
            result = -1;
    }
    H5Sclose(space);
    return result;
}

static int attributes_write(const image *image, const shard_writer *w, uint32_t index, int last) {
    const shard_format *f = &w->format;
    char previous[DIGEST_HEX] = "";
    if (index > 0)
        digest_to_hex(&w->previous, previous);
    int tokens = f->kind == SHARD_TOKENS;
    if (attribute_text(image, image->file, "schema", SHARD_SCHEMA) < 0 ||
        attribute_integer(image, "schema_version", SHARD_SCHEMA_VERSION) < 0 ||
        attribute_text(image, image->file, "created_by", "musicrl " MUSICRL_VERSION) < 0 ||
        attribute_text(image, image->file, "kind", tokens ? "tokens" : "audio") < 0 ||
        attribute_integer(image, "sample_rate", f->sample_rate) < 0 ||
        attribute_integer(image, "clip_samples", f->clip_samples) < 0 ||
        attribute_integer(image, "shard_index", index) < 0 ||
        attribute_text(image, image->file, "previous_shard", previous) < 0 ||
        attribute_integer(image, "last_shard", (uint32_t)last) < 0)
        return -1;
    if (!tokens)
        return 0;
    hsize_t levels = f->levels;
    hid_t per_level = H5Screate_simple(1, &levels, NULL);
    if (per_level < 0)
        return -1;
    int result = attribute_text(image, image->file, "codec", f->codec) < 0 ||
                         attribute_write(image->file, "frame_rate", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE,
                                         image->scalar, &f->frame_rate) < 0 ||
                         attribute_integer(image, "frames", f->frames) < 0 ||
                         attribute_integer(image, "levels", f->levels) < 0 ||
                         attribute_write(image->file, "codebook_size", H5T_STD_U32LE, H5T_NATIVE_UINT32,
                                         per_level, f->codebook_size) < 0
                     ? -1
                     : 0;
    H5Sclose(per_level);
    return result;
}

static int datasets_write(const image *image, const shard_writer *w, const char **column) {
    const shard_format *f = &w->format;
    hsize_t size[3] = {w->pending, f->clip_samples, 0};
    for (int text = 0; text < SHARD_TEXTS; text++) {
        for (size_t clip = 0; clip < w->pending; clip++)
            column[clip] = w->texts.base + w->at[clip][text];
        if (dataset_write(image, shard_text_names[text], shard_text_describes[text], image->text_type,
                          image->text_type, 1, size, column) < 0)
            return -1;
    }
    if (f->kind == SHARD_AUDIO)
        return dataset_write(image, "audio", "[clip, sample] mono PCM", H5T_STD_I16LE, H5T_NATIVE_INT16, 2,
                             size, w->payload);
    size[1] = f->frames;
    size[2] = f->levels;
    return dataset_write(image, "tokens", "[clip, frame, level] level 0 is semantic, then coarse to fine",
                         H5T_STD_U16LE, H5T_NATIVE_UINT16, 3, size, w->payload);
}

// Finds the bytes of the flushed image. The library's memory is used as it is: a copy of a shard would double
// what writing it takes.
static int image_find_bytes(image *image) {
    void *handle = NULL;
    ssize_t body = H5Fget_file_image(image->file, NULL, 0); // counts from behind the user block
    if (body <= 0 || H5Fget_vfd_handle(image->file, image->access, &handle) < 0 || handle == NULL)
        return -1;
    memcpy(&image->bytes, handle, sizeof image->bytes); // for this driver, where its pointer is kept
    image->count = SHARD_BLOCK_BYTES + (size_t)body;
    return image->bytes == NULL ? -1 : 0;
}

// The image must be closed whatever the outcome. `path` names memory only: there is no backing file.
static status image_build(image *image, const shard_writer *w, const char *path, int last) {
    *image = (struct image){.access = H5Pcreate(H5P_FILE_ACCESS),
                            .create_file = H5Pcreate(H5P_FILE_CREATE),
                            .text_type = H5Tcopy(H5T_C_S1),
                            .scalar = H5Screate(H5S_SCALAR),
                            .create_dataset = H5Pcreate(H5P_DATASET_CREATE),
                            .file = -1};
    const char **column;
    TRY(memory_allocate((void **)&column, w->pending * sizeof *column, "texts of a shard"));
    // Room for everything at once, so that the library need not grow the image.
    size_t step = w->pending * (w->clip_bytes + 512) + 2 * w->texts.used + (1 << 20);
    int built = H5Pset_fapl_core(image->access, step, 0) >= 0 &&
                H5Pset_userblock(image->create_file, SHARD_BLOCK_BYTES) >= 0 &&
                H5Tset_size(image->text_type, H5T_VARIABLE) >= 0 &&
                H5Tset_cset(image->text_type, H5T_CSET_UTF8) >= 0 &&
                // Without time stamps the same clips give the same bytes.
                H5Pset_obj_track_times(image->create_dataset, 0) >= 0;
    if (built)
        image->file = H5Fcreate(path, H5F_ACC_TRUNC, image->create_file, image->access);
    built = built && image->file >= 0 && attributes_write(image, w, (uint32_t)w->sealed_count, last) >= 0 &&
            datasets_write(image, w, column) >= 0 && H5Fflush(image->file, H5F_SCOPE_GLOBAL) >= 0 &&
            image_find_bytes(image) >= 0;
    memory_free(column);
    return built ? STATUS_OK : FAIL("cannot build %s in memory: the HDF5 library failed", path);
}

// ---- shards ---------------------------------------------------------------------------------------------

static status sealed_reserve(shard_writer *w) {
    if (w->sealed_count < w->sealed_capacity)
        return STATUS_OK;
    size_t capacity = w->sealed_capacity * 2 + 16;
    publisher **larger;
    TRY(memory_allocate((void **)&larger, capacity * sizeof *larger, "shards to publish"));
    if (w->sealed_count > 0)
        memcpy(larger, w->sealed, w->sealed_count * sizeof *larger);
    memory_free(w->sealed);
    w->sealed = larger;
    w->sealed_capacity = capacity;
    return STATUS_OK;
}

// Writes the pending clips as one shard that is durable but not yet visible.
static status seal_pending(shard_writer *w, int last) {
    if (w->sealed_count >= SHARD_INDEX_END)
        return FAIL("%s: more than %d shards; put more clips into a shard", w->folder, SHARD_INDEX_END);
    TRY(sealed_reserve(w));
    char path[PATH_MAX];
    TRY(shard_path(w, w->sealed_count, path));
    image image;
    publisher *file = NULL;
    status result;
    TRY_GOTO(result, image_build(&image, w, path, last), done);
    digest whole =
        shard_block_make(image.bytes, image.bytes + SHARD_BLOCK_BYTES, image.count - SHARD_BLOCK_BYTES);
    TRY_GOTO(result, publish_open(&file, path), done);
    TRY_GOTO(result, publish_write(file, image.bytes, image.count), done);
    TRY_GOTO(result, publish_seal(file), done);
    w->sealed[w->sealed_count++] = file;
    file = NULL;
    w->previous = whole;
    w->pending = 0;
    w->texts.used = 0;
done:
    publish_abort(file);
    image_close(&image);
    return result;
}

status shard_writer_add(shard_writer *w, const shard_clip *clip) {
    const char *texts[SHARD_TEXTS];
    shard_clip_texts(clip, texts);
    size_t index = w->sealed_count * w->clips_per_shard + w->pending;
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
        TRY_GOTO(result, pool_append(&w->texts, texts[i], strlen(texts[i]) + 1, "texts of a shard"), failed);
    }
    TRY_GOTO(result, pool_append(&w->ids, clip->id, strlen(clip->id) + 1, "clip ids"), failed);
    TRY_GOTO(result, pool_append(&w->id_at, &id_mark, sizeof id_mark, "clip ids"), failed);
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
    size_t published = 0;
    if (w->pending == 0) {
        result = FAIL("%s: no clip was added, so there is nothing to publish", w->folder);
        goto done;
    }
    TRY_GOTO(result, refuse_equal_ids(w), done);
    TRY_GOTO(result, seal_pending(w, 1), done);
    for (; published < w->sealed_count; published++) {
        publisher *next = w->sealed[published];
        w->sealed[published] = NULL; // commit frees it, whatever happens
        TRY_GOTO(result, publish_commit(next), done);
    }
    result = settle_folder(w, w->sealed_count, w->replace);
done:
    if (result != STATUS_OK && !w->replace) {
        // Nothing of this name was there before: leave nothing half published. The first failure is the one
        // to tell; a shard that cannot be removed is refused later, because its chain has no end.
        char path[PATH_MAX], message[1024];
        snprintf(message, sizeof message, "%s", status_message());
        for (size_t i = 0; i < w->sealed_count; i++)
            if (shard_path(w, i, path) == STATUS_OK)
                (void)publish_remove(path);
        result = status_set(result, "%s", message);
    }
    shard_writer_abort(w);
    return result;
}
