#include "data/regular_file.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static void test_file(void **state) {
    (void)state;
    const char *path = scratch_path("file");
    struct stat info;
    FILE *stream;
    int file;
    char text[8] = "";
    assert_int_equal(scratch_write(path, "line\n", 5), 0);
    assert_int_equal(regular_file_open(&file, &info, path, "manifest"), STATUS_OK);
    assert_int_equal(info.st_size, 5);
    assert_int_equal(read(file, text, sizeof text), 5);
    close(file);
    assert_int_equal(symlink(path, scratch_path("link")), 0);
    assert_int_equal(regular_file_stream(&stream, NULL, scratch_path("link"), "manifest"), STATUS_OK);
    assert_non_null(fgets(text, sizeof text, stream));
    assert_string_equal(text, "line\n");
    fclose(stream);
}

static void test_text(void **state) {
    (void)state;
    const char *path = scratch_path("text");
    const struct {
        const char *bytes, *first;
    } cases[] = {
        {"\xef\xbb\xbfline\n", "line\n"},
        {"\xef\xbb\xbf", NULL},
        {"\xef\xbbx\n", "\xef\xbbx\n"},
        {"ab", "ab"},
        {"", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FILE *stream;
        char text[8];
        assert_int_equal(scratch_write(path, cases[i].bytes, strlen(cases[i].bytes)), 0);
        assert_int_equal(regular_file_text(&stream, path, "manifest"), STATUS_OK);
        const char *found = fgets(text, sizeof text, stream);
        assert_int_equal(found == NULL, cases[i].first == NULL);
        if (found != NULL)
            assert_string_equal(found, cases[i].first);
        fclose(stream);
    }
}

// A hang here is a failure.
static void test_others(void **state) {
    (void)state;
    assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
    const struct {
        const char *path, *message;
    } cases[] = {
        {scratch_path("fifo"), "fifo is a pipe, a regular file is wanted; give a manifest that is one"},
        {"/dev/zero", "/dev/zero is a device, a regular file is wanted; give a manifest that is one"},
        {scratch_folder, " is a folder, a regular file is wanted; give a manifest that is one"},
        {scratch_path("nowhere"), "cannot open manifest "},
    };
    alarm(20);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FILE *stream;
        errno = 0;
        assert_int_equal(regular_file_stream(&stream, NULL, cases[i].path, "manifest"), STATUS_FAILED);
        assert_int_equal(errno == ENOENT, i == 3);
        assert_null(stream);
        if (strstr(status_message(), cases[i].message) == NULL)
            fail_msg("'%s' does not contain '%s'", status_message(), cases[i].message);
    }
    alarm(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_others),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
