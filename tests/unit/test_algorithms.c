// The variants of the learner on problems with a known answer: baselines from groups, PPO's clipping, the
// entropy bonus, the controller of the KL, and a bandit that every variant must solve.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/advantage.h"
#include "core/kl_control.h"
#include "core/learner.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CODEBOOK = 16, WIDTH = 32, FRAMES = 2, LEVELS = 2, SAMPLES = 8, TOKENS = FRAMES * LEVELS };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

// Random tensors, of an odd number of values and of one for several threads: two words of the tensor's stream
// a value, in their order.
static void test_initialise(void **state) {
    (void)state;
    enum { ODD = 7, MANY = 40001 };
    parameter_list list = {0};
    size_t offset[2];
    must(parameter_list_add(&list, "a", 1, ODD, INITIALISE_NORMAL, 0.3f, &offset[0]));
    must(parameter_list_add(&list, "b", 1, MANY, INITIALISE_NORMAL, 2.0f, &offset[1]));
    float *values;
    must(memory_allocate((void **)&values, sizeof *values * list.size, "values"));
    parameter_list_initialise(&list, 9, values);
    for (int i = 0; i < 2; i++) {
        const parameter *p = &list.items[i];
        // FNV-1a of one letter.
        philox_stream stream = {.key = 9, .purpose = (2166136261u ^ (uint8_t)p->name[0]) * 16777619u};
        for (size_t j = 0; j < p->count; j++) {
            const float u = philox_next_uniform(&stream), v = philox_next_uniform(&stream);
            const float wanted = p->scale * sqrtf(-2.0f * logf(1.0f - u)) * cosf(6.28318530718f * v);
            assert_memory_equal(&values[offset[i] + j], &wanted, sizeof wanted);
        }
    }
    assert_true(values[ODD] == 0.0f); // the padding behind it
    memory_free(values);
    parameter_list_release(&list);
}

// Groups of 4: differing returns, equal ones, unknown ones.
static void test_group_advantages(void **state) {
    (void)state;
    const double returns[12][2] = {{1.0, 0}, {2.0, 0}, {3.0, 0}, {6.0, 0}, {0.1, 0}, {0.1, 0},
                                   {0.1, 0}, {0.1, 0}, {-1., 0}, {1.0, 0}, {1.0, 0}, {-1., 0}};
    double out[12];
    group_advantages found =
        group_advantages_find(GROUP_BASELINE_LEAVE_ONE_OUT, 0.0, returns[0], 2, 12, 4, out);
    // 1 - (2 + 3 + 6) / 3, ...; in the third group -1 - (1 + 1 - 1) / 3.
    const double leave_one_out[12] = {-8.0 / 3, -4.0 / 3, 0.0,      4.0,     0,       0,
                                      0,        0,        -4.0 / 3, 4.0 / 3, 4.0 / 3, -4.0 / 3};
    for (int i = 0; i < 12; i++)
        assert_true(fabs(out[i] - leave_one_out[i]) < 1e-12);
    for (int i = 4; i < 8; i++)
        assert_true(out[i] == 0.0);
    assert_int_equal(found.groups, 3);
    assert_int_equal(found.without_signal, 1);
    assert_true(fabs(found.mean) < 1e-12);
    // Of the groups with a signal alone: those without must not make the others' scale larger.
    assert_true(fabs(found.deviation - sqrt((64.0 + 16.0 + 0.0 + 144.0 + 4 * 16.0) / 9.0 / 8.0)) < 1e-12);
    group_advantages_find(GROUP_BASELINE_MEAN, 0.0, returns[0], 2, 12, 4, out);
    for (int i = 0; i < 12; i++)
        assert_true(fabs(out[i] - 0.75 * leave_one_out[i]) < 1e-12);
    // Divided by the group's deviation: sqrt(14 / 4) and 1; never by less than the floor.
    group_advantages_find(GROUP_BASELINE_MEAN, 1e-3, returns[0], 2, 12, 4, out);
    assert_true(fabs(out[3] - 3.0 / sqrt(3.5)) < 1e-12 && fabs(out[9] - 1.0) < 1e-12 && out[5] == 0.0);
    group_advantages_find(GROUP_BASELINE_MEAN, 2.0, returns[0], 2, 12, 4, out);
    assert_true(fabs(out[3] - 3.0 / 2.0) < 1e-12 && fabs(out[9] - 0.5) < 1e-12);
    // A difference of one rounding is no signal to be blown up to 1.
    const double almost[2] = {0.3, 0.3 + 1e-16};
    group_advantages_find(GROUP_BASELINE_MEAN, 1e-3, almost, 1, 2, 2, out);
    assert_true(fabs(out[0]) < 1e-12 && fabs(out[1]) < 1e-12);
    // Unknown returns: the others of the group are compared as a smaller one; one alone has nothing to be
    // compared with.
    const double unknown[8] = {1.0, NAN, 4.0, 1.0, NAN, 7.0, NAN, NAN};
    found = group_advantages_find(GROUP_BASELINE_LEAVE_ONE_OUT, 0.0, unknown, 1, 8, 4, out);
    const double of_three[8] = {-1.5, 0.0, 3.0, -1.5, 0.0, 0.0, 0.0, 0.0};
    for (int i = 0; i < 8; i++)
        assert_true(fabs(out[i] - of_three[i]) < 1e-12);
    assert_int_equal(found.without_signal, 1);
    assert_true(fabs(found.deviation - sqrt(4.5)) < 1e-12);
    const double infinite[2] = {INFINITY, 1.0}; // is not hidden
    group_advantages_find(GROUP_BASELINE_MEAN, 1e-3, infinite, 1, 2, 2, out);
    assert_false(isfinite(out[0]));
}

