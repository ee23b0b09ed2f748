// The accumulator's sums against a recursive balanced tree, on numbers whose sums depend on the order.
#include "comm/tree.h"
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

static double sensitive(uint32_t slot, uint32_t index) {
    philox_block block = philox(7, slot, index, 0, 0);
    double magnitude = ldexp((double)philox_uniform(block.word[0]) + 1.0, (int)(block.word[1] % 24) - 12);
    return block.word[2] & 1 ? magnitude : -magnitude;
}

static double recursive(tree_type type, uint32_t first, uint32_t slots, uint32_t index) {
    if (slots == 1)
        return type == TREE_FLOAT ? (float)sensitive(first, index) : sensitive(first, index);
    double left = recursive(type, first, slots / 2, index);
    double right = recursive(type, first + slots / 2, slots / 2, index);
    return type == TREE_FLOAT ? (float)((float)left + (float)right) : left + right;
}

static void fill(tree_type type, void *values, uint32_t slot) {
    for (uint32_t i = 0; i < COUNT; i++) {
        if (type == TREE_FLOAT)
            ((float *)values)[i] = (float)sensitive(slot, i);
        else
            ((double *)values)[i] = sensitive(slot, i);
    }
}

static void check_sums(tree_type type) {
    double *values = malloc(COUNT * sizeof(double));
    float sequential[COUNT] = {0};
    for (uint32_t slots = 1; slots <= SLOTS_MAX; slots *= 2) {
        tree_accumulator *accumulator;
        assert_int_equal(tree_accumulator_create(&accumulator, type, COUNT, slots), STATUS_OK);
        uint64_t allocations = memory_read_counters().allocations;
        for (int round = 0; round < 2; round++) { // the second round starts from the state the first one left
            for (uint32_t slot = 0; slot < slots; slot++) {
                assert_int_equal(tree_accumulator_slots(accumulator), slot);
                fill(type, values, slot);
                tree_accumulator_add(accumulator, values);
            }
        }
        assert_int_equal(memory_read_counters().allocations, allocations);
        for (uint32_t i = 0; i < COUNT; i++) {
            double found = type == TREE_FLOAT ? ((float *)(void *)values)[i] : values[i];
            double wanted = recursive(type, 0, slots, i);
            assert_memory_equal(&found, &wanted, sizeof found);
        }
        tree_accumulator_destroy(accumulator);
    }
    // The inputs are worth their name: the sequential order gives other bits.
    if (type == TREE_FLOAT) {
        int differing = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            for (uint32_t slot = 0; slot < SLOTS_MAX; slot++)
                sequential[i] += (float)sensitive(slot, i);
            differing += sequential[i] != ((float *)(void *)values)[i];
        }
        assert_true(differing > COUNT / 10);
    }
    free(values);
}

static void test_float_sums(void **state) {
    (void)state;
    check_sums(TREE_FLOAT);
}

static void test_double_sums(void **state) {
    (void)state;
    check_sums(TREE_DOUBLE);
}

static void test_reset(void **state) {
    (void)state;
    tree_accumulator *accumulator;
    assert_int_equal(tree_accumulator_create(&accumulator, TREE_FLOAT, 3, 4), STATUS_OK);
    for (int round = 0; round < 2; round++) {
        float values[3] = {1, 2, 3};
        tree_accumulator_add(accumulator, values);
        tree_accumulator_reset(accumulator);
    }
    for (int slot = 0; slot < 4; slot++) {
        float values[3] = {1, 2, (float)slot};
        tree_accumulator_add(accumulator, values);
        if (slot == 3) {
            assert_true(values[0] == 4 && values[1] == 8 && values[2] == 6);
        }
    }
    tree_accumulator_destroy(accumulator);
}

static void test_sizes(void **state) {
    (void)state;
    tree_accumulator *accumulator;
    assert_int_equal(tree_accumulator_bytes(TREE_FLOAT, 100, 1), 0);
    assert_int_equal(tree_accumulator_bytes(TREE_FLOAT, 16, 8), 3 * 64);
    assert_int_equal(tree_accumulator_bytes(TREE_DOUBLE, 17, 2), 192);
    static const uint32_t wrong[] = {0, 3, 6, 12};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(tree_accumulator_create(&accumulator, TREE_FLOAT, 4, wrong[i]), STATUS_FAILED);
        assert_non_null(strstr(status_message(), "power of two"));
        assert_null(accumulator);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_sums),
        cmocka_unit_test(test_double_sums),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
