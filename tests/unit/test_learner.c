// The learner's gradients against cases solved by hand: REINFORCE as the gradient of expected reward, the KL
// and its gradient against plain double sums, the value network's gradient, importance weights, slots.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "comm/gradient_sum.h"
#include "core/learner.h"
#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

enum { CODEBOOK = 16, WIDTH = 32, FRAMES = 3, LEVELS = 2, SAMPLES = 8 };

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static learner_config config_of(int levels, int frames, int samples, int batch) {
    learner_config c = {
        .policy = {.temporal = {.transformer = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64},
                                .levels = levels,
                                .prefix = 1,
                                .prefix_codebook = 4,
                                .frames = frames},
                   .depth = {.layers = 1, .width = WIDTH, .heads = 2, .feed_forward = 64}},
        .slot_samples = samples,
        .frames = frames,
        .batch = batch,
        .temperature = 1.0f,
        .alpha = 0.0f,
        .importance_cap = 2.0f,
        .optimizer = {.beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .gradient_clip = 1.0f},
    };
    for (int level = 0; level < levels; level++)
        c.policy.temporal.codebook[level] = CODEBOOK;
    return c;
}

typedef struct fixture {
    device *device;
    learner *learner;
    size_t size; // of the policy's parameters
    float *gradients;
    uint16_t prefix[SAMPLES * 16], tokens[SAMPLES * 16 * FRAMES * LEVELS];
    float log_probabilities[SAMPLES * 16 * FRAMES * LEVELS], returns[SAMPLES * 16],
        values[SAMPLES * 16 * FRAMES];
    learner_policy_statistics statistics[SAMPLES * 16];
    learner_slot slot;
} fixture;

// Policy and reference start with equal random weights; `move` adds noise to the policy's.
static void make(fixture *f, const learner_config *config, float move) {
    memset(f, 0, sizeof *f);
    must(device_create(&f->device, 1));
    must(learner_create(&f->learner, f->device, config));
    policy *p = learner_policy(f->learner), *reference = learner_reference(f->learner);
    f->size = policy_parameters(p)->size;
    parameter_list_initialise(policy_parameters(p), 3, policy_values(p));
    for (size_t i = 0; i < f->size; i++)
        policy_values(p)[i] *= 1.5f;
    memcpy(policy_values(reference), policy_values(p), sizeof(float) * f->size);
    philox_stream random = {.key = 17};
    for (size_t i = 0; i < f->size && move > 0.0f; i++)
        policy_values(p)[i] += move * (philox_next_uniform(&random) - 0.5f);
    parameter_list_initialise(value_parameters(learner_value(f->learner)), 5,
                              value_values(learner_value(f->learner)));
    must(policy_pack(p));
    must(policy_pack(reference));
    must(value_pack(learner_value(f->learner)));
    must(memory_allocate((void **)&f->gradients, sizeof(float) * f->size, "gradients"));
    for (size_t i = 0; i < sizeof f->tokens / sizeof f->tokens[0]; i++)
        f->tokens[i] = (uint16_t)philox_next_below(&random, CODEBOOK);
    for (size_t i = 0; i < sizeof f->returns / sizeof f->returns[0]; i++)
        f->returns[i] = philox_next_uniform(&random) - 0.3f;
    for (size_t i = 0; i < sizeof f->values / sizeof f->values[0]; i++)
        f->values[i] = philox_next_uniform(&random) - 0.5f;
    for (size_t i = 0; i < sizeof f->prefix / sizeof f->prefix[0]; i++)
        f->prefix[i] = (uint16_t)philox_next_below(&random, 4);
    f->slot = (learner_slot){f->prefix, f->tokens, f->log_probabilities, f->returns, f->values, NULL};
}

static void release(fixture *f) {
    memory_free(f->gradients);
    learner_destroy(f->learner);
    device_destroy(f->device);
}

static void policy_slot(fixture *f, float scale) {
    must(learner_policy_slot(f->learner, &f->slot, scale, f->gradients, f->statistics));
}