// Over all pairs of a bandit's arms, each weighted by its probability, leave-one-out gives the coefficients
// pi(a) (R(a) - E R) of the exact gradient, the group mean of two half of them.
static void test_group_bias(void **state) {
    (void)state;
    double probability[CODEBOOK], reward[CODEBOOK], total = 0.0, expected = 0.0;
    for (int a = 0; a < CODEBOOK; a++)
        total += probability[a] = 1.0 + a % 5;
    for (int a = 0; a < CODEBOOK; a++) {
        probability[a] /= total;
        reward[a] = sin(2.3 * a);
        expected += probability[a] * reward[a];
    }
    for (int kind = 0; kind < 2; kind++) {
        double coefficient[CODEBOOK] = {0};
        for (int a = 0; a < CODEBOOK; a++)
            for (int b = 0; b < CODEBOOK; b++) {
                const double pair[2] = {reward[a], reward[b]}, weight = probability[a] * probability[b] / 2.0;
                double out[2];
                group_advantages_find((group_baseline)kind, 0.0, pair, 1, 2, 2, out);
                coefficient[a] += weight * out[0];
                coefficient[b] += weight * out[1];
            }
        for (int a = 0; a < CODEBOOK; a++)
            assert_true(fabs(coefficient[a] -
                             probability[a] * (reward[a] - expected) *
                                 ((group_baseline)kind == GROUP_BASELINE_LEAVE_ONE_OUT ? 1.0 : 0.5)) < 1e-12);
    }
}

static void test_kl_control(void **state) {
    (void)state;
    // At the target nothing changes; 5 % above, beta grows by 0.1 * 5 %; far off, by 0.1 * 20 % at most.
    assert_true(fabs(kl_control_next(0.2, 20.0, 20.0, 0.1) - 0.2) < 1e-15);
    const double beta = 0.25 * 1.005, far = 0.25 * 1.02, near = 0.25 * 0.98;
    assert_true(fabs(kl_control_next(0.2, 21.0, 20.0, 0.1) - beta / (1.0 + beta)) < 1e-15);
    assert_true(fabs(kl_control_next(0.2, 2000.0, 20.0, 0.1) - far / (1.0 + far)) < 1e-15);
    assert_true(fabs(kl_control_next(0.2, 0.0, 20.0, 0.1) - near / (1.0 + near)) < 1e-15);
    assert_true(kl_control_next(0.2, NAN, 20.0, 0.1) == 0.2);
    double low = 0.5, high = 0.5, held = 0.02;
    for (int i = 0; i < 5000; i++) {
        low = kl_control_next(low, 0.0, 1.0, 0.1);
        high = kl_control_next(high, 5.0, 1.0, 0.1);
        held = kl_control_next(held, 0.3 * (1.0 - held) / held, 20.0, 0.1); // a KL of 0.3 / beta
    }
    assert_true(low == 1e-4 && high == 0.99);
    assert_true(fabs(0.3 * (1.0 - held) / held - 20.0) < 1e-6);
}

