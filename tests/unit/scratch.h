// A scratch folder of a test program, under $TMPDIR or /tmp, removed at the end.
#pragma once

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char scratch_folder[PATH_MAX / 2];

static inline int scratch_setup(void **state) {
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(scratch_folder, sizeof scratch_folder, "%s/musicrl-test-XXXXXX",
             parent != NULL && parent[0] != '\0' ? parent : "/tmp");
    return mkdtemp(scratch_folder) == NULL ? -1 : 0;
}

static inline int scratch_teardown(void **state) {
    (void)state;
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch_folder);
    return system(command);
}

// FOLDER/name; valid until 64 more calls.
static inline const char *scratch_path(const char *name) {
    static char paths[64][PATH_MAX];
    static int next;
    char *path = paths[next++ % 64];
    snprintf(path, PATH_MAX, "%s/%s", scratch_folder, name);
    return path;
}

// The whole file, NUL-terminated; NULL if it cannot be read. Free with free().
static inline char *scratch_read(const char *path, size_t *count) {
    *count = 0;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size + 1);
    if (bytes != NULL)
        *count = fread(bytes, 1, (size_t)size, file);
    if (bytes != NULL)
        bytes[*count] = '\0';
    fclose(file);
    return bytes;
}

static inline int scratch_write(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return -1;
    size_t written = fwrite(bytes, 1, count, file);
    return fclose(file) == 0 && written == count ? 0 : -1;
}
