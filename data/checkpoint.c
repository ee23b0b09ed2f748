#include "data/checkpoint.h"

#include "data/digest.h"
#include "data/publish.h"
#include "data/regular_file.h"
#include "kernels/library_version.h"
#include "kernels/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char MANIFEST[] = "manifest.json";
static const char FORMAT[] = "musicrl checkpoint";
enum { FORMAT_VERSION = 1 };

// A plain name that stays within the folder and does not collide with the publisher's own.
static int is_plain_name(const char *name) {
    size_t length = strlen(name);
    return length > 0 && length <= 200 && name[0] != '.' && strchr(name, '/') == NULL &&
           strcmp(name, MANIFEST) != 0 && (length < 4 || strcmp(name + length - 4, ".tmp") != 0);
}

static status join(char out[PATH_MAX], const char *folder, const char *name) {
    if (snprintf(out, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        return FAIL("path is too long: %.60s.../%.60s", folder, name);
    return STATUS_OK;
}

// The digest of everything in the manifest but the digest itself, whatever the order and spacing of the text.
static status digest_manifest(const json_t *manifest, char out[DIGEST_HEX]) {
    json_t *copy = json_copy((json_t *)manifest);
    json_object_del(copy, "digest");
    char *text = json_dumps(copy, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(copy);
    if (text == NULL)
        return FAIL("out of memory for a manifest");
    digest found = digest_bytes(text, strlen(text));
    digest_to_hex(&found, out);
    free(text);
    return STATUS_OK;
}

// Writing.

struct checkpoint_writer {
    char path[PATH_MAX];      // step-000100
    char temporary[PATH_MAX]; // step-000100.tmp
    json_t *manifest;
    json_t *files; // within the manifest
};

static void free_writer(checkpoint_writer *writer) {
    json_decref(writer->manifest);
    memory_free(writer);
}

// What bits may depend on besides the configuration: the build, the instruction set, the libraries.
static json_t *describe_creation(void) {
    json_t *libraries = json_object();
    library_version list[32];
    const int capacity = sizeof list / sizeof list[0];
    int count = kernels_library_versions(list, capacity);
    count += data_library_versions(list + count, capacity - count);
    for (int i = 0; i < count; i++)
        json_object_set_new(libraries, list[i].name, json_string(list[i].version));
    return json_pack("{s:s, s:s, s:o}", "musicrl", MUSICRL_VERSION, "instruction_set", kernels_product_isa(),
                     "libraries", libraries);
}

status checkpoint_begin(checkpoint_writer **out, const char *folder, uint64_t step, const char *kind) {
    *out = NULL;
    if (step > INT64_MAX || strlen(kind) >= CHECKPOINT_TEXT)
        return FAIL("cannot begin checkpoint %" PRIu64
                    " of kind '%.80s' in %s: the step or the kind is too long",
                    step, kind, folder);
    TRY(publish_make_folder(folder));
    checkpoint_writer *writer;
    TRY(memory_allocate((void **)&writer, sizeof *writer, "checkpoint writer"));
    status result;
    char name[32];
    snprintf(name, sizeof name, "step-%06" PRIu64, step);
    TRY_GOTO(result, join(writer->path, folder, name), failed);
    writer->manifest =
        json_pack("{s:s, s:i, s:I, s:s, s:o, s:[]}", "format", FORMAT, "version", FORMAT_VERSION, "step",
                  (json_int_t)step, "kind", kind, "created", describe_creation(), "files");
    if (writer->manifest == NULL) {
        result = FAIL("cannot begin %s: its kind is not UTF-8", writer->path);
        goto failed;
    }
    writer->files = json_object_get(writer->manifest, "files");
    TRY_GOTO(result, publish_begin_folder(writer->path, writer->temporary), failed);
    *out = writer;
    return STATUS_OK;
failed:
    free_writer(writer);
    return result;
}

status checkpoint_join(checkpoint_writer **out, const char *folder, uint64_t step) {
    *out = NULL;
    checkpoint_writer *writer;
    char name[32];
    struct stat info;
    TRY(memory_allocate((void **)&writer, sizeof *writer, "checkpoint writer"));
    snprintf(name, sizeof name, "step-%06" PRIu64, step);
    status result = join(writer->path, folder, name);
    if (result == STATUS_OK && snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp",
                                        writer->path) >= (int)sizeof writer->temporary)
        result = FAIL("path is too long: %.60s...", writer->path);
    if (result == STATUS_OK && (stat(writer->temporary, &info) != 0 || !S_ISDIR(info.st_mode)))
        result =
            FAIL("%s is not there to take part in; all nodes must see the run folder", writer->temporary);
    writer->manifest = json_pack("{s:[]}", "files");
    writer->files = json_object_get(writer->manifest, "files");
    if (result == STATUS_OK)
        *out = writer;
    else
        free_writer(writer);
    return result;
}

void checkpoint_leave(checkpoint_writer *writer) {
    if (writer != NULL)
        free_writer(writer);
}

status checkpoint_receipts(const checkpoint_writer *writer, char *text, size_t size) {
    const size_t length = json_dumpb(writer->files, text, size, JSON_COMPACT);
    if (length == 0 || length >= size)
        return FAIL("the receipts of %s take %zu bytes, there are %zu", writer->path, length + 1, size);
    text[length] = '\0';
    return STATUS_OK;
}

status checkpoint_admit(checkpoint_writer *writer, const char *receipts) {
    json_error_t error;
    json_t *list = json_loads(receipts, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_array(list)) {
        json_decref(list);
        return FAIL("cannot admit a part of %s: its receipts are damaged: %s", writer->path, error.text);
    }
    const int failed = json_array_extend(writer->files, list);
    json_decref(list);
    return failed == 0 ? STATUS_OK : FAIL("cannot admit a part of %s: out of memory", writer->path);
}

static status open_file(checkpoint_writer *writer, const char *name, char path[PATH_MAX], publisher **out) {
    *out = NULL;
    if (!is_plain_name(name))
        return FAIL("cannot add '%.200s' to %s: wanted a plain file name", name, writer->path);
    size_t index;
    json_t *entry;
    json_array_foreach(writer->files, index, entry) {
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return FAIL("cannot add '%s' to %s: it is there already", name, writer->path);
    }
    TRY(join(path, writer->temporary, name));
    return publish_open(out, path);
}

// Publishes the file and enters it into the manifest; aborts it if `written` is a failure.
static status close_file(checkpoint_writer *writer, const char *name, publisher *publisher, status written) {
    if (written != STATUS_OK) {
        publish_abort(publisher);
        return written;
    }
    uint64_t bytes;
    digest digest;
    char hex[DIGEST_HEX];
    publish_receipt(publisher, &bytes, &digest);
    digest_to_hex(&digest, hex);
    TRY(publish_commit(publisher));
    json_t *entry = json_pack("{s:s, s:I, s:s}", "name", name, "bytes", (json_int_t)bytes, "xxh3_128", hex);
    if (entry == NULL || json_array_append_new(writer->files, entry) != 0)
        return FAIL("cannot add '%.200s' to %s: its name is not UTF-8", name, writer->path);
    return STATUS_OK;
}

status checkpoint_add_tensors(checkpoint_writer *writer, const char *name, const tensor_view *tensors,
                              size_t count, const safetensors_pair *metadata, size_t metadata_count) {
    char path[PATH_MAX];
    publisher *publisher;
    TRY(open_file(writer, name, path, &publisher));
    status written = safetensors_append(publisher, path, tensors, count, metadata, metadata_count);
    return close_file(writer, name, publisher, written);
}

status checkpoint_add_bytes(checkpoint_writer *writer, const char *name, const void *bytes, size_t count) {
    char path[PATH_MAX];
    publisher *publisher;
    TRY(open_file(writer, name, path, &publisher));
    return close_file(writer, name, publisher, publish_write(publisher, bytes, count));
}

static status write_manifest(checkpoint_writer *writer, const json_t *state) {
    if (state != NULL && !json_is_object(state))
        return FAIL("cannot write %s: its state is not a JSON object", writer->path);
    json_object_set_new(writer->manifest, "state", state != NULL ? json_deep_copy(state) : json_object());
    char digest[DIGEST_HEX], path[PATH_MAX];
    TRY(digest_manifest(writer->manifest, digest));
    json_object_set_new(writer->manifest, "digest", json_string(digest));
    TRY(join(path, writer->temporary, MANIFEST));
    char *text = json_dumps(writer->manifest, JSON_INDENT(2));
    if (text == NULL)
        return FAIL("cannot write %s: out of memory for its manifest", writer->path);
    status result = publish_file(path, text, strlen(text));
    free(text);
    return result;
}

status checkpoint_commit(checkpoint_writer *writer, const json_t *state) {
    status result = write_manifest(writer, state);
    if (result == STATUS_OK)
        result = publish_commit_folder(writer->path);
    if (result != STATUS_OK)
        publish_abort_folder(writer->path);
    free_writer(writer);
    return result;
}

void checkpoint_abort(checkpoint_writer *writer) {
    if (writer == NULL)
        return;
    publish_abort_folder(writer->path);
    free_writer(writer);
}

// Reading.

struct checkpoint {
    char path[PATH_MAX];
    json_t *manifest;
    checkpoint_summary summary;
};

// Whether it is the fault of a disk or a file server, not of what is there, that something cannot be opened.
static bool is_trouble(int error) {
    return error != ENOENT && error != ENOTDIR && error != ELOOP &&
           error != EINVAL; // EINVAL: no regular file
}

// *unread (here and below): on failure, whether a read error was the cause, which says nothing about damage.
static status read_file(const char *path, void **out, size_t *count, bool *unread) {
    *out = NULL;
    *count = 0;
    int file;
    struct stat info;
    status result = regular_file_open(&file, &info, path, "file");
    *unread = result != STATUS_OK && is_trouble(errno);
    if (result != STATUS_OK)
        return errno == ENOENT ? FAIL("%s is missing", path) : result;
    size_t size = (size_t)info.st_size;
    TRY_GOTO(result, memory_allocate(out, size + 1, "file"), done);
    while (*count < size) {
        ssize_t got = read(file, (char *)*out + *count, size - *count);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            *unread = got < 0;
            result = FAIL("cannot read %s: %s", path, got < 0 ? strerror(errno) : "it shrank");
            memory_free(*out);
            *out = NULL;
            goto done;
        }
        *count += (size_t)got;
    }
done:
    close(file);
    return result;
}

static status copy_text(char out[CHECKPOINT_TEXT], const json_t *object, const char *key, const char *path) {
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL || strlen(text) >= CHECKPOINT_TEXT)
        return FAIL("%s does not say '%s'; it is not a whole manifest", path, key);
    snprintf(out, CHECKPOINT_TEXT, "%s", text);
    return STATUS_OK;
}

