// The sum of gradient slots against a recursive balanced tree, on numbers whose sums depend on the order.
#include "comm/gradient_sum.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 10007, SLOTS_MAX = 32 };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static float sensitive(uint32_t slot, uint32_t index) {
    philox_block block = philox(7, slot, index, 0, 0);
    double magnitude = ldexp((double)philox_uniform(block.word[0]) + 1.0, (int)(block.word[1] % 24) - 12);
    return (float)(block.word[2] & 1 ? magnitude : -magnitude);
}

static float recursive(uint32_t first, uint32_t slots, uint32_t index) {
    if (slots == 1)
        return sensitive(first, index);
    return recursive(first, slots / 2, index) + recursive(first + slots / 2, slots / 2, index);
}

static void check_sums(int threads) {
    device *device;
    float sequential[COUNT] = {0};
    must(device_create(&device, threads));
    for (uint32_t slots = 1; slots <= SLOTS_MAX; slots *= 2) {
        gradient_sum *sum;
        must(gradient_sum_create(&sum, device, COUNT, slots));
        float *values = gradient_sum_values(sum);
        const uint64_t allocations = memory_read_counters().allocations;
        for (int round = 0; round < 2; round++) // the second round starts from the state the first one left
            for (uint32_t slot = 0; slot < slots; slot++) {
                for (uint32_t i = 0; i < COUNT; i++)
                    values[i] = sensitive(slot, i);
                gradient_sum_add(sum);
            }
        assert_int_equal(memory_read_counters().allocations, allocations);
        int differing = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            const float wanted = recursive(0, slots, i);
            assert_memory_equal(&values[i], &wanted, sizeof wanted);
            for (uint32_t slot = slots / 2; slot < slots; slot++)
                sequential[i] += sensitive(slot, i);
            differing += sequential[i] != values[i];
        }
        // The inputs are worth their name: the sequential order gives other bits.
        if (slots == SLOTS_MAX)
            assert_true(differing > COUNT / 10);
        gradient_sum_destroy(sum);
    }
    device_destroy(device);
}

static void test_sums(void **state) {
    (void)state;
    check_sums(1);
    check_sums(2);
}

static void test_slots(void **state) {
    (void)state;
    device *device;
    gradient_sum *sum;
    must(device_create(&device, 1));
    static const uint32_t wrong[] = {0, 3, 6, 12};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(gradient_sum_create(&sum, device, 4, wrong[i]), STATUS_FAILED);
        assert_non_null(strstr(status_message(), "power of two"));
        assert_null(sum);
    }
    device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
