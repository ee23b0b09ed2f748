#include "data/json_lines.h"

#include "data/regular_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static status read_line(const char *text, size_t length, json_lines_visit visit, void *context, long line) {
    if (length > JSON_LINE_BYTES_MAX)
        return FAIL("a line of %zu bytes, at most %d are read", length, JSON_LINE_BYTES_MAX);
    json_error_t error;
    json_t *object = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return FAIL("not valid JSON: %s", error.text);
    const status result =
        json_is_object(object) ? visit(context, object, line) : FAIL("not a JSON object, which each line is");
    json_decref(object);
    return result;
}

void skipped_lines_add(skipped_lines *skipped) {
    skipped->count++;
    if (skipped->tell != NULL)
        skipped->tell(skipped->context, status_message());
}

static status take_line(const char *name, const char *text, size_t length, json_lines_visit visit,
                        void *context, long line, skipped_lines *skipped) {
    size_t blank = 0;
    while (blank < length && strchr(" \t\r\n", text[blank]) != NULL && text[blank] != '\0')
        blank++;
    if (blank == length)
        return STATUS_OK;
    const status result = read_line(text, length, visit, context, line);
    if (result == STATUS_OK)
        return STATUS_OK;
    status_prefix(result, "%s:%ld: ", name, line);
    if (skipped == NULL)
        return result;
    skipped_lines_add(skipped);
    return STATUS_OK;
}

status json_lines_read(const char *path, json_lines_visit visit, void *context, skipped_lines *skipped) {
    FILE *file;
    TRY(regular_file_text(&file, path, "file of JSON lines"));
    char *text = NULL;
    size_t capacity = 0;
    status result = STATUS_OK;
    ssize_t length;
    for (long line = 1; result == STATUS_OK && (length = getline(&text, &capacity, file)) >= 0; line++)
        result = take_line(path, text, (size_t)length, visit, context, line, skipped);
    if (result == STATUS_OK && ferror(file))
        result = FAIL("cannot read %s: %m", path);
    free(text);
    fclose(file);
    return result;
}

status json_lines_parse(const char *name, const char *text, size_t length, json_lines_visit visit,
                        void *context, skipped_lines *skipped) {
    for (long line = 1; length > 0; line++) {
        const char *newline = memchr(text, '\n', length);
        const size_t count = newline != NULL ? (size_t)(newline - text) + 1 : length;
        TRY(take_line(name, text, count, visit, context, line, skipped));
        text += count;
        length -= count;
    }
    return STATUS_OK;
}
