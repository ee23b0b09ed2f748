// What the fuzz targets share: inputs as files, and failures that the fuzzer sees.
#pragma once

#include "kernels/status.h"

#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char fuzz_folder[PATH_MAX / 2];

static void fuzz_remove_folder(void) {
    char command[PATH_MAX];
    snprintf(command, sizeof command, "rm -rf '%s'", fuzz_folder);
    if (system(command) != 0)
        perror(fuzz_folder);
}

// FOLDER/name in a folder of this process, in memory where the system has such a place; gone at the end.
// Valid until the next call.
static inline const char *fuzz_path(const char *name) {
    static char path[PATH_MAX];
    if (fuzz_folder[0] == '\0') {
        snprintf(fuzz_folder, sizeof fuzz_folder, "/dev/shm/musicrl-fuzz-XXXXXX");
        if (mkdtemp(fuzz_folder) == NULL) {
            snprintf(fuzz_folder, sizeof fuzz_folder, "/tmp/musicrl-fuzz-XXXXXX");
            if (mkdtemp(fuzz_folder) == NULL)
                abort();
        }
        atexit(fuzz_remove_folder);
    }
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    return path;
}

static inline void fuzz_write(const char *path, const void *bytes, size_t size) {
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || write(file, bytes, size) != (ssize_t)size || close(file) != 0)
        abort();
}

// A refusal says why, in one line; a success says nothing that is checked here.
static inline void fuzz_check(status outcome) {
    if (outcome == STATUS_OK)
        return;
    const char *line = status_message();
    if (line[0] == '\0' || strchr(line, '\n') != NULL) {
        fprintf(stderr, "a refusal with the message '%s'\n", line);
        abort();
    }
}

#define FUZZ_REQUIRE(condition)                                                                              \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)
