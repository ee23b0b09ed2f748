#include "comm/nccl_table.h"

#include "kernels/memory.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_version(int version, char *text, size_t size) {
    // Up to 2.8 the major number counted thousands.
    int thousands = version < 10000 ? 1000 : 10000;
    snprintf(text, size, "%d.%d.%d", version / thousands, version % thousands / 100, version % 100);
}

static status look_up(nccl_library *library) {
    nccl_table *table = &library->table;
    // POSIX gives data pointers for functions; they are stored as such.
    const struct {
        const char *name;
        void *entry;
    } entries[] = {
        {"ncclGetVersion", &table->get_version},
        {"ncclGetErrorString", &table->get_error_string},
        {"ncclGetLastError", &table->get_last_error},
        {"ncclGetUniqueId", &table->get_unique_id},
        {"ncclCommInitRankConfig", &table->comm_init_rank_config},
        {"ncclCommGetAsyncError", &table->comm_get_async_error},
        {"ncclCommFinalize", &table->comm_finalize},
        {"ncclCommDestroy", &table->comm_destroy},
        {"ncclCommAbort", &table->comm_abort},
        {"ncclAllReduce", &table->all_reduce},
        {"ncclReduce", &table->reduce},
        {"ncclBroadcast", &table->broadcast},
        {"ncclGroupStart", &table->group_start},
        {"ncclGroupEnd", &table->group_end},
    };
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        void *function = dlsym(library->handle, entries[i].name);
        if (function == NULL && i == 0)
            return FAIL("%s is not NCCL: it has no %s; set MUSICRL_NCCL to the path of a libnccl.so.2",
                        library->path, entries[i].name);
        if (function == NULL)
            return FAIL("NCCL %s (%s) lacks %s: install a complete NCCL of version 2.14 or newer, or set "
                        "MUSICRL_NCCL to the path of its libnccl.so.2",
                        library->version_text, library->path, entries[i].name);
        memcpy(entries[i].entry, &function, sizeof function);
        if (i > 0)
            continue;
        int code = table->get_version(&library->version);
        if (code != NCCL_SUCCESS)
            return FAIL("%s does not tell its version: ncclGetVersion returned %d", library->path, code);
        write_version(library->version, library->version_text, sizeof library->version_text);
        if (library->version < NCCL_OLDEST)
            return FAIL("NCCL %s (%s) is too old: version 2.14 or newer is wanted; install one, or set "
                        "MUSICRL_NCCL to the path of its libnccl.so.2",
                        library->version_text, library->path);
    }
    return STATUS_OK;
}

status nccl_library_open(nccl_library **out, const char *path) {
    *out = NULL;
    if (path == NULL)
        path = getenv("MUSICRL_NCCL");
    if (path == NULL || path[0] == '\0')
        path = "libnccl.so.2";
    nccl_library *library;
    TRY(memory_allocate((void **)&library, sizeof *library, "NCCL's functions"));
    status result;
    // Threads of its own outlive its communicators: their code stays.
    library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library->handle == NULL) {
        const char *reason = dlerror();
        result =
            FAIL("NCCL cannot be opened (%s): install NCCL 2.14 or newer, or set MUSICRL_NCCL to the path "
                 "of its libnccl.so.2",
                 reason == NULL ? path : reason);
        goto cleanup;
    }
    snprintf(library->path, sizeof library->path, "%s", path);
    Dl_info place;
    void *known = dlsym(library->handle, "ncclGetVersion");
    if (known != NULL && dladdr(known, &place) != 0 && place.dli_fname != NULL)
        snprintf(library->path, sizeof library->path, "%s", place.dli_fname);
    TRY_GOTO(result, look_up(library), cleanup);
    *out = library;
    library = NULL;
cleanup:
    nccl_library_close(library);
    return result;
}

void nccl_library_close(nccl_library *library) {
    if (library == NULL)
        return;
    if (library->handle != NULL)
        dlclose(library->handle);
    memory_free(library);
}

int nccl_library_version(const nccl_library *library) {
    return library->version;
}

const char *nccl_library_version_text(const nccl_library *library) {
    return library->version_text;
}

const char *nccl_library_path(const nccl_library *library) {
    return library->path;
}
