// Files of one JSON object a line: what is read, refused by line, and skipped on request.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "data/json_lines.h"
#include "tests/unit/scratch.h"

typedef struct seen {
    long lines[8];
    int count;
} seen;

static status take(void *context, const json_t *object, long line) {
    seen *s = context;
    if (json_object_get(object, "bad") != NULL)
        return FAIL("a bad one");
    assert_true(s->count < 8);
    s->lines[s->count++] = line;
    return STATUS_OK;
}

// The beginning of each message.
static void note(void *context, const char *message) {
    char *told = context;
    const size_t used = strlen(told);
    snprintf(told + used, 128 - used, "%.13s|", message);
}

static status parse(const char *text, seen *s, skipped_lines *skipped) {
    *s = (seen){0};
    return json_lines_parse("lines", text, strlen(text), take, s, skipped);
}

static void test_lines(void **state) {
    (void)state;
    seen s;
    assert_int_equal(parse("{\"a\": 1}\n\n \t\r\n{}\n{\"b\": [\"x\\n\"]}", &s, NULL), STATUS_OK);
    assert_int_equal(s.count, 3);
    assert_int_equal(s.lines[1], 4);
    assert_int_equal(s.lines[2], 5);
    assert_int_equal(parse("", &s, NULL), STATUS_OK);
    assert_int_equal(s.count, 0);
}

static void refuse(const char *text, const char *wanted) {
    seen s;
    assert_int_equal(parse(text, &s, NULL), STATUS_FAILED);
    if (strstr(status_message(), wanted) == NULL)
        fail_msg("'%s' is missing in: %s", wanted, status_message());
    assert_null(strchr(status_message(), '\n'));
}

static void test_bad_lines(void **state) {
    (void)state;
    refuse("{}\n{\"a\": }\n", "lines:2: not valid JSON");
    refuse("{}\n[]\n", "lines:2: not a JSON object");
    refuse("{\"a\": 1, \"a\": 2}\n", "lines:1: not valid JSON");
    refuse("{} {}\n", "lines:1: not valid JSON");
    refuse("{}\n\n{\"bad\": 1}\n", "lines:3: a bad one");
    refuse("\xff\n", "lines:1: not valid JSON");
    static char longer[JSON_LINE_BYTES_MAX + 8];
    memset(longer, 'x', sizeof longer - 1);
    refuse(longer, "lines:1: a line of");
    seen s;
    char told[128] = "";
    skipped_lines skipped = {.tell = note, .context = told};
    assert_int_equal(parse("{}\n[]\n{\"bad\": 1}\n{}\n{", &s, &skipped), STATUS_OK);
    assert_int_equal(s.count, 2);
    assert_int_equal(skipped.count, 3);
    assert_string_equal(told, "lines:2: not |lines:3: a ba|lines:5: not |");
}

static void test_file(void **state) {
    (void)state;
    seen s = {0};
    const char *path = scratch_path("lines.jsonl");
    assert_int_equal(scratch_write(path, "{}\n{}", 5), 0);
    assert_int_equal(json_lines_read(path, take, &s, NULL), STATUS_OK);
    assert_int_equal(s.count, 2);
    assert_int_equal(scratch_write(path, "\xef\xbb\xbf{}\n{}", 8), 0); // a byte order mark
    assert_int_equal(json_lines_read(path, take, &s, NULL), STATUS_OK);
    assert_int_equal(s.count, 4);
    assert_int_equal(scratch_write(path, "{}\nno", 5), 0);
    assert_int_equal(json_lines_read(path, take, &s, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "lines.jsonl:2: "));
    assert_int_equal(json_lines_read("/nonexistent/lines", take, &s, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/lines"));
    assert_int_equal(json_lines_read(scratch_folder, take, &s, NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "is a folder, a regular file is wanted"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_file),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
