#include "data/digest.h"
#include "data/publish.h"
#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int exists(const char *path) {
    struct stat info;
    return lstat(path, &info) == 0;
}

static void expect_text(const char *path, const char *text) {
    size_t count = 0;
    char *bytes = scratch_read(path, &count);
    assert_non_null(bytes);
    assert_string_equal(bytes, text);
    free(bytes);
}

static void expect_message(const char *part) {
    if (strstr(status_message(), part) == NULL || strchr(status_message(), '\n') != NULL)
        fail_msg("'%s' does not contain '%s'", status_message(), part);
}

static void test_file(void **state) {
    (void)state;
    const char *path = scratch_path("file");
    publisher *publisher;
    assert_int_equal(publish_open(&publisher, path), STATUS_OK);
    assert_int_equal(publish_write(publisher, "abc", 3), STATUS_OK);
    assert_false(exists(path));
    assert_true(exists(scratch_path("file.tmp")));
    assert_int_equal(publish_write(publisher, NULL, 0), STATUS_OK);
    assert_int_equal(publish_write(publisher, "def", 3), STATUS_OK);
    uint64_t bytes, file_bytes;
    digest receipt, of_file, of_buffer = digest_bytes("abcdef", 6);
    publish_receipt(publisher, &bytes, &receipt);
    assert_int_equal(publish_commit(publisher), STATUS_OK);
    expect_text(path, "abcdef");
    assert_false(exists(scratch_path("file.tmp")));
    assert_int_equal(digest_file(path, &file_bytes, &of_file), STATUS_OK);
    assert_int_equal(bytes, 6);
    assert_int_equal(file_bytes, 6);
    assert_true(digest_equal(&receipt, &of_file));
    assert_true(digest_equal(&receipt, &of_buffer));

    assert_int_equal(publish_file(path, "new", 3), STATUS_OK); // replaces
    expect_text(path, "new");
    assert_int_equal(publish_open(&publisher, path), STATUS_OK);
    assert_int_equal(publish_write(publisher, "half", 4), STATUS_OK);
    publish_abort(publisher);
    publish_abort(NULL);
    expect_text(path, "new");
    assert_false(exists(scratch_path("file.tmp")));
}

