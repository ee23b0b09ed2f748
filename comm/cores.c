#include "comm/cores.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// The first logical processor on the same physical core as `cpu`; `cpu` itself where that is unknown.
static int first_sibling(int cpu) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return cpu;
    int first = cpu;
    if (fscanf(file, "%d", &first) != 1 || first < 0 || first >= CORES_MAX)
        first = cpu;
    fclose(file);
    return first;
}

core_set cores_of_process(int pid) {
    core_set set = {{0}};
    cpu_set_t *mask = CPU_ALLOC(CORES_MAX);
    if (mask == NULL)
        return set;
    size_t bytes = CPU_ALLOC_SIZE(CORES_MAX);
    CPU_ZERO_S(bytes, mask);
    if (sched_getaffinity(pid, bytes, mask) == 0) {
        for (int cpu = 0; cpu < CORES_MAX; cpu++) {
            if (!CPU_ISSET_S((size_t)cpu, bytes, mask))
                continue;
            int core = first_sibling(cpu);
            set.bit[core / 8] |= (unsigned char)(1u << (core % 8));
        }
    }
    CPU_FREE(mask);
    return set;
}

int cores_count(const core_set *set) {
    int count = 0;
    for (int i = 0; i < CORES_MAX / 8; i++)
        count += __builtin_popcount(set->bit[i]);
    return count;
}

// Name and parent of a process; 0 if it cannot be read.
static int read_parent(int pid, char name[64]) {
    name[0] = '\0';
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    size_t used = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[used] = '\0';
    char *open = strchr(text, '('), *close = strrchr(text, ')');
    int parent = 0;
    if (open == NULL || close == NULL || sscanf(close + 1, " %*c %d", &parent) != 1)
        return 0;
    *close = '\0';
    snprintf(name, 64, "%.63s", open + 1);
    return parent;
}

core_set cores_of_launcher(void) {
    static const char *const launchers[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
    int pid = (int)getppid();
    for (int depth = 0; depth < 16 && pid > 1; depth++) {
        char name[64];
        int parent = read_parent(pid, name);
        for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++)
            if (strncmp(name, launchers[i], strlen(launchers[i])) == 0) // also mpirun.openmpi
                return cores_of_process(pid);
        pid = parent;
    }
    return (core_set){{0}};
}

// Rounds a quota in microseconds a period up to processors.
static int whole_processors(long long quota, long long period) {
    if (quota <= 0 || period <= 0)
        return 0;
    return (int)((quota + period - 1) / period);
}

static long long read_number(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    long long number = 0;
    if (fscanf(file, "%lld", &number) != 1)
        number = 0;
    fclose(file);
    return number;
}

int cores_quota(void) {
    // Inside a container the control group's root is the container's own.
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file == NULL)
        return whole_processors(read_number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
                                read_number("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
    long long quota = 0, period = 0;
    int fields = fscanf(file, "%lld %lld", &quota, &period); // "max 100000" where there is no limit
    fclose(file);
    return fields == 2 ? whole_processors(quota, period) : 0;
}
