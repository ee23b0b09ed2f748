// The processor cores that this process may use.
#pragma once

enum { CORES_MAX = 4096 }; // logical processors; a larger machine is counted up to here

// One bit a physical core, numbered by its first logical processor: hardware threads of one core share its
// multipliers, so they count once.
typedef struct core_set {
    unsigned char bit[CORES_MAX / 8];
} core_set;

// The cores in the affinity mask of process `pid` (0: the caller's). Empty if the process cannot be asked.
core_set cores_of_process(int pid);

// The cores of the nearest ancestor named mpirun, orted and the like, which is not bound as the ranks that it
// starts are; empty if there is none.
core_set cores_of_launcher(void);

int cores_count(const core_set *set);

// Ceiling on processors from the control group's quota (a container started with a limit); 0: no limit.
int cores_quota(void);