static double norm(const float *x, size_t count) {
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

// log softmax of one row at a temperature, in double.
static void log_softmax(const float *logits, double temperature, double *out) {
    double top = -INFINITY, sum = 0.0;
    for (int k = 0; k < CODEBOOK; k++)
        top = fmax(top, (double)logits[k] / temperature);
    for (int k = 0; k < CODEBOOK; k++)
        sum += exp((double)logits[k] / temperature - top);
    for (int k = 0; k < CODEBOOK; k++)
        out[k] = (double)logits[k] / temperature - top - log(sum);
}

// A policy of one frame and one level has CODEBOOK sequences. With each of them as one sample and R(a) pi(a)
// as its return, the batch gradient is sum_a pi(a) R(a) grad log pi(a) / batch: the exact gradient of
// expected reward. Its rows of the head are known in closed form: d/dw_k = pi(k) (R(k) - E R) h, h the head's
// input.
static void test_enumerated_gradient(void **state) {
    (void)state;
    const learner_config config = config_of(1, 1, CODEBOOK, CODEBOOK);
    fixture f;
    make(&f, &config, 0.0f);
    policy *p = learner_policy(f.learner);
    policy_pass *pass;
    must(policy_pass_create(&pass, p, CODEBOOK, 1, true));
    for (int a = 0; a < CODEBOOK; a++) {
        f.tokens[a] = (uint16_t)a;
        f.prefix[a] = 2;
        f.values[a] = 0.0f;
    }
    must(policy_forward(p, pass, CODEBOOK, f.prefix, f.tokens));
    double log_pi[CODEBOOK], reward[CODEBOOK], expected = 0.0;
    log_softmax(policy_pass_logits(pass, 0), 1.0, log_pi);
    for (int a = 0; a < CODEBOOK; a++) {
        reward[a] = sin(1.7 * a) + 0.2;
        expected += exp(log_pi[a]) * reward[a];
        f.returns[a] = (float)(exp(log_pi[a]) * reward[a]);
    }
    policy_slot(&f, 1.0f);
    // One row gives h; it must explain all other rows, and be the head's input: w_k . h are the logits.
    const parameter *head = parameter_list_find(policy_parameters(p), "head.0.weight");
    const float *weights = policy_values(p) + head->offset, *rows = f.gradients + head->offset;
    double hidden[WIDTH], scale = exp(log_pi[3]) * (reward[3] - expected) / CODEBOOK;
    for (int d = 0; d < WIDTH; d++)
        hidden[d] = -(double)rows[3 * WIDTH + d] / scale;
    for (int k = 0; k < CODEBOOK; k++) {
        double logit = 0.0;
        for (int d = 0; d < WIDTH; d++) {
            const double wanted = -exp(log_pi[k]) * (reward[k] - expected) / CODEBOOK * hidden[d];
            assert_true(fabs((double)rows[k * WIDTH + d] - wanted) < 2e-6);
            logit += (double)weights[k * WIDTH + d] * hidden[d];
        }
        assert_true(fabs(logit - (double)policy_pass_logits(pass, 0)[k]) < 1e-3);
    }
    // The whole gradient along a random direction against the change of expected reward, in central
    // differences.
    philox_stream random = {.key = 9};
    double along = 0.0, change = 0.0;
    const float step = 1e-3f;
    float *saved, *direction;
    must(memory_allocate((void **)&saved, sizeof(float) * f.size, "saved"));
    must(memory_allocate((void **)&direction, sizeof(float) * f.size, "direction"));
    memcpy(saved, policy_values(p), sizeof(float) * f.size);
    for (size_t i = 0; i < f.size;
         i++) { // mostly along the gradient, so that the change is well above rounding
        direction[i] =
            f.gradients[i] / (float)norm(f.gradients, f.size) + 0.02f * (philox_next_uniform(&random) - 0.5f);
        along -= (double)direction[i] * (double)f.gradients[i] * CODEBOOK;
    }
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < f.size; i++)
            policy_values(p)[i] = saved[i] + (float)side * step * direction[i];
        must(policy_pack(p));
        must(policy_forward(p, pass, CODEBOOK, f.prefix, f.tokens));
        log_softmax(policy_pass_logits(pass, 0), 1.0, log_pi);
        for (int a = 0; a < CODEBOOK; a++)
            change += side * exp(log_pi[a]) * reward[a] / (2.0 * (double)step);
    }
    assert_true(fabs(change - along) < 1e-3 * fabs(along));
    memory_free(saved);
    memory_free(direction);
    policy_pass_destroy(pass);
    release(&f);
}

