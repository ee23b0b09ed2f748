#include "data/exchange_folder.h"

#include "data/json_file.h"
#include "data/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const state_words[] = {"absent", "open", "finished", "stopped"};

static status place(const exchange_folder *folder, const char *name, char path[PATH_MAX]) {
    if (snprintf(path, PATH_MAX, "%s/%s", folder->path, name) >= PATH_MAX)
        return FAIL("path is too long: %.60s.../%s", folder->path, name);
    return STATUS_OK;
}

static status set_root(exchange_folder *folder, const char *run) {
    *folder = (exchange_folder){0};
    if (snprintf(folder->root, sizeof folder->root, "%s/exchange", run) >= (int)sizeof folder->root)
        return FAIL("path is too long: %.60s...", run);
    return STATUS_OK;
}

static void set_session(exchange_folder *folder, const char *session) {
    snprintf(folder->session, sizeof folder->session, "%s", session);
    snprintf(folder->path, sizeof folder->path, "%s/%s", folder->root, session);
}

static status publish_state(const exchange_folder *folder, exchange_state state, json_t *terms) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/session.json", folder->root);
    return json_file_publish(path, json_pack("{s:s, s:s, s:o*}", "session", folder->session, "state",
                                             state_words[state], "terms", terms));
}

// Removes every session but one ("": every session).
static status remove_sessions(const exchange_folder *folder, const char *except) {
    DIR *stream = opendir(folder->root);
    if (stream == NULL)
        return errno == ENOENT ? STATUS_OK : FAIL("cannot open folder %s: %s", folder->root, strerror(errno));
    status result = publish_sweep(folder->root);
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;) {
        char path[PATH_MAX];
        const size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, "session-", 8) != 0 || strcmp(entry->d_name, except) == 0 ||
            (length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0))
            continue;
        if (snprintf(path, sizeof path, "%s/%s", folder->root, entry->d_name) < (int)sizeof path)
            result = publish_remove_folder(path);
    }
    closedir(stream);
    return result;
}

status exchange_folder_begin(exchange_folder *out, const char *run, json_t *terms) {
    struct timespec now;
    char session[64], claims[PATH_MAX + 8];
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(session, sizeof session, "session-%llx-%d",
             (unsigned long long)now.tv_sec * 1000000000ull + (unsigned long long)now.tv_nsec, (int)getpid());
    status result = set_root(out, run);
    set_session(out, session);
    snprintf(claims, sizeof claims, "%s/claims", out->path);
    if (result == STATUS_OK)
        result = publish_make_folder(claims);
    if (result != STATUS_OK) {
        json_decref(terms);
        return result;
    }
    TRY(publish_state(out, EXCHANGE_OPEN, terms));
    // Only now: a worker whose session vanishes must find that it is no longer the current one.
    return remove_sessions(out, session);
}

status exchange_folder_end(const exchange_folder *folder, exchange_state how) {
    TRY(publish_state(folder, how, NULL));
    return remove_sessions(folder, "");
}

status exchange_folder_look(exchange_folder *out, const char *run, exchange_state *state, json_t **terms) {
    char path[PATH_MAX];
    json_error_t error;
    *state = EXCHANGE_ABSENT;
    if (terms != NULL)
        *terms = NULL;
    TRY(set_root(out, run));
    snprintf(path, sizeof path, "%s/session.json", out->root);
    if (access(path, F_OK) != 0)
        return STATUS_OK;
    json_t *said = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    const char *session = json_string_value(json_object_get(said, "session")),
               *word = json_string_value(json_object_get(said, "state"));
    for (int i = EXCHANGE_OPEN; word != NULL && i <= EXCHANGE_STOPPED; i++)
        if (strcmp(word, state_words[i]) == 0)
            *state = (exchange_state)i;
    if (*state == EXCHANGE_ABSENT || session == NULL || strncmp(session, "session-", 8) != 0 ||
        strlen(session) >= sizeof out->session || strchr(session, '/') != NULL) {
        json_decref(said);
        return FAIL("%s does not say which session is open: %s; start the run again", path,
                    said == NULL ? error.text : "no 'session' or 'state'");
    }
    set_session(out, session);
    if (terms != NULL && *state == EXCHANGE_OPEN)
        *terms = json_incref(json_object_get(said, "terms"));
    json_decref(said);
    return STATUS_OK;
}

// Under a name of its own first: two that publish the same name must not write into one file.
status exchange_folder_publish(const exchange_folder *folder, const char *name, const void *bytes,
                               size_t count) {
    char path[PATH_MAX], host[HOST_NAME_MAX + 1] = "", own[EXCHANGE_NAME + HOST_NAME_MAX + 32],
                                              made[PATH_MAX];
    gethostname(host, sizeof host - 1);
    snprintf(own, sizeof own, "%s.%s-%d", name, host, (int)getpid());
    TRY(place(folder, name, path));
    TRY(place(folder, own, made));
    TRY(publish_file(made, bytes, count));
    return publish_replace(made, path);
}

