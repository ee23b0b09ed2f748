// NCCL opened at run time, against stand-ins for it: what is found, and what is said where something is not.
#include "comm/nccl.h"
#include "launch/doctor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_refused(const char *path, const char *first, const char *second) {
    nccl_library *library = (nccl_library *)1;
    assert_int_equal(nccl_library_open(&library, path), STATUS_FAILED);
    assert_null(library);
    const char *line = status_message();
    if (strstr(line, first) == NULL || strstr(line, second) == NULL)
        fail_msg("'%s' and '%s' are not both in: %s", first, second, line);
    assert_null(strchr(line, '\n'));
}

static void test_opens(void **state) {
    (void)state;
    nccl_library *library;
    assert_int_equal(nccl_library_open(&library, FAKE_NCCL_PATH), STATUS_OK);
    assert_int_equal(nccl_library_version(library), 23007);
    assert_string_equal(nccl_library_version_text(library), "2.30.7");
    assert_string_equal(nccl_library_path(library), FAKE_NCCL_PATH);
    nccl_library_close(library);
    nccl_library_close(NULL);
}

static void test_environment_names_the_file(void **state) {
    (void)state;
    nccl_library *library;
    setenv("MUSICRL_NCCL", FAKE_NCCL_PATH, 1);
    assert_int_equal(nccl_library_open(&library, NULL), STATUS_OK);
    assert_string_equal(nccl_library_path(library), FAKE_NCCL_PATH);
    nccl_library_close(library);
    setenv("MUSICRL_NCCL", "/nowhere/libnccl.so.2", 1);
    assert_refused(NULL, "NCCL cannot be opened (/nowhere/libnccl.so.2", "MUSICRL_NCCL");
    // An argument outweighs it.
    assert_int_equal(nccl_library_open(&library, FAKE_NCCL_PATH), STATUS_OK);
    nccl_library_close(library);
    unsetenv("MUSICRL_NCCL");
}

static void test_unfit_libraries_are_refused(void **state) {
    (void)state;
    assert_refused("libm.so.6", "is not NCCL", "ncclGetVersion");
    assert_refused(FAKE_NCCL_LACKING_PATH, "NCCL 2.30.7 (" FAKE_NCCL_LACKING_PATH ") lacks ncclReduce",
                   "MUSICRL_NCCL");
    // Up to 2.8 versions were encoded in another way.
    setenv("FAKE_NCCL_VERSION", "21304", 1);
    assert_refused(FAKE_NCCL_PATH, "NCCL 2.13.4 (", "too old: version 2.14 or newer");
    setenv("FAKE_NCCL_VERSION", "2708", 1);
    assert_refused(FAKE_NCCL_PATH, "NCCL 2.7.8 (", "too old: version 2.14 or newer");
    setenv("FAKE_NCCL_VERSION", "21400", 1);
    nccl_library *library;
    assert_int_equal(nccl_library_open(&library, FAKE_NCCL_PATH), STATUS_OK);
    assert_string_equal(nccl_library_version_text(library), "2.14.0");
    nccl_library_close(library);
    unsetenv("FAKE_NCCL_VERSION");
}

static const doctor_line *nccl_line(doctor_report *report) {
    doctor_examine(report);
    const doctor_line *found = NULL;
    for (int i = 0; i < report->count; i++)
        if (strcmp(report->lines[i].topic, "NCCL") == 0)
            found = &report->lines[i];
    assert_non_null(found);
    return found;
}

static void test_doctor_says_what_it_finds(void **state) {
    (void)state;
    static doctor_report report;
    setenv("MUSICRL_NCCL", FAKE_NCCL_PATH, 1);
    const doctor_line *line = nccl_line(&report);
    assert_int_equal(line->level, DOCTOR_OK);
    assert_string_equal(line->text, "2.30.7, " FAKE_NCCL_PATH);
    setenv("MUSICRL_NCCL", "/nowhere/libnccl.so.2", 1);
    line = nccl_line(&report);
    assert_int_equal(line->level, DOCTOR_NOTE);
    assert_non_null(
        strstr(line->text, "only several GPUs use it; NCCL cannot be opened (/nowhere/libnccl.so.2"));
    setenv("MUSICRL_NCCL", FAKE_NCCL_LACKING_PATH, 1);
    line = nccl_line(&report);
    assert_int_equal(line->level, DOCTOR_NOTE);
    assert_non_null(strstr(line->text, "lacks ncclReduce"));
    unsetenv("MUSICRL_NCCL");
}

int main(void) {
    unsetenv("MUSICRL_NCCL");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_opens),
        cmocka_unit_test(test_environment_names_the_file),
        cmocka_unit_test(test_unfit_libraries_are_refused),
        cmocka_unit_test(test_doctor_says_what_it_finds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
