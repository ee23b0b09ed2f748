// Messages between processes through a folder: sessions that replace each other, names that hold what was
// published, and claims that die with their process.
#include "data/exchange_folder.h"

#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *run_folder(const char *name) {
    const char *path = scratch_path(name);
    mkdir(path, 0755);
    return path;
}

static void test_session(void **state) {
    (void)state;
    exchange_folder first, second, seen;
    exchange_state found;
    json_t *terms;
    const char *run = run_folder("session");
    assert_int_equal(exchange_folder_look(&seen, run, &found, &terms), STATUS_OK);
    assert_int_equal(found, EXCHANGE_ABSENT);
    assert_null(terms);

    assert_int_equal(exchange_folder_begin(&first, run, json_pack("{s:i}", "seed", 7)), STATUS_OK);
    assert_int_equal(exchange_folder_look(&seen, run, &found, &terms), STATUS_OK);
    assert_int_equal(found, EXCHANGE_OPEN);
    assert_string_equal(seen.path, first.path);
    assert_int_equal(json_integer_value(json_object_get(terms, "seed")), 7);
    json_decref(terms);
    assert_int_equal(exchange_folder_publish(&first, "weights-000000", "w", 1), STATUS_OK);

    // A run that starts again: whoever still works for the one before finds its folder gone.
    assert_int_equal(exchange_folder_begin(&second, run, json_object()), STATUS_OK);
    assert_string_not_equal(first.session, second.session);
    assert_int_equal(access(first.path, F_OK), -1);
    assert_int_equal(exchange_folder_publish(&first, "late", "x", 1), STATUS_FAILED);

    assert_int_equal(exchange_folder_end(&second, EXCHANGE_STOPPED), STATUS_OK);
    assert_int_equal(exchange_folder_look(&seen, run, &found, &terms), STATUS_OK);
    assert_int_equal(found, EXCHANGE_STOPPED);
    assert_null(terms);
    assert_int_equal(access(second.path, F_OK), -1);
}

static void test_broken_session(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "{\"state\": \"open\"}",
                                        "{\"session\": \"session-1\", \"state\": \"absent\"}",
                                        "{\"session\": \"session-../../x\", \"state\": \"open\"}",
                                        "{\"session\": \"elsewhere\", \"state\": \"open\"}"};
    const char *run = run_folder("broken");
    char path[PATH_MAX];
    exchange_folder seen;
    exchange_state found;
    snprintf(path, sizeof path, "%s/exchange", run);
    mkdir(path, 0755);
    snprintf(path, sizeof path, "%s/exchange/session.json", run);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(scratch_write(path, texts[i], strlen(texts[i])), 0);
        assert_int_equal(exchange_folder_look(&seen, run, &found, NULL), STATUS_FAILED);
        assert_non_null(strstr(status_message(), "session.json does not say which session is open"));
        assert_null(strchr(status_message(), '\n'));
    }
    // A new run does not care.
    assert_int_equal(exchange_folder_begin(&seen, run, json_object()), STATUS_OK);
}

static void test_messages(void **state) {
    (void)state;
    exchange_folder x;
    char buffer[16], names[3][EXCHANGE_NAME];
    size_t bytes = 99;
    bool there = true;
    int count;
    assert_int_equal(exchange_folder_begin(&x, run_folder("messages"), json_object()), STATUS_OK);
    assert_false(exchange_folder_has(&x, "train-000001-000.rollout"));
    assert_int_equal(
        exchange_folder_fetch(&x, "train-000001-000.rollout", buffer, sizeof buffer, &there, &bytes),
        STATUS_OK);
    assert_false(there);

    assert_int_equal(exchange_folder_publish(&x, "train-000001-000.rollout", "tokens", 6), STATUS_OK);
    assert_int_equal(exchange_folder_publish(&x, "train-000001-000.rollout", "tokens", 6), STATUS_OK);
    assert_true(exchange_folder_has(&x, "train-000001-000.rollout"));
    assert_int_equal(
        exchange_folder_fetch(&x, "train-000001-000.rollout", buffer, sizeof buffer, &there, &bytes),
        STATUS_OK);
    assert_true(there);
    assert_int_equal(bytes, 6);
    assert_memory_equal(buffer, "tokens", 6);

    // One that is larger than expected, and an empty one, are there.
    memset(buffer, 'x', sizeof buffer);
    assert_int_equal(exchange_folder_fetch(&x, "train-000001-000.rollout", buffer, 5, &there, &bytes),
                     STATUS_OK);
    assert_true(there);
    assert_int_equal(bytes, 6);
    assert_memory_equal(buffer, "tokenx", 6);
    assert_int_equal(exchange_folder_publish(&x, "empty", "", 0), STATUS_OK);
    assert_int_equal(exchange_folder_fetch(&x, "empty", buffer, sizeof buffer, &there, &bytes), STATUS_OK);
    assert_true(there);
    assert_int_equal(bytes, 0);

    assert_int_equal(exchange_folder_publish(&x, "train-000001-000.reward", "scores", 6), STATUS_OK);
    assert_int_equal(exchange_folder_publish(&x, "train-000002-000.rollout", "tokens", 6), STATUS_OK);
    assert_int_equal(exchange_folder_publish(&x, "order-2", "", 0), STATUS_OK);
    assert_int_equal(exchange_folder_publish(&x, "order-1", "", 0), STATUS_OK);
    assert_int_equal(exchange_folder_list(&x, "order-", names, 3, &count), STATUS_OK);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "order-1");
    assert_string_equal(names[1], "order-2");
    assert_int_equal(exchange_folder_list(&x, "train-", names, 2, &count), STATUS_OK);
    assert_int_equal(count, 2);

    assert_int_equal(exchange_folder_discard(&x, "train-000001-000"), STATUS_OK);
    assert_false(exchange_folder_has(&x, "train-000001-000.rollout"));
    assert_false(exchange_folder_has(&x, "train-000001-000.reward"));
    assert_true(exchange_folder_has(&x, "train-000002-000.rollout"));
}

// A child that claims `name`, says so, and waits for its end.
static pid_t claim_in_child(const exchange_folder *x, const char *name) {
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        char holder[EXCHANGE_OWNER];
        int claim;
        if (exchange_folder_claim(x, name, "child-1", &claim, holder) != STATUS_OK || claim < 0)
            _exit(1);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void test_claims(void **state) {
    (void)state;
    exchange_folder x;
    char holder[EXCHANGE_OWNER];
    int claim, other;
    assert_int_equal(exchange_folder_begin(&x, run_folder("claims"), json_object()), STATUS_OK);
    const pid_t child = claim_in_child(&x, "part-0000");
    assert_int_equal(exchange_folder_claim(&x, "part-0000", "parent-22", &claim, holder), STATUS_OK);
    assert_int_equal(claim, -1);
    assert_string_equal(holder, "child-1");
    assert_int_equal(exchange_folder_claim(&x, "part-0001", "parent-22", &other, holder), STATUS_OK);
    assert_true(other >= 0);
    exchange_folder_release(other);

    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(exchange_folder_claim(&x, "part-0000", "parent-22", &claim, holder), STATUS_OK);
    assert_true(claim >= 0);
    // Another descriptor of the same process is another owner too.
    assert_int_equal(exchange_folder_claim(&x, "part-0000", "parent-33", &other, holder), STATUS_OK);
    assert_int_equal(other, -1);
    assert_string_equal(holder, "parent-22");
    exchange_folder_release(claim);
    exchange_folder_release(-1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_broken_session),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_claims),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
