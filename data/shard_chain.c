#include "data/shard_chain.h"

#include "kernels/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b) {
    const shard_name *x = a, *y = b;
    int order = strcmp(x->prefix, y->prefix);
    return order != 0 ? order : (x->index > y->index) - (x->index < y->index);
}

status shard_chain_list(const char *folder, const shard_schema *schema, shard_name **out, size_t *count) {
    *out = NULL;
    *count = 0;
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return FAIL("cannot open %s folder %s: %s", schema->folder, folder, strerror(errno));
    size_t capacity = 0;
    status result = STATUS_OK;
    for (struct dirent *entry; result == STATUS_OK && (entry = readdir(stream)) != NULL;) {
        shard_name name;
        size_t length = strlen(entry->d_name);
        if (length < 3 || strcmp(entry->d_name + length - 3, ".h5") != 0)
            continue;
        if (!shard_name_parse(entry->d_name, name.prefix, &name.index)) {
            result = FAIL("%s/%s is not named as a shard (PREFIX-00000.h5); move it out of the %s folder",
                          folder, entry->d_name, schema->folder);
            break;
        }
        if (*count == capacity) {
            shard_name *larger;
            capacity = capacity * 2 + 64;
            TRY_GOTO(result, memory_allocate((void **)&larger, capacity * sizeof *larger, "shard names"),
                     done);
            if (*count > 0)
                memcpy(larger, *out, *count * sizeof *larger);
            memory_free(*out);
            *out = larger;
        }
        (*out)[(*count)++] = name;
    }
    if (result == STATUS_OK && *count == 0)
        result = FAIL("no shards (*.h5) in %s; %s", folder, schema->mend);
    if (result == STATUS_OK)
        qsort(*out, *count, sizeof **out, compare_names);
done:
    closedir(stream);
    if (result != STATUS_OK) {
        memory_free(*out);
        *out = NULL;
    }
    return result;
}

status shard_chain_path(const char *folder, const shard_name *name, char out[PATH_MAX]) {
    int length = snprintf(out, PATH_MAX, "%s/%s-%05u.h5", folder, name->prefix, name->index);
    return length < PATH_MAX ? STATUS_OK : FAIL("path is too long: %.60s...", folder);
}

status shard_chain_check(const char *folder, const shard_schema *schema, const shard_name *name, size_t count,
                         size_t i, const shard_link *previous, const shard_link *link) {
    int begins = i == 0 || strcmp(name[i].prefix, name[i - 1].prefix) != 0;
    int ends = i + 1 == count || strcmp(name[i].prefix, name[i + 1].prefix) != 0;
    uint32_t wanted = begins ? 0 : name[i - 1].index + 1;
    if (name[i].index != wanted)
        return FAIL("%s: shard %s-%05u.h5 is missing; copy it there or make the %s again", folder,
                    name[i].prefix, wanted, schema->folder);
    char path[PATH_MAX];
    TRY(shard_chain_path(folder, &name[i], path));
    if (link->index != name[i].index)
        return FAIL("%s was written as number %u; give it back its name", path, link->index);
    if (strcmp(link->previous, begins ? "" : previous->digest) != 0)
        return FAIL("%s does not follow %s-%05u.h5: they are of different runs; make the %s again", path,
                    name[i].prefix, wanted - 1, schema->folder);
    if (ends && !link->last)
        return FAIL("%s: shard %s-%05u.h5 is missing; copy it there or make the %s again", folder,
                    name[i].prefix, wanted + 1, schema->folder);
    if (!ends && link->last)
        return FAIL("%s is the last of its run, but %s-%05u.h5 follows; remove what is left of another run",
                    path, name[i].prefix, wanted + 1);
    return STATUS_OK;
}
