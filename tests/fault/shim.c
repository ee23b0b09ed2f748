// Preloaded before the program (LD_PRELOAD) to make its file system fail at a chosen moment, and to check
// that what it publishes is durable first. Calls are counted whose path contains FAULT_FOLDER, in the process
// whose rank is FAULT_RANK (any, if that is not set):
//
//     FAULT_AT      which call fails, from 1; not set or 0: none
//     FAULT_TIMES   how many fail from that one on (1)
//     FAULT_ACTION  kill: SIGKILL before the call; tear: SIGKILL after it, a write half done;
//                   enospc, eio, edquot, erofs: the call fails so; short: a write takes half of its bytes
//     FAULT_LOG     file that receives a line "NUMBER CALL PATH" for every counted call
//
// What is checked: nothing is renamed while it, or anything in it, was written or created and not fsynced
// since; and a process that ends by itself without a fault leaves nothing unsynced. A breach ends the process
// with status 99.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILES_MAX = 1024, UNSYNCED_MAX = 4096, BREACH = 99 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *path_of[FILES_MAX];     // of open descriptors that are watched
static char *unsynced[UNSYNCED_MAX]; // files written, folders in which a name changed
static int unsynced_count;
static const char *watched, *action;
static long fault_at, fault_times, calls;
static int log_file = -1;
static bool mine;

static int next_int(const char *name) {
    const char *text = getenv(name);
    return text == NULL ? -1 : atoi(text);
}

__attribute__((constructor)) static void begin(void) {
    watched = getenv("FAULT_FOLDER");
    action = getenv("FAULT_ACTION");
    fault_at = next_int("FAULT_AT") > 0 ? next_int("FAULT_AT") : 0;
    fault_times = next_int("FAULT_TIMES") > 0 ? next_int("FAULT_TIMES") : 1;
    const int wanted = next_int("FAULT_RANK");
    mine = watched != NULL && (wanted < 0 || wanted == next_int("OMPI_COMM_WORLD_RANK"));
    const char *log = getenv("FAULT_LOG");
    if (mine && log != NULL)
        log_file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

// Heartbeats come by the clock, and nothing of them has to last.
static bool is_watched(const char *path) {
    return mine && path != NULL && strstr(path, watched) != NULL && strstr(path, "/heartbeats") == NULL;
}

static void fail_test(const char *what, const char *path) {
    char line[PATH_MAX + 128];
    const int length = snprintf(line, sizeof line, "fault: %s: %s\n", what, path);
    if (write(2, line, (size_t)length) != length)
        errno = 0;
    _exit(BREACH);
}

// Whether the call that was counted last is one that fails.
static bool is_due(void) {
    return fault_at > 0 && calls >= fault_at && calls < fault_at + fault_times;
}

static void mark(const char *path) {
    if (strstr(path, "run.lock") != NULL) // who holds the folder, not worth keeping
        return;
    for (int i = 0; i < unsynced_count; i++)
        if (strcmp(unsynced[i], path) == 0)
            return;
    if (unsynced_count == UNSYNCED_MAX)
        fail_test("more unsynced files than the shim can note", path);
    unsynced[unsynced_count++] = strdup(path);
}

static void mark_folder_of(const char *path) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash != NULL && is_watched(folder)) {
        *slash = '\0';
        mark(folder);
    }
}

