// An optimiser that several processes share out does what one does, to the bit, and its parts are saved and
// read back by any number of others.
#include "core/optimizer.h"
#include "kernels/memory.h"
#include "launch/run_folder.h"
#include "tests/unit/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

enum { TENSORS = 5, PARTS_MAX = 4, STEPS = 3 };

static const optimizer_config adamw = {
    .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.1f, .gradient_clip = 1.0f};

static void must(status outcome) {
    if (outcome != STATUS_OK)
        fail_msg("%s", status_message());
}

static void expect_message(const char *part) {
    if (strstr(status_message(), part) == NULL || strchr(status_message(), '\n') != NULL)
        fail_msg("'%s' does not contain '%s'", status_message(), part);
}

// Tensors that units cut through, with and without decay; about 3.3 units, and one that is not full.
static parameter_list make_list(void) {
    static const int64_t shapes[TENSORS][2] = {{100, 120}, {0, 77}, {300, 100}, {0, 5}, {90, 130}};
    parameter_list list = {0};
    size_t offset;
    for (int i = 0; i < TENSORS; i++) {
        char name[16];
        snprintf(name, sizeof name, "tensor-%d", i);
        must(parameter_list_add(&list, name, shapes[i][0], shapes[i][1], INITIALISE_NORMAL, 1.0f, &offset));
        list.items[i].decay = shapes[i][0] > 0;
    }
    return list;
}

static void fill(const parameter_list *list, uint64_t seed, float *out) {
    for (size_t i = 0; i < list->size; i++)
        out[i] = sinf((float)(i % 1000) * 0.7f + (float)seed) * (float)(1 + i % 7);
}

// Bounds of the parts, in units of the list: even, uneven and empty ones.
static const size_t bounds[][PARTS_MAX + 1] = {{0, 4}, {0, 2, 4}, {0, 1, 2, 3, 4}, {0, 0, 3, 3, 4}};
static const int part_counts[] = {1, 2, 4, 4};

static size_t bound(const parameter_list *list, size_t units) {
    const size_t at = units * OPTIMIZER_UNIT;
    return at < list->size ? at : list->size;
}

typedef struct shares {
    int count;
    optimizer *parts[PARTS_MAX];
    double *sums; // [units]
} shares;

static shares make_shares(device *d, const parameter_list *list, int how) {
    shares s = {.count = part_counts[how]};
    for (int i = 0; i < s.count; i++) {
        const size_t first = bound(list, bounds[how][i]), end = bound(list, bounds[how][i + 1]);
        must(optimizer_create(&s.parts[i], d, list, &adamw));
        if (s.count > 1)
            must(optimizer_keep_part(s.parts[i], first, end - first));
    }
    must(memory_allocate((void **)&s.sums, sizeof(double) * optimizer_units(s.parts[0]), "sums"));
    return s;
}

static void destroy_shares(shares *s) {
    for (int i = 0; i < s->count; i++)
        optimizer_destroy(s->parts[i]);
    memory_free(s->sums);
}

static double update(shares *s, const float *gradients, float *values) {
    double all[8] = {0};
    const size_t units = optimizer_units(s->parts[0]);
    assert_true(units <= 8);
    for (int i = 0; i < s->count; i++) {
        optimizer_sum_squares(s->parts[i], gradients, s->sums);
        for (size_t u = 0; u < units; u++)
            all[u] += s->sums[u];
    }
    const double norm = optimizer_norm(s->parts[0], all);
    for (int i = 0; i < s->count && isfinite(norm); i++)
        optimizer_apply(s->parts[i], 1e-2f, norm, gradients, values);
    return norm;
}

static float *make_values(const parameter_list *list) {
    float *values;
    must(memory_allocate((void **)&values, sizeof(float) * list->size, "values"));
    fill(list, 0, values);
    return values;
}

static void test_same_bits(void **state) {
    (void)state;
    device *d;
    must(device_create(&d, 2));
    parameter_list list = make_list();
    assert_true(list.size > 3 * OPTIMIZER_UNIT && list.size < 4 * OPTIMIZER_UNIT);
    float *gradients = make_values(&list), *whole = make_values(&list);
    optimizer *one;
    must(optimizer_create(&one, d, &list, &adamw));
    double norms[STEPS];
    for (int step = 0; step < STEPS; step++) {
        fill(&list, (uint64_t)step + 10, gradients);
        norms[step] = optimizer_update(one, 1e-2f, gradients, whole).gradient_norm;
    }
    for (int how = 0; how < (int)(sizeof part_counts / sizeof part_counts[0]); how++) {
        shares s = make_shares(d, &list, how);
        float *values = make_values(&list);
        for (int step = 0; step < STEPS; step++) {
            fill(&list, (uint64_t)step + 10, gradients);
            assert_true(update(&s, gradients, values) == norms[step]);
        }
        assert_memory_equal(values, whole, sizeof(float) * list.size);
        // One bad number, whoever has it, and nobody updates.
        gradients[list.size - 1] = NAN;
        assert_false(isfinite(update(&s, gradients, values)));
        assert_memory_equal(values, whole, sizeof(float) * list.size);
        memory_free(values);
        destroy_shares(&s);
    }
    optimizer_destroy(one);
    memory_free(whole);
    memory_free(gradients);
    parameter_list_release(&list);
    device_destroy(d);
}