static learner_config config_of(int levels, int frames, int samples) {
    learner_config c = {
        .policy = {.temporal = {.transformer = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64},
                                .levels = levels,
                                .prefix = 1,
                                .prefix_codebook = 4,
                                .frames = frames},
                   .depth = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64}},
        .slot_samples = samples,
        .frames = frames,
        .batch = samples,
        .temperature = 1.0f,
        .importance_cap = 2.0f,
        .no_value_network = true,
        .optimizer = {.beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .gradient_clip = 1.0f},
    };
    for (int level = 0; level < levels; level++)
        c.policy.temporal.codebook[level] = CODEBOOK;
    return c;
}

typedef struct fixture {
    device *device;
    learner *learner;
    policy_sampler *sampler;
    int samples, frames;
    size_t size; // of the policy's parameters
    float *gradients;
    uint16_t prefix[64], tokens[64 * TOKENS];
    float log_probabilities[64 * TOKENS], returns[64], values[64 * FRAMES];
    learner_policy_statistics statistics[64];
    learner_slot slot;
} fixture;

static void sample(fixture *f, uint32_t step) {
    uint32_t indices[64];
    for (uint32_t i = 0; i < 64; i++)
        indices[i] = i;
    const rollout_request request = {.batch = f->samples,
                                     .frames = f->frames,
                                     .prefix = f->prefix,
                                     .samples = indices,
                                     .seed = 4,
                                     .step = step,
                                     .terms = {.temperature = 1.0f}};
    must(policy_sample(learner_policy(f->learner), f->sampler, &request, f->tokens, f->log_probabilities));
}

// Policy and reference with equal random weights, and a batch sampled from them.
static void make(fixture *f, const learner_config *config) {
    memset(f, 0, sizeof *f);
    f->samples = config->slot_samples;
    f->frames = config->frames;
    must(device_create(&f->device, 1));
    must(learner_create(&f->learner, f->device, config));
    policy *p = learner_policy(f->learner), *reference = learner_reference(f->learner);
    f->size = policy_parameters(p)->size;
    parameter_list_initialise(policy_parameters(p), 3, policy_values(p));
    memcpy(policy_values(reference), policy_values(p), sizeof(float) * f->size);
    must(policy_pack(p));
    must(policy_pack(reference));
    must(policy_sampler_create(&f->sampler, p, f->samples, f->frames));
    must(memory_allocate((void **)&f->gradients, sizeof(float) * f->size, "gradients"));
    f->slot = (learner_slot){f->prefix, f->tokens, f->log_probabilities, f->returns, f->values, NULL};
    sample(f, 0);
}

static void release(fixture *f) {
    memory_free(f->gradients);
    policy_sampler_destroy(f->sampler);
    learner_destroy(f->learner);
    device_destroy(f->device);
}

static void policy_slot(fixture *f) {
    must(learner_policy_slot(f->learner, &f->slot, 1.0f, f->gradients, f->statistics));
}

static void copy_gradients(const fixture *f, float **out) {
    must(memory_allocate((void **)out, sizeof(float) * f->size, "gradients"));
    memcpy(*out, f->gradients, sizeof(float) * f->size);
}

// The distance of two gradients, as a share of the first's length.
static double distance(const float *one, const float *other, double factor, size_t size) {
    double apart = 0.0, length = 0.0;
    for (size_t i = 0; i < size; i++) {
        const double difference = (double)one[i] - factor * (double)other[i];
        apart += difference * difference;
        length += (double)one[i] * (double)one[i];
    }
    return sqrt(apart / length);
}

