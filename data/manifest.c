#include "data/manifest.h"

#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES_MAX = 4000 }; // of an id and a path: clips add to them

struct manifest {
    manifest_entry *entry; // [count]
    size_t count, capacity;
};

static status copy_text(const char **out, const char *text) {
    size_t bytes = strlen(text) + 1;
    char *copy;
    TRY(memory_allocate((void **)&copy, bytes, "text of a manifest"));
    memcpy(copy, text, bytes);
    *out = copy;
    return STATUS_OK;
}

static void clear_texts(manifest_entry *entry) {
    const char **text[] = {&entry->audio, &entry->source, &entry->caption, &entry->attributes, &entry->id};
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        memory_free((void *)*text[i]);
        *text[i] = NULL;
    }
}

static status append(manifest *m, manifest_entry **out) {
    if (m->count == m->capacity) {
        size_t larger = m->capacity * 2 + 256;
        manifest_entry *entries;
        TRY(memory_allocate((void **)&entries, larger * sizeof *entries, "manifest"));
        if (m->count > 0)
            memcpy(entries, m->entry, m->count * sizeof *entries);
        memory_free(m->entry);
        m->entry = entries;
        m->capacity = larger;
    }
    *out = &m->entry[m->count++];
    return STATUS_OK;
}

// A string that is there and not blank; the message has no place yet.
static status take_string(const json_t *object, const char *key, const char **out) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL)
        return FAIL("key '%s' is missing", key);
    if (!json_is_string(value))
        return FAIL("'%s' is not a string", key);
    const char *text = json_string_value(value);
    if (text[strspn(text, " \t\r\n")] == '\0')
        return FAIL("'%s' is empty", key);
    return copy_text(out, text);
}

static status take_attributes(const json_t *object, const char **out) {
    const json_t *value = json_object_get(object, "attributes");
    if (value == NULL)
        return copy_text(out, "{}");
    if (!json_is_object(value))
        return FAIL("'attributes' is not an object");
    char *text = json_dumps(value, JSON_COMPACT);
    if (text == NULL)
        return FAIL("'attributes' cannot be written as JSON");
    status result = copy_text(out, text);
    free(text);
    return result;
}

static status resolve_audio(const char *folder, manifest_entry *entry) {
    char path[PATH_MAX];
    const char *between = entry->source[0] == '/' || folder[0] == '\0' ? "" : "/";
    int length =
        snprintf(path, sizeof path, "%s%s%s", entry->source[0] == '/' ? "" : folder, between, entry->source);
    if (length >= (int)sizeof path)
        return FAIL("'audio' is too long: %.60s...", entry->source);
    return copy_text(&entry->audio, path);
}

static status parse_line(const char *line, size_t length, const char *folder, json_t *ids,
                         manifest_entry *entry) {
    json_error_t error;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return FAIL("no JSON: %s", error.text);
    status result;
    if (!json_is_object(object)) {
        result = FAIL("no JSON object");
        goto done;
    }
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (strcmp(key, "audio") != 0 && strcmp(key, "caption") != 0 && strcmp(key, "attributes") != 0 &&
            strcmp(key, "id") != 0) {
            result = FAIL("unknown key '%.80s'; audio, caption, attributes and id are known, anything else "
                          "belongs into attributes",
                          key);
            goto done;
        }
    }
    TRY_GOTO(result, take_string(object, "audio", &entry->source), done);
    TRY_GOTO(result, take_string(object, "caption", &entry->caption), done);
    TRY_GOTO(result, take_attributes(object, &entry->attributes), done);
    if (json_object_get(object, "id") != NULL)
        TRY_GOTO(result, take_string(object, "id", &entry->id), done);
    else
        TRY_GOTO(result, copy_text(&entry->id, entry->source), done);
    if (strlen(entry->id) > TEXT_BYTES_MAX || strlen(entry->source) > TEXT_BYTES_MAX) {
        result = FAIL("'id' or 'audio' is longer than %d bytes", TEXT_BYTES_MAX);
        goto done;
    }
    TRY_GOTO(result, resolve_audio(folder, entry), done);
    const json_t *first = json_object_get(ids, entry->id);
    if (first != NULL)
        result = FAIL("id '%.80s' is that of line %lld too; give each line its own 'id'", entry->id,
                      (long long)json_integer_value(first));
    else if (json_object_set_new(ids, entry->id, json_integer((json_int_t)entry->line)) != 0)
        result = FAIL("id '%.80s' cannot be kept", entry->id);
done:
    json_decref(object);
    return result;
}

// Turns a failure of parse_line into the entry's `problem`.
static status keep_problem(manifest_entry *entry, const char *path) {
    char text[1024];
    snprintf(text, sizeof text, "%s:%zu: %s", path, entry->line, status_message());
    for (char *c = text; *c != '\0'; c++) // the JSON library's messages quote the line
        if (*c == '\n' || *c == '\r')
            *c = ' ';
    clear_texts(entry);
    return copy_text(&entry->problem, text);
}

static status read_lines(manifest *m, FILE *file, const char *path, const char *folder, json_t *ids) {
    char *line = NULL;
    size_t capacity = 0, number = 0;
    status result = STATUS_OK;
    for (ssize_t length; (length = getline(&line, &capacity, file)) >= 0;) {
        number++;
        if (strspn(line, " \t\r\n") == (size_t)length)
            continue;
        manifest_entry *entry;
        TRY_GOTO(result, append(m, &entry), done);
        entry->line = number;
        if (parse_line(line, (size_t)length, folder, ids, entry) != STATUS_OK)
            TRY_GOTO(result, keep_problem(entry, path), done);
    }
    if (ferror(file))
        result = FAIL("cannot read manifest %s beyond line %zu: %s", path, number, strerror(errno));
    else if (m->count == 0)
        result =
            FAIL("manifest %s is empty; wanted one JSON object a line, such as {\"audio\": \"song.flac\", "
                 "\"caption\": \"a slow waltz\"}",
                 path);
done:
    free(line);
    return result;
}

status manifest_load(manifest **out, const char *path) {
    *out = NULL;
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder)
        return FAIL("path is too long: %.60s...", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        folder[0] = '\0';
    else
        slash[slash == folder] = '\0'; // "/manifest" lies in "/"
    FILE *file;
    TRY(regular_file_text(&file, path, "manifest"));
    manifest *m = NULL;
    json_t *ids = json_object();
    status result;
    TRY_GOTO(result, memory_allocate((void **)&m, sizeof *m, "manifest"), done);
    TRY_GOTO(result, read_lines(m, file, path, folder, ids), done);
    *out = m;
    m = NULL;
done:
    manifest_destroy(m);
    json_decref(ids);
    fclose(file);
    return result;
}

void manifest_destroy(manifest *m) {
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->count; i++) {
        clear_texts(&m->entry[i]);
        memory_free((void *)m->entry[i].problem);
    }
    memory_free(m->entry);
    memory_free(m);
}

size_t manifest_count(const manifest *m) {
    return m->count;
}

const manifest_entry *manifest_get(const manifest *m, size_t index) {
    return &m->entry[index];
}
