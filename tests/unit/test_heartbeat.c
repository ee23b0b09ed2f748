// Records of what ranks do, as written and read by different processes, and how often they are written.
#include "launch/heartbeat.h"
#include "launch/watch.h"
#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static const heartbeat sample = {.beat = 123456789012,
                                 .moves = 42,
                                 .rank = 7,
                                 .host = "node-3.cluster",
                                 .roles = "rollout+reward+learner",
                                 .phase = "learn",
                                 .step = 99,
                                 .seconds = 12.5,
                                 .overdue = -1787.5,
                                 .waits_for = 3,
                                 .wait = "an all-reduce"};

static void check_equal(const heartbeat *a, const heartbeat *b) {
    assert_int_equal(a->beat, b->beat);
    assert_int_equal(a->moves, b->moves);
    assert_int_equal(a->rank, b->rank);
    assert_string_equal(a->host, b->host);
    assert_string_equal(a->roles, b->roles);
    assert_string_equal(a->phase, b->phase);
    assert_int_equal(a->step, b->step);
    assert_true(a->seconds == b->seconds && a->overdue == b->overdue);
    assert_int_equal(a->waits_for, b->waits_for);
    assert_string_equal(a->wait, b->wait);
}

static void test_text(void **state) {
    (void)state;
    char text[HEARTBEAT_BYTES];
    heartbeat read, idle = sample;
    heartbeat_format(&sample, text);
    assert_true(heartbeat_parse(text, &read));
    check_equal(&sample, &read);
    idle.wait[0] = '\0';
    idle.waits_for = -1;
    idle.step = -1;
    heartbeat_format(&idle, text);
    assert_true(heartbeat_parse(text, &read));
    check_equal(&idle, &read);
    assert_int_equal(text[HEARTBEAT_BYTES - 1], '\n');
}

static void test_longest(void **state) {
    (void)state;
    char text[HEARTBEAT_BYTES];
    heartbeat read, long_names = sample;
    memset(long_names.host, 'h', HEARTBEAT_NAME - 1);
    memset(long_names.roles, 'r', HEARTBEAT_NAME - 1);
    memset(long_names.wait, 'w', HEARTBEAT_NAME - 1);
    long_names.host[HEARTBEAT_NAME - 1] = long_names.roles[HEARTBEAT_NAME - 1] = '\0';
    long_names.wait[HEARTBEAT_NAME - 1] = '\0';
    heartbeat_format(&long_names, text);
    assert_true(heartbeat_parse(text, &read));
    check_equal(&long_names, &read);
}

static void test_damage(void **state) {
    (void)state;
    char text[HEARTBEAT_BYTES];
    heartbeat read;
    memset(text, 0, sizeof text);
    assert_false(heartbeat_parse(text, &read));
    memset(text, 'x', sizeof text);
    assert_false(heartbeat_parse(text, &read));
    heartbeat_format(&sample, text);
    memset(text + 60, 0, sizeof text - 60); // torn
    assert_false(heartbeat_parse(text, &read));
}

static void test_files(void **state) {
    (void)state;
    const char *folder = scratch_path("heartbeats");
    struct stat info;
    heartbeat read, later = sample;
    assert_int_equal(mkdir(folder, 0777), 0);
    assert_false(heartbeat_read(folder, 7, &read));
    assert_int_equal(heartbeat_write(folder, &sample), STATUS_OK);
    later.beat++;
    assert_int_equal(heartbeat_write(folder, &later), STATUS_OK);
    assert_true(heartbeat_read(folder, 7, &read));
    check_equal(&later, &read);
    assert_false(heartbeat_read(folder, 6, &read));
    later.rank = 6;
    assert_int_equal(heartbeat_write(folder, &later), STATUS_OK);
    heartbeat_remove(folder, 6);
    assert_false(heartbeat_read(folder, 6, &read));
    assert_true(heartbeat_read(folder, 7, &read));
    assert_int_equal(scratch_write(scratch_path("heartbeats/verdict"), "", 0), 0);
    heartbeat_remove(folder, -1);
    assert_int_not_equal(stat(folder, &info), 0);
    assert_int_equal(heartbeat_write(folder, &sample),
                     STATUS_OK); // the folder comes back, but not what it was in
    assert_true(heartbeat_read(folder, 7, &read));
    assert_int_equal(heartbeat_write(scratch_path("nowhere/heartbeats"), &sample), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "rank-000007"));
}

static void test_interval(void **state) {
    (void)state;
    const watch_plan none = {0},
                     usual = {.deadlines = {1800, 1800, 1800, 600, 1800, 600}, .silence = 60, .stop = 120},
                     hasty = {.silence = 2}, hastier = {.stop = 0.01};
    assert_true(watch_interval(&none, 1) == 1.0);
    assert_true(watch_interval(&usual, 64) == 1.0);
    assert_true(watch_interval(&usual, 128) == 2.0); // one file server answers all of them
    assert_true(watch_interval(&hasty, 4) == 0.5);
    assert_true(watch_interval(&hastier, 4) == 0.05);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),  cmocka_unit_test(test_longest),  cmocka_unit_test(test_damage),
        cmocka_unit_test(test_files), cmocka_unit_test(test_interval),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
