#include "kernels/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

// What a file calls itself must not end the line, nor reach the terminal as a command.
static void test_one_line(void **state) {
    (void)state;
    assert_int_equal(FAIL("array '%s' is wrong", "cap\ntion\x1b[2J\x7f"), STATUS_FAILED);
    assert_string_equal(status_message(), "array 'cap?tion?[2J?' is wrong");
    assert_int_equal(status_prefix(STATUS_USAGE, "%s: ", "a\tb"), STATUS_USAGE);
    assert_string_equal(status_message(), "a?b: array 'cap?tion?[2J?' is wrong");
    FAIL("%s", "caf\xc3\xa9"); // other letters stay
    assert_string_equal(status_message(), "caf\xc3\xa9");
    FAIL("again: %s", status_message());
    assert_string_equal(status_message(), "again: caf\xc3\xa9");
}

static void test_long(void **state) {
    (void)state;
    char text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    FAIL("%s", text);
    const size_t length = strlen(status_message());
    assert_true(length > 1000 && length < sizeof text - 1);
    status_prefix(STATUS_FAILED, "short: ");
    assert_int_equal(strncmp(status_message(), "short: xxx", 10), 0);
    assert_true(strlen(status_message()) <= length);
    status_prefix(STATUS_FAILED, "%s", text); // a prefix that leaves no room changes nothing
    assert_int_equal(strncmp(status_message(), "short: xxx", 10), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_line), cmocka_unit_test(test_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
