// metrics.jsonl: lines read back to the same numbers, resuming drops exactly what comes again, damage is
// named.
#include "data/metrics.h"
#include "data/number_text.h"
#include "data/publish.h"
#include "kernels/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/scratch.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void write_step(metrics *m, int64_t step, double reward) {
    metrics_begin(m, step);
    metrics_add(m, "reward", reward);
    metrics_add(m, "seconds/rollout", 0.5);
    assert_int_equal(metrics_end(m), STATUS_OK);
}

static void assert_content(const char *path, const char *wanted) {
    size_t count;
    char *text = scratch_read(path, &count);
    assert_non_null(text);
    assert_string_equal(text, wanted);
    free(text);
}

static void put(const char *path, const char *text) {
    assert_int_equal(scratch_write(path, text, strlen(text)), 0);
}

static void test_lines(void **state) {
    (void)state;
    const char *path = scratch_path("lines.jsonl");
    metrics *m;
    assert_int_equal(metrics_open(&m, path, 0, NULL), STATUS_OK);
    write_step(m, 0, 0.1);
    const uint64_t before = memory_read_counters().allocations;
    write_step(m, 1, NAN);
    write_step(m, 2, -INFINITY);
    assert_int_equal(memory_read_counters().allocations, before);
    assert_int_equal(metrics_sync(m), STATUS_OK);
    assert_int_equal(metrics_close(m), STATUS_OK);
    assert_content(path, "{\"step\": 0, \"reward\": 0.1, \"seconds/rollout\": 0.5}\n"
                         "{\"step\": 1, \"reward\": null, \"seconds/rollout\": 0.5}\n"
                         "{\"step\": 2, \"reward\": null, \"seconds/rollout\": 0.5}\n");
}

static void test_numbers_round_trip(void **state) {
    (void)state;
    const double values[] = {0,
                             -0.0,
                             1,
                             60,
                             0.1,
                             1.0 / 3,
                             1e-8,
                             1e22,
                             DBL_MIN,
                             DBL_MAX,
                             5e-324,
                             123456789,
                             -2.5e-17,
                             M_PI,
                             1e15,
                             999999999999999,
                             0.25,
                             1e-4,
                             1e300,
                             -1,
                             4503599627370497.5};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char text[NUMBER_TEXT_MAX];
        number_text_format(text, values[i]);
        const double back = strtod(text, NULL);
        assert_memory_equal(&back, &values[i], sizeof back);
        json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
        assert_true(json_is_number(json));
        json_decref(json);
    }
    char text[NUMBER_TEXT_MAX];
    number_text_format(text, 1e-4);
    assert_string_equal(text, "0.0001");
    number_text_format(text, 600);
    assert_string_equal(text, "600");
}

static void test_resume(void **state) {
    (void)state;
    const char *path = scratch_path("resume.jsonl");
    put(path, "{\"step\": 0, \"reward\": 1}\n{\"step\": 1, \"reward\": 2}\n{\"step\": 2, \"reward\": 3}\n"
              "{\"step\": 3, \"rew"); // killed in the middle of a line
    metrics *m;
    assert_int_equal(metrics_open(&m, path, 2, NULL), STATUS_OK);
    assert_non_null(strstr(metrics_note(m),
                           "resume.jsonl: half a line at its end is dropped; its last whole line is "
                           "that of step 2, the run goes on with step 2"));
    write_step(m, 2, 4);
    assert_int_equal(metrics_close(m), STATUS_OK);
    assert_content(path, "{\"step\": 0, \"reward\": 1}\n{\"step\": 1, \"reward\": 2}\n"
                         "{\"step\": 2, \"reward\": 4, \"seconds/rollout\": 0.5}\n");
    // A fresh start drops everything; a resume without a file starts one.
    assert_int_equal(metrics_open(&m, path, 0, NULL), STATUS_OK);
    assert_int_equal(metrics_close(m), STATUS_OK);
    assert_content(path, "");
    assert_int_equal(metrics_open(&m, scratch_path("new.jsonl"), 7, NULL), STATUS_OK);
    write_step(m, 7, 0);
    assert_int_equal(metrics_close(m), STATUS_OK);
}