// Of a file in parts, "NAME-part-0000-of-0004", the first stands for all.
static void note_file(checkpoint_summary *summary, const char *name) {
    static const char suffix[] = ".safetensors";
    size_t length = strlen(name);
    int part = 0, parts = 1;
    char in_parts[32] = "";
    summary->files++;
    if (length > sizeof suffix - 1 && strcmp(name + length - (sizeof suffix - 1), suffix) == 0)
        length -= sizeof suffix - 1;
    const char *mark = strstr(name, "-part-");
    if (mark != NULL && sscanf(mark, "-part-%d-of-%d", &part, &parts) == 2) {
        length = (size_t)(mark - name);
        snprintf(in_parts, sizeof in_parts, " in %d parts", parts);
    }
    const size_t used = strlen(summary->holds);
    if (part == 0)
        snprintf(summary->holds + used, sizeof summary->holds - used, "%s%.*s%s", used > 0 ? ", " : "",
                 (int)length, name, in_parts);
}

static status check_files(checkpoint *c, const char *path) {
    const json_t *files = json_object_get(c->manifest, "files");
    if (!json_is_array(files))
        return FAIL("%s lists no files; it is not a whole manifest", path);
    size_t index;
    const json_t *entry;
    json_array_foreach(files, index, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        const json_t *bytes = json_object_get(entry, "bytes");
        const char *digest = json_string_value(json_object_get(entry, "xxh3_128"));
        if (name == NULL || !is_plain_name(name) || !json_is_integer(bytes) ||
            json_integer_value(bytes) < 0 || digest == NULL)
            return FAIL("%s: entry %zu of its files needs a plain name, bytes and xxh3_128", path, index + 1);
        note_file(&c->summary, name);
        c->summary.bytes += (uint64_t)json_integer_value(bytes);
    }
    return STATUS_OK;
}

