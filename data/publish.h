// The one place that writes files which outlive the process. A file is written as PATH.tmp, fsynced, renamed
// to PATH, and its folder is fsynced: a reader sees the whole file or none, whenever the writer is killed. A
// folder of files is built as PATH.tmp/ and renamed likewise. Only open, mkdir, pwrite, fsync and rename are
// used, never stdio, so that faults can be injected at each call. Writing past a file-size limit is an error
// like a full disk, provided that the process ignores SIGXFSZ.
#pragma once

#include "data/digest.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct publisher publisher;

// Opens PATH.tmp for writing, truncating a stale one. The folder must exist.
status publish_open(publisher **out, const char *path);

// Appends. On failure the publisher must be aborted.
status publish_write(publisher *publisher, const void *bytes, size_t count);

// The number and digest of the bytes appended so far.
void publish_receipt(const publisher *publisher, uint64_t *bytes, digest *out);

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

// For taking that back: of how many bytes of `path` a folder is there already; then removes those beyond them
// that hold nothing.
size_t publish_path_there(const char *path);
void publish_remove_empty(const char *path, size_t there);

// Creates the folder if it is missing, and keeps others who ask for it out until *lock is given back; fails
// if one of them has it. Where the file system has no locks, nobody is kept out.
status publish_lock_folder(const char *path, int *lock);
void publish_unlock_folder(int lock); // -1 is allowed

// Creates the folder that `path` is to lie in.
status publish_make_parent(const char *path);

// Fails unless a file may be published at `path`: what is there already must be a file, and gives way only
// with `replace`. For those who work long before they publish.
status publish_check_place(const char *path, int replace);

// Starts a folder that is published as a whole: creates the empty folder PATH.tmp, removing a stale one, and
// returns its name in `temporary` [PATH_MAX]. Refuses if PATH is there already. Files are published into
// `temporary` one by one.
status publish_begin_folder(const char *path, char *temporary);

// Renames PATH.tmp to PATH, durably. Refuses if PATH is there already. On failure PATH.tmp remains.
status publish_commit_folder(const char *path);

// Removes PATH.tmp and what it holds. Leaves the recorded message alone.
void publish_abort_folder(const char *path);

// Removes a published folder and what it holds. It vanishes from its name at once: a killed process leaves
// PATH.tmp for publish_sweep, never half a folder.
status publish_remove_folder(const char *path);

// Renames a published file or folder durably; refuses if `to` is there already.
status publish_rename(const char *from, const char *to);
// The same for a file, in place of the one that is there already, if any.
status publish_replace(const char *from, const char *to);

// Removes the files and folders *.tmp left in a folder (not below it) by a killed writer; a missing folder is
// no error. Not while another process writes there.
status publish_sweep(const char *folder);

// Files that grow record by record (metrics, event files) are the one exception to renaming: each record is
// written at the end, and one that does not fit is taken back, so that the file ends after a whole
// record unless the machine itself stops in between.
typedef struct appender appender;

// Opens PATH for appending; a missing file is created, durably.
status append_open(appender **out, const char *path);

// Appends one record. On failure the file is as it was before.
status append_write(appender *appender, const void *bytes, size_t count);

// Makes everything appended so far durable; fails if the file was removed meanwhile.
status append_sync(appender *appender);

// Syncs, closes and frees, also on failure. NULL is allowed.
status append_close(appender *appender);
