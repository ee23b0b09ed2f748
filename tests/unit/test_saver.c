#include "data/checkpoint.h"
#include "kernels/memory.h"
#include "launch/saver.h"
#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

enum { COUNT = 1000 };

static float weights[COUNT];
static int64_t updates;

static void expect_ok(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static void fill(float first) {
    for (int i = 0; i < COUNT; i++)
        weights[i] = first + (float)i;
    updates = (int64_t)first;
}

static saver *create(void) {
    saver *saver;
    const int64_t shape[] = {COUNT / 10, 10}, one[] = {1};
    expect_ok(saver_create(&saver, "test"));
    char name[] = "weights"; // copied
    const saved_tensor first = {.view = tensor_view_make(name, TENSOR_F32, weights, 2, shape)},
                       second[] = {{.view = tensor_view_make("updates", TENSOR_I64, &updates, 1, one)},
                                   first};
    expect_ok(saver_add_tensors(saver, "one.safetensors", &first, 1));
    expect_ok(saver_add_tensors(saver, "two.safetensors", second, 2));
    name[0] = 'x';
    return saver;
}

// Holds the thread back until it is let go.
typedef struct gate {
    atomic_bool open;
    status outcome;
} gate;
static status pass_gate(void *context) {
    gate *gate = context;
    while (!atomic_load(&gate->open))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return gate->outcome == STATUS_OK ? STATUS_OK : FAIL("closed on purpose");
}

static void expect_checkpoint(const char *folder, uint64_t step, float first) {
    checkpoint *found;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/step-%06llu", folder, (unsigned long long)step);
    expect_ok(checkpoint_open(&found, path));
    assert_string_equal(checkpoint_describe(found)->kind, "test");
    assert_int_equal(json_integer_value(json_object_get(checkpoint_state(found), "cursor")), (int)first);
    safetensors *file;
    float read[COUNT];
    int64_t count;
    expect_ok(checkpoint_open_tensors(found, "two.safetensors", &file));
    expect_ok(safetensors_read(file, "weights", TENSOR_F32, 2, (const int64_t[]){COUNT / 10, 10}, read));
    expect_ok(safetensors_read(file, "updates", TENSOR_I64, 1, (const int64_t[]){1}, &count));
    for (int i = 0; i < COUNT; i++)
        assert_true(read[i] == first + (float)i);
    assert_int_equal(count, (int)first);
    assert_true(checkpoint_has(found, "one.safetensors"));
    safetensors_close(file);
    checkpoint_close(found);
}

static json_t *state_of(int cursor) {
    return json_pack("{s:i}", "cursor", cursor);
}

// What is written is what was there at the start of the write, whatever training does meanwhile; and neither
// the copy nor the thread counts as an allocation of the loop.
static void test_snapshot(void **state) {
    (void)state;
    const char *folder = scratch_path("snapshot");
    saver *saver = create();
    gate gate = {.open = true};
    const saver_hooks hooks = {.before = pass_gate, .context = &gate};
    expect_ok(saver_wait(saver)); // nothing started yet
    assert_true(saver_write_seconds(saver) == 0.0);
    fill(1.0f);
    expect_ok(saver_start(saver, folder, 1, state_of(1), NULL));
    expect_ok(saver_wait(saver));
    assert_true(saver_write_seconds(saver) > 0.0);

    const uint64_t before = memory_read_counters().allocations;
    atomic_store(&gate.open, false);
    fill(2.0f);
    expect_ok(saver_start(saver, folder, 2, state_of(2), &hooks));
    fill(3.0f);
    expect_ok(saver_check(saver)); // under way, no failure
    struct stat info;
    assert_int_not_equal(stat(scratch_path("snapshot/step-000002"), &info), 0);
    atomic_store(&gate.open, true);
    expect_ok(saver_start(saver, folder, 3, state_of(3), &hooks)); // waits for step 2
    assert_int_equal(stat(scratch_path("snapshot/step-000002"), &info), 0);
    expect_ok(saver_wait(saver));
    assert_int_equal(memory_read_counters().allocations, before);
    saver_destroy(saver);
    saver_destroy(NULL);
    expect_checkpoint(folder, 1, 1.0f);
    expect_checkpoint(folder, 2, 2.0f);
    expect_checkpoint(folder, 3, 3.0f);
}

static void expect_failure(status result, const char *part) {
    assert_int_equal(result, STATUS_FAILED);
    if (strstr(status_message(), part) == NULL || strchr(status_message(), '\n') != NULL)
        fail_msg("'%s' does not contain '%s'", status_message(), part);
}

// The failure of a write is told once, at whichever call comes first, and the next write works again.
static void test_failures(void **state) {
    (void)state;
    const char *folder = scratch_path("failures");
    saver *saver = create();
    gate gate = {.open = true, .outcome = STATUS_FAILED};
    saver_hooks hooks = {.before = pass_gate, .context = &gate};
    fill(5.0f);
    expect_ok(saver_start(saver, folder, 5, state_of(5), &hooks));
    expect_failure(saver_wait(saver), "checkpoint of step 5: closed on purpose");
    expect_ok(saver_wait(saver));
    struct stat info;
    assert_int_not_equal(stat(scratch_path("failures/step-000005"), &info), 0);

    hooks = (saver_hooks){.after = pass_gate, .context = &gate};
    expect_ok(saver_start(saver, folder, 5, state_of(5), &hooks));
    expect_failure(saver_start(saver, folder, 6, state_of(6), NULL), "closed on purpose");
    expect_checkpoint(folder, 5, 5.0f);

    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 512, .rlim_max = old.rlim_max}), 0);
    const status started = saver_start(saver, folder, 6, state_of(6), NULL);
    status outcome = STATUS_OK;
    for (int i = 0; i < 5000 && outcome == STATUS_OK; i++) {
        outcome = saver_check(saver);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    expect_ok(started);
    expect_failure(outcome, "one.safetensors.tmp: File too large; the limit on file sizes is reached");
    expect_ok(saver_wait(saver));
    assert_int_not_equal(stat(scratch_path("failures/step-000006.tmp"), &info), 0);

    fill(6.0f);
    expect_ok(saver_start(saver, folder, 6, state_of(6), NULL));
    saver_destroy(saver); // finishes the write
    expect_checkpoint(folder, 6, 6.0f);
}

