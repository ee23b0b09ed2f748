// The one place that writes files which outlive the process. A file is written as PATH.tmp, fsynced, renamed
// to PATH, and its folder is fsynced: a reader sees the whole file or none, whenever the writer is killed.
// Only open, pwrite, fsync and rename are used, never stdio, so that faults can be injected at each call.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct publisher publisher;

// Opens PATH.tmp for writing, truncating a stale one. The folder must exist.
status publish_open(publisher **out, const char *path);

// Appends. On failure the publisher must be aborted.
status publish_write(publisher *publisher, const void *bytes, size_t count);

// Makes the bytes durable under PATH.tmp and releases the file descriptor, so that many files can be prepared
// and then published together by publish_commit. On failure the publisher must be aborted. Nothing may be
// written afterwards.
status publish_seal(publisher *publisher);

// Makes the file durable under its name and frees the publisher, also on failure (then PATH is untouched and
// PATH.tmp is removed).
status publish_commit(publisher *publisher);

// Removes PATH.tmp and frees the publisher. NULL is allowed.
void publish_abort(publisher *publisher);

// Open, write and commit for a whole buffer.
status publish_file(const char *path, const void *bytes, size_t count);

// Removes a published file, durably; one that is not there is no error.
status publish_remove(const char *path);

// Creates the folder and its missing parents, durably.
status publish_make_folder(const char *path);

// Removes *.tmp left in a folder (not below it) by a killed writer; a missing folder is no error.
status publish_sweep(const char *folder);

// Files that grow record by record (metrics, event files) are the one exception to renaming: each record is
// one pwrite at the end, and a record that does not fit is taken back, so that the file ends after a whole
// record unless the machine itself stops in between.
typedef struct appender appender;

// Opens PATH for appending; a missing file is created, durably.
status append_open(appender **out, const char *path);

// Appends one record. On failure the file is as it was before.
status append_write(appender *appender, const void *bytes, size_t count);

// Makes everything appended so far durable.
status append_sync(appender *appender);

// Syncs, closes and frees, also on failure. NULL is allowed.
status append_close(appender *appender);
