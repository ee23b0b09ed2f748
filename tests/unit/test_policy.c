// The policy: sampling and scoring agree to the last bit, gradients agree with finite differences, and
// results do not depend on the batch or the thread count.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/policy.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 6, FRAMES = 21, LEVELS = 3, PREFIX = 4 };

static const policy_config config = {
    .temporal = {.transformer = {.layers = 2, .width = 64, .heads = 2, .feed_forward = 128},
                 .levels = LEVELS,
                 .codebook = {48, 64, 32},
                 .prefix = PREFIX,
                 .prefix_codebook = 8,
                 .frames = FRAMES},
    .depth = {.layers = 2, .width = 48, .heads = 3, .feed_forward = 64},
};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

typedef struct fixture {
    device *device;
    policy *policy, *sampling; // of the same values
    uint16_t prefix[BATCH * PREFIX], tokens[BATCH * FRAMES * LEVELS];
    uint32_t samples[BATCH];
    float log_probabilities[BATCH * FRAMES * LEVELS];
} fixture;

static void make(fixture *f, int threads) {
    must(device_create(&f->device, threads));
    must(policy_create(&f->policy, f->device, &config, WEIGHT_LEARN, WEIGHT_F32));
    const parameter_list *list = policy_parameters(f->policy);
    parameter_list_initialise(list, 7, policy_values(f->policy));
    for (size_t i = 0; i < list->size; i++)
        policy_values(f->policy)[i] *= 1.5f; // logits with some shape
    must(policy_pack(f->policy));
    must(policy_create(&f->sampling, f->device, &config, WEIGHT_SAMPLE, WEIGHT_F32));
    memcpy(policy_values(f->sampling), policy_values(f->policy), sizeof(float) * list->size);
    must(policy_pack(f->sampling));
    philox_stream stream = {.key = 3};
    for (int i = 0; i < BATCH * PREFIX; i++)
        f->prefix[i] = (uint16_t)philox_next_below(&stream, 8);
    for (int i = 0; i < BATCH; i++)
        f->samples[i] = (uint32_t)i;
}

static void release(fixture *f) {
    policy_destroy(f->sampling);
    policy_destroy(f->policy);
    device_destroy(f->device);
}

static void sample(fixture *f, int first, int count) {
    policy_sampler *sampler;
    must(policy_sampler_create(&sampler, f->sampling, count, FRAMES));
    const rollout_request request = {.batch = count,
                                     .frames = FRAMES,
                                     .prefix = f->prefix + first * PREFIX,
                                     .samples = f->samples + first,
                                     .seed = 11,
                                     .step = 5,
                                     .terms = {.temperature = 0.99f}};
    must(policy_sample(f->sampling, sampler, &request, f->tokens + first * FRAMES * LEVELS,
                       f->log_probabilities + first * FRAMES * LEVELS));
    policy_sampler_destroy(sampler);
}

static void test_scoring_equals_sampling(void **state) {
    (void)state;
    fixture f;
    make(&f, 2);
    if (!device_is_batch_invariant(f.device)) {
        release(&f);
        print_message("skipped: this processor's products depend on the batch\n");
        skip();
    }
    sample(&f, 0, BATCH);
    policy_pass *pass;
    must(policy_pass_create(&pass, f.policy, BATCH, FRAMES, false));
    must(policy_forward(f.policy, pass, BATCH, f.prefix, f.tokens));
    for (int level = 0; level < LEVELS; level++) {
        float scored[BATCH * FRAMES];
        op_log_probability(f.device, BATCH * FRAMES, config.temporal.codebook[level],
                           policy_pass_logits(pass, level), 0.99f, policy_pass_actions(pass, level), scored);
        for (int i = 0; i < BATCH * FRAMES; i++) {
            float sampled = f.log_probabilities[i * LEVELS + level];
            if (memcmp(&scored[i], &sampled, sizeof sampled) != 0)
                fail_msg("level %d, frame %d: sampled %.9g, scored %.9g", level, i, (double)sampled,
                         (double)scored[i]);
        }
    }
    policy_pass_destroy(pass);
    release(&f);
}