// A head of zeros makes every distribution uniform: then the rows of the head's gradient follow from the
// advantages alone, baseline and whitening factor included.
static void test_uniform_policy(void **state) {
    (void)state;
    const float alpha = 0.25f, scale = 1.75f;
    learner_config config = config_of(1, 1, SAMPLES, SAMPLES);
    config.alpha = alpha;
    fixture f;
    make(&f, &config, 0.0f);
    policy *p = learner_policy(f.learner), *reference = learner_reference(f.learner);
    const parameter *head = parameter_list_find(policy_parameters(p), "head.0.weight");
    memset(policy_values(p) + head->offset, 0, sizeof(float) * head->count);
    memset(policy_values(reference) + head->offset, 0, sizeof(float) * head->count);
    must(policy_pack(p));
    must(policy_pack(reference));
    for (int s = 0; s < SAMPLES; s++)
        f.prefix[s] = 1; // one hidden vector for all
    policy_slot(&f, scale);
    double sum[CODEBOOK] = {0}; // of -(1 - alpha) / batch * A_s ([a_s == k] - 1 / CODEBOOK)
    int largest = 0;
    for (int s = 0; s < SAMPLES; s++)
        for (int k = 0; k < CODEBOOK; k++)
            sum[k] -= (1.0 - (double)alpha) / SAMPLES * (double)((f.returns[s] - f.values[s]) * scale) *
                      ((f.tokens[s] == k) - 1.0 / CODEBOOK);
    for (int k = 0; k < CODEBOOK; k++)
        largest = fabs(sum[k]) > fabs(sum[largest]) ? k : largest;
    const float *rows = f.gradients + head->offset;
    for (int k = 0; k < CODEBOOK; k++)
        for (int d = 0; d < WIDTH; d++)
            assert_true(fabs((double)rows[k * WIDTH + d] -
                             (double)rows[largest * WIDTH + d] * sum[k] / sum[largest]) < 1e-6);
    // The hidden vector is normalised, with gain 1.5 (make): its length fixes the factor that ratios leave
    // open.
    assert_true(fabs(norm(rows + largest * WIDTH, WIDTH) / fabs(sum[largest]) - 1.5 * sqrt(WIDTH)) < 2e-3);
    for (int s = 0; s < SAMPLES; s++) {
        const double advantage = (double)(f.returns[s] - f.values[s]) * (double)scale;
        assert_true(fabs(f.statistics[s].entropy - log(CODEBOOK)) < 1e-6);
        assert_true(fabs(f.statistics[s].policy_loss - 0.75 * advantage * log(CODEBOOK)) < 1e-5);
        assert_true(f.statistics[s].kl == 0.0);
    }
    release(&f);
}

// At the reference KL and its gradient are exactly 0; the policy term is linear in the advantage.
static void test_kl_at_reference(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    config.alpha = 1.0f;
    config.temperature = 0.99f;
    fixture f;
    make(&f, &config, 0.0f);
    policy_slot(&f, 1.0f);
    for (size_t i = 0; i < f.size; i++)
        assert_true(f.gradients[i] == 0.0f);
    for (int s = 0; s < SAMPLES; s++) {
        assert_true(f.statistics[s].kl == 0.0);
        assert_true(f.statistics[s].kl_k1 == 0.0);
        assert_true(f.statistics[s].policy_loss == 0.0);
    }
    release(&f);
}