static status check_manifest(checkpoint *c, const char *path) {
    const char *format = json_string_value(json_object_get(c->manifest, "format"));
    const char *digest = json_string_value(json_object_get(c->manifest, "digest"));
    const json_t *step = json_object_get(c->manifest, "step");
    json_int_t version = json_integer_value(json_object_get(c->manifest, "version"));
    if (format == NULL || strcmp(format, FORMAT) != 0)
        return FAIL("%s is not the manifest of a checkpoint", path);
    if (version != FORMAT_VERSION)
        return FAIL("%s has version %" JSON_INTEGER_FORMAT ", this program reads version %d", path, version,
                    FORMAT_VERSION);
    char found[DIGEST_HEX];
    TRY(digest_manifest(c->manifest, found));
    if (digest == NULL || strcmp(digest, found) != 0)
        return FAIL("%s is damaged: its digest is %s, it claims %.40s", path, found,
                    digest != NULL ? digest : "none");
    if (!json_is_integer(step) || json_integer_value(step) < 0 ||
        !json_is_object(json_object_get(c->manifest, "state")))
        return FAIL("%s does not say 'step' and 'state'; it is not a whole manifest", path);
    c->summary.step = (uint64_t)json_integer_value(step);
    const json_t *created = json_object_get(c->manifest, "created");
    TRY(copy_text(c->summary.kind, c->manifest, "kind", path));
    TRY(copy_text(c->summary.build, created, "musicrl", path));
    TRY(copy_text(c->summary.instruction_set, created, "instruction_set", path));
    return check_files(c, path);
}