// The first pass over a batch has ratios of exactly 1 and REINFORCE's gradient. Ratios of 1.5 everywhere clip
// what has a positive advantage, those of 0.5 what has a negative one; the rest is weighed by the ratio.
static void test_clip(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES);
    fixture plain, clipped;
    float *both, *positive, *negative;
    make(&plain, &config);
    for (int i = 0; i < SAMPLES; i++)
        plain.returns[i] = i % 3 == 0 ? 1.0f : -0.5f; // three of eight are positive
    policy_slot(&plain);
    copy_gradients(&plain, &both);
    for (int i = 0; i < SAMPLES; i++)
        plain.returns[i] = i % 3 == 0 ? 1.0f : 0.0f;
    policy_slot(&plain);
    copy_gradients(&plain, &positive);
    for (int i = 0; i < SAMPLES; i++)
        plain.returns[i] = i % 3 == 0 ? 0.0f : -0.5f;
    policy_slot(&plain);
    copy_gradients(&plain, &negative);
    config.correct_importance = true;
    config.clip = 0.2f;
    make(&clipped, &config);
    for (int i = 0; i < SAMPLES; i++)
        clipped.returns[i] = i % 3 == 0 ? 1.0f : -0.5f;
    policy_slot(&clipped);
    if (device_is_batch_invariant(clipped.device))
        assert_memory_equal(clipped.gradients, both, sizeof(float) * clipped.size);
    assert_true(distance(both, clipped.gradients, 1.0, clipped.size) < 1e-4);
    for (int i = 0; i < SAMPLES; i++) {
        assert_true(clipped.statistics[i].clipped == 0.0);
        assert_true(fabs(clipped.statistics[i].importance - TOKENS) < 1e-4);
    }
    const struct {
        double ratio;
        const float *left;
        int clipped_remainder;
    } cases[] = {{1.5, negative, 0}, {0.5, positive, 1}, {1.1, both, -1}, {0.9, both, -1}};
    for (int c = 0; c < 4; c++) {
        float sampled[SAMPLES * TOKENS];
        for (int i = 0; i < SAMPLES * TOKENS; i++)
            sampled[i] = clipped.log_probabilities[i] - (float)log(cases[c].ratio);
        clipped.slot.log_probabilities = sampled;
        policy_slot(&clipped);
        assert_true(distance(clipped.gradients, cases[c].left, cases[c].ratio, clipped.size) < 1e-5);
        for (int i = 0; i < SAMPLES; i++) {
            const bool is_clipped =
                cases[c].clipped_remainder >= 0 && (i % 3 != 0) == cases[c].clipped_remainder;
            assert_true(clipped.statistics[i].clipped == (is_clipped ? TOKENS : 0));
            assert_true(fabs(clipped.statistics[i].importance - TOKENS * cases[c].ratio) < 1e-4);
        }
    }
    clipped.slot.log_probabilities = clipped.log_probabilities; // is seen, not clipped away
    clipped.returns[2] = INFINITY;
    policy_slot(&clipped);
    assert_false(op_all_finite(clipped.device, clipped.size, clipped.gradients));
    memory_free(both);
    memory_free(positive);
    memory_free(negative);
    release(&plain);
    release(&clipped);
}

// Without advantages and KL the gradient is that of the bonus alone: along itself, the entropy rises at the
// rate that its length says.
static void test_entropy_bonus(void **state) {
    (void)state;
    const float bonus = 0.3f, step = 1e-3f;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES);
    config.entropy_bonus = bonus;
    fixture f;
    float *saved, *direction;
    make(&f, &config);
    policy *p = learner_policy(f.learner);
    for (size_t i = 0; i < f.size; i++)
        policy_values(p)[i] *= 1.5f;
    must(policy_pack(p));
    policy_slot(&f);
    copy_gradients(&f, &direction);
    must(memory_allocate((void **)&saved, sizeof(float) * f.size, "parameters"));
    memcpy(saved, policy_values(p), sizeof(float) * f.size);
    double length = 0.0, change = 0.0;
    for (size_t i = 0; i < f.size; i++)
        length += (double)direction[i] * (double)direction[i];
    length = sqrt(length);
    assert_true(length > 1e-4);
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < f.size; i++)
            policy_values(p)[i] = saved[i] - (float)side * step * direction[i] / (float)length;
        must(policy_pack(p));
        policy_slot(&f);
        for (int i = 0; i < SAMPLES; i++)
            change += side * (double)bonus * f.statistics[i].entropy / SAMPLES / (2.0 * (double)step);
    }
    assert_true(fabs(change - length) < 2e-3 * length);
    memory_free(saved);
    memory_free(direction);
    release(&f);
}

