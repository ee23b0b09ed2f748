// Progress: what a line says, and that a file gets plain lines.
#include "launch/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static const char *duration(double seconds) {
    static char text[64];
    progress_format_duration(text, sizeof text, seconds);
    return text;
}

static void test_durations(void **state) {
    (void)state;
    assert_string_equal(duration(-1), "0 s");
    assert_string_equal(duration(7.6), "8 s");
    assert_string_equal(duration(59.6), "1 min 0 s");
    assert_string_equal(duration(114), "1 min 54 s");
    assert_string_equal(duration(7500), "2 h 5 min");
    assert_string_equal(duration(3 * 86400 + 4 * 3600), "3 d 4 h");
}

static void test_lines(void **state) {
    (void)state;
    char line[256];
    progress_format(line, sizeof line, "pretrain", "step", 120, 600, 4.2, "loss 3.1");
    assert_string_equal(line, "pretrain 120/600 (20 %) 4.2 steps/s, 1 min 54 s left: loss 3.1");
    progress_format(line, sizeof line, "train", "step", 1, 60, 0.25, "");
    assert_string_equal(line, "train 1/60 (2 %) 4.0 s/step, 3 min 56 s left");
    progress_format(line, sizeof line, "corpus make", "clip", 1, 3, 2.5, "");
    assert_string_equal(line, "corpus make 1/3 (33 %) 2.5 clips/s, 1 s left");
    progress_format(line, sizeof line, "import", "file", 1, 3, 0.5, "");
    assert_string_equal(line, "import 1/3 (33 %) 2.0 s/file, 4 s left");
    progress_format(line, sizeof line, "train", "step", 0, 60, 0, "");
    assert_string_equal(line, "train 0/60 (0 %)");
    progress_format(line, sizeof line, "train", "step", 60, 60, 250, "");
    assert_string_equal(line, "train 60/60 (100 %) 250 steps/s");
}

static void test_plain_stream(void **state) {
    (void)state;
    FILE *stream = tmpfile();
    assert_non_null(stream);
    progress p;
    progress_start(&p, stream, "train", "step", 0, 10);
    for (int64_t step = 1; step <= 10; step++)
        progress_show(&p, step, "x"); // too fast for a line each
    p.shown -= 3600;
    progress_show(&p, 10, "x"); // the end is told once
    progress_finish(&p, 10, "reward 0.5");
    rewind(stream);
    char text[1024];
    text[fread(text, 1, sizeof text - 1, stream)] = '\0';
    fclose(stream);
    assert_null(strchr(text, '\r'));
    assert_null(strchr(text, '\033'));
    assert_non_null(strstr(text, "reward 0.5 (took 0 s)\n"));
    assert_ptr_equal(strchr(text, '\n'), strrchr(text, '\n'));

    progress_start(&p, NULL, "train", "step", 0, 10); // silent
    progress_show(&p, 1, "");
    progress_finish(&p, 10, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_plain_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