// Away from the reference: KL, its one-sample estimate, entropy and log-probabilities against sums in double;
// and the gradient of alpha KL along its own direction against central differences of the summed KL.
static void test_kl_brute_force(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    config.alpha = 1.0f;
    config.temperature = 0.9f;
    fixture f;
    make(&f, &config, 0.3f);
    policy *p = learner_policy(f.learner), *reference = learner_reference(f.learner);
    policy_pass *passes[2];
    must(policy_pass_create(&passes[0], p, SAMPLES, FRAMES, true));
    must(policy_pass_create(&passes[1], reference, SAMPLES, FRAMES, false));
    float *direction, *saved;
    must(memory_allocate((void **)&direction, sizeof(float) * f.size, "direction"));
    must(memory_allocate((void **)&saved, sizeof(float) * f.size, "saved"));
    policy_slot(&f, 1.0f);
    const double length = norm(f.gradients, f.size);
    assert_true(length > 1e-3);
    for (size_t i = 0; i < f.size; i++)
        direction[i] = f.gradients[i] / (float)length;
    memcpy(saved, policy_values(p), sizeof(float) * f.size);
    must(policy_forward(reference, passes[1], SAMPLES, f.prefix, f.tokens));
    const float step = 1e-3f;
    double change = 0.0;
    for (int side = -1; side <= 1; side++) {
        for (size_t i = 0; i < f.size; i++)
            policy_values(p)[i] = saved[i] + (float)side * step * direction[i];
        must(policy_pack(p));
        must(policy_forward(p, passes[0], SAMPLES, f.prefix, f.tokens));
        for (int s = 0; s < SAMPLES; s++) {
            double kl = 0.0, k1 = 0.0, entropy = 0.0;
            for (int t = 0; t < FRAMES * LEVELS; t++) {
                const int level = t % LEVELS, row = s * FRAMES + t / LEVELS;
                const int action = f.tokens[row * LEVELS + level];
                double log_p[CODEBOOK], log_q[CODEBOOK];
                log_softmax(policy_pass_logits(passes[0], level) + row * CODEBOOK, 0.9, log_p);
                log_softmax(policy_pass_logits(passes[1], level) + row * CODEBOOK, 0.9, log_q);
                for (int k = 0; k < CODEBOOK; k++) {
                    kl += exp(log_p[k]) * (log_p[k] - log_q[k]);
                    entropy -= exp(log_p[k]) * log_p[k];
                }
                k1 += log_p[action] - log_q[action];
            }
            change += side * kl / SAMPLES / (2.0 * (double)step);
            if (side == 0) {
                assert_true(kl > 1e-3);
                assert_true(fabs(f.statistics[s].kl - kl) < 1e-4 * kl + 1e-5);
                assert_true(fabs(f.statistics[s].kl_k1 - k1) < 1e-4);
                assert_true(fabs(f.statistics[s].entropy - entropy) < 1e-4);
            }
        }
    }
    assert_true(fabs(change - length) < 1e-3 * length);
    memory_free(direction);
    memory_free(saved);
    policy_pass_destroy(passes[0]);
    policy_pass_destroy(passes[1]);
    release(&f);
}

// alpha mixes the two terms linearly, and a whitening factor scales only the policy's.
static void test_terms_mix(void **state) {
    (void)state;
    fixture f;
    float *mixed[3];
    const float alphas[3] = {0.0f, 1.0f, 0.3f}, scales[3] = {1.0f, 1.0f, 2.0f};
    size_t size = 0;
    for (int i = 0; i < 3; i++) {
        learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
        config.alpha = alphas[i];
        make(&f, &config, 0.3f);
        policy_slot(&f, scales[i]);
        size = f.size;
        mixed[i] = f.gradients;
        f.gradients = NULL;
        release(&f);
    }
    double error = 0.0;
    for (size_t i = 0; i < size; i++) {
        const double wanted = 0.7 * 2.0 * (double)mixed[0][i] + 0.3 * (double)mixed[1][i];
        error += (wanted - (double)mixed[2][i]) * (wanted - (double)mixed[2][i]);
    }
    assert_true(sqrt(error) < 1e-5 * norm(mixed[2], size));
    for (int i = 0; i < 3; i++)
        memory_free(mixed[i]);
}