// The digest of no bytes is a published constant of XXH3-128 with seed 0.
static void test_digest(void **state) {
    (void)state;
    char text[DIGEST_HEX];
    digest found = digest_bytes("", 0);
    digest_to_hex(&found, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f");
    uint64_t bytes;
    assert_int_equal(digest_file(scratch_path("absent"), &bytes, &found), STATUS_FAILED);
    expect_message("is missing");
    assert_int_equal(digest_file(scratch_folder, &bytes, &found), STATUS_FAILED);
    expect_message("is a folder, a regular file is wanted");
}

static void test_bad_paths(void **state) {
    (void)state;
    publisher *publisher;
    assert_int_equal(publish_open(&publisher, scratch_path("absent/file")), STATUS_FAILED);
    assert_null(publisher);
    expect_message("absent/file");
    expect_message("the folder is missing");
    char longest[PATH_MAX + 10];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(publish_open(&publisher, longest), STATUS_FAILED);
    expect_message("too long");
    assert_int_equal(publish_make_folder(longest), STATUS_FAILED);
    assert_int_equal(publish_make_folder(""), STATUS_FAILED);
    assert_int_equal(publish_file(scratch_path("plain"), "x", 1), STATUS_OK);
    assert_int_equal(publish_make_folder(scratch_path("plain")), STATUS_FAILED);
    expect_message("is a file, a folder is needed");
    assert_int_equal(publish_make_folder(scratch_path("plain/below")), STATUS_FAILED);
    expect_message("plain is a file, a folder is needed");
    assert_int_equal(publish_make_folder(scratch_path("a/b/c")), STATUS_OK);
    assert_int_equal(publish_make_folder(scratch_path("a/b/c")), STATUS_OK);
    assert_true(exists(scratch_path("a/b/c")));
    assert_int_equal(publish_file(scratch_path("a"), "x", 1), STATUS_FAILED); // a folder has that name
    expect_message("cannot publish");
    assert_false(exists(scratch_path("a.tmp")));
}

static void test_place(void **state) {
    (void)state;
    const char *path = scratch_path("place");
    assert_int_equal(publish_check_place(path, 0), STATUS_OK);
    assert_int_equal(publish_file(path, "x", 1), STATUS_OK);
    assert_int_equal(publish_check_place(path, 1), STATUS_OK);
    assert_int_equal(publish_check_place(path, 0), STATUS_FAILED);
    expect_message("place is there already; choose another name, or replace it with --replace");
    assert_int_equal(publish_check_place(scratch_folder, 1), STATUS_FAILED);
    expect_message(" is a folder, a file is wanted; give the name of one");
    assert_int_equal(publish_check_place("/dev/null", 1), STATUS_FAILED);
    expect_message("/dev/null is no regular file and cannot be replaced by one");
}

static void test_folder(void **state) {
    (void)state;
    const char *path = scratch_path("set");
    char temporary[PATH_MAX], inside[PATH_MAX + 8];
    assert_int_equal(publish_begin_folder(path, temporary), STATUS_OK);
    snprintf(inside, sizeof inside, "%s/one", temporary);
    assert_int_equal(publish_file(inside, "1", 1), STATUS_OK);
    assert_int_equal(publish_begin_folder(path, temporary), STATUS_OK); // starts anew
    assert_false(exists(inside));
    assert_int_equal(publish_file(inside, "2", 1), STATUS_OK);
    assert_false(exists(path));
    assert_int_equal(publish_commit_folder(path), STATUS_OK);
    expect_text(scratch_path("set/one"), "2");
    assert_false(exists(temporary));

    assert_int_equal(publish_begin_folder(path, temporary), STATUS_FAILED);
    expect_message("is there already");
    assert_int_equal(mkdir(temporary, 0755), 0);
    assert_int_equal(publish_commit_folder(path), STATUS_FAILED);
    expect_message("is there already");
    publish_abort_folder(path);
    expect_message("is there already"); // clean-up keeps the first failure's message
    assert_false(exists(temporary));
    expect_text(scratch_path("set/one"), "2");

    assert_int_equal(publish_rename(path, scratch_path("moved")), STATUS_OK);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(publish_rename(scratch_path("moved"), path), STATUS_FAILED);
    assert_int_equal(publish_remove_folder(scratch_path("moved")), STATUS_OK);
    assert_false(exists(scratch_path("moved")));
    assert_false(exists(scratch_path("moved.tmp")));
    assert_int_equal(publish_remove_folder(scratch_path("moved")), STATUS_FAILED);
}

static void test_lock(void **state) {
    (void)state;
    const char *folder = scratch_path("busy/inside");
    int first = -1, second = -1;
    assert_int_equal(publish_lock_folder(folder, &first), STATUS_OK);
    assert_int_equal(publish_lock_folder(folder, &second), STATUS_FAILED);
    assert_int_equal(second, -1);
    assert_non_null(strstr(status_message(), "busy/inside is being written by another process"));
    publish_unlock_folder(second);
    publish_unlock_folder(first);
    assert_int_equal(publish_lock_folder(folder, &second), STATUS_OK);
    publish_unlock_folder(second);
    assert_int_equal(publish_lock_folder("/proc/nowhere", &first), STATUS_FAILED);
}

static void test_sweep(void **state) {
    (void)state;
    assert_int_equal(publish_sweep(scratch_path("nowhere")), STATUS_OK);
    assert_int_equal(publish_make_folder(scratch_path("sweep/old.tmp/deep/er")), STATUS_OK);
    assert_int_equal(publish_make_folder(scratch_path("sweep/kept")), STATUS_OK);
    assert_int_equal(publish_file(scratch_path("sweep/kept/inner"), "x", 1), STATUS_OK);
    assert_int_equal(publish_file(scratch_path("outside"), "x", 1), STATUS_OK);
    assert_int_equal(symlink(scratch_path("sweep/kept"), scratch_path("sweep/old.tmp/link")), 0);
    assert_int_equal(symlink(scratch_path("outside"), scratch_path("sweep/link.tmp")), 0);
    assert_int_equal(scratch_write(scratch_path("sweep/old.tmp/deep/file"), "x", 1), 0);
    assert_int_equal(scratch_write(scratch_path("sweep/file.tmp"), "x", 1), 0);
    assert_int_equal(scratch_write(scratch_path("sweep/file"), "x", 1), 0);
    assert_int_equal(scratch_write(scratch_path("sweep/.tmp"), "x", 1), 0);
    assert_int_equal(publish_sweep(scratch_path("sweep")), STATUS_OK);
    assert_false(exists(scratch_path("sweep/old.tmp")));
    assert_false(exists(scratch_path("sweep/file.tmp")));
    assert_false(exists(scratch_path("sweep/link.tmp")));
    assert_true(exists(scratch_path("sweep/file")));
    assert_true(exists(scratch_path("sweep/.tmp")));
    expect_text(scratch_path("sweep/kept/inner"), "x");
    expect_text(scratch_path("outside"), "x");
}

static void test_file_size_limit(void **state) {
    (void)state;
    const char *path = scratch_path("limited");
    assert_int_equal(publish_file(path, "old", 3), STATUS_OK);
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max}),
                     0);
    static const char bytes[2000];
    status result = publish_file(path, bytes, sizeof bytes);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, before);
    assert_int_equal(result, STATUS_FAILED);
    expect_message("limit on file sizes");
    expect_text(path, "old");
    assert_false(exists(scratch_path("limited.tmp")));
}

