#include "data/regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static status cannot_open(const char *path, const char *kind, int error) {
    const status result = FAIL("cannot open %s %s: %s", kind, path, strerror(error));
    errno = error;
    return result;
}

status regular_file_open(int *file, struct stat *info, const char *path, const char *kind) {
    struct stat own;
    info = info == NULL ? &own : info;
    *file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // not to wait for the other end of a pipe
    if (*file < 0)
        return cannot_open(path, kind, errno);
    if (fstat(*file, info) == 0 && S_ISREG(info->st_mode))
        return STATUS_OK;
    close(*file);
    *file = -1;
    errno = EINVAL;
    return FAIL("%s is %s, a regular file is wanted; give a %s that is one", path,
                S_ISDIR(info->st_mode)    ? "a folder"
                : S_ISFIFO(info->st_mode) ? "a pipe"
                                          : "a device",
                kind);
}

status regular_file_stream(FILE **out, struct stat *info, const char *path, const char *kind) {
    int file;
    *out = NULL;
    TRY(regular_file_open(&file, info, path, kind));
    *out = fdopen(file, "r");
    if (*out != NULL)
        return STATUS_OK;
    const int error = errno;
    close(file);
    return cannot_open(path, kind, error);
}

status regular_file_text(FILE **out, const char *path, const char *kind) {
    char mark[3];
    TRY(regular_file_stream(out, NULL, path, kind));
    if (fread(mark, 1, sizeof mark, *out) != sizeof mark || memcmp(mark, "\xef\xbb\xbf", sizeof mark) != 0)
        rewind(*out);
    return STATUS_OK;
}
