#include "data/shard_series.h"

#include "data/publish.h"
#include "kernels/memory.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

struct shard_series {
    char folder[PATH_MAX];
    char prefix[SHARD_PREFIX_MAX];
    const shard_schema *schema;
    int replace;
    publisher **sealed; // [sealed_count] shards written but not yet visible
    size_t sealed_count, sealed_capacity;
    digest previous; // of the newest sealed shard
};

static status shard_path(const shard_series *s, size_t index, char out[PATH_MAX]) {
    int length = snprintf(out, PATH_MAX, "%s/%s-%05zu.h5", s->folder, s->prefix, index);
    return length < PATH_MAX ? STATUS_OK : FAIL("path is too long: %.60s...", s->folder);
}

// Looks through the folder: shards of our prefix with index >= first (remove them, or refuse them), and what
// a killed writer of our prefix left behind.
static status settle_folder(const shard_series *s, size_t first, int remove_shards) {
    DIR *stream = opendir(s->folder);
    if (stream == NULL)
        return FAIL("cannot open folder %s: %s", s->folder, strerror(errno));
    status result = STATUS_OK;
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;) {
        char name[NAME_MAX + 1], prefix[SHARD_PREFIX_MAX], path[PATH_MAX];
        uint32_t index;
        snprintf(name, sizeof name, "%s", entry->d_name);
        size_t length = strlen(name);
        int stale = length > 4 && strcmp(name + length - 4, ".tmp") == 0;
        if (stale)
            name[length - 4] = '\0';
        if (!shard_name_parse(name, prefix, &index) || strcmp(prefix, s->prefix) != 0 || index < first)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", s->folder, entry->d_name) >= (int)sizeof path)
            result = FAIL("path is too long: %.60s...", s->folder);
        else if (stale || remove_shards)
            result = publish_remove(path);
        else if (!s->replace)
            result = FAIL("%s is already there; choose another folder, or replace it with --replace", path);
    }
    closedir(stream);
    return result;
}

status shard_series_create(shard_series **out, const char *folder, const char *prefix,
                           const shard_schema *schema, int replace) {
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
    shard_series *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "series of shards"));
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    snprintf(s->prefix, sizeof s->prefix, "%s", prefix);
    s->schema = schema;
    s->replace = replace;
    status result;
    TRY_GOTO(result, publish_make_folder(folder), failed);
    TRY_GOTO(result, settle_folder(s, 0, 0), failed);
    *out = s;
    return STATUS_OK;
failed:
    shard_series_abort(s);
    return result;
}

size_t shard_series_count(const shard_series *s) {
    return s->sealed_count;
}

static int common_attributes(const shard_image *image, const shard_series *s, int last) {
    char previous[DIGEST_HEX] = "";
    if (s->sealed_count > 0)
        digest_to_hex(&s->previous, previous);
    return shard_image_text(image, "schema", s->schema->name) < 0 ||
                   shard_image_integer(image, "schema_version", s->schema->version) < 0 ||
                   shard_image_text(image, "created_by", "musicrl " MUSICRL_VERSION) < 0 ||
                   shard_image_integer(image, "shard_index", (uint32_t)s->sealed_count) < 0 ||
                   shard_image_text(image, "previous_shard", previous) < 0 ||
                   shard_image_integer(image, "last_shard", last != 0) < 0
               ? -1
               : 0;
}

static status sealed_reserve(shard_series *s) {
    if (s->sealed_count < s->sealed_capacity)
        return STATUS_OK;
    size_t capacity = s->sealed_capacity * 2 + 16;
    publisher **larger;
    TRY(memory_allocate((void **)&larger, capacity * sizeof *larger, "shards to publish"));
    if (s->sealed_count > 0)
        memcpy(larger, s->sealed, s->sealed_count * sizeof *larger);
    memory_free(s->sealed);
    s->sealed = larger;
    s->sealed_capacity = capacity;
    return STATUS_OK;
}

status shard_series_seal(shard_series *s, size_t bytes, shard_fill fill, void *context, int last) {
    if (s->sealed_count >= SHARD_INDEX_END)
        return FAIL("%s: more than %d shards; put more into a shard", s->folder, SHARD_INDEX_END);
    TRY(sealed_reserve(s));
    char path[PATH_MAX];
    TRY(shard_path(s, s->sealed_count, path));
    shard_image image;
    publisher *file = NULL;
    status result;
    if (shard_image_open(&image, path, bytes) < 0 || common_attributes(&image, s, last) < 0 ||
        fill(&image, context) < 0 || shard_image_finish(&image) < 0) {
        result = FAIL("cannot build %s in memory: the HDF5 library failed", path);
        goto done;
    }
    digest whole = shard_block_make(image.bytes, s->schema, image.bytes + SHARD_BLOCK_BYTES,
                                    image.count - SHARD_BLOCK_BYTES);
    TRY_GOTO(result, publish_open(&file, path), done);
    TRY_GOTO(result, publish_write(file, image.bytes, image.count), done);
    TRY_GOTO(result, publish_seal(file), done);
    s->sealed[s->sealed_count++] = file;
    file = NULL;
    s->previous = whole;
done:
    publish_abort(file);
    shard_image_close(&image);
    return result;
}

status shard_series_publish(shard_series *s) {
    status result = STATUS_OK;
    for (size_t i = 0; i < s->sealed_count; i++) {
        publisher *next = s->sealed[i];
        s->sealed[i] = NULL; // commit frees it, whatever happens
        TRY_GOTO(result, publish_commit(next), done);
    }
    result = settle_folder(s, s->sealed_count, s->replace);
done:
    if (result != STATUS_OK && !s->replace) {
        // Nothing of this name was there before: leave nothing half published. The first failure is the one
        // to tell; a shard that cannot be removed is refused later, because its chain has no end.
        char path[PATH_MAX], message[1024];
        snprintf(message, sizeof message, "%s", status_message());
        for (size_t i = 0; i < s->sealed_count; i++)
            if (shard_path(s, i, path) == STATUS_OK)
                (void)publish_remove(path);
        result = status_set(result, "%s", message);
    }
    shard_series_abort(s);
    return result;
}

void shard_series_abort(shard_series *s) {
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->sealed_count; i++)
        publish_abort(s->sealed[i]);
    memory_free(s->sealed);
    memory_free(s);
}