// All parts into one checkpoint, as processes that join it do; `left_out` (-1: none) hands in no receipt.
static void save(const shares *s, const char *folder, uint64_t step, int left_out) {
    checkpoint_writer *first;
    char name[RUN_OPTIMIZER_NAME], receipts[1024];
    must(checkpoint_begin(&first, folder, step, "test"));
    for (int i = 0; i < s->count; i++) {
        tensor_view views[RUN_OPTIMIZER_TENSORS];
        checkpoint_writer *writer = first;
        const int count = run_optimizer_views(s->parts[i], s->parts[i]->moments, views);
        run_optimizer_name("optimizer", i, s->count, name);
        if (i > 0)
            must(checkpoint_join(&writer, folder, step));
        must(checkpoint_add_tensors(writer, name, views, (size_t)count, NULL, 0));
        if (i == 0)
            continue;
        must(checkpoint_receipts(writer, receipts, sizeof receipts));
        checkpoint_leave(writer);
        if (i != left_out)
            must(checkpoint_admit(first, receipts));
    }
    must(checkpoint_commit(first, NULL));
}

static void test_saved_parts(void **state) {
    (void)state;
    const int ways = (int)(sizeof part_counts / sizeof part_counts[0]);
    device *d;
    must(device_create(&d, 1));
    parameter_list list = make_list();
    float *gradients = make_values(&list), *values = make_values(&list);
    for (int how = 0; how < ways; how++) {
        shares s = make_shares(d, &list, how);
        update(&s, gradients, values);
        save(&s, scratch_path("parts"), (uint64_t)how, -1);
        destroy_shares(&s);
    }
    // The moments of one step are the same whoever computed them; so are those that anybody reads.
    shares whole = make_shares(d, &list, 0);
    update(&whole, gradients, values);
    for (int from = 0; from < ways; from++) {
        checkpoint *saved;
        char path[64];
        snprintf(path, sizeof path, "parts/step-%06d", from);
        must(checkpoint_open(&saved, scratch_path(path)));
        for (int to = 0; to < ways; to++) {
            shares s = make_shares(d, &list, to);
            for (int i = 0; i < s.count; i++) {
                optimizer *o = s.parts[i];
                must(run_load_optimizer(saved, "optimizer", o));
                assert_int_equal(o->step, 1);
                for (size_t row = 0; row < 2 && o->count > 0; row++)
                    assert_memory_equal(o->moments + row * o->count,
                                        whole.parts[0]->moments + row * list.size + o->first,
                                        sizeof(float) * o->count);
            }
            destroy_shares(&s);
        }
        checkpoint_close(saved);
    }
    destroy_shares(&whole);
    memory_free(gradients);
    memory_free(values);
    parameter_list_release(&list);
    device_destroy(d);
}

// A part that was written and is gone makes the checkpoint a damaged one; one that never became part of it is
// named when the optimiser is read.
static void test_missing_parts(void **state) {
    (void)state;
    device *d;
    checkpoint *saved;
    must(device_create(&d, 1));
    parameter_list list = make_list();
    shares s = make_shares(d, &list, 2);
    save(&s, scratch_path("missing"), 1, -1);
    save(&s, scratch_path("missing"), 2, 3);
    assert_int_equal(remove(scratch_path("missing/step-000001/optimizer-part-0002-of-0004.safetensors")), 0);
    assert_int_equal(checkpoint_open(&saved, scratch_path("missing/step-000001")), STATUS_FAILED);
    expect_message("optimizer-part-0002-of-0004.safetensors");
    must(checkpoint_open(&saved, scratch_path("missing/step-000002")));
    assert_int_equal(run_load_optimizer(saved, "optimizer", s.parts[0]), STATUS_FAILED);
    expect_message("has no file 'optimizer-part-0003-of-0004.safetensors'");
    assert_int_equal(run_load_optimizer(saved, "value-optimizer", s.parts[0]), STATUS_FAILED);
    expect_message("has no file 'value-optimizer.safetensors'");
    checkpoint_close(saved);
    checkpoint_writer *writer;
    assert_int_equal(checkpoint_join(&writer, scratch_path("missing"), 3), STATUS_FAILED);
    expect_message("step-000003.tmp is not there to take part in");
    must(checkpoint_begin(&writer, scratch_path("missing"), 3, "test"));
    assert_int_equal(checkpoint_admit(writer, "{\"name\": 1}"), STATUS_FAILED);
    expect_message("its receipts are damaged");
    checkpoint_abort(writer);
    destroy_shares(&s);
    parameter_list_release(&list);
    device_destroy(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_saved_parts),
        cmocka_unit_test(test_missing_parts),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