// Samples from the policy itself weigh 1 exactly; others min(cap, pi / pi_rollout).
static void test_importance(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    config.correct_importance = true;
    fixture f;
    make(&f, &config, 0.0f);
    policy_sampler *sampler;
    uint32_t indices[SAMPLES];
    for (uint32_t s = 0; s < SAMPLES; s++)
        indices[s] = s;
    must(policy_sampler_create(&sampler, learner_policy(f.learner), SAMPLES, FRAMES));
    const rollout_request request = {.batch = SAMPLES,
                                     .frames = FRAMES,
                                     .prefix = f.prefix,
                                     .samples = indices,
                                     .seed = 4,
                                     .terms = {.temperature = 1.0f}};
    must(policy_sample(learner_policy(f.learner), sampler, &request, f.tokens, f.log_probabilities));
    policy_slot(&f, 1.0f);
    const bool exact = device_is_batch_invariant(f.device);
    for (int s = 0; s < SAMPLES; s++) {
        assert_true(fabs(f.statistics[s].importance - FRAMES * LEVELS) <= (exact ? 0.0 : 1e-3));
        assert_true(f.statistics[s].log_probability_gap <= (exact ? 0.0 : 1e-4));
    }
    float *plain;
    must(memory_allocate((void **)&plain, sizeof(float) * f.size, "gradients"));
    memcpy(plain, f.gradients, sizeof(float) * f.size);
    // Twice as likely now as when sampled, up to the cap; the gradient scales with the weight.
    const struct { double shift, weight; } cases[] = {{log(1.5), 1.5}, {log(0.25), 0.25}, {log(7.0), 2.0}};
    for (int c = 0; c < 3; c++) {
        float sampled[SAMPLES * FRAMES * LEVELS];
        for (int i = 0; i < SAMPLES * FRAMES * LEVELS; i++)
            sampled[i] = f.log_probabilities[i] - (float)cases[c].shift;
        f.slot.log_probabilities = sampled;
        policy_slot(&f, 1.0f);
        double error = 0.0;
        for (size_t i = 0; i < f.size; i++) {
            const double difference = (double)f.gradients[i] - cases[c].weight * (double)plain[i];
            error += difference * difference;
        }
        assert_true(sqrt(error) < 1e-5 * norm(f.gradients, f.size));
        for (int s = 0; s < SAMPLES; s++) {
            assert_true(fabs(f.statistics[s].importance / (FRAMES * LEVELS) - cases[c].weight) < 1e-5);
            assert_true(fabs(f.statistics[s].log_probability_gap - fabs(cases[c].shift)) < 1e-5);
        }
    }
    memory_free(plain);
    policy_sampler_destroy(sampler);
    release(&f);
}

// The value network's gradient is that of the mean squared error; the bias' is -2 mean(R - V).
static void test_value(void **state) {
    (void)state;
    const learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    fixture f;
    make(&f, &config, 0.0f);
    value_network *value = learner_value(f.learner);
    const parameter_list *list = value_parameters(value);
    const parameter *bias = parameter_list_find(list, "value.bias"),
                    *weight = parameter_list_find(list, "value.weight");
    philox_stream random = {.key = 31};
    for (size_t i = 0; i < weight->count; i++)
        value_values(value)[weight->offset + i] = philox_next_uniform(&random) - 0.5f;
    must(value_set_bias(value, 0.125f));
    must(value_pack(value));
    float *gradients, *direction, *saved;
    must(memory_allocate((void **)&gradients, sizeof(float) * list->size, "gradients"));
    must(memory_allocate((void **)&direction, sizeof(float) * list->size, "direction"));
    must(memory_allocate((void **)&saved, sizeof(float) * list->size, "saved"));
    learner_value_statistics statistics[SAMPLES];
    must(learner_value_slot(f.learner, &f.slot, gradients, statistics));
    double errors = 0.0;
    for (int s = 0; s < SAMPLES; s++) {
        double error = 0.0, squared = 0.0;
        for (int frame = 0; frame < FRAMES; frame++) {
            const double e = (double)f.returns[s] - (double)f.values[s * FRAMES + frame];
            error += e;
            squared += e * e;
        }
        errors += error;
        assert_true(fabs(statistics[s].error - error) < 1e-12);
        assert_true(fabs(statistics[s].squared_error - squared) < 1e-12);
    }
    assert_true(fabs((double)gradients[bias->offset] + 2.0 * errors / (SAMPLES * FRAMES)) < 1e-6);
    const double length = norm(gradients, list->size);
    memcpy(saved, value_values(value), sizeof(float) * list->size);
    for (size_t i = 0; i < list->size; i++)
        direction[i] = gradients[i] / (float)length;
    const float step = 1e-3f;
    double change = 0.0;
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < list->size; i++)
            value_values(value)[i] = saved[i] + (float)side * step * direction[i];
        must(value_pack(value));
        must(learner_value_slot(f.learner, &f.slot, gradients, statistics));
        for (int s = 0; s < SAMPLES; s++)
            change += side * statistics[s].squared_error / (SAMPLES * FRAMES) / (2.0 * (double)step);
    }
    assert_true(fabs(change - length) < 1e-3 * length);
    memory_free(gradients);
    memory_free(direction);
    memory_free(saved);
    release(&f);
}