static bool is_within(const char *path, const char *folder) {
    const size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

// Forgets what is at and, if `below`, under the path.
static void forget(const char *path, bool below) {
    int kept = 0;
    for (int i = 0; i < unsynced_count; i++) {
        if (below ? is_within(unsynced[i], path) : strcmp(unsynced[i], path) == 0)
            free(unsynced[i]);
        else
            unsynced[kept++] = unsynced[i];
    }
    unsynced_count = kept;
}

static void check_synced(const char *path, const char *what) {
    for (int i = 0; i < unsynced_count; i++)
        if (is_within(unsynced[i], path))
            fail_test(what, unsynced[i]);
}

__attribute__((destructor)) static void end(void) {
    if (mine && fault_at == 0 && getenv("FAULT_ENDS_SYNCED") != NULL && unsynced_count > 0)
        fail_test("the process ends, this was not synced", unsynced[0]);
}

// Counts the call; the lock is held. Returns true if it is to fail, with errno set, or does not return.
static bool strikes(const char *call, const char *path) {
    char line[PATH_MAX + 64];
    calls++;
    if (log_file >= 0) {
        const int length = snprintf(line, sizeof line, "%ld %s %s\n", calls, call, path);
        syscall(SYS_write, log_file, line, (size_t)length);
    }
    if (!is_due() || action == NULL)
        return false;
    if (strcmp(action, "kill") == 0)
        kill(getpid(), SIGKILL);
    static const struct {
        const char *name;
        int error;
    } errors[] = {{"enospc", ENOSPC}, {"eio", EIO}, {"edquot", EDQUOT}, {"erofs", EROFS}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (strcmp(action, errors[i].name) == 0) {
            errno = errors[i].error;
            return true;
        }
    return false;
}

static void end_torn(void) {
    if (is_due() && action != NULL && strcmp(action, "tear") == 0)
        kill(getpid(), SIGKILL);
}

// The path of `name` relative to an open folder; NULL if that is not watched.
static const char *join(int folder, const char *name, char out[PATH_MAX]) {
    if (folder == AT_FDCWD || name[0] == '/')
        return name;
    if (folder < 0 || folder >= FILES_MAX || path_of[folder] == NULL)
        return NULL;
    snprintf(out, PATH_MAX, "%s/%s", path_of[folder], name);
    return out;
}

static int open_watched(int folder, const char *name, int flags, mode_t mode) {
    char joined[PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *path = join(folder, name, joined);
    const bool counted = is_watched(path);
    int file = -1;
    if (!counted || !strikes("open", path)) {
        struct stat info;
        const bool creates = counted && (flags & O_CREAT) != 0 && stat(path, &info) != 0;
        file = (int)syscall(SYS_openat, folder, name, flags, mode);
        if (file >= 0 && file < FILES_MAX) { // closedir closes what it was given without being seen here
            free(path_of[file]);
            path_of[file] = counted ? strdup(path) : NULL;
        }
        if (file >= 0 && creates)
            mark_folder_of(path);
        if (counted)
            end_torn();
    }
    pthread_mutex_unlock(&lock);
    return file;
}

static mode_t mode_of(int flags, va_list arguments) {
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

int open(const char *name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_watched(AT_FDCWD, name, flags, mode);
}
int open64(const char *, int, ...) __attribute__((alias("open")));

int openat(int folder, const char *name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_watched(folder, name, flags, mode);
}
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));

static const char *path_of_file(int file) {
    return file >= 0 && file < FILES_MAX ? path_of[file] : NULL;
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    pthread_mutex_lock(&lock);
    const char *path = path_of_file(file);
    ssize_t written = -1;
    if (path == NULL) {
        pthread_mutex_unlock(&lock); // of no interest, and it may take long
        return syscall(SYS_pwrite64, file, bytes, count, at);
    }
    if (!strikes("pwrite", path)) {
        const bool halves = is_due() && action != NULL && count > 1 &&
                            (strcmp(action, "tear") == 0 || strcmp(action, "short") == 0);
        mark(path);
        written = syscall(SYS_pwrite64, file, bytes, halves ? count / 2 : count, at);
        end_torn();
    }
    pthread_mutex_unlock(&lock);
    return written;
}
ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));

int fsync(int file) {
    pthread_mutex_lock(&lock);
    const char *path = path_of_file(file);
    int result = -1;
    if (path == NULL || !strikes("fsync", path)) {
        result = (int)syscall(SYS_fsync, file);
        if (path != NULL && result == 0)
            forget(path, false);
        if (path != NULL)
            end_torn();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int file, off_t size) {
    pthread_mutex_lock(&lock);
    const char *path = path_of_file(file);
    int result = -1;
    if (path == NULL || !strikes("ftruncate", path)) {
        result = (int)syscall(SYS_ftruncate, file, size);
        if (path != NULL)
            end_torn();
    }
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));

int close(int file) {
    pthread_mutex_lock(&lock);
    const char *path = path_of_file(file);
    int result = -1;
    const bool fails = path != NULL && strikes("close", path);
    const int error = errno;
    const int closed = (int)syscall(SYS_close, file);
    if (!fails)
        result = closed;
    else
        errno = error; // the descriptor is gone all the same
    if (path != NULL) {
        end_torn();
        free(path_of[file]);
        path_of[file] = NULL;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *name, mode_t mode) {
    pthread_mutex_lock(&lock);
    const bool counted = is_watched(name);
    int result = -1;
    if (!counted || !strikes("mkdir", name)) {
        result = (int)syscall(SYS_mkdir, name, mode);
        if (counted && result == 0)
            mark_folder_of(name);
        if (counted)
            end_torn();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&lock);
    const bool counted = is_watched(from) || is_watched(to);
    int result = -1;
    if (!counted || !strikes("rename", to)) {
        if (counted && strstr(to, ".tmp") == NULL) // what is about to be removed need not be synced
            check_synced(from, "renamed before it was synced");
        result = (int)syscall(SYS_rename, from, to);
        if (counted && result == 0) {
            forget(from, true);
            mark_folder_of(to);
        }
        if (counted)
            end_torn();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int unlink_watched(int folder, const char *name, int flags) {
    char joined[PATH_MAX];
    pthread_mutex_lock(&lock);
    const char *path = join(folder, name, joined);
    const bool counted = is_watched(path);
    int result = -1;
    if (!counted || !strikes("unlink", path)) {
        result = (int)syscall(SYS_unlinkat, folder, name, flags);
        if (counted && result == 0)
            forget(path, true);
        if (counted)
            end_torn();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlinkat(int folder, const char *name, int flags) {
    return unlink_watched(folder, name, flags);
}

int unlink(const char *name) {
    return unlink_watched(AT_FDCWD, name, 0);
}