// What is left of a file that was cut: its whole lines, and a word about the rest.
static void test_torn(void **state) {
    (void)state;
    const char *path = scratch_path("torn.jsonl");
    const struct {
        const char *found, *kept, *note;
    } cases[] = {
        {"{\"step\": 0}\n{\"step\": 1}\n", "{\"step\": 0}\n{\"step\": 1}\n", ""},
        {"{\"step\": 0}\n{\"step\": 1}", "{\"step\": 0}\n{\"step\": 1}\n", ""}, // all but the end of the line
        {"{\"step\": 0}\n{\"step\": 1", "{\"step\": 0}\n",
         "its last whole line is that of step 0, the run goes on with step 5"},
        {"{\"step\": 0, \"rew", "", "it has no whole line, the run goes on with step 5"},
        {"\x01\x02\x03", "", "it has no whole line, the run goes on with step 5"},
        {"{\"step\": 4}\n{\"step\": 5}", "{\"step\": 4}\n", ""},
        {"", "", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        metrics *m;
        put(path, cases[i].found);
        assert_int_equal(metrics_open(&m, path, 5, NULL), STATUS_OK);
        if (cases[i].note[0] == '\0')
            assert_string_equal(metrics_note(m), "");
        else if (strstr(metrics_note(m), cases[i].note) == NULL ||
                 strstr(metrics_note(m), "half a line") == NULL)
            fail_msg("'%s' does not say '%s'", metrics_note(m), cases[i].note);
        assert_int_equal(metrics_close(m), STATUS_OK);
        assert_content(path, cases[i].kept);
    }
}

static void test_damage(void **state) {
    (void)state;
    const char *path = scratch_path("damaged.jsonl");
    const char *text = "{\"step\": 0}\n{\"step\": nonsense}\n{\"step\": 2}\n";
    put(path, text);
    metrics *m = NULL;
    assert_int_equal(metrics_open(&m, path, 2, NULL), STATUS_FAILED);
    assert_null(m);
    assert_non_null(strstr(status_message(), "damaged.jsonl:2:"));
    assert_content(path, text); // untouched
    put(path, "{\"step\": 0}\n{\"reward\": 1}\n");
    assert_int_equal(metrics_open(&m, path, 2, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "damaged.jsonl:2: no whole number \"step\""));
    assert_int_equal(metrics_open(&m, "/nonexistent/metrics.jsonl", 0, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/metrics.jsonl"));
    assert_int_equal(metrics_open(&m, scratch_folder, 1, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "is a folder, a regular file is wanted"));
}

static void test_wrong_use(void **state) {
    (void)state;
    const char *path = scratch_path("use.jsonl");
    metrics *m;
    assert_int_equal(metrics_open(&m, path, 0, NULL), STATUS_OK);
    metrics_begin(m, 0);
    metrics_add(m, "a", 1);
    metrics_add(m, "a", 2);
    assert_int_equal(metrics_end(m), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "'a' is added twice in step 0"));
    metrics_begin(m, 0);
    metrics_add(m, "quo\"te", 1);
    assert_int_equal(metrics_end(m), STATUS_FAILED);
    metrics_begin(m, 0);
    for (int i = 0; i <= EVENT_FILE_SCALARS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        metrics_add(m, name, i);
    }
    assert_int_equal(metrics_end(m), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "more than 256"));
    write_step(m, 0, 1); // a failed step leaves nothing behind
    assert_int_equal(metrics_close(m), STATUS_OK);
    assert_content(path, "{\"step\": 0, \"reward\": 1, \"seconds/rollout\": 0.5}\n");
}

// A record that does not fit is taken back: the limit stands for a full disk.
static void test_full_disk(void **state) {
    (void)state;
    const char *path = scratch_path("full.jsonl");
    metrics *m;
    assert_int_equal(metrics_open(&m, path, 0, NULL), STATUS_OK);
    write_step(m, 0, 1);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        const struct rlimit limit = {80, 80}; // within the second line
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(3);
        metrics_begin(m, 1);
        metrics_add(m, "reward", 0.123456789);
        metrics_add(m, "seconds/rollout", 0.123456789);
        _exit(metrics_end(m) == STATUS_FAILED && strstr(status_message(), "full.jsonl") != NULL ? 0 : 1);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
    assert_content(path, "{\"step\": 0, \"reward\": 1, \"seconds/rollout\": 0.5}\n");
    assert_int_equal(metrics_close(m), STATUS_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),     cmocka_unit_test(test_numbers_round_trip),
        cmocka_unit_test(test_resume),    cmocka_unit_test(test_torn),
        cmocka_unit_test(test_damage),    cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
