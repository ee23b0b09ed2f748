// What stands above kernels/ treats device memory as out of reach: a step of learning and a rollout give the
// same bits on the plain CPU device and on one whose memory the host cannot touch.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/dpo.h"
#include "core/learner.h"
#include "kernels/memory.h"
#include "kernels/philox.h"
#include "tests/as_activations.h"
#include "tests/checking_device.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CODEBOOK = 32, WIDTH = 32, FRAMES = 5, LEVELS = 3, SAMPLES = 4, PREFIX = 2 };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static device *make_device(bool guarded) {
    device *d;
    must(device_create(&d, 2));
    if (guarded)
        checking_device_guard(d);
    return d;
}

typedef struct outcome {
    float *policy, *value; // parameters after an update each
    float *dpo_gradients;
    size_t policy_size, value_size;
    uint16_t tokens[SAMPLES * FRAMES * LEVELS];
    float log_probabilities[SAMPLES * FRAMES * LEVELS];
    float values[SAMPLES * FRAMES];
    learner_value_statistics value_statistics[SAMPLES];
    learner_policy_statistics policy_statistics[SAMPLES];
    dpo_statistics dpo_statistics[SAMPLES / 2];
    double policy_norm, value_norm;
} outcome;

static learner_config config_of(void) {
    learner_config c = {
        .policy = {.temporal = {.transformer = {.layers = 2, .width = WIDTH, .heads = 2, .feed_forward = 64},
                                .levels = LEVELS,
                                .prefix = PREFIX,
                                .prefix_codebook = 4,
                                .frames = FRAMES},
                   .depth = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64}},
        .slot_samples = SAMPLES,
        .frames = FRAMES,
        .batch = SAMPLES,
        .temperature = 0.9f,
        .alpha = 0.1f,
        .correct_importance = true,
        .importance_cap = 2.0f,
        .optimizer = {.beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .gradient_clip = 1.0f},
    };
    for (int level = 0; level < LEVELS; level++)
        c.policy.temporal.codebook[level] = CODEBOOK;
    return c;
}

// Random parameters of its own for each model, by way of the host.
static void initialise(device *d, const parameter_list *list, uint64_t seed, float *values) {
    float *host;
    must(memory_allocate((void **)&host, sizeof(float) * list->size, "parameters"));
    parameter_list_initialise(list, seed, host);
    must(device_upload(d, values, host, sizeof(float) * list->size));
    memory_free(host);
}

static float *download(device *d, const float *from, size_t count) {
    float *host;
    must(memory_allocate((void **)&host, sizeof(float) * count, "parameters"));
    must(device_download(d, host, from, sizeof(float) * count));
    return host;
}

