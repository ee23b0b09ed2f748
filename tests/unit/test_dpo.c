// Direct preference optimisation: the loss against sums in double, its gradient against central differences,
// and a small problem whose optimum is known.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/dpo.h"
#include "core/optimizer.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { CODEBOOK = 16, WIDTH = 32, FRAMES = 3, LEVELS = 2, PAIRS = 4, CLIPS = 2 * PAIRS };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

typedef struct fixture {
    device *device;
    policy *policy, *reference;
    dpo *dpo;
    size_t size; // of the policy's parameters
    float *gradients;
    uint16_t prefix[CLIPS], tokens[CLIPS * FRAMES * LEVELS];
    dpo_statistics statistics[PAIRS];
    dpo_slot slot;
} fixture;

// Policy and reference start with equal random weights; `move` adds noise to the policy's.
static void make(fixture *f, int levels, const dpo_config *config, float move) {
    memset(f, 0, sizeof *f);
    policy_config shape = {
        .temporal = {.transformer = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64},
                     .levels = levels,
                     .prefix = 1,
                     .prefix_codebook = 4,
                     .frames = config->frames},
        .depth = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64}};
    for (int level = 0; level < levels; level++)
        shape.temporal.codebook[level] = CODEBOOK;
    must(device_create(&f->device, 1));
    must(policy_create(&f->policy, f->device, &shape, WEIGHT_LEARN, WEIGHT_F32));
    must(policy_create(&f->reference, f->device, &shape, WEIGHT_SCORE, WEIGHT_F32));
    must(dpo_create(&f->dpo, f->device, f->policy, f->reference, config));
    f->size = policy_parameters(f->policy)->size;
    parameter_list_initialise(policy_parameters(f->policy), 3, policy_values(f->policy));
    memcpy(policy_values(f->reference), policy_values(f->policy), sizeof(float) * f->size);
    philox_stream random = {.key = 17};
    for (size_t i = 0; i < f->size && move > 0.0f; i++)
        policy_values(f->policy)[i] += move * (philox_next_uniform(&random) - 0.5f);
    must(policy_pack(f->policy));
    must(policy_pack(f->reference));
    must(memory_allocate((void **)&f->gradients, sizeof(float) * f->size, "gradients"));
    for (size_t i = 0; i < sizeof f->tokens / sizeof f->tokens[0]; i++)
        f->tokens[i] = (uint16_t)philox_next_below(&random, CODEBOOK);
    for (size_t i = 0; i < CLIPS; i++)
        f->prefix[i] = (uint16_t)philox_next_below(&random, 4);
    f->slot = (dpo_slot){.prefix = f->prefix, .tokens = f->tokens};
}

static void release(fixture *f) {
    memory_free(f->gradients);
    dpo_destroy(f->dpo);
    policy_destroy(f->policy);
    policy_destroy(f->reference);
    device_destroy(f->device);
}

static double total_loss(fixture *f) {
    double sum = 0.0;
    must(dpo_pass_slot(f->dpo, &f->slot, f->gradients, f->statistics));
    for (int p = 0; p < PAIRS; p++)
        sum += f->statistics[p].loss;
    return sum;
}

// log pi of every clip, in double, from the logits.
static void score(fixture *f, policy *p, double temperature, double *out) {
    policy_pass *pass;
    must(policy_pass_create(&pass, p, CLIPS, FRAMES, false));
    must(policy_forward(p, pass, CLIPS, f->prefix, f->tokens));
    for (int clip = 0; clip < CLIPS; clip++) {
        out[clip] = 0.0;
        for (int level = 0; level < LEVELS; level++)
            for (int frame = 0; frame < FRAMES; frame++) {
                const int row = clip * FRAMES + frame;
                const float *logits = policy_pass_logits(pass, level) + row * CODEBOOK;
                double sum = 0.0;
                for (int k = 0; k < CODEBOOK; k++)
                    sum += exp((double)logits[k] / temperature);
                out[clip] += (double)logits[f->tokens[row * LEVELS + level]] / temperature - log(sum);
            }
    }
    policy_pass_destroy(pass);
}