static void test_batch_and_threads_do_not_matter(void **state) {
    (void)state;
    fixture whole, parts;
    make(&whole, 2);
    if (!device_is_batch_invariant(whole.device)) {
        release(&whole);
        print_message("skipped: this processor's products depend on the batch\n");
        skip();
    }
    sample(&whole, 0, BATCH);
    make(&parts, 1);
    sample(&parts, 0, 1);
    sample(&parts, 1, 3);
    sample(&parts, 4, 2);
    assert_memory_equal(whole.tokens, parts.tokens, sizeof whole.tokens);
    assert_memory_equal(whole.log_probabilities, parts.log_probabilities, sizeof whole.log_probabilities);
    release(&parts);
    release(&whole);
}

// Sum over the batch of the policy loss with a fixed advantage a frame, against uniform reference logits.
static double loss_of(fixture *f, policy_pass *pass, float *gradients) {
    must(policy_pack(f->policy));
    must(policy_forward(f->policy, pass, BATCH, f->prefix, f->tokens));
    static float reference[BATCH * FRAMES * 64], advantages[BATCH * FRAMES];
    static float log_p[BATCH * FRAMES], entropy[BATCH * FRAMES], kl[BATCH * FRAMES], scratch[4096];
    for (int i = 0; i < BATCH * FRAMES; i++)
        advantages[i] = sinf((float)i);
    for (int i = 0; i < BATCH * FRAMES * 64; i++)
        reference[i] = cosf(0.1f * (float)i);
    const policy_loss_terms terms = {
        .temperature = 0.9f, .policy_weight = 0.8f, .kl_weight = 0.3f, .entropy_weight = 0.1f};
    double loss = 0.0;
    for (int level = 0; level < LEVELS; level++) {
        op_policy_loss(f->device, BATCH * FRAMES, config.temporal.codebook[level],
                       policy_pass_logits(pass, level), reference, policy_pass_actions(pass, level),
                       advantages, &terms, log_p, entropy, kl, scratch);
        for (int i = 0; i < BATCH * FRAMES; i++)
            loss += -0.8 * (double)advantages[i] * (double)log_p[i] + 0.3 * (double)kl[i] -
                    0.1 * (double)entropy[i];
    }
    if (gradients != NULL)
        must(policy_backward(f->policy, pass, BATCH, gradients, NULL));
    return loss;
}

static void test_gradient_against_finite_differences(void **state) {
    (void)state;
    fixture f;
    make(&f, 2);
    sample(&f, 0, BATCH);
    policy_pass *pass;
    must(policy_pass_create(&pass, f.policy, BATCH, FRAMES, true));
    const parameter_list *list = policy_parameters(f.policy);
    float *values = policy_values(f.policy), *gradients, *kept;
    must(memory_allocate((void **)&gradients, sizeof(float) * list->size, "gradients"));
    must(memory_allocate((void **)&kept, sizeof(float) * list->size, "values"));
    loss_of(&f, pass, gradients);
    memcpy(kept, values, sizeof(float) * list->size);
    for (int i = 0; i < list->count; i++) { // along each tensor's own gradient
        const parameter *p = &list->items[i];
        double norm = 0.0;
        for (size_t j = 0; j < p->count; j++)
            norm += (double)gradients[p->offset + j] * (double)gradients[p->offset + j];
        norm = sqrt(norm);
        assert_true(norm > 1e-6);
        const double step = 2e-3;
        double side[4]; // at +1, -1, +2 and -2 steps: the difference is of fourth order
        for (int s = 0; s < 4; s++) {
            const double distance = (s % 2 == 0 ? 1.0 : -1.0) * (s < 2 ? 1.0 : 2.0) * step;
            for (size_t j = 0; j < p->count; j++)
                values[p->offset + j] =
                    kept[p->offset + j] + (float)(distance / norm * (double)gradients[p->offset + j]);
            side[s] = loss_of(&f, pass, NULL);
        }
        memcpy(values, kept, sizeof(float) * list->size);
        double slope = (8.0 * (side[0] - side[1]) - (side[2] - side[3])) / (12.0 * step);
        if (fabs(slope - norm) > 0.01 * norm + 0.05)
            fail_msg("%s: slope %g along the gradient, norm %g", p->name, slope, norm);
    }
    memory_free(gradients);
    memory_free(kept);
    policy_pass_destroy(pass);
    release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scoring_equals_sampling),
        cmocka_unit_test(test_batch_and_threads_do_not_matter),
        cmocka_unit_test(test_gradient_against_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
