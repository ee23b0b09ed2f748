#include "data/checkpoint.h"

#include "data/publish.h"
#include "kernels/memory.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

// Whether a name is exactly what checkpoint_begin would call some step.
static int parse_step(const char *name, uint64_t *step) {
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return 0;
    *step = strtoull(name + 5, NULL, 10);
    char canonical[32];
    snprintf(canonical, sizeof canonical, "step-%06" PRIu64, *step);
    return strcmp(name, canonical) == 0;
}

__attribute__((format(printf, 3, 4))) static void tell(checkpoint_listener listener, void *context,
                                                       const char *format, ...) {
    if (listener == NULL)
        return;
    char line[3072];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    listener(context, line);
}

static int compare_entries(const void *left, const void *right) {
    const checkpoint_entry *a = left, *b = right;
    return a->step < b->step ? -1 : a->step > b->step;
}

static status add_entry(checkpoint_list *list, size_t *capacity, const char *folder, const char *name,
                        uint64_t step) {
    if (list->count == *capacity) {
        size_t larger = *capacity * 2 + 16;
        checkpoint_entry *entries;
        TRY(memory_allocate((void **)&entries, larger * sizeof *entries, "checkpoint list"));
        if (list->count > 0)
            memcpy(entries, list->entries, list->count * sizeof *entries);
        memory_free(list->entries);
        list->entries = entries;
        *capacity = larger;
    }
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path;
    TRY(memory_allocate((void **)&path, size, "checkpoint path"));
    snprintf(path, size, "%s/%s", folder, name);
    list->entries[list->count++] = (checkpoint_entry){.step = step, .path = path};
    return STATUS_OK;
}

status checkpoint_list_folder(checkpoint_list *out, const char *folder) {
    *out = (checkpoint_list){0};
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return errno == ENOENT ? STATUS_OK : FAIL("cannot open folder %s: %s", folder, strerror(errno));
    size_t capacity = 0;
    status result = STATUS_OK;
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;) {
        uint64_t step;
        if (parse_step(entry->d_name, &step))
            result = add_entry(out, &capacity, folder, entry->d_name, step);
    }
    closedir(stream);
    if (result != STATUS_OK)
        checkpoint_list_free(out);
    else if (out->count > 0)
        qsort(out->entries, out->count, sizeof *out->entries, compare_entries);
    return result;
}

void checkpoint_list_free(checkpoint_list *list) {
    for (size_t i = 0; i < list->count; i++)
        memory_free(list->entries[i].path);
    memory_free(list->entries);
    *list = (checkpoint_list){0};
}

// Opens an entry and checks that it is the step that its name says. Once more if it fails: what a disk or a
// file server cannot give for a moment is not damaged.
static status open_entry(checkpoint **out, const checkpoint_entry *entry, bool *unread) {
    if (checkpoint_try(out, entry->path, unread) != STATUS_OK) {
        const struct timespec moment = {.tv_nsec = 100000000};
        nanosleep(&moment, NULL);
        TRY(checkpoint_try(out, entry->path, unread));
    }
    uint64_t step = checkpoint_describe(*out)->step;
    if (step == entry->step)
        return STATUS_OK;
    checkpoint_close(*out);
    *out = NULL;
    return FAIL("%s holds step %" PRIu64 ": it was renamed or copied over another", entry->path, step);
}

status checkpoint_verify(const checkpoint_entry *entry) {
    checkpoint *opened;
    bool unread;
    TRY(open_entry(&opened, entry, &unread));
    checkpoint_close(opened);
    return STATUS_OK;
}

status checkpoint_find_newest(checkpoint **out, const char *folder, checkpoint_listener listener,
                              void *context) {
    *out = NULL;
    checkpoint_list list;
    TRY(checkpoint_list_folder(&list, folder));
    status result = STATUS_OK;
    bool unread = false;
    for (size_t i = list.count; *out == NULL && !unread && i-- > 0;) {
        result = open_entry(out, &list.entries[i], &unread);
        if (result != STATUS_OK && !unread)
            tell(listener, context, "passed over %s: %s", list.entries[i].path, status_message());
    }
    if (unread)
        result = status_prefix(
            result,
            "a checkpoint that may be sound cannot be read; mend that, or move it away to use an older "
            "one: ");
    else if (result != STATUS_OK)
        result = status_prefix(result,
                               "none of the %zu checkpoints in %s can be used; move them away to start anew; "
                               "the oldest: ",
                               list.count, folder);
    checkpoint_list_free(&list);
    return result;
}

status checkpoint_open_step(checkpoint **out, const char *folder, uint64_t step) {
    char path[PATH_MAX];
    *out = NULL;
    if (snprintf(path, sizeof path, "%s/step-%06" PRIu64, folder, step) >= (int)sizeof path)
        return FAIL("path is too long: %.60s...", folder);
    const checkpoint_entry entry = {.step = step, .path = path};
    bool unread;
    return open_entry(out, &entry, &unread);
}

status checkpoint_open_newest(checkpoint **out, const char *folder) {
    *out = NULL;
    checkpoint_list list;
    TRY(checkpoint_list_folder(&list, folder));
    status result = STATUS_OK;
    bool unread;
    if (list.count > 0)
        result = open_entry(out, &list.entries[list.count - 1], &unread);
    if (result != STATUS_OK)
        result =
            status_prefix(result,
                          "the newest checkpoint in %s cannot be used; restore it, or move it away to use "
                          "an older one: ",
                          folder);
    checkpoint_list_free(&list);
    return result;
}

status checkpoint_set_aside(const char *path) {
    char aside[PATH_MAX];
    for (int i = 1; i < 1000; i++) {
        char number[16] = "";
        if (i > 1)
            snprintf(number, sizeof number, "-%d", i);
        if (snprintf(aside, sizeof aside, "%s.damaged%s", path, number) >= (int)sizeof aside)
            return FAIL("path is too long: %.60s...", path);
        struct stat info;
        if (lstat(aside, &info) != 0)
            return publish_rename(path, aside);
    }
    return FAIL("cannot set %s aside: there are 999 already; remove some", path);
}

status checkpoint_prune(const char *folder, const checkpoint_keep *keep, checkpoint_listener listener,
                        void *context) {
    if (keep->last < 1)
        return FAIL_USAGE("cannot prune %s to its last 0 checkpoints; keep at least 1", folder);
    checkpoint_list list;
    TRY(checkpoint_list_folder(&list, folder));
    status result = STATUS_OK;
    size_t good = 0;
    for (size_t i = list.count; result == STATUS_OK && i-- > 0;) {
        const checkpoint_entry *entry = &list.entries[i];
        if (good < keep->last) {
            if (checkpoint_verify(entry) == STATUS_OK)
                good++;
            else
                tell(listener, context, "left alone, damaged: %s", status_message());
            continue;
        }
        if (keep->every > 0 && entry->step % keep->every == 0)
            continue;
        if (keep->best >= 0 && entry->step == (uint64_t)keep->best)
            continue;
        if (keep->selected != NULL && entry->step == (uint64_t)*keep->selected)
            continue;
        if (keep->first && entry->step == 0)
            continue;
        if (!keep->only_tell)
            result = publish_remove_folder(entry->path);
        if (result == STATUS_OK)
            tell(listener, context, "%s %s", keep->only_tell ? "would remove" : "removed", entry->path);
    }
    checkpoint_list_free(&list);
    return result;
}