static void run_step(bool guarded, outcome *out) {
    memset(out, 0, sizeof *out);
    device *d = make_device(guarded);
    const learner_config config = config_of();
    learner *l;
    must(learner_create(&l, d, &config));
    policy *p = learner_policy(l), *reference = learner_reference(l);
    value_network *value = learner_value(l);
    out->policy_size = policy_parameters(p)->size;
    out->value_size = value_parameters(value)->size;
    initialise(d, policy_parameters(p), 3, policy_values(p));
    initialise(d, policy_parameters(reference), 4, policy_values(reference));
    initialise(d, value_parameters(value), 5, value_values(value));
    must(value_set_bias(value, 0.25f));
    must(policy_pack(p));
    must(policy_pack(reference));
    must(value_pack(value));

    const uint16_t prefix[SAMPLES * PREFIX] = {0, 3, 1, 2, 2, 2, 3, 1};
    const uint32_t samples[SAMPLES] = {4, 5, 6, 9};
    const float returns[SAMPLES] = {0.5f, -1.0f, 0.25f, 1.5f};
    policy_sampler *sampler;
    must(policy_sampler_create(&sampler, p, SAMPLES, FRAMES));
    const rollout_request request = {.batch = SAMPLES,
                                     .frames = FRAMES,
                                     .prefix = prefix,
                                     .samples = samples,
                                     .seed = 7,
                                     .step = 2,
                                     .terms = {.temperature = 0.9f}};
    must(policy_sample(p, sampler, &request, out->tokens, out->log_probabilities));
    policy_sampler_destroy(sampler);

    float *gradients;
    must(device_allocate(d, (void **)&gradients, sizeof(float) * out->policy_size, "gradients"));
    const learner_slot slot = {prefix, out->tokens, out->log_probabilities, returns, out->values, NULL};
    must(learner_value_slot(l, &slot, gradients, out->value_statistics));
    out->value_norm =
        optimizer_update(learner_value_optimizer(l), 1e-3f, gradients, value_values(value)).gradient_norm;
    must(learner_policy_slot(l, &slot, 1.0f, gradients, out->policy_statistics));
    out->policy_norm =
        optimizer_update(learner_policy_optimizer(l), 1e-3f, gradients, policy_values(p)).gradient_norm;
    out->policy = download(d, policy_values(p), out->policy_size);
    out->value = download(d, value_values(value), out->value_size);

    dpo *preferences;
    const dpo_config dpo = {
        .slot_pairs = SAMPLES / 2, .frames = FRAMES, .batch = SAMPLES / 2, .temperature = 1.0f, .beta = 0.2f};
    must(policy_pack(p));
    must(dpo_create(&preferences, d, p, reference, &dpo));
    must(dpo_pass_slot(preferences, &(dpo_slot){.prefix = prefix, .tokens = out->tokens}, gradients,
                       out->dpo_statistics));
    out->dpo_gradients = download(d, gradients, out->policy_size);
    dpo_destroy(preferences);
    device_free(d, gradients);
    learner_destroy(l);
    device_destroy(d);
}

static void test_same_bits(void **state) {
    (void)state;
    static outcome plain, guarded;
    run_step(false, &plain);
    run_step(true, &guarded);
    assert_memory_equal(plain.tokens, guarded.tokens, sizeof plain.tokens);
    assert_memory_equal(plain.log_probabilities, guarded.log_probabilities, sizeof plain.log_probabilities);
    assert_memory_equal(plain.values, guarded.values, sizeof plain.values);
    assert_memory_equal(plain.value_statistics, guarded.value_statistics, sizeof plain.value_statistics);
    assert_memory_equal(plain.policy_statistics, guarded.policy_statistics, sizeof plain.policy_statistics);
    assert_memory_equal(plain.dpo_statistics, guarded.dpo_statistics, sizeof plain.dpo_statistics);
    assert_true(plain.policy_norm > 0.0 && plain.value_norm > 0.0);
    assert_memory_equal(plain.policy, guarded.policy, sizeof(float) * plain.policy_size);
    assert_memory_equal(plain.value, guarded.value, sizeof(float) * plain.value_size);
    assert_memory_equal(plain.dpo_gradients, guarded.dpo_gradients, sizeof(float) * plain.policy_size);
    outcome *all[] = {&plain, &guarded};
    for (int i = 0; i < 2; i++) {
        memory_free(all[i]->policy);
        memory_free(all[i]->value);
        memory_free(all[i]->dpo_gradients);
    }
}

static volatile float seen;

static void touch_from_host(void) {
    device *d = make_device(true);
    float *x;
    must(device_allocate(d, (void **)&x, sizeof(float) * 16, "touched"));
    seen = x[0];
}

static void hand_host_memory(void) {
    float x[16] = {0}, out[16];
    op_swiglu(make_device(true), 1, 8, as_activations(x), as_activations(out));
}

// The signal that ends a process that does this.
static int signal_of(void (*wrong)(void)) {
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); // also where a test framework or a sanitizer handles them
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        wrong();
        _exit(0);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    return WIFSIGNALED(outcome) ? WTERMSIG(outcome) : 0;
}

static void test_wrong_access_is_found(void **state) {
    (void)state;
    assert_int_equal(signal_of(touch_from_host), SIGSEGV);
    assert_int_equal(signal_of(hand_host_memory), SIGABRT);
}

int main(void) {
    // First what forks: a parallel region's threads do not survive a fork.
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_access_is_found),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