// Reads and checks the manifest; the files are not looked at.
static status open_manifest(checkpoint **out, const char *folder, bool *unread) {
    *out = NULL;
    *unread = false;
    checkpoint *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "checkpoint"));
    status result;
    void *text = NULL;
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    if (length >= sizeof c->path) {
        result = FAIL("path is too long: %.60s...", folder);
        goto failed;
    }
    memcpy(c->path, folder, length);
    char path[PATH_MAX];
    TRY_GOTO(result, join(path, c->path, MANIFEST), failed);
    struct stat info;
    if (stat(c->path, &info) != 0) {
        *unread = is_trouble(errno);
        result = FAIL("cannot open checkpoint %s: %s", c->path, strerror(errno));
        goto failed;
    }
    if (stat(path, &info) != 0 && errno == ENOENT) {
        result = FAIL("%s is missing; %s is not a whole checkpoint", path, c->path);
        goto failed;
    }
    size_t count;
    TRY_GOTO(result, read_file(path, &text, &count, unread), failed);
    json_error_t error;
    c->manifest = json_loadb(text, count, JSON_REJECT_DUPLICATES, &error);
    if (c->manifest == NULL) {
        result = FAIL("%s is damaged: %s at line %d", path, error.text, error.line);
        goto failed;
    }
    TRY_GOTO(result, check_manifest(c, path), failed);
    c->summary.written = (int64_t)info.st_mtime;
    memory_free(text);
    *out = c;
    return STATUS_OK;
failed:
    memory_free(text);
    checkpoint_close(c);
    return result;
}