static void test_full_disk(void **state) {
    (void)state;
    const char *folder = scratch_path("disk");
    assert_int_equal(mkdir(folder, 0755), 0);
    if (mount("tmpfs", folder, "tmpfs", 0, "size=64k") != 0)
        skip(); // needs root
    static const char bytes[100000];
    status small = publish_file(scratch_path("disk/kept"), "kept", 4);
    status result = publish_file(scratch_path("disk/large"), bytes, sizeof bytes);
    int left = exists(scratch_path("disk/large")) || exists(scratch_path("disk/large.tmp"));
    size_t count = 0;
    char *kept = scratch_read(scratch_path("disk/kept"), &count);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(small, STATUS_OK);
    assert_int_equal(result, STATUS_FAILED);
    expect_message("No space left");
    expect_message("free some space");
    assert_false(left);
    assert_string_equal(kept, "kept");
    free(kept);
}

static void test_read_only_folder(void **state) {
    (void)state;
    const char *folder = scratch_path("locked");
    assert_int_equal(mkdir(folder, 0555), 0);
    assert_int_equal(chmod(scratch_folder, 0755), 0);
    uid_t user = geteuid();
    if (user == 0) // root may write anywhere
        assert_int_equal(seteuid(65534), 0);
    char temporary[PATH_MAX];
    status file = publish_file(scratch_path("locked/file"), "x", 1);
    char file_message[512];
    snprintf(file_message, sizeof file_message, "%s", status_message());
    status below = publish_make_folder(scratch_path("locked/below"));
    status set = publish_begin_folder(scratch_path("locked/set"), temporary);
    if (user == 0)
        assert_int_equal(seteuid(user), 0);
    assert_int_equal(file, STATUS_FAILED);
    assert_non_null(strstr(file_message, "choose a folder that can be written"));
    assert_int_equal(below, STATUS_FAILED);
    assert_int_equal(set, STATUS_FAILED);
    expect_message("choose a folder that can be written");
}

// A slash behind the name of a folder makes no other folder of it.
// Records for a file that nobody will find must not go unnoticed.
static void test_removed_while_written(void **state) {
    (void)state;
    const char *path = scratch_path("removed");
    appender *appender;
    assert_int_equal(append_open(&appender, path), STATUS_OK);
    assert_int_equal(append_write(appender, "one\n", 4), STATUS_OK);
    assert_int_equal(append_sync(appender), STATUS_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(append_write(appender, "two\n", 4), STATUS_OK);
    assert_int_equal(append_sync(appender), STATUS_FAILED);
    expect_message("was removed while it is being written");
    assert_int_equal(append_close(appender), STATUS_OK); // told once
}

static void test_trailing_slash(void **state) {
    (void)state;
    char temporary[PATH_MAX], slash[PATH_MAX];
    snprintf(slash, sizeof slash, "%s//", scratch_path("up/down"));
    assert_int_equal(publish_make_parent(slash), STATUS_OK);
    assert_int_equal(access(scratch_path("up"), F_OK), 0);
    assert_int_equal(access(scratch_path("up/down"), F_OK), -1);
    assert_int_equal(publish_begin_folder(slash, temporary), STATUS_OK);
    assert_string_equal(temporary, scratch_path("up/down.tmp"));
    assert_int_equal(publish_commit_folder(slash), STATUS_OK);
    assert_int_equal(access(scratch_path("up/down"), F_OK), 0);
    assert_int_equal(publish_begin_folder(slash, temporary), STATUS_FAILED); // there already
    assert_int_equal(publish_make_parent("name"), STATUS_OK);
    assert_int_equal(publish_make_parent("/name"), STATUS_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),           cmocka_unit_test(test_digest),
        cmocka_unit_test(test_bad_paths),      cmocka_unit_test(test_place),
        cmocka_unit_test(test_folder),         cmocka_unit_test(test_lock),
        cmocka_unit_test(test_sweep),          cmocka_unit_test(test_file_size_limit),
        cmocka_unit_test(test_full_disk),      cmocka_unit_test(test_read_only_folder),
        cmocka_unit_test(test_trailing_slash), cmocka_unit_test(test_removed_while_written),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
