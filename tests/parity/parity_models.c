// Runs every model once, small and with random sizes, forward and backward, and writes all that went in and
// came out for tests/parity/compare.py.
//   parity_models SEED FILE.safetensors
// Seed 0 is a fixed, odd shape; any other seed draws the sizes.
#include "core/policy.h"
#include "tests/parity/dump.h"

static dump d;

// Parameters with gains that differ from 1 and logits with some shape; dumped as the inputs of a case.
static void randomise(const parameter_list *list, float *values, uint64_t seed, const char *which) {
    parameter_list_initialise(list, seed, values);
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        for (size_t j = 0; j < p->count; j++)
            values[p->offset + j] *= 1.0f + philox_next_uniform(&d.stream);
        int64_t shape[2] = {p->rows, p->columns};
        dump_f32(&d, values + p->offset, p->rows > 0 ? 2 : 1, shape + (p->rows > 0 ? 0 : 1),
                 "%s/in/parameter/%s", which, p->name);
    }
}

static void dump_gradients(const parameter_list *list, const float *gradients, const char *which,
                           const char *loss) {
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        int64_t shape[2] = {p->rows, p->columns};
        dump_f32(&d, gradients + p->offset, p->rows > 0 ? 2 : 1, shape + (p->rows > 0 ? 0 : 1),
                 "%s/out/%s/%s", which, loss, p->name);
    }
}

static transformer_config random_transformer(void) {
    const int heads = dump_between(&d, 1, 4), head_dim = 16 * dump_between(&d, 1, 3);
    return (transformer_config){.layers = dump_between(&d, 1, 3),
                                .width = heads * head_dim,
                                .heads = heads,
                                .feed_forward = 16 * dump_between(&d, 2, 12)};
}

static policy_config random_config(uint64_t seed) {
    policy_config c = {
        .temporal = {.transformer = {.layers = 3, .width = 96, .heads = 3, .feed_forward = 272},
                     .levels = 3,
                     .codebook = {48, 80, 32},
                     .prefix = 5,
                     .prefix_codebook = 11,
                     .frames = 17},
        .depth = {.layers = 2, .width = 64, .heads = 4, .feed_forward = 176}};
    if (seed == 0)
        return c;
    c.temporal = (temporal_config){.transformer = random_transformer(),
                                   .levels = dump_between(&d, 1, 6),
                                   .prefix = dump_between(&d, 0, 7),
                                   .prefix_codebook = dump_between(&d, 1, 40),
                                   .frames = dump_between(&d, 1, 40)};
    for (int level = 0; level < c.temporal.levels; level++)
        c.temporal.codebook[level] = 16 * dump_between(&d, 1, 10);
    c.depth = random_transformer();
    return c;
}

typedef struct rollout {
    int batch;
    uint16_t *prefix; // [batch, prefix]
    uint16_t *tokens; // [batch, frames, levels]
} rollout;

static rollout sample_rollout(policy *policy, int batch) {
    const temporal_config *c = &policy_get_config(policy)->temporal;
    const size_t tokens = (size_t)batch * c->frames * c->levels;
    rollout r = {.batch = batch,
                 .prefix = dump_bytes(&d, sizeof(uint16_t) * (size_t)batch * (size_t)c->prefix),
                 .tokens = dump_bytes(&d, sizeof(uint16_t) * tokens)};
    for (int i = 0; i < batch * c->prefix; i++)
        r.prefix[i] = (uint16_t)dump_between(&d, 0, c->prefix_codebook - 1);
    uint32_t *samples = dump_bytes(&d, sizeof(uint32_t) * (size_t)batch);
    for (int i = 0; i < batch; i++)
        samples[i] = (uint32_t)i;
    float *log_probabilities = dump_zeros(&d, tokens);
    const float temperature = 0.93f;
    policy_sampler *sampler;
    must(policy_sampler_create(&sampler, policy, batch, c->frames));
    const rollout_request request = {.batch = batch,
                                     .frames = c->frames,
                                     .prefix = r.prefix,
                                     .samples = samples,
                                     .seed = 5,
                                     .step = 1,
                                     .temperature = temperature};
    must(policy_sample(policy, sampler, &request, r.tokens, log_probabilities));
    policy_sampler_destroy(sampler);
    dump_u16(&d, r.prefix, SHAPE(batch, c->prefix), "policy/in/prefix");
    dump_u16(&d, r.tokens, SHAPE(batch, c->frames, c->levels), "policy/in/tokens");
    dump_number(&d, (double)temperature, "policy", "sampling_temperature");
    dump_f32(&d, log_probabilities, SHAPE(batch, c->frames, c->levels), "policy/out/sampled");
    return r;
}