static void test_at_reference(void **state) {
    (void)state;
    const dpo_config config = {
        .slot_pairs = PAIRS, .frames = FRAMES, .batch = PAIRS, .beta = 0.3f, .temperature = 0.9f};
    fixture f;
    make(&f, LEVELS, &config, 0.0f);
    assert_true(fabs(total_loss(&f) - PAIRS * log(2.0)) < 1e-12);
    for (int p = 0; p < PAIRS; p++)
        assert_true(f.statistics[p].margin == 0.0 && f.statistics[p].preferred == 0.0);
    release(&f);
}

static void test_loss_and_gradient(void **state) {
    (void)state;
    const dpo_config config = {
        .slot_pairs = PAIRS, .frames = FRAMES, .batch = 2 * PAIRS, .beta = 0.3f, .temperature = 0.9f};
    fixture f;
    make(&f, LEVELS, &config, 0.4f);
    double found[CLIPS], base[CLIPS];
    score(&f, f.policy, 0.9, found);
    score(&f, f.reference, 0.9, base);
    total_loss(&f);
    for (int p = 0; p < PAIRS; p++) {
        const double preferred = found[2 * p] - base[2 * p], rejected = found[2 * p + 1] - base[2 * p + 1];
        const double margin = 0.3 * (preferred - rejected);
        assert_true(fabs(f.statistics[p].preferred - preferred) < 1e-4);
        assert_true(fabs(f.statistics[p].rejected - rejected) < 1e-4);
        assert_true(fabs(f.statistics[p].margin - margin) < 1e-4);
        assert_true(fabs(f.statistics[p].loss + log(1.0 / (1.0 + exp(-margin)))) < 1e-4);
        assert_true(fabs(margin) > 1e-3); // or nothing was tested
    }
    // Along its own direction against the change of the loss, in central differences.
    float *saved, *direction;
    must(memory_allocate((void **)&saved, sizeof(float) * f.size, "saved"));
    must(memory_allocate((void **)&direction, sizeof(float) * f.size, "direction"));
    memcpy(saved, policy_values(f.policy), sizeof(float) * f.size);
    double squares = 0.0, change = 0.0;
    for (size_t i = 0; i < f.size; i++)
        squares += (double)f.gradients[i] * (double)f.gradients[i];
    for (size_t i = 0; i < f.size; i++)
        direction[i] = f.gradients[i] / (float)sqrt(squares);
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < f.size; i++)
            policy_values(f.policy)[i] = saved[i] + (float)side * 4e-3f * direction[i];
        must(policy_pack(f.policy));
        change += side * total_loss(&f) / (2.0 * 4e-3) / config.batch;
    }
    assert_true(fabs(change - sqrt(squares)) < 5e-3 * sqrt(squares));
    memory_free(saved);
    memory_free(direction);
    release(&f);
}

// Of two one-token clips the first wins three times of four. The loss is least where s(m) = 3 / 4: there beta
// times the difference of the log-ratios is log 3, whatever the reference (pi ~ pi_0 exp(utility / beta)).
static void test_known_optimum(void **state) {
    (void)state;
    const dpo_config config = {
        .slot_pairs = PAIRS, .frames = 1, .batch = PAIRS, .beta = 0.5f, .temperature = 1.0f};
    fixture f;
    make(&f, 1, &config, 0.0f);
    for (int p = 0; p < PAIRS; p++) {
        f.tokens[2 * p] = p < 3 ? 5 : 9;
        f.tokens[2 * p + 1] = p < 3 ? 9 : 5;
        f.prefix[2 * p] = f.prefix[2 * p + 1] = 1;
    }
    optimizer *o;
    const optimizer_config settings = {.beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f};
    must(optimizer_create(&o, f.device, policy_parameters(f.policy), &settings));
    double loss = 0.0;
    for (int step = 0; step < 300; step++) {
        loss = total_loss(&f) / PAIRS;
        optimizer_update(o, 3e-3f * (1.0f - (float)step / 300.0f), f.gradients, policy_values(f.policy));
        must(policy_pack(f.policy));
    }
    assert_true(fabs(f.statistics[0].margin - log(3.0)) < 1e-2);
    assert_true(fabs(f.statistics[3].margin + log(3.0)) < 1e-2);
    assert_true(fabs(loss + 0.75 * log(0.75) + 0.25 * log(0.25)) < 1e-4); // the entropy of the votes
    optimizer_destroy(o);
    release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_reference),
        cmocka_unit_test(test_loss_and_gradient),
        cmocka_unit_test(test_known_optimum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
