// What a process learns of the launcher that started it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "comm/launcher.h"

#include <stdlib.h>

static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK",    "PMI_SIZE",
                                    "SLURM_PROCID",         "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"};

static int forget(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    return 0;
}

static void expect(int rank, int ranks) {
    const launcher_place place = launcher_find_place();
    assert_int_equal(place.rank, rank);
    assert_int_equal(place.ranks, ranks);
}

static void test_by_hand(void **state) {
    (void)state;
    expect(0, 1);
}

static void test_mpirun(void **state) {
    (void)state;
    setenv("OMPI_COMM_WORLD_RANK", "2", 1);
    setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
    expect(2, 4);
}

static void test_srun(void **state) {
    (void)state;
    setenv("SLURM_PROCID", "3", 1);
    setenv("SLURM_STEP_NUM_TASKS", "8", 1);
    expect(3, 8);
    setenv("OMPI_COMM_WORLD_RANK", "0", 1); // mpirun inside a task of srun
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    expect(0, 1);
}

static void test_batch_script(void **state) {
    (void)state;
    setenv("SLURM_PROCID", "0", 1);
    setenv("SLURM_NTASKS", "8", 1);
    expect(0, 1);
    setenv("SLURM_STEP_NUM_TASKS", "1", 1);
    expect(0, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_by_hand, forget),
        cmocka_unit_test_setup(test_mpirun, forget),
        cmocka_unit_test_setup(test_srun, forget),
        cmocka_unit_test_setup(test_batch_script, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
