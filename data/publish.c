#include "data/publish.h"

#include "kernels/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct publisher {
    int file;
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
    case ENOENT:
        return "; the folder is missing";
    default:
        return "";
    }
}

static status failed(const char *action, const char *path, int error) {
    return FAIL("cannot %s %s: %s%s", action, path, strerror(error), mend(error));
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
    int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return failed("open folder", folder, errno);
    int result = fsync(file);
    int error = errno;
    close(file);
    return result == 0 ? STATUS_OK : failed("sync folder", folder, error);
}

status publish_open(publisher **out, const char *path) {
    *out = NULL;
    publisher *p;
    TRY(memory_allocate((void **)&p, sizeof *p, "publisher"));
    p->file = -1;
    int length = snprintf(p->path, sizeof p->path, "%s", path);
    int longer = snprintf(p->temporary, sizeof p->temporary, "%.*s.tmp", PATH_MAX - 8, path);
    if (length >= (int)sizeof p->path || longer != length + 4) {
        memory_free(p);
        return FAIL("path is too long: %.60s...", path);
    }
    p->file = open(p->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (p->file < 0) {
        status result = failed("create", p->temporary, errno);
        memory_free(p);
        return result;
    }
    *out = p;
    return STATUS_OK;
}

status publish_write(publisher *p, const void *bytes, size_t count) {
    const char *next = bytes;
    while (count > 0) {
        ssize_t written = pwrite(p->file, next, count, (off_t)p->offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return failed("write", p->temporary, written < 0 ? errno : ENOSPC);
        next += written;
        p->offset += (uint64_t)written;
        count -= (size_t)written;
    }
    return STATUS_OK;
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
    memory_free(p);
    return result;
}

void publish_abort(publisher *p) {
    if (p == NULL)
        return;
    if (p->file >= 0)
        close(p->file);
    unlink(p->temporary);
    memory_free(p);
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
        if (mkdir(partial, 0755) == 0)
            TRY(sync_folder_of(partial));
        else if (errno != EEXIST)
            return failed("create folder", partial, errno);
        partial[i] = kept;
    }
    struct stat info;
    if (stat(path, &info) != 0)
        return failed("look at folder", path, errno);
    if (!S_ISDIR(info.st_mode))
        return FAIL("%s is a file, a folder is needed; remove it or choose another name", path);
    return STATUS_OK;
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
        if (unlinkat(dirfd(stream), entry->d_name, 0) != 0 && errno != ENOENT)
            result = failed("remove stale", entry->d_name, errno);
    }
    closedir(stream);
    return result;
}

struct appender {
    int file;
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
    ssize_t written;
    do
        written = pwrite(a->file, bytes, count, (off_t)a->size);
    while (written < 0 && errno == EINTR);
    if (written >= 0 && (size_t)written == count) {
        a->size += count;
        return STATUS_OK;
    }
    status result = failed("append to", a->path, written < 0 ? errno : ENOSPC);
    if (written > 0 && ftruncate(a->file, (off_t)a->size) != 0)
        return status_prefix(result, "%s now ends in half a record: ", a->path);
    return result;
}

status append_sync(appender *a) {
    return fsync(a->file) == 0 ? STATUS_OK : failed("sync", a->path, errno);
}

status append_close(appender *a) {
    if (a == NULL)
        return STATUS_OK;
    status result = append_sync(a);
    if (close(a->file) != 0 && result == STATUS_OK)
        result = failed("close", a->path, errno);
    memory_free(a);
    return result;
}
