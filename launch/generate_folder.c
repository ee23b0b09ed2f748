#include "launch/generate_folder.h"

#include "data/publish.h"
#include "data/shard.h"
#include "data/shard_block.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void generate_clip_name(char name[NAME_MAX + 1], size_t prompt, int clip) {
    snprintf(name, NAME_MAX + 1, "%03zu-%02d.wav", prompt, clip);
}

static bool is_clip(const char *name) {
    char again[NAME_MAX + 1], *end;
    const unsigned long long prompt = strtoull(name, &end, 10);
    if (*end != '-')
        return false;
    generate_clip_name(again, (size_t)prompt, (int)strtol(end + 1, NULL, 10));
    return strcmp(name, again) == 0;
}

static bool is_shard(const char *name) {
    char prefix[SHARD_PREFIX_MAX];
    uint32_t index;
    return shard_name_parse(name, prefix, &index) && strcmp(prefix, GENERATE_SHARDS) == 0;
}

// Sets *entry to the next clip or shard, NULL: there is none.
static status next_result(DIR *stream, const char *folder, const struct dirent **entry) {
    do {
        errno = 0;
        *entry = readdir(stream);
    } while (*entry != NULL && !is_clip((*entry)->d_name) && !is_shard((*entry)->d_name));
    return *entry != NULL || errno == 0 ? STATUS_OK : FAIL("cannot read folder %s: %m", folder);
}

// Looks at every result in the folder and, if `remove`, removes it.
static status settle(DIR *stream, const char *folder, bool recorded, bool replace, bool remove) {
    for (const struct dirent *entry;;) {
        TRY(next_result(stream, folder, &entry));
        if (entry == NULL)
            return STATUS_OK;
        if (!recorded && is_shard(entry->d_name))
            return FAIL(
                "%s/%s is there, but no %s, so 'musicrl generate' did not make it; choose another folder",
                folder, entry->d_name, GENERATE_RECORD);
        if (!replace)
            return FAIL("%s holds %s of an earlier call; choose another folder, or replace what it made with "
                        "--replace",
                        folder, entry->d_name);
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path)
            return FAIL("path is too long: %.60s...", folder);
        if (remove)
            TRY(publish_remove(path));
    }
}

// A folder that is not there holds nothing.
static status look_through(const char *folder, bool replace, bool remove) {
    char record[PATH_MAX];
    if (snprintf(record, sizeof record, "%s/" GENERATE_RECORD, folder) >= (int)sizeof record)
        return FAIL("path is too long: %.60s...", folder);
    const bool recorded = access(record, F_OK) == 0;
    if (recorded && !replace)
        return FAIL("%s is there already; choose another folder, or replace what it lists with --replace",
                    record);
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return errno == ENOENT ? STATUS_OK : FAIL("cannot open folder %s: %m", folder);
    status result = settle(stream, folder, recorded, replace, remove);
    closedir(stream);
    return result == STATUS_OK && remove ? publish_remove(record) : result;
}

status generate_check_folder(const char *folder, bool replace) {
    return look_through(folder, replace, false);
}

status generate_clear_folder(const char *folder, bool replace) {
    TRY(look_through(folder, replace, false)); // nothing goes if anything is refused
    return look_through(folder, replace, true);
}
