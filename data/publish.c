#include "data/publish.h"

#include "kernels/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct publisher {
    int file;
    digest_stream *digest; // of what was appended
    uint64_t offset;
    char path[PATH_MAX];
    char temporary[PATH_MAX];
};

static const char *mend(int error) {
    switch (error) {
    case ENOSPC:
        return "; free some space and run again";
    case EDQUOT:
        return "; the quota is used up: free some space and run again";
    case EACCES:
    case EROFS:
        return "; choose a folder that can be written";
    case EFBIG:
        return "; the limit on file sizes is reached: raise it (ulimit -f) and run again";
    case ENOENT:
        return "; the folder is missing";
    default:
        return "";
    }
}

static status failed(const char *action, const char *path, int error) {
    return FAIL("cannot %s %s: %s%s", action, path, strerror(error), mend(error));
}

static status sync_folder(const char *folder) {
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return failed("open folder", folder, errno);
    int result = fsync(file);
    int error = errno;
    close(file);
    return result == 0 ? STATUS_OK : failed("sync folder", folder, error);
}

static status sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        snprintf(folder, sizeof folder, ".");
    else if (slash == folder)
        folder[1] = '\0';
    else
        *slash = '\0';
    return sync_folder(folder);
}

// Without the slashes that may end the name of a folder.
static size_t trimmed_length(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return length;
}

static status temporary_name(const char *path, char *temporary) {
    const size_t length = trimmed_length(path); // FOLDER/ is built as FOLDER.tmp, not in FOLDER
    if (length > PATH_MAX - 8 ||
        snprintf(temporary, PATH_MAX, "%.*s.tmp", (int)length, path) != (int)length + 4)
        return FAIL("path is too long: %.60s...", path);
    return STATUS_OK;
}

// A publisher whose digest or file may be missing.
static void discard(publisher *p) {
    digest_stream_destroy(p->digest);
    memory_free(p);
}

status publish_open(publisher **out, const char *path) {
    *out = NULL;
    publisher *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "publisher"));
    p->file = -1;
    status result = temporary_name(path, p->temporary);
    if (result != STATUS_OK)
        goto failed;
    snprintf(p->path, sizeof p->path, "%s", path);
    TRY_GOTO(result, digest_stream_create(&p->digest), failed);
    p->file = open(p->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (p->file < 0) {
        result = failed("create", p->temporary, errno);
        goto failed;
    }
    *out = p;
    return STATUS_OK;
failed:
    discard(p);
    return result;
}

