#include "launch/plan.h"

#include "comm/group.h"
#include "kernels/memory.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSES_MAX = 256, PURPOSES_SHOWN = 8 };
static const double mebibyte = 1048576.0;

void plan_begin(plan *p) {
    *p = (plan){.resident_before = memory_resident_bytes(),
                .live_before = memory_read_counters().live_bytes,
                .library_before = memory_library_bytes()};
}

// The first number of a file, UINT64_MAX if there is none ("max").
static uint64_t number_in(const char *path) {
    unsigned long long value;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return UINT64_MAX;
    const int found = fscanf(file, "%llu", &value);
    fclose(file);
    return found == 1 ? value : UINT64_MAX;
}

static uint64_t host_available(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    if (file == NULL)
        return UINT64_MAX;
    char line[256];
    unsigned long long kilobytes = 0;
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "MemAvailable: %llu", &kilobytes) != 1) {
    }
    fclose(file);
    return kilobytes > 0 ? kilobytes * 1024 : UINT64_MAX;
}

// What is left of a limit: pages that only cache files do not count as used.
static uint64_t left_in(const char *folder, const char *limit_name, const char *used_name,
                        const char *cache_key) {
    char path[PATH_MAX + 64], line[256];
    snprintf(path, sizeof path, "%s/%s", folder, limit_name);
    const uint64_t limit = number_in(path);
    snprintf(path, sizeof path, "%s/%s", folder, used_name);
    uint64_t used = number_in(path);
    if (limit == UINT64_MAX || used == UINT64_MAX)
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *file = fopen(path, "r");
    const size_t length = strlen(cache_key);
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, cache_key, length) == 0 && line[length] == ' ') {
            const uint64_t cache = strtoull(line + length, NULL, 10);
            used -= cache < used ? cache : used;
        }
    if (file != NULL)
        fclose(file);
    return limit > used ? limit - used : 0;
}

// Of the process' control group and those above it, version 2 or 1.
static uint64_t group_available(void) {
    FILE *file = fopen("/proc/self/cgroup", "r");
    uint64_t least = UINT64_MAX;
    char line[PATH_MAX / 2], folder[PATH_MAX];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const bool second = strncmp(line, "0::", 3) == 0;
        char *path = second ? line + 3 : strstr(line, ":memory:");
        if (path == NULL)
            continue;
        path += second ? 0 : strlen(":memory:");
        for (;;) {
            snprintf(folder, sizeof folder, "/sys/fs/cgroup%s%s", second ? "" : "/memory", path);
            const uint64_t left = second ? left_in(folder, "memory.max", "memory.current", "inactive_file")
                                         : left_in(folder, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                                   "total_inactive_file");
            least = left < least ? left : least;
            char *end = strrchr(path, '/');
            if (end == NULL)
                break;
            *end = '\0';
        }
    }
    if (file != NULL)
        fclose(file);
    return least;
}

uint64_t plan_available_bytes(void) {
    const uint64_t host = host_available(), group = group_available();
    return group < host ? group : host;
}

static int by_size(const void *a, const void *b) {
    const uint64_t first = ((const memory_account *)a)->live_bytes,
                   second = ((const memory_account *)b)->live_bytes;
    return first > second ? -1 : first < second;
}

static void print(const plan *p, const char *title, uint64_t host_bytes, int host_ranks, uint64_t available) {
    memory_account accounts[PURPOSES_MAX];
    int count = memory_read_accounts(accounts, PURPOSES_MAX - 1);
    accounts[count++] = (memory_account){"libraries", p->library_bytes};
    qsort(accounts, (size_t)count, sizeof accounts[0], by_size);
    printf("%s: memory: %.1f MiB for this rank, %.1f MiB for the %d of this host, %.0f MiB are available\n",
           title, (double)p->bytes / mebibyte, (double)host_bytes / mebibyte, host_ranks,
           (double)available / mebibyte);
    printf("%s: memory:", title);
    for (int i = 0; i < count && i < PURPOSES_SHOWN; i++)
        printf("%s %s %.1f", i > 0 ? "," : "", accounts[i].what, (double)accounts[i].live_bytes / mebibyte);
    printf(" MiB\n");
}