// Two savers write one checkpoint, which is there once the first has the receipts of the other, and not
// before.
static void test_shared(void **state) {
    (void)state;
    const char *folder = scratch_path("shared");
    saver *first = create(), *other;
    char receipts[SAVER_RECEIPTS];
    const int64_t one[] = {1};
    struct stat info;
    const saved_tensor part = {.view = tensor_view_make("updates", TENSOR_I64, &updates, 1, one)};
    expect_ok(saver_create(&other, "test"));
    expect_ok(saver_add_tensors(other, "part.safetensors", &part, 1));
    expect_ok(saver_share(first, true, 1));
    expect_ok(saver_share(other, false, 1));
    assert_true(saver_is_written(first));
    for (int step = 1; step <= 2; step++) {
        char path[64];
        snprintf(path, sizeof path, "shared/step-%06d", step);
        fill((float)step);
        const uint64_t before = memory_read_counters().allocations;
        expect_ok(saver_start(first, folder, (uint64_t)step, state_of(step), NULL));
        expect_ok(saver_start(other, folder, (uint64_t)step, NULL, NULL));
        expect_ok(saver_wait(first));
        expect_ok(saver_receipts(other, receipts));
        assert_true(saver_is_written(first) && saver_is_written(other));
        assert_int_not_equal(stat(scratch_path(path), &info), 0);
        expect_ok(saver_commit(first, receipts));
        expect_ok(saver_wait(first));
        assert_int_equal(memory_read_counters().allocations, before);
        expect_checkpoint(folder, (uint64_t)step, (float)step);
        checkpoint *found;
        expect_ok(checkpoint_open(&found, scratch_path(path)));
        assert_true(checkpoint_has(found, "part.safetensors"));
        checkpoint_close(found);
    }
    // The checkpoint cannot be begun: the first says so at once, the other that there is nothing to take part
    // in.
    expect_failure(saver_start(first, folder, 2, state_of(2), NULL), "step-000002 is there already");
    expect_ok(saver_start(other, folder, 2, NULL, NULL));
    expect_failure(saver_wait(other), "is not there to take part in");
    // What is not committed leaves nothing.
    expect_ok(saver_start(first, folder, 3, state_of(3), NULL));
    expect_ok(saver_wait(first));
    assert_int_equal(stat(scratch_path("shared/step-000003.tmp"), &info), 0);
    saver_destroy(first);
    saver_destroy(other);
    assert_int_not_equal(stat(scratch_path("shared/step-000003.tmp"), &info), 0);
}

static void test_refusals(void **state) {
    (void)state;
    saver *saver = create();
    char name[100];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    expect_failure(saver_add_tensors(saver, name, NULL, 0), "at most");
    char path[PATH_MAX + 1];
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    expect_failure(saver_start(saver, path, 1, state_of(1), NULL), "too long");
    saver_destroy(saver);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
