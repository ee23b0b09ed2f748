// Files of one JSON object a line.
#pragma once

#include "kernels/status.h"

#include <jansson.h>
#include <stddef.h>

enum { JSON_LINE_BYTES_MAX = 1 << 20 };

// Is given each object in turn, `line` counted from 1. What fails is reported with file and line before the
// message.
typedef status (*json_lines_visit)(void *context, const json_t *object, long line);

// Lines that cannot be used and are no errors, as somebody asked for that.
typedef struct skipped_lines {
    size_t count;
    void (*tell)(void *context, const char *message); // of each, with file and line; may be NULL
    void *context;
} skipped_lines;
void skipped_lines_add(skipped_lines *skipped); // the failure recorded last

// Blank lines are passed over. A line that is no JSON object, repeats a key, is longer than
// JSON_LINE_BYTES_MAX or is refused by `visit` is an error that names `path` and the line; with `skipped`
// it goes there instead.
status json_lines_read(const char *path, json_lines_visit visit, void *context, skipped_lines *skipped);

// The same of text in memory [length], called `name` in errors.
status json_lines_parse(const char *name, const char *text, size_t length, json_lines_visit visit,
                        void *context, skipped_lines *skipped);