// A reward that is infinite must reach the gradients, where it is seen, and leave the optimiser alone.
static void test_not_a_number(void **state) {
    (void)state;
    const learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    fixture f;
    make(&f, &config, 0.1f);
    f.returns[5] = INFINITY;
    policy_slot(&f, 1.0f);
    assert_false(op_all_finite(f.device, f.size, f.gradients));
    float *before;
    must(memory_allocate((void **)&before, sizeof(float) * f.size, "parameters"));
    memcpy(before, policy_values(learner_policy(f.learner)), sizeof(float) * f.size);
    const optimizer_result result = optimizer_update(learner_policy_optimizer(f.learner), 0.1f, f.gradients,
                                                     policy_values(learner_policy(f.learner)));
    assert_true(result.skipped);
    assert_int_equal(learner_policy_optimizer(f.learner)->step, 0);
    assert_memory_equal(before, policy_values(learner_policy(f.learner)), sizeof(float) * f.size);
    f.returns[5] = 0.5f;
    policy_slot(&f, 1.0f);
    assert_true(op_all_finite(f.device, f.size, f.gradients));
    memory_free(before);
    release(&f);
}

// A sample without a known return adds what its KL adds, and nothing else, to both gradients.
static void test_unknown_return(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    config.alpha = 0.2f;
    fixture f;
    float *gradients[2], *value_gradients[2];
    learner_value_statistics statistics[SAMPLES];
    make(&f, &config, 0.1f);
    const size_t value_size = value_parameters(learner_value(f.learner))->size;
    for (int i = 0; i < 2; i++) {
        must(memory_allocate((void **)&gradients[i], sizeof(float) * f.size, "gradients"));
        must(memory_allocate((void **)&value_gradients[i], sizeof(float) * value_size, "gradients"));
        // Known, it is what the value network says: no error, no advantage.
        f.returns[5] = i == 0 ? NAN : 0.0f;
        must(learner_value_slot(f.learner, &f.slot, value_gradients[i], statistics));
        for (int frame = 0; frame < FRAMES && i == 1; frame++)
            f.values[5 * FRAMES + frame] = 0.0f;
        policy_slot(&f, 1.0f);
        memcpy(gradients[i], f.gradients, sizeof(float) * f.size);
        assert_true(i == 1 || (statistics[5].error == 0.0 && statistics[5].squared_error == 0.0));
        assert_true(f.statistics[5].policy_loss == 0.0 && f.statistics[5].kl > 0.0);
    }
    assert_memory_equal(gradients[0], gradients[1], sizeof(float) * f.size);
    assert_true(op_all_finite(f.device, value_size, value_gradients[0]));
    for (int i = 0; i < 2; i++) {
        memory_free(gradients[i]);
        memory_free(value_gradients[i]);
    }
    release(&f);
}

