// When a run is started again after a crash, and what mpirun's lines say of its cause.
#include "launch/supervise.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void test_progress_allows_restarts(void **state) {
    (void)state;
    restart_rule rule = {.max_restarts = 5, .step = -1};
    char reason[256];
    for (int64_t step = 10; step <= 50; step += 10) {
        assert_true(restart_rule_allows(&rule, step, reason, sizeof reason));
        assert_int_equal(rule.stuck, 1);
    }
    assert_false(restart_rule_allows(&rule, 60, reason, sizeof reason));
    assert_non_null(strstr(reason, "5 restarts are allowed (--max-restarts)"));
    assert_non_null(strstr(reason, "the checkpoint of step 60"));
}

static void test_crash_loop_ends(void **state) {
    (void)state;
    restart_rule rule = {.max_restarts = 100, .step = -1};
    char reason[256];
    assert_true(restart_rule_allows(&rule, 20, reason, sizeof reason));  // got to 20
    assert_true(restart_rule_allows(&rule, 20, reason, sizeof reason));  // first restart without progress
    assert_true(restart_rule_allows(&rule, 20, reason, sizeof reason));  // second
    assert_false(restart_rule_allows(&rule, 20, reason, sizeof reason)); // third
    assert_non_null(strstr(reason, "3 restarts in a row got no further than the checkpoint of step 20"));

    rule = (restart_rule){.max_restarts = 100, .step = -1};
    for (int restart = 0; restart < 3; restart++)
        assert_true(restart_rule_allows(&rule, -1, reason, sizeof reason));
    assert_false(restart_rule_allows(&rule, -1, reason, sizeof reason));
    assert_non_null(strstr(reason, "got no further than the beginning"));
}

static void test_progress_forgives_a_loop(void **state) {
    (void)state;
    restart_rule rule = {.max_restarts = 100, .step = 0};
    char reason[256];
    for (int round = 0; round < 10; round++)
        for (int crash = 0; crash < 3; crash++)
            assert_true(restart_rule_allows(&rule, 10 + round, reason, sizeof reason));
}

static void test_no_restarts(void **state) {
    (void)state;
    restart_rule rule = {.max_restarts = 0, .step = -1};
    char reason[256];
    assert_false(restart_rule_allows(&rule, 5, reason, sizeof reason));
    rule = (restart_rule){.max_restarts = 1, .step = -1};
    assert_true(restart_rule_allows(&rule, 5, reason, sizeof reason));
    assert_false(restart_rule_allows(&rule, 6, reason, sizeof reason));
    assert_non_null(strstr(reason, "1 restart is allowed"));
}

static void read_lines(crash_cause *cause, const char *const *lines) {
    crash_cause_begin(cause);
    for (; *lines != NULL; lines++)
        crash_cause_read(cause, *lines);
}

static void test_killed_rank(void **state) {
    (void)state;
    static const char *const lines[] = {
        "musicrl: warning: something else\n", "Primary job  terminated normally, but 1 process returned\n",
        "mpirun noticed that process rank 2 with PID 0 on node node7 exited on signal 9 (Killed).\n", NULL};
    crash_cause cause;
    read_lines(&cause, lines);
    assert_int_equal(cause.rank, 2);
    assert_int_equal(cause.signal, 9);
    assert_string_equal(cause.host, "node7");
    assert_string_equal(cause.line, "");
}

static void test_failed_rank(void **state) {
    (void)state;
    static const char *const lines[] = {"musicrl: rank 3 on node1: the disk is full\n",
                                        "  Process name: [[24671,1],3]\n", "  Exit code:    1\n", NULL};
    crash_cause cause;
    read_lines(&cause, lines);
    assert_int_equal(cause.rank, 3);
    assert_int_equal(cause.signal, 0);
    assert_int_equal(cause.code, 1);
    assert_string_equal(cause.host, "node1");
    assert_string_equal(cause.line, "rank 3 on node1: the disk is full");
}

// The rank that a message is about is the cause, not the one that noticed and ended first.
static void test_silent_rank(void **state) {
    (void)state;
    static const char *const lines[] = {
        "musicrl: rank 2 on vm (learner), in phase learn of step 26, has given no sign of life for 2 s\n",
        "  Process name: [[24671,1],1]\n", "  Exit code:    1\n", NULL};
    crash_cause cause;
    read_lines(&cause, lines);
    assert_int_equal(cause.rank, 2);
    assert_string_equal(cause.host, "vm");
}

static void test_unknown_lines(void **state) {
    (void)state;
    static const char *const lines[] = {"\n",
                                        "mpirun noticed that process rank x with PID 0 on node\n",
                                        "Process name: [[a,1],2]\n",
                                        "Exit code: none\n",
                                        "rank 7 on nowhere: said by another program\n",
                                        NULL};
    crash_cause cause;
    read_lines(&cause, lines);
    assert_int_equal(cause.rank, -1);
    assert_int_equal(cause.signal, 0);
    assert_int_equal(cause.code, 0);
    assert_string_equal(cause.line, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress_allows_restarts),
        cmocka_unit_test(test_crash_loop_ends),
        cmocka_unit_test(test_progress_forgives_a_loop),
        cmocka_unit_test(test_no_restarts),
        cmocka_unit_test(test_killed_rank),
        cmocka_unit_test(test_failed_rank),
        cmocka_unit_test(test_silent_rank),
        cmocka_unit_test(test_unknown_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