status publish_write(publisher *p, const void *bytes, size_t count) {
    const char *next = bytes;
    while (count > 0) {
        ssize_t written = pwrite(p->file, next, count, (off_t)p->offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return failed("write", p->temporary, written < 0 ? errno : ENOSPC);
        digest_stream_update(p->digest, next, (size_t)written);
        next += written;
        p->offset += (uint64_t)written;
        count -= (size_t)written;
    }
    return STATUS_OK;
}

void publish_receipt(const publisher *p, uint64_t *bytes, digest *out) {
    *bytes = p->offset;
    *out = digest_stream_read(p->digest);
}

status publish_seal(publisher *p) {
    if (fsync(p->file) != 0)
        return failed("sync", p->temporary, errno);
    int closed = close(p->file);
    p->file = -1;
    return closed == 0 ? STATUS_OK : failed("close", p->temporary, errno);
}

status publish_commit(publisher *p) {
    status result = p->file >= 0 ? publish_seal(p) : STATUS_OK;
    if (result == STATUS_OK && rename(p->temporary, p->path) != 0)
        result = failed("publish", p->path, errno);
    if (result != STATUS_OK) {
        publish_abort(p);
        return result;
    }
    result = sync_folder_of(p->path);
    discard(p);
    return result;
}

void publish_abort(publisher *p) {
    if (p == NULL)
        return;
    if (p->file >= 0)
        close(p->file);
    unlink(p->temporary);
    discard(p);
}

status publish_file(const char *path, const void *bytes, size_t count) {
    publisher *p;
    TRY(publish_open(&p, path));
    status result = publish_write(p, bytes, count);
    if (result != STATUS_OK) {
        publish_abort(p);
        return result;
    }
    return publish_commit(p);
}

status publish_check_place(const char *path, int replace) {
    struct stat info;
    if (stat(path, &info) != 0)
        return errno == ENOENT ? STATUS_OK : failed("look at", path, errno);
    if (S_ISDIR(info.st_mode))
        return FAIL("%s is a folder, a file is wanted; give the name of one, in that folder say", path);
    if (!S_ISREG(info.st_mode)) // root could rename a file over a device
        return FAIL("%s is no regular file and cannot be replaced by one; choose another name", path);
    if (!replace)
        return FAIL("%s is there already; choose another name, or replace it with --replace", path);
    return STATUS_OK;
}

status publish_remove(const char *path) {
    if (unlink(path) != 0)
        return errno == ENOENT ? STATUS_OK : failed("remove", path, errno);
    return sync_folder_of(path);
}

status publish_make_folder(const char *path) {
    char partial[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof partial)
        return FAIL("not a folder name: '%.60s'", path);
    memcpy(partial, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (partial[i] != '/' && partial[i] != '\0')
            continue;
        char kept = partial[i];
        partial[i] = '\0';
        struct stat info;
        if (mkdir(partial, 0755) == 0)
            TRY(sync_folder_of(partial));
        else if (errno != EEXIST)
            return failed("create folder", partial, errno);
        else if (stat(partial, &info) != 0)
            return failed("look at folder", partial, errno);
        else if (!S_ISDIR(info.st_mode))
            return FAIL("%s is a file, a folder is needed; remove it or choose another name", partial);
        partial[i] = kept;
    }
    return STATUS_OK;
}

// The length of the path that `path` [length] lies in, 0 for none.
static size_t parent_length(const char *path, size_t length) {
    while (length > 0 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    return length;
}

size_t publish_path_there(const char *path) {
    char partial[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof partial)
        return length;
    for (; length > 0; length = parent_length(path, length)) {
        memcpy(partial, path, length);
        partial[length] = '\0';
        if (access(partial, F_OK) == 0)
            break;
    }
    return length;
}

void publish_remove_empty(const char *path, size_t there) {
    char partial[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof partial)
        return;
    memcpy(partial, path, length);
    for (; length > there; length = parent_length(path, length)) {
        partial[length] = '\0';
        if (rmdir(partial) != 0)
            return;
    }
}

status publish_lock_folder(const char *path, int *lock) {
    TRY(publish_make_folder(path));
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*lock < 0)
        return failed("open folder", path, errno);
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return STATUS_OK;
    close(*lock);
    *lock = -1;
    return FAIL("%s is being written by another process; wait for it to end or choose another folder", path);
}

void publish_unlock_folder(int lock) {
    if (lock >= 0)
        close(lock);
}

status publish_make_parent(const char *path) {
    char parent[PATH_MAX];
    const size_t length = parent_length(path, strlen(path));
    if (length == 0)
        return STATUS_OK;
    if (length >= sizeof parent)
        return FAIL("path is too long: %.60s...", path);
    memcpy(parent, path, length);
    parent[length] = '\0';
    return publish_make_folder(parent);
}

// Removes an entry of the folder `parent` and, if it is a folder, what it holds; links are not followed.
// Returns 0 or an errno.
static int remove_tree(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return errno;
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return errno;
    DIR *stream = fdopendir(folder);
    if (stream == NULL) {
        int error = errno;
        close(folder);
        return error;
    }
    int error = 0;
    for (struct dirent *entry; error == 0 && (entry = readdir(stream)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            error = remove_tree(folder, entry->d_name);
    }
    closedir(stream);
    if (error == 0 && unlinkat(parent, name, AT_REMOVEDIR) != 0)
        error = errno;
    return error;
}

static status refuse_existing(const char *path) {
    struct stat info;
    if (lstat(path, &info) == 0)
        return FAIL("%s is there already; remove it or choose another name", path);
    return errno == ENOENT ? STATUS_OK : failed("look at", path, errno);
}

status publish_begin_folder(const char *path, char *temporary) {
    TRY(temporary_name(path, temporary));
    TRY(refuse_existing(path));
    int error = remove_tree(AT_FDCWD, temporary);
    if (error != 0)
        return failed("remove stale", temporary, error);
    if (mkdir(temporary, 0755) != 0)
        return failed("create folder", temporary, errno);
    return STATUS_OK;
}

status publish_commit_folder(const char *path) {
    char temporary[PATH_MAX];
    TRY(temporary_name(path, temporary));
    TRY(sync_folder(temporary));
    return publish_rename(temporary, path);
}

void publish_abort_folder(const char *path) {
    char temporary[PATH_MAX];
    if (temporary_name(path, temporary) == STATUS_OK)
        remove_tree(AT_FDCWD, temporary);
}

status publish_remove_folder(const char *path) {
    char temporary[PATH_MAX];
    TRY(temporary_name(path, temporary));
    int error = remove_tree(AT_FDCWD, temporary);
    if (error != 0)
        return failed("remove stale", temporary, error);
    TRY(publish_rename(path, temporary));
    error = remove_tree(AT_FDCWD, temporary);
    return error == 0 ? STATUS_OK : failed("remove", temporary, error);
}

status publish_rename(const char *from, const char *to) {
    TRY(refuse_existing(to));
    return publish_replace(from, to);
}

status publish_replace(const char *from, const char *to) {
    if (rename(from, to) != 0)
        return failed("publish", to, errno);
    return sync_folder_of(to);
}

status publish_sweep(const char *folder) {
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return errno == ENOENT ? STATUS_OK : failed("open folder", folder, errno);
    status result = STATUS_OK;
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (length < 5 || strcmp(entry->d_name + length - 4, ".tmp") != 0)
            continue;
        int error = remove_tree(dirfd(stream), entry->d_name);
        if (error != 0)
            result =
                FAIL("cannot remove stale %s/%s: %s%s", folder, entry->d_name, strerror(error), mend(error));
    }
    closedir(stream);
    return result;
}

struct appender {
    int file;
    bool durable; // nothing was written since the last sync
    uint64_t size;
    char path[PATH_MAX];
};

status append_open(appender **out, const char *path) {
    *out = NULL;
    appender *a;
    TRY(memory_allocate((void **)&a, sizeof *a, "appender"));
    a->file = -1;
    status result;
    struct stat info;
    if (snprintf(a->path, sizeof a->path, "%s", path) >= (int)sizeof a->path) {
        result = FAIL("path is too long: %.60s...", path);
        goto failed;
    }
    a->file = open(a->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (a->file < 0) {
        result = failed("open", a->path, errno);
        goto failed;
    }
    if (fstat(a->file, &info) != 0) {
        result = failed("look at", a->path, errno);
        goto failed;
    }
    TRY_GOTO(result, sync_folder_of(a->path), failed);
    a->size = (uint64_t)info.st_size;
    *out = a;
    return STATUS_OK;
failed:
    if (a->file >= 0)
        close(a->file);
    memory_free(a);
    return result;
}

status append_write(appender *a, const void *bytes, size_t count) {
    size_t done = 0;
    a->durable = false;
    while (done < count) {
        const ssize_t written =
            pwrite(a->file, (const char *)bytes + done, count - done, (off_t)(a->size + done));
        if (written > 0)
            done += (size_t)written;
        else if (written == 0 || errno != EINTR) {
            status result = failed("append to", a->path, written < 0 ? errno : ENOSPC);
            if (done > 0 && ftruncate(a->file, (off_t)a->size) != 0)
                return status_prefix(result, "%s now ends in half a record: ", a->path);
            return result;
        }
    }
    a->size += count;
    return STATUS_OK;
}

static status make_durable(appender *a) {
    if (!a->durable && fsync(a->file) != 0)
        return failed("sync", a->path, errno);
    a->durable = true;
    return STATUS_OK;
}

status append_sync(appender *a) {
    struct stat info;
    if (fstat(a->file, &info) == 0 && info.st_nlink == 0)
        return FAIL("%s was removed while it is being written; run again to continue from the newest "
                    "checkpoint",
                    a->path);
    return make_durable(a);
}

status append_close(appender *a) {
    if (a == NULL)
        return STATUS_OK;
    status result = make_durable(a);
    if (close(a->file) != 0 && result == STATUS_OK)
        result = failed("close", a->path, errno);
    memory_free(a);
    return result;
}
