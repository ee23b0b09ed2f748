// Spelling help suggests what is near, and nothing where all of a word would have to change.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/nearest.h"

static const char *const words[] = {"train", "doctor", "dpo", "doctors"};
enum { WORDS = sizeof words / sizeof words[0] };

static void test_near(void **state) {
    (void)state;
    assert_string_equal(nearest_name("trian", words, WORDS), "train");
    assert_string_equal(nearest_name("docter", words, WORDS), "doctor");
    assert_string_equal(nearest_name("doctor", words, WORDS), "doctor");
    assert_string_equal(nearest_name("do", words, WORDS), "dpo");
    char hint[NEAREST_HINT];
    assert_string_equal(nearest_hint(hint, "did you mean", "trian", words, WORDS), "; did you mean 'train'");
}

static void test_nothing_near(void **state) {
    (void)state;
    static const char *const far[] = {"", "-V", "x", "d", "zzzz"};
    char hint[NEAREST_HINT];
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        assert_null(nearest_name(far[i], words, WORDS));
        assert_string_equal(nearest_hint(hint, "did you mean", far[i], words, WORDS), "");
    }
    assert_null(nearest_name("train", words, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_near), cmocka_unit_test(test_nothing_near)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
