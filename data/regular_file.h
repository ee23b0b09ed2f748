// Files that a person names, opened for reading. A pipe of that name would keep its reader waiting for ever,
// a device might never end: both are refused, as are folders.
#pragma once

#include "kernels/status.h"

#include <stdio.h>
#include <sys/stat.h>

// Opens `path`; `kind` ("manifest") is what messages call it. The caller closes *file; `info` (may be NULL)
// receives what is known of it. On failure errno is ENOENT where nothing of that name is there.
status regular_file_open(int *file, struct stat *info, const char *path, const char *kind);

// The same as a stream, and as one of text, past the byte order mark that some editors put before it.
status regular_file_stream(FILE **out, struct stat *info, const char *path, const char *kind);
status regular_file_text(FILE **out, const char *path, const char *kind);