enum { ARMS_BATCH = 32, ARMS_GROUP = 4, ARMS_STEPS = 60, BEST = 11 };

// The probability of the best arm of a bandit of 16 after learning. Its reward is 1, of its neighbours 0.5,
// of all others 0.
static double solve_bandit(bool leave_one_out, bool by_group, int epochs) {
    learner_config config = config_of(1, 1, ARMS_BATCH);
    config.correct_importance = epochs > 1;
    config.clip = epochs > 1 ? 0.2f : 0.0f;
    fixture f;
    make(&f, &config);
    double returns[ARMS_BATCH], advantages[ARMS_BATCH];
    for (uint32_t step = 0; step < ARMS_STEPS; step++) {
        sample(&f, step);
        for (int i = 0; i < ARMS_BATCH; i++)
            returns[i] = f.tokens[i] == BEST ? 1.0 : fabs(f.tokens[i] - (double)BEST) < 1.5 ? 0.5 : 0.0;
        group_advantages_find(leave_one_out ? GROUP_BASELINE_LEAVE_ONE_OUT : GROUP_BASELINE_MEAN,
                              by_group ? 1e-3 : 0.0, returns, 1, ARMS_BATCH, ARMS_GROUP, advantages);
        for (int i = 0; i < ARMS_BATCH; i++)
            f.returns[i] = (float)advantages[i];
        for (int epoch = 0; epoch < epochs; epoch++) {
            policy_slot(&f);
            optimizer_update(learner_policy_optimizer(f.learner), 5e-3f / (float)epochs, f.gradients,
                             policy_values(learner_policy(f.learner)));
            must(policy_pack(learner_policy(f.learner)));
        }
    }
    f.tokens[0] = BEST;
    f.log_probabilities[0] = 0.0f;
    policy_slot(&f);
    const double probability = exp(-f.statistics[0].log_probability_gap);
    release(&f);
    return probability;
}

static void test_bandit(void **state) {
    (void)state;
    assert_true(solve_bandit(true, false, 1) > 0.95);
    assert_true(solve_bandit(false, false, 1) > 0.95);
    assert_true(solve_bandit(false, true, 1) > 0.95);
    assert_true(solve_bandit(true, false, 4) > 0.95);
}

// What a learner without value network leaves out.
static void test_memory(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES);
    device *device;
    learner *learner;
    size_t bytes[2], value = 0;
    must(device_create(&device, 1));
    for (int i = 0; i < 2; i++) {
        config.no_value_network = i == 1;
        const size_t before = memory_read_counters().live_bytes;
        must(learner_create(&learner, device, &config));
        bytes[i] = memory_read_counters().live_bytes - before;
        assert_int_equal(learner_value(learner) == NULL, i == 1);
        assert_int_equal(learner_value_optimizer(learner) == NULL, i == 1);
        value += i == 0 ? value_parameters(learner_value(learner))->size : 0;
        learner_destroy(learner);
    }
    // Weights, two moments each, and the activations.
    assert_true(bytes[1] + 3 * sizeof(float) * value < bytes[0]);
    device_destroy(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_advantages), cmocka_unit_test(test_group_bias),
        cmocka_unit_test(test_kl_control),       cmocka_unit_test(test_clip),
        cmocka_unit_test(test_entropy_bonus),    cmocka_unit_test(test_bandit),
        cmocka_unit_test(test_memory),           cmocka_unit_test(test_initialise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
