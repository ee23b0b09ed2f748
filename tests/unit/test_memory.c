// Host memory: blocks are zero and aligned, counted by purpose, and large ones become resident as they are
// touched.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/memory.h"
#include "launch/plan.h"

#include <string.h>

static uint64_t live_of(const char *what) {
    memory_account accounts[64];
    const int count = memory_read_accounts(accounts, 64);
    for (int i = 0; i < count; i++)
        if (strcmp(accounts[i].what, what) == 0)
            return accounts[i].live_bytes;
    return 0;
}

static void test_blocks(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 63, 64, 4096, 65535, 65536, 1 << 20, (1 << 20) + 1};
    const memory_counters before = memory_read_counters();
    for (int round = 0; round < 2; round++) // what the first round wrote must not show in the second
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            unsigned char *block;
            assert_int_equal(memory_allocate((void **)&block, sizes[i], "a block"), STATUS_OK);
            assert_int_equal((uintptr_t)block % 64, 0);
            for (size_t at = 0; at < sizes[i]; at++)
                assert_int_equal(block[at], 0);
            assert_int_equal(live_of("a block"), sizes[i]);
            memset(block, 0xff, sizes[i]);
            memory_free(block);
        }
    const memory_counters after = memory_read_counters();
    assert_int_equal(after.allocations - before.allocations, 16);
    assert_int_equal(after.live_bytes, before.live_bytes);
    assert_int_equal(live_of("a block"), 0);
}

static void test_plan(void **state) {
    (void)state;
    enum { BYTES = 256 << 20 };
    plan plan;
    plan_begin(&plan);
    char *block;
    assert_int_equal(memory_allocate((void **)&block, BYTES, "a large block"), STATUS_OK);
    assert_int_equal(memory_read_counters().live_bytes - plan.live_before, BYTES);
#if !defined(__SANITIZE_ADDRESS__)
    assert_true(memory_resident_bytes() < plan.resident_before + BYTES / 8);
#endif
    memset(block, 1, BYTES);
    assert_true(memory_resident_bytes() > plan.resident_before + BYTES / 8 * 7);
    memory_free(block);
    assert_true(plan_available_bytes() > 1 << 20);
}

static void test_too_much(void **state) {
    (void)state;
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 10, SIZE_MAX - (1 << 20), SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *block;
        assert_int_equal(memory_allocate(&block, sizes[i], "everything"), STATUS_FAILED);
        assert_null(block);
        assert_non_null(strstr(status_message(), "everything"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