static status verify_file(const checkpoint *c, const json_t *entry, bool *unread) {
    char path[PATH_MAX], found[DIGEST_HEX];
    digest digest;
    uint64_t bytes, wanted = (uint64_t)json_integer_value(json_object_get(entry, "bytes"));
    const char *claimed = json_string_value(json_object_get(entry, "xxh3_128"));
    TRY(join(path, c->path, json_string_value(json_object_get(entry, "name"))));
    struct stat info;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode) && (uint64_t)info.st_size != wanted)
        return FAIL("%s is damaged: it has %lld bytes, the manifest says %" PRIu64, path,
                    (long long)info.st_size, wanted);
    const status result = digest_file(path, &bytes, &digest);
    *unread = result != STATUS_OK && is_trouble(errno);
    TRY(result);
    digest_to_hex(&digest, found);
    if (bytes != wanted || strcmp(found, claimed) != 0)
        return FAIL("%s is damaged: its digest is %s, the manifest says %.40s", path, found, claimed);
    return STATUS_OK;
}

static status verify_files(const checkpoint *c, bool *unread) {
    size_t index;
    const json_t *entry;
    json_array_foreach(json_object_get(c->manifest, "files"), index, entry)
        TRY(verify_file(c, entry, unread));
    return STATUS_OK;
}

status checkpoint_tell_damage(const checkpoint_entry *checkpoint_entry, checkpoint_listener listener,
                              void *context) {
    checkpoint *c;
    bool unread;
    size_t index, damaged = 0;
    const json_t *entry;
    if (open_manifest(&c, checkpoint_entry->path, &unread) != STATUS_OK) {
        listener(context, status_message());
        return STATUS_FAILED;
    }
    json_array_foreach(json_object_get(c->manifest, "files"), index, entry) {
        if (verify_file(c, entry, &unread) != STATUS_OK) {
            damaged++;
            listener(context, status_message());
        }
    }
    checkpoint_close(c);
    return damaged == 0 ? STATUS_OK : FAIL("%s has %zu damaged files", checkpoint_entry->path, damaged);
}

status checkpoint_try(checkpoint **out, const char *path, bool *unread) {
    TRY(open_manifest(out, path, unread));
    status result = verify_files(*out, unread);
    if (result != STATUS_OK) {
        checkpoint_close(*out);
        *out = NULL;
    }
    return result;
}

status checkpoint_open(checkpoint **out, const char *path) {
    bool unread;
    return checkpoint_try(out, path, &unread);
}

void checkpoint_close(checkpoint *c) {
    if (c == NULL)
        return;
    json_decref(c->manifest);
    memory_free(c);
}

status checkpoint_peek(const char *path, checkpoint_summary *out) {
    checkpoint *c;
    bool unread;
    TRY(open_manifest(&c, path, &unread));
    *out = c->summary;
    checkpoint_close(c);
    return STATUS_OK;
}

const checkpoint_summary *checkpoint_describe(const checkpoint *c) {
    return &c->summary;
}

const char *checkpoint_path(const checkpoint *c) {
    return c->path;
}

const json_t *checkpoint_state(const checkpoint *c) {
    return json_object_get(c->manifest, "state");
}

int checkpoint_has(const checkpoint *c, const char *name) {
    size_t index;
    const json_t *entry;
    json_array_foreach(json_object_get(c->manifest, "files"), index, entry) {
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0)
            return 1;
    }
    return 0;
}

static status locate(const checkpoint *c, const char *name, char path[PATH_MAX]) {
    if (!checkpoint_has(c, name))
        return FAIL("checkpoint %s (kind '%s') has no file '%s'; is it of another kind?", c->path,
                    c->summary.kind, name);
    return join(path, c->path, name);
}

status checkpoint_open_tensors(const checkpoint *c, const char *name, safetensors **out) {
    *out = NULL;
    char path[PATH_MAX];
    TRY(locate(c, name, path));
    return safetensors_open(out, path);
}

status checkpoint_read_bytes(const checkpoint *c, const char *name, void **out, size_t *count) {
    *out = NULL;
    *count = 0;
    char path[PATH_MAX];
    bool unread;
    TRY(locate(c, name, path));
    return read_file(path, out, count, &unread);
}