status plan_check(plan *p, world *world, int speaker, const char *title) {
    const int ranks = world_size(world);
    group *everyone = NULL;
    uint64_t *needs = NULL; // [ranks]
    const uint64_t library = memory_library_bytes();
    p->library_bytes = library > p->library_before ? library - p->library_before : 0;
    p->bytes = memory_read_counters().live_bytes - p->live_before + p->library_bytes;
    const uint64_t available = plan_available_bytes();
    status result;
    TRY_GOTO(result, memory_allocate((void **)&needs, sizeof *needs * (size_t)ranks, "plan"), done);
    TRY_GOTO(result, group_create_whole(&everyone, world), done);
    TRY_GOTO(result, group_all_gather(everyone, &p->bytes, sizeof p->bytes, needs), done);
    uint64_t together = 0;
    for (int i = 0; i < ranks; i++)
        if (strcmp(world_host_of(world, i), world_host(world)) == 0)
            together += needs[i];
    if (world_rank(world) == speaker)
        print(p, title, together, world_local_size(world), available);
    if (together > available)
        result =
            FAIL("the run needs %.1f MiB on %s (%d ranks, this one %.1f MiB), %.1f MiB are available; use "
                 "fewer ranks there, a smaller batch, fewer frames or a smaller model",
                 (double)together / mebibyte, world_host(world), world_local_size(world),
                 (double)p->bytes / mebibyte, (double)available / mebibyte);
done:
    group_destroy(everyone);
    memory_free(needs);
    return world_agree(world, result);
}

// What a rank needs of its card.
typedef struct card_need {
    char card[64];
    uint64_t bytes;
} card_need;

// Of the ranks that share this one's card, itself included.
static void sum_needs(const world *world, const card_need *needs, uint64_t *bytes, int *sharing) {
    const int self = world_rank(world);
    *bytes = 0;
    *sharing = 0;
    for (int i = 0; i < world_size(world); i++)
        if (strcmp(world_host_of(world, i), world_host(world)) == 0 &&
            strcmp(needs[i].card, needs[self].card) == 0) {
            *bytes += needs[i].bytes;
            ++*sharing;
        }
}

static status compare_needs(const plan *p, world *world, device *device, int speaker, const char *title) {
    card_need own = {.bytes = p->device_bytes}, *needs = NULL; // [ranks]
    group *everyone = NULL;
    device_memory memory;
    uint64_t together;
    int sharing;
    status result;
    snprintf(own.card, sizeof own.card, "%s", device_card(device));
    TRY_GOTO(result, memory_allocate((void **)&needs, sizeof *needs * (size_t)world_size(world), "plan"),
             done);
    TRY_GOTO(result, group_create_whole(&everyone, world), done);
    TRY_GOTO(result, group_all_gather(everyone, &own, sizeof own, needs), done);
    TRY_GOTO(result, device_read_memory(device, &memory), done);
    sum_needs(world, needs, &together, &sharing);
    if (world_rank(world) == speaker)
        printf("%s: GPU memory: %.1f MiB for this rank, %.1f MiB for the %d on its GPU, %.0f of %.0f MiB are "
               "free\n",
               title, (double)own.bytes / mebibyte, (double)together / mebibyte, sharing,
               (double)memory.free_bytes / mebibyte, (double)memory.total_bytes / mebibyte);
    if (together > memory.free_bytes)
        result = FAIL(
            "the run needs %.1f MiB of the GPU %s on %s (%d ranks, this one %.1f MiB), %.1f of %.1f "
            "MiB are free; use a smaller batch, fewer frames, a smaller model, fewer ranks a GPU, or "
            "device=cpu",
            (double)together / mebibyte, own.card, world_host(world), sharing, (double)own.bytes / mebibyte,
            (double)memory.free_bytes / mebibyte, (double)memory.total_bytes / mebibyte);
done:
    group_destroy(everyone);
    memory_free(needs);
    return result;
}

status plan_device(plan *p, world *world, device *device, int speaker, const char *title,
                   const plan_parts *parts) {
    if (device_shares_memory(device))
        return STATUS_OK;
    device_plan_begin(device);
    const status created = parts->create(parts->context);
    parts->destroy(parts->context);
    p->device_bytes = device_plan_end(device);
    TRY(world_agree(world, created));
    return world_agree(world, compare_needs(p, world, device, speaker, title));
}
