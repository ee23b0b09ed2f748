#include "launch/doctor.h"

#include "kernels/cuda/device_query.h"
#include "kernels/library_version.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const doctor_line *find_line(const doctor_report *report, const char *topic, const char *start) {
    for (int i = 0; i < report->count; i++) {
        if (strcmp(report->lines[i].topic, topic) == 0 &&
            strncmp(report->lines[i].text, start, strlen(start)) == 0)
            return &report->lines[i];
    }
    return NULL;
}

static void test_every_line_says_something(void **state) {
    (void)state;
    static doctor_report report;
    doctor_examine(&report);
    assert_true(report.count > 10 && report.count < DOCTOR_LINES);
    int missing = 0;
    for (int i = 0; i < report.count; i++) {
        const doctor_line *line = &report.lines[i];
        assert_true(line->topic[0] && line->text[0]);
        // What is missing says what to type.
        if (line->level == DOCTOR_MISSING)
            assert_true(line->advice[0]);
        missing += line->level == DOCTOR_MISSING;
        // One line each, and no "(null)" from a value that was not there.
        assert_null(strchr(line->text, '\n'));
        assert_null(strstr(line->text, "(null)"));
    }
    assert_int_equal(report.missing, missing);
    static const char *const topics[] = {"musicrl", "processor", "cores", "memory", "disk",
                                         "mpirun",  "Slurm",     "GPU",   "device"};
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++)
        assert_non_null(find_line(&report, topics[i], ""));
}

static void test_versions_are_numbers(void **state) {
    (void)state;
    library_version list[32];
    int count = kernels_library_versions(list, 32);
    count += data_library_versions(list + count, 32 - count);
    assert_true(count >= 8);
    for (int i = 0; i < count; i++) {
        int major = -1;
        int minor = -1;
        assert_int_equal(sscanf(list[i].version, "%d.%d", &major, &minor), 2);
        assert_true(major >= 0 && minor >= 0);
    }
    // A list that is too short is filled and no more.
    assert_int_equal(data_library_versions(list, 2), 2);
    assert_int_equal(kernels_library_versions(list, 0), 0);
}

static void test_programs_are_searched_in_path(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char folder[256];
    char program[320];
    char path[1024];
    snprintf(folder, sizeof folder, "%s/doctor-XXXXXX", base);
    assert_non_null(mkdtemp(folder));
    snprintf(program, sizeof program, "%s/srun", folder);
    FILE *file = fopen(program, "w");
    assert_non_null(file);
    fclose(file);
    char *before = strdup(getenv("PATH"));
    static doctor_report report;

    // A file that may not be executed does not count, a folder that does not exist is passed over.
    snprintf(path, sizeof path, "/does-not-exist:%s", folder);
    setenv("PATH", path, 1);
    chmod(program, 0600);
    if (getuid() != 0 || access(program, X_OK) != 0) {
        doctor_examine(&report);
        assert_int_equal(find_line(&report, "Slurm", "")->level, DOCTOR_NOTE);
    }
    chmod(program, 0700);
    doctor_examine(&report);
    assert_int_equal(find_line(&report, "Slurm", program)->level, DOCTOR_OK);
    assert_int_equal(find_line(&report, "mpirun", "not in PATH")->level, DOCTOR_NOTE);

    setenv("PATH", before, 1);
    free(before);
    unlink(program);
    rmdir(folder);
}

static void test_thread_settings_are_noticed(void **state) {
    (void)state;
    static doctor_report report;
    unsetenv("OMP_NUM_THREADS");
    doctor_examine(&report);
    assert_null(find_line(&report, "threads", "OMP_NUM_THREADS"));
    setenv("OMP_NUM_THREADS", "3", 1);
    doctor_examine(&report);
    assert_non_null(find_line(&report, "threads", "OMP_NUM_THREADS=3"));
    unsetenv("OMP_NUM_THREADS");
}

static void test_devices_or_a_reason(void **state) {
    (void)state;
    device_description devices[8];
    char reason[160] = "";
    int count = device_query(devices, 8, reason, sizeof reason);
    if (count == 0) {
        assert_true(reason[0]);
        return;
    }
    assert_true(count > 0);
    for (int i = 0; i < count && i < 8; i++) {
        assert_true(devices[i].name[0]);
        assert_true(devices[i].memory_bytes > 1 << 28);
        assert_in_range(devices[i].compute_major, 1, 99);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_line_says_something),
        cmocka_unit_test(test_versions_are_numbers),
        cmocka_unit_test(test_programs_are_searched_in_path),
        cmocka_unit_test(test_thread_settings_are_noticed),
        cmocka_unit_test(test_devices_or_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