// Every term of the reinforcement-learning loss, with a reference that is not the policy.
static void run_policy_loss(policy *policy, policy_pass *pass, const rollout *r) {
    const temporal_config *c = &policy_get_config(policy)->temporal;
    const parameter_list *list = policy_parameters(policy);
    const int64_t rows = (int64_t)r->batch * c->frames;
    const policy_loss_terms terms = {
        .temperature = 0.9f, .policy_weight = 0.8f, .kl_weight = 0.3f, .entropy_weight = 0.1f};
    dump_number(&d, (double)terms.temperature, "policy", "temperature");
    dump_number(&d, (double)terms.policy_weight, "policy", "policy_weight");
    dump_number(&d, (double)terms.kl_weight, "policy", "kl_weight");
    dump_number(&d, (double)terms.entropy_weight, "policy", "entropy_weight");
    float *advantages = dump_normal(&d, (size_t)rows, 0.1f, 1.0f);
    dump_f32(&d, advantages, SHAPE(r->batch, c->frames), "policy/in/advantages");
    float *log_probabilities = dump_zeros(&d, (size_t)rows), *entropies = dump_zeros(&d, (size_t)rows),
          *kls = dump_zeros(&d, (size_t)rows);
    must(policy_forward(policy, pass, r->batch, r->prefix, r->tokens));
    for (int level = 0; level < c->levels; level++) {
        const int64_t codebook = c->codebook[level];
        float *logits = policy_pass_logits(pass, level);
        dump_f32(&d, logits, SHAPE(r->batch, c->frames, codebook), "policy/out/logits/%d", level);
        float *reference = dump_normal(&d, (size_t)(rows * codebook), 0.3f, 1.5f);
        dump_f32(&d, reference, SHAPE(r->batch, c->frames, codebook), "policy/in/reference/%d", level);
        op_policy_loss(d.device, rows, codebook, logits, reference, policy_pass_actions(pass, level),
                       advantages, &terms, log_probabilities, entropies, kls,
                       dump_zeros(&d, policy_loss_scratch_floats(d.device, codebook)));
        dump_f32(&d, log_probabilities, SHAPE(r->batch, c->frames), "policy/out/log_probability/%d", level);
        dump_f32(&d, entropies, SHAPE(r->batch, c->frames), "policy/out/entropy/%d", level);
        dump_f32(&d, kls, SHAPE(r->batch, c->frames), "policy/out/kl/%d", level);
    }
    float *gradients = dump_zeros(&d, list->size);
    must(policy_backward(policy, pass, r->batch, gradients));
    dump_gradients(list, gradients, "policy", "gradient_policy_loss");
}

static void run_cross_entropy(policy *policy, policy_pass *pass, const rollout *r) {
    const temporal_config *c = &policy_get_config(policy)->temporal;
    const parameter_list *list = policy_parameters(policy);
    const int64_t rows = (int64_t)r->batch * c->frames;
    const float weight = 1.0f / (float)rows;
    float *losses = dump_zeros(&d, (size_t)rows);
    must(policy_forward(policy, pass, r->batch, r->prefix, r->tokens));
    for (int level = 0; level < c->levels; level++) {
        op_cross_entropy(d.device, rows, c->codebook[level], policy_pass_logits(pass, level),
                         policy_pass_actions(pass, level), weight, losses);
        dump_f32(&d, losses, SHAPE(r->batch, c->frames), "policy/out/cross_entropy/%d", level);
    }
    float *gradients = dump_zeros(&d, list->size);
    must(policy_backward(policy, pass, r->batch, gradients));
    dump_gradients(list, gradients, "policy", "gradient_cross_entropy");
}

static void run_policy(uint64_t seed) {
    const policy_config config = random_config(seed);
    const int batch = seed == 0 ? 3 : dump_between(&d, 1, 5);
    policy *policy;
    must(policy_create(&policy, d.device, &config, true, WEIGHT_F32));
    randomise(policy_parameters(policy), policy_values(policy), seed + 100, "policy");
    must(policy_pack(policy));
    dump_number(&d, config.temporal.transformer.heads, "policy", "temporal_heads");
    dump_number(&d, config.depth.heads, "policy", "depth_heads");
    const rollout r = sample_rollout(policy, batch);
    policy_pass *pass; // planned for more than it is given
    must(policy_pass_create(&pass, policy, batch + 1, config.temporal.frames, true));
    run_policy_loss(policy, pass, &r);
    run_cross_entropy(policy, pass, &r);
    policy_pass_destroy(pass);
    policy_destroy(policy);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: parity_models SEED FILE.safetensors\n");
        return 2;
    }
    const uint64_t seed = strtoull(arguments[1], NULL, 10);
    dump_open(&d, seed);
    run_policy(seed);
    dump_write(&d, arguments[2]);
    return 0;
}