// Eight slots summed by one learner, or four and four by two whose sums are added, give the same bits, and
// what one slot of all samples gives up to rounding.
static void test_slots(void **state) {
    (void)state;
    fixture whole, parts;
    const learner_config all = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES),
                         one = config_of(LEVELS, FRAMES, 1, SAMPLES);
    make(&whole, &all, 0.1f);
    policy_slot(&whole, 1.0f);
    make(&parts, &one, 0.1f);
    gradient_sum *eight, *four[2];
    must(gradient_sum_create(&eight, parts.device, parts.size, 8));
    for (int i = 0; i < 2; i++)
        must(gradient_sum_create(&four[i], parts.device, parts.size, 4));
    const learner_slot base = parts.slot;
    for (int s = 0; s < SAMPLES; s++) {
        parts.slot = (learner_slot){
            base.prefix + s,  base.tokens + s * FRAMES * LEVELS, base.log_probabilities + s * FRAMES * LEVELS,
            base.returns + s, base.values + s * FRAMES,          NULL};
        policy_slot(&parts, 1.0f);
        gradient_sum *into[] = {eight, four[s / 4]};
        for (int i = 0; i < 2; i++) {
            memcpy(gradient_sum_values(into[i]), parts.gradients, sizeof(float) * parts.size);
            gradient_sum_add(into[i]);
        }
    }
    float *sum = gradient_sum_values(eight), *halves = gradient_sum_values(four[0]);
    tree_add(TREE_FLOAT, halves, halves, gradient_sum_values(four[1]), parts.size);
    assert_memory_equal(sum, halves, sizeof(float) * parts.size);
    double error = 0.0;
    for (size_t i = 0; i < parts.size; i++) {
        const double difference = (double)sum[i] - (double)whole.gradients[i];
        error += difference * difference;
    }
    assert_true(sqrt(error) < 1e-6 * norm(whole.gradients, whole.size));
    gradient_sum_destroy(eight);
    for (int i = 0; i < 2; i++)
        gradient_sum_destroy(four[i]);
    release(&whole);
    release(&parts);
}

// What a backward pass tells of its progress holds: nothing is added any more to what it called final.
typedef struct told {
    const float *gradients;
    float *seen; // as they were when they were called final
    size_t size, from;
    int calls;
} told;

static status note_final(void *context, size_t from) {
    told *t = context;
    assert_true(from < t->from);
    memcpy(t->seen + from, t->gradients + from, sizeof(float) * (t->from - from));
    t->from = from;
    t->calls++;
    return STATUS_OK;
}

static void check_watch(fixture *f, size_t size, bool policy, int least_calls) {
    float *gradients;
    learner_value_statistics statistics[SAMPLES];
    told t = {.size = size, .from = size};
    must(memory_allocate((void **)&gradients, sizeof(float) * size, "gradients"));
    must(memory_allocate((void **)&t.seen, sizeof(float) * size, "gradients as they were"));
    t.gradients = gradients;
    const gradient_watch watch = {note_final, &t};
    f->slot.watch = &watch;
    if (policy)
        must(learner_policy_slot(f->learner, &f->slot, 1.0f, gradients, f->statistics));
    else
        must(learner_value_slot(f->learner, &f->slot, gradients, statistics));
    f->slot.watch = NULL;
    assert_int_equal(t.from, 0);
    assert_true(t.calls >= least_calls);
    assert_memory_equal(t.seen, gradients, sizeof(float) * size);
    assert_true(norm(gradients, size) > 0.0);
    memory_free(gradients);
    memory_free(t.seen);
}

static void test_watch(void **state) {
    (void)state;
    learner_config config = config_of(LEVELS, FRAMES, SAMPLES, SAMPLES);
    config.policy.temporal.transformer.layers = 3;
    config.policy.depth.layers = 2;
    config.alpha = 0.1f;
    fixture f;
    make(&f, &config, 0.1f);
    check_watch(&f, f.size, true, 3 + 2 + 2); // each layer, what the depth stage reads, the embeddings
    check_watch(&f, value_parameters(learner_value(f.learner))->size, false, 3 + 1);
    release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enumerated_gradient),
        cmocka_unit_test(test_uniform_policy),
        cmocka_unit_test(test_kl_at_reference),
        cmocka_unit_test(test_kl_brute_force),
        cmocka_unit_test(test_terms_mix),
        cmocka_unit_test(test_importance),
        cmocka_unit_test(test_value),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_unknown_return),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
