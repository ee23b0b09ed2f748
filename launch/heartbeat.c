#include "launch/heartbeat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void name_record(const char *folder, int rank, char path[PATH_MAX]) {
    snprintf(path, PATH_MAX, "%s/rank-%06d", folder, rank);
}

// Names in a record must not be empty or hold blanks, as sscanf reads words.
static void put_word(char word[HEARTBEAT_NAME], const char *text) {
    snprintf(word, HEARTBEAT_NAME, "%s", text[0] != '\0' ? text : "-");
    for (char *c = word; *c != '\0'; c++)
        if (*c <= ' ')
            *c = '_';
}

void heartbeat_format(const heartbeat *beat, char text[HEARTBEAT_BYTES]) {
    char host[HEARTBEAT_NAME], roles[HEARTBEAT_NAME], phase[HEARTBEAT_NAME];
    put_word(host, beat->host);
    put_word(roles, beat->roles);
    put_word(phase, beat->phase);
    const int used =
        snprintf(text, HEARTBEAT_BYTES,
                 "beat %" PRIu64 " moves %" PRIu64 " rank %d host %s roles %s phase %s step %" PRId64
                 " seconds %.1f overdue %.1f waits for rank %d in: %s.",
                 beat->beat, beat->moves, beat->rank, host, roles, phase, beat->step, beat->seconds,
                 beat->overdue, beat->waits_for, beat->wait);
    const size_t length = used < HEARTBEAT_BYTES - 1 ? (size_t)used : HEARTBEAT_BYTES - 1;
    memset(text + length, ' ', HEARTBEAT_BYTES - 1 - length);
    text[HEARTBEAT_BYTES - 1] = '\n';
}

bool heartbeat_parse(const char text[HEARTBEAT_BYTES], heartbeat *out) {
    char line[HEARTBEAT_BYTES];
    int at = 0;
    memcpy(line, text, sizeof line);
    line[HEARTBEAT_BYTES - 1] = '\0';
    *out = (heartbeat){0};
    if (sscanf(line,
               "beat %" SCNu64 " moves %" SCNu64 " rank %d host %63s roles %63s phase %63s step %" SCNd64
               " seconds %lf overdue %lf waits for rank %d in: %n",
               &out->beat, &out->moves, &out->rank, out->host, out->roles, out->phase, &out->step,
               &out->seconds, &out->overdue, &out->waits_for, &at) != 10 ||
        at == 0)
        return false;
    const char *end = strrchr(line + at, '.');
    if (end == NULL)
        return false;
    snprintf(out->wait, sizeof out->wait, "%.*s", (int)(end - (line + at)), line + at);
    return true;
}

status heartbeat_write(const char *folder, const heartbeat *beat) {
    char path[PATH_MAX], text[HEARTBEAT_BYTES];
    name_record(folder, beat->rank, path);
    heartbeat_format(beat, text);
    // Opened and closed each time: on network file systems that is what makes it visible elsewhere.
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0 && errno == ENOENT && mkdir(folder, 0755) == 0) // removed under the run
        file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0)
        return FAIL("cannot write %s: %s; ranks need a common folder to be watched over", path,
                    strerror(errno));
    const ssize_t written = pwrite(file, text, sizeof text, 0);
    const int reason = errno;
    if (close(file) != 0 || written != (ssize_t)sizeof text)
        return FAIL("cannot write %s: %s; ranks need a common folder to be watched over", path,
                    strerror(written < 0 ? reason : errno));
    return STATUS_OK;
}

bool heartbeat_read(const char *folder, int rank, heartbeat *out) {
    char path[PATH_MAX], text[HEARTBEAT_BYTES];
    name_record(folder, rank, path);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    const ssize_t length = pread(file, text, sizeof text, 0);
    close(file);
    return length == (ssize_t)sizeof text && heartbeat_parse(text, out);
}

void heartbeat_remove(const char *folder, int rank) {
    char path[PATH_MAX];
    if (rank >= 0) {
        name_record(folder, rank, path);
        unlink(path);
    } else {
        DIR *entries = opendir(folder);
        for (const struct dirent *entry; entries != NULL && (entry = readdir(entries)) != NULL;)
            if (strncmp(entry->d_name, "rank-", 5) == 0 || strcmp(entry->d_name, "verdict") == 0)
                unlinkat(dirfd(entries), entry->d_name, 0);
        if (entries != NULL)
            closedir(entries);
    }
    rmdir(folder);
}
