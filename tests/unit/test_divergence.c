// The divergence of two policies: against the definition in double, zero for equal ones, whatever the batch.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/divergence.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { CLIPS = 7, FRAMES = 5, LEVELS = 2, PREFIX = 3, CODEBOOK = 16 };

static const float temperature = 0.9f;
static const policy_config config = {
    .temporal = {.transformer = {.layers = 1, .width = 32, .heads = 2, .feed_forward = 64},
                 .levels = LEVELS,
                 .codebook = {CODEBOOK, CODEBOOK},
                 .prefix = PREFIX,
                 .prefix_codebook = 8,
                 .frames = FRAMES},
    .depth = {.layers = 1, .width = 32, .heads = 2, .feed_forward = 64},
};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

typedef struct fixture {
    device *device;
    policy *policy;
    uint16_t prefix[CLIPS * PREFIX], tokens[CLIPS * FRAMES * LEVELS];
} fixture;

static void fill(policy *p, uint64_t seed) {
    parameter_list_initialise(policy_parameters(p), seed, policy_values(p));
    for (size_t i = 0; i < policy_parameters(p)->size; i++)
        policy_values(p)[i] *= 1.5f;
    must(policy_pack(p));
}

static void make(fixture *f, int threads) {
    must(device_create(&f->device, threads));
    must(policy_create(&f->policy, f->device, &config, WEIGHT_SCORE, WEIGHT_F32));
    fill(f->policy, 7);
    philox_stream stream = {.key = 3};
    for (int i = 0; i < CLIPS * PREFIX; i++)
        f->prefix[i] = (uint16_t)philox_next_below(&stream, 8);
    for (int i = 0; i < CLIPS * FRAMES * LEVELS; i++)
        f->tokens[i] = (uint16_t)philox_next_below(&stream, CODEBOOK);
}

static void release(fixture *f) {
    policy_destroy(f->policy);
    device_destroy(f->device);
}

static void measure(fixture *f, int batch, uint64_t reference, double out[CLIPS]) {
    divergence *d;
    must(divergence_create(&d, f->device, f->policy, batch, FRAMES));
    fill(divergence_reference(d), reference);
    must(divergence_measure(d, f->prefix, f->tokens, CLIPS, temperature, out));
    divergence_destroy(d);
}

// Log-probabilities of a row of logits at the temperature, in double.
static void log_softmax(const float *logits, double *out) {
    double sum = 0.0;
    for (int i = 0; i < CODEBOOK; i++)
        sum += exp((double)logits[i] / (double)temperature);
    for (int i = 0; i < CODEBOOK; i++)
        out[i] = (double)logits[i] / (double)temperature - log(sum);
}

static void test_definition(void **state) {
    (void)state;
    fixture f;
    double found[CLIPS], wanted[CLIPS] = {0};
    make(&f, 1);
    measure(&f, CLIPS, 8, found);
    policy *reference;
    policy_pass *p, *q;
    must(policy_create(&reference, f.device, &config, WEIGHT_SCORE, WEIGHT_F32));
    fill(reference, 8);
    must(policy_pass_create(&p, f.policy, CLIPS, FRAMES, false));
    must(policy_pass_create(&q, reference, CLIPS, FRAMES, false));
    must(policy_forward(f.policy, p, CLIPS, f.prefix, f.tokens));
    must(policy_forward(reference, q, CLIPS, f.prefix, f.tokens));
    for (int row = 0; row < CLIPS * FRAMES; row++)
        for (int level = 0; level < LEVELS; level++) {
            double own[CODEBOOK], other[CODEBOOK];
            log_softmax(policy_pass_logits(p, level) + row * CODEBOOK, own);
            log_softmax(policy_pass_logits(q, level) + row * CODEBOOK, other);
            for (int i = 0; i < CODEBOOK; i++)
                wanted[row / FRAMES] += exp(own[i]) * (own[i] - other[i]);
        }
    for (int i = 0; i < CLIPS; i++) {
        assert_true(wanted[i] > 0.1);
        if (fabs(found[i] - wanted[i]) > 1e-4 * wanted[i])
            fail_msg("clip %d: %.9g, wanted %.9g", i, found[i], wanted[i]);
    }
    policy_pass_destroy(p);
    policy_pass_destroy(q);
    policy_destroy(reference);
    release(&f);
}

static void test_equal_policies(void **state) {
    (void)state;
    fixture f;
    double found[CLIPS];
    make(&f, 1);
    measure(&f, 4, 7, found);
    for (int i = 0; i < CLIPS; i++)
        assert_true(found[i] == 0.0);
    release(&f);
}

static void test_batch_and_threads(void **state) {
    (void)state;
    static const int batches[] = {CLIPS, 4, 1, 12}, threads[] = {1, 2, 1, 3};
    double first[CLIPS], found[CLIPS];
    for (int i = 0; i < 4; i++) {
        fixture f;
        make(&f, threads[i]);
        measure(&f, batches[i], 8, i == 0 ? first : found);
        if (i > 0)
            assert_memory_equal(found, first, sizeof found);
        release(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_equal_policies),
        cmocka_unit_test(test_batch_and_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