bool exchange_folder_has(const exchange_folder *folder, const char *name) {
    char path[PATH_MAX];
    struct stat info;
    return place(folder, name, path) == STATUS_OK && stat(path, &info) == 0;
}

// Network file systems remember that a name was not there until they look at its folder again, which they do
// where that is opened.
static int open_seen(const exchange_folder *folder, const char *path) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0 || errno != ENOENT)
        return file;
    const int again = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (again < 0)
        return -1;
    file = open(path, O_RDONLY | O_CLOEXEC);
    const int reason = errno;
    close(again);
    errno = reason;
    return file;
}

status exchange_folder_fetch(const exchange_folder *folder, const char *name, void *buffer, size_t capacity,
                             bool *there, size_t *bytes) {
    char path[PATH_MAX];
    struct stat info;
    *there = false;
    *bytes = 0;
    TRY(place(folder, name, path));
    const int file = open_seen(folder, path);
    if (file < 0)
        return errno == ENOENT ? STATUS_OK : FAIL("cannot open %s: %s", path, strerror(errno));
    status result = STATUS_OK;
    size_t done = 0, size = 0, wanted = 0;
    if (fstat(file, &info) != 0) {
        result = FAIL("cannot look at %s: %s", path, strerror(errno));
    } else {
        size = (size_t)info.st_size;
        wanted = size < capacity ? size : capacity;
    }
    while (result == STATUS_OK && done < wanted) {
        const ssize_t got = read(file, (char *)buffer + done, wanted - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            result = FAIL("cannot read %s: %s", path, strerror(errno));
        else if (got == 0)
            size = wanted = done; // it shrank
        else
            done += (size_t)got;
    }
    close(file);
    *there = result == STATUS_OK;
    *bytes = size;
    return result;
}

static status discard_in(const char *path, const char *prefix) {
    DIR *stream = opendir(path);
    if (stream == NULL)
        return errno == ENOENT ? STATUS_OK : FAIL("cannot open folder %s: %s", path, strerror(errno));
    status result = STATUS_OK;
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;)
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            unlinkat(dirfd(stream), entry->d_name, 0) != 0 && errno != ENOENT)
            result = FAIL("cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
    closedir(stream);
    return result;
}

status exchange_folder_discard(const exchange_folder *folder, const char *prefix) {
    char claims[PATH_MAX];
    TRY(place(folder, "claims", claims));
    TRY(discard_in(folder->path, prefix));
    return discard_in(claims, prefix);
}

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

status exchange_folder_list(const exchange_folder *folder, const char *prefix, char (*names)[EXCHANGE_NAME],
                            int capacity, int *count) {
    *count = 0;
    DIR *stream = opendir(folder->path);
    if (stream == NULL)
        return FAIL("cannot open folder %s: %s", folder->path, strerror(errno));
    for (struct dirent *entry; *count < capacity && (entry = readdir(stream)) != NULL;) {
        const size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && length < EXCHANGE_NAME)
            memcpy(names[(*count)++], entry->d_name, length + 1);
    }
    closedir(stream);
    qsort(names, (size_t)*count, sizeof *names, by_name);
    return STATUS_OK;
}

// The lock goes with the process that holds it, however that ends.
status exchange_folder_claim(const exchange_folder *folder, const char *name, const char *owner, int *claim,
                             char *holder) {
    char path[PATH_MAX];
    *claim = -1;
    holder[0] = '\0';
    if (snprintf(path, sizeof path, "%s/claims/%s", folder->path, name) >= (int)sizeof path)
        return FAIL("path is too long: %.60s.../%s", folder->path, name);
    const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0)
        return FAIL("cannot write to %s: %s", path, strerror(errno));
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        const int reason = errno;
        const ssize_t length = pread(file, holder, EXCHANGE_OWNER - 1, 0);
        holder[length > 0 ? length : 0] = '\0';
        close(file);
        return reason == EWOULDBLOCK
                   ? STATUS_OK
                   : FAIL("cannot lock %s: %s; use a file system with locks", path, strerror(reason));
    }
    const size_t length = strlen(owner);
    // A name that cannot be left there (a full disk) makes the lock no weaker.
    if (ftruncate(file, 0) != 0 || pwrite(file, owner, length, 0) != (ssize_t)length)
        errno = 0;
    *claim = file;
    return STATUS_OK;
}

void exchange_folder_release(int claim) {
    if (claim >= 0)
        close(claim);
}
