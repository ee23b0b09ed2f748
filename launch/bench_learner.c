// A learner on random weights and tokens, for the stages of the benchmark that have one.
#include "launch/bench_parts.h"

#include "kernels/memory.h"
#include "launch/model_setup.h"

static void carve_batch(bench_batch *h, const bench *b, arena *a) {
    const size_t batch = (size_t)b->config->train.batch, frames = (size_t)b->config->train.frames,
                 tokens = batch * frames * (size_t)b->policy.temporal.levels;
    h->prefix = arena_take(a, sizeof(uint16_t) * batch * (size_t)b->policy.temporal.prefix);
    h->tokens = arena_take(a, sizeof(uint16_t) * tokens);
    h->log_probabilities = arena_take(a, sizeof(float) * tokens);
    h->returns = arena_take(a, sizeof(float) * batch);
    h->values = arena_take(a, sizeof(float) * batch * frames);
    h->samples = arena_take(a, sizeof(uint32_t) * batch);
}

status bench_create_batch(bench_batch *h, bench *b) {
    const temporal_config *t = &b->policy.temporal;
    const size_t batch = (size_t)b->config->train.batch, frames = (size_t)b->config->train.frames;
    arena a = {0};
    carve_batch(h, b, &a);
    TRY(memory_allocate(&h->memory, a.used, "bench batch"));
    a = (arena){.base = h->memory, .capacity = a.used};
    carve_batch(h, b, &a);
    bench_fill_tokens(b, h->prefix, batch * (size_t)t->prefix, 1, &t->prefix_codebook);
    bench_fill_tokens(b, h->tokens, batch * frames, t->levels, t->codebook);
    bench_fill_random(b, h->returns, batch);
    for (size_t i = 0; i < batch; i++)
        h->samples[i] = (uint32_t)i;
    return STATUS_OK;
}

static learner_slot slot_of(const bench *b, const bench_learner *l, int slot) {
    const size_t first = (size_t)slot * (size_t)(b->config->train.batch / b->config->train.gradient_slots);
    const size_t frames = (size_t)b->config->train.frames,
                 tokens = frames * (size_t)b->policy.temporal.levels;
    return (learner_slot){.prefix = l->batch.prefix + first * (size_t)b->policy.temporal.prefix,
                          .tokens = l->batch.tokens + first * tokens,
                          .log_probabilities = l->batch.log_probabilities + first * tokens,
                          .returns = l->batch.returns + first,
                          .values = l->batch.values + first * frames};
}

status bench_learner_pass(bench *b, bench_learner *l) {
    const int slots = b->config->train.gradient_slots, samples = b->config->train.batch / slots;
    for (int slot = 0; slot < slots; slot++) {
        const learner_slot s = slot_of(b, l, slot);
        TRY(learner_value_slot(l->learner, &s, gradient_sum_values(l->value_gradients),
                               l->value_statistics + slot * samples));
        gradient_sum_add(l->value_gradients);
    }
    for (int slot = 0; slot < slots; slot++) {
        const learner_slot s = slot_of(b, l, slot);
        TRY(learner_policy_slot(l->learner, &s, 1.0f, gradient_sum_values(l->policy_gradients),
                                l->policy_statistics + slot * samples));
        gradient_sum_add(l->policy_gradients);
    }
    return device_finish(b->device);
}

status bench_learner_update(bench *b, bench_learner *l) {
    value_network *value = learner_value(l->learner);
    policy *policy = learner_policy(l->learner);
    const optimizer_result first =
        optimizer_update(learner_value_optimizer(l->learner), (float)b->config->train.value_learning_rate,
                         gradient_sum_values(l->value_gradients), value_values(value));
    const optimizer_result second =
        optimizer_update(learner_policy_optimizer(l->learner), (float)b->config->train.learning_rate,
                         gradient_sum_values(l->policy_gradients), policy_values(policy));
    if (first.skipped || second.skipped)
        return FAIL("a learner step on random weights gave gradients that are not finite");
    TRY(value_pack(value));
    TRY(policy_pack(policy));
    return device_finish(b->device);
}

status bench_create_learner(bench *b, bench_learner *l) {
    const run_config *c = b->config;
    const uint32_t slots = (uint32_t)c->train.gradient_slots;
    const learner_config config = {
        .policy = b->policy,
        .slot_samples = c->train.batch / c->train.gradient_slots,
        .frames = c->train.frames,
        .batch = c->train.batch,
        .temperature = (float)c->train.temperature,
        .alpha = (float)c->train.alpha,
        .optimizer = {.beta1 = (float)c->train.beta1,
                      .beta2 = (float)c->train.beta2,
                      .epsilon = (float)c->train.epsilon,
                      .weight_decay = (float)c->train.weight_decay,
                      .gradient_clip = (float)c->train.gradient_clip},
    };
    TRY(bench_create_batch(&l->batch, b));
    TRY(learner_create(&l->learner, b->device, &config));
    policy *own = learner_policy(l->learner), *reference = learner_reference(l->learner);
    TRY(model_initialise(b->device, policy_parameters(own), 1, policy_values(own)));
    parameter_list_copy(b->device, policy_parameters(own), policy_values(own), policy_values(reference));
    TRY(policy_pack(own));
    TRY(policy_pack(reference));
    value_network *value = learner_value(l->learner);
    TRY(model_initialise(b->device, value_parameters(value), 1, value_values(value)));
    TRY(value_pack(value));
    const size_t policy_size = policy_parameters(own)->size, value_size = value_parameters(value)->size;
    TRY(gradient_sum_create(&l->policy_gradients, b->device, policy_size, slots));
    TRY(gradient_sum_create(&l->value_gradients, b->device, value_size, slots));
    TRY(memory_allocate((void **)&l->value_statistics, sizeof *l->value_statistics * (size_t)c->train.batch,
                        "value statistics"));
    return memory_allocate((void **)&l->policy_statistics,
                           sizeof *l->policy_statistics * (size_t)c->train.batch, "policy statistics");
}

void bench_destroy_learner(bench_learner *l) {
    learner_destroy(l->learner);
    gradient_sum_destroy(l->policy_gradients);
    gradient_sum_destroy(l->value_gradients);
    memory_free(l->value_statistics);
    memory_free(l->policy_statistics);
    memory_free(l->batch.memory);
}
