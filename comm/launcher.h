// What mpirun or srun tells the processes that it starts, read from the environment: MPI need not start.
#pragma once

typedef struct launcher_place {
    int rank, ranks; // 0 of 1 in a process that was started by hand
} launcher_place;

// The innermost launcher counts. A batch script of Slurm is one process, however many tasks its job has.
launcher_place launcher_find_place(void);
