// Runs every model once, small and with random sizes, forward and backward, and writes all that went in and
// came out for tests/parity/compare.py.
//   parity_models SEED FILE.safetensors
//   parity_models_emulated SEED FILE.safetensors   on an emulated GPU, in bf16
// Seed 0 is a fixed, odd shape; any other seed draws the sizes.
#include "core/embedding.h"
#include "core/learner.h"
#include "core/optimizer.h"
#include "core/policy.h"
#include "core/reward_model.h"
#include "core/value.h"
#include "tests/parity/dump.h"

#ifndef PARITY_GPU
#define PARITY_GPU false
#endif

static dump d;

// Parameters without the ones and zeros that they start from, and logits with some shape; dumped as the
// inputs of a case.
static void randomise_group(const parameter_list *list, float *values, uint64_t seed, const char *which,
                            const char *group) {
    parameter_list_initialise(list, seed, values);
    for (int i = 0; i < list->count; i++) {
        const parameter *p = &list->items[i];
        for (size_t j = 0; j < p->count; j++) {
            if (p->initialisation == INITIALISE_ZEROS)
                values[p->offset + j] = philox_next_uniform(&d.stream) - 0.4f;
            else
                values[p->offset + j] *= 0.6f + philox_next_uniform(&d.stream);
        }
        int64_t shape[2] = {p->rows, p->columns};
        dump_f32(&d, values + p->offset, p->rows > 0 ? 2 : 1, shape + (p->rows > 0 ? 0 : 1), "%s/in/%s/%s",
                 which, group, p->name);
    }
}

static void randomise(const parameter_list *list, float *values, uint64_t seed, const char *which) {
    randomise_group(list, values, seed, which, "parameter");
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
                                     .terms = {.temperature = temperature}};
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
    must(policy_backward(policy, pass, r->batch, gradients, NULL));
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
    must(policy_backward(policy, pass, r->batch, gradients, NULL));
    dump_gradients(list, gradients, "policy", "gradient_cross_entropy");
}

// Several clipped updates by gradients that are given.
static void run_optimizer(const parameter_list *list) {
    const optimizer_config config = {
        .beta1 = 0.9f, .beta2 = 0.98f, .epsilon = 1e-8f, .weight_decay = 0.1f, .gradient_clip = 1.0f};
    const float learning_rate = 2e-3f;
    enum { STEPS = 3 };
    dump_number(&d, (double)config.beta1, "optimizer", "beta1");
    dump_number(&d, (double)config.beta2, "optimizer", "beta2");
    dump_number(&d, (double)config.epsilon, "optimizer", "epsilon");
    dump_number(&d, (double)config.weight_decay, "optimizer", "weight_decay");
    dump_number(&d, (double)config.gradient_clip, "optimizer", "gradient_clip");
    dump_number(&d, (double)learning_rate, "optimizer", "learning_rate");
    float *values = dump_zeros(&d, list->size), *start;
    randomise(list, values, 200, "optimizer");
    start = dump_copy(&d, values, list->size);
    optimizer *optimizer;
    must(optimizer_create(&optimizer, d.device, list, &config));
    float norms[STEPS];
    for (int step = 0; step < STEPS; step++) {
        // Only the first two exceed the clip.
        float *gradients = dump_zeros(&d, list->size);
        for (int i = 0; i < list->count; i++) {
            const parameter *p = &list->items[i];
            memcpy(gradients + p->offset, dump_normal(&d, p->count, 0.0f, step < 2 ? 0.3f : 1e-4f),
                   sizeof(float) * p->count);
            dump_f32(&d, gradients + p->offset, SHAPE((int64_t)p->count), "optimizer/in/gradient%d/%s", step,
                     p->name);
        }
        norms[step] = (float)optimizer_update(optimizer, learning_rate, gradients, values).gradient_norm;
    }
    optimizer_destroy(optimizer);
    dump_f32(&d, norms, SHAPE(STEPS), "optimizer/out/norms");
    for (size_t i = 0; i < list->size; i++)
        values[i] -= start[i];
    for (int i = 0; i < list->count; i++) {
        const double decay = list->items[i].decay;
        dump_add(&d, TENSOR_F64, &decay, SHAPE_SCALAR, "optimizer/in/decay/%s", list->items[i].name);
    }
    dump_gradients(list, values, "optimizer", "change");
}

static void run_value(const temporal_config *config, const rollout *r) {
    const int64_t rows = (int64_t)r->batch * config->frames;
    value_network *value;
    must(value_create(&value, d.device, config, true));
    randomise(value_parameters(value), value_values(value), 300, "value");
    must(value_pack(value));
    dump_number(&d, config->transformer.heads, "value", "heads");
    dump_u16(&d, r->prefix, SHAPE(r->batch, config->prefix), "value/in/prefix");
    dump_u16(&d, r->tokens, SHAPE(r->batch, config->frames, config->levels), "value/in/tokens");
    float *returns = dump_normal(&d, (size_t)rows, 0.5f, 0.3f), *d_values = dump_zeros(&d, (size_t)rows);
    dump_f32(&d, returns, SHAPE(r->batch, config->frames), "value/in/returns");
    value_pass *pass;
    must(value_pass_create(&pass, value, r->batch, config->frames, true));
    const float *values;
    must(value_forward(value, pass, r->batch, r->prefix, r->tokens, &values));
    dump_f32(&d, values, SHAPE(r->batch, config->frames), "value/out/values");
    for (int64_t i = 0; i < rows; i++) // of the mean squared error
        d_values[i] = 2.0f * (values[i] - returns[i]) / (float)rows;
    float *gradients = dump_zeros(&d, value_parameters(value)->size);
    must(value_backward(value, pass, r->batch, d_values, gradients, NULL));
    dump_gradients(value_parameters(value), gradients, "value", "gradient");
    value_pass_destroy(pass);
    value_destroy(value);
}

// Scores of a window somewhere within each clip, and the loss of one vote of each kind on neighbouring clips.
static void run_reward(const temporal_config *config) {
    const int batch = 5, votes = 4, frames = config->frames + 3, embedding = 16 * dump_between(&d, 1, 3);
    const reward_model_config c = {
        .temporal = *config, .features = (reward_features)dump_between(&d, 0, 2), .embedding = embedding};
    const int features = reward_model_feature_count(&c);
    reward_model *model;
    must(reward_model_create(&model, d.device, &c, true, WEIGHT_F32));
    const parameter_list *list = reward_model_parameters(model);
    randomise(list, reward_model_values(model), 500, "reward");
    must(reward_model_pack(model));
    dump_number(&d, config->transformer.heads, "reward", "heads");
    dump_number(&d, config->frames, "reward", "window");
    dump_number(&d, (double)c.features, "reward", "features");
    uint16_t *prefix = dump_bytes(&d, sizeof(uint16_t) * (size_t)(batch * config->prefix)),
             *tokens = dump_bytes(&d, sizeof(uint16_t) * (size_t)(batch * frames * config->levels));
    int32_t *starts = dump_bytes(&d, sizeof(int32_t) * (size_t)batch);
    for (int i = 0; i < batch * config->prefix; i++)
        prefix[i] = (uint16_t)dump_between(&d, 0, config->prefix_codebook - 1);
    for (int i = 0; i < batch * frames * config->levels; i++)
        tokens[i] = (uint16_t)dump_between(&d, 0, config->codebook[i % config->levels] - 1);
    for (int i = 0; i < batch; i++)
        starts[i] = dump_between(&d, 0, frames - config->frames);
    float *text = dump_normal(&d, (size_t)(batch * embedding), 0.0f, 0.2f),
          *music = dump_normal(&d, (size_t)(batch * embedding), 0.0f, 0.2f),
          *inputs = dump_zeros(&d, (size_t)(batch * features));
    dump_u16(&d, prefix, SHAPE(batch, config->prefix), "reward/in/prefix");
    dump_u16(&d, tokens, SHAPE(batch, frames, config->levels), "reward/in/tokens");
    dump_i32(&d, starts, SHAPE(batch), "reward/in/starts");
    dump_f32(&d, text, SHAPE(batch, embedding), "reward/in/text");
    dump_f32(&d, music, SHAPE(batch, embedding), "reward/in/music");
    reward_model_make_features(&c, (size_t)batch, text, music, inputs);
    reward_pass *pass;
    must(reward_pass_create(&pass, model, batch, true));
    const float *scores;
    must(reward_forward(model, pass, batch, prefix, tokens, frames, starts, inputs, &scores));
    dump_f32(&d, scores, SHAPE(batch), "reward/out/scores");
    float *d_scores = dump_zeros(&d, (size_t)batch), *gradients = dump_zeros(&d, list->size);
    float *d_threshold = gradients + parameter_list_find(list, "preference.threshold")->offset;
    double losses[4];
    for (int i = 0; i < votes; i++) {
        double gradient[4];
        losses[i] = preference_loss((preference_vote)i, (double)scores[i], (double)scores[i + 1],
                                    reward_model_threshold(model), gradient);
        d_scores[i] += (float)gradient[0];
        d_scores[i + 1] += (float)gradient[1];
        d_threshold[0] += (float)gradient[2];
        d_threshold[1] += (float)gradient[3];
    }
    dump_add(&d, TENSOR_F64, losses, SHAPE(votes), "reward/out/losses");
    must(reward_backward(model, pass, batch, d_scores, gradients));
    dump_gradients(list, gradients, "reward", "gradient");
    reward_pass_destroy(pass);
    reward_model_destroy(model);
}

// One gradient slot of a larger batch, with importance weights that are cut off and a reference that is not
// the policy.
static void run_learner(const policy_config *config, const rollout *r) {
    const int frames = config->temporal.frames, levels = config->temporal.levels, batch = r->batch;
    const size_t rows = (size_t)batch * frames, tokens = rows * (size_t)levels;
    const learner_config c = {.policy = *config,
                              .slot_samples = batch,
                              .frames = frames,
                              .batch = 4 * batch,
                              .temperature = 0.95f,
                              .alpha = 0.2f,
                              .correct_importance = true,
                              .importance_cap = 1.05f};
    const float advantage_scale = 0.7f;
    learner *learner;
    must(learner_create(&learner, d.device, &c));
    policy *policy = learner_policy(learner), *reference = learner_reference(learner);
    value_network *value = learner_value(learner);
    randomise_group(policy_parameters(policy), policy_values(policy), 500, "learner", "policy");
    randomise_group(policy_parameters(reference), policy_values(reference), 501, "learner", "reference");
    randomise_group(value_parameters(value), value_values(value), 502, "learner", "value");
    must(policy_pack(policy));
    must(policy_pack(reference));
    must(value_pack(value));
    // What the rollout claims to have been: near the policy, so that some weights are cut off and some are
    // not.
    policy_pass *pass;
    must(policy_pass_create(&pass, policy, batch, frames, false));
    must(policy_forward(policy, pass, batch, r->prefix, r->tokens));
    float *sampled = dump_normal(&d, tokens, 0.0f, 0.1f), *scored = dump_zeros(&d, rows);
    for (int level = 0; level < levels; level++) {
        op_log_probability(d.device, (int64_t)rows, config->temporal.codebook[level],
                           policy_pass_logits(pass, level), c.temperature, policy_pass_actions(pass, level),
                           scored);
        for (size_t row = 0; row < rows; row++)
            sampled[row * (size_t)levels + (size_t)level] += scored[row];
    }
    policy_pass_destroy(pass);
    float *returns = dump_normal(&d, (size_t)batch, 0.4f, 1.0f), *values = dump_zeros(&d, rows);
    dump_number(&d, config->temporal.transformer.heads, "learner", "temporal_heads");
    dump_number(&d, config->depth.heads, "learner", "depth_heads");
    dump_number(&d, (double)c.temperature, "learner", "temperature");
    dump_number(&d, (double)c.alpha, "learner", "alpha");
    dump_number(&d, (double)c.importance_cap, "learner", "importance_cap");
    dump_number(&d, c.batch, "learner", "batch");
    dump_number(&d, (double)advantage_scale, "learner", "advantage_scale");
    dump_u16(&d, r->prefix, SHAPE(batch, config->temporal.prefix), "learner/in/prefix");
    dump_u16(&d, r->tokens, SHAPE(batch, frames, levels), "learner/in/tokens");
    dump_f32(&d, sampled, SHAPE(batch, frames, levels), "learner/in/sampled");
    dump_f32(&d, returns, SHAPE(batch), "learner/in/returns");
    const learner_slot slot = {.prefix = r->prefix,
                               .tokens = r->tokens,
                               .log_probabilities = sampled,
                               .returns = returns,
                               .values = values};
    float *gradients = dump_zeros(&d, value_parameters(value)->size);
    learner_value_statistics *errors = dump_bytes(&d, sizeof *errors * (size_t)batch);
    must(learner_value_slot(learner, &slot, gradients, errors));
    dump_gradients(value_parameters(value), gradients, "learner", "gradient_value");
    dump_f32(&d, values, SHAPE(batch, frames), "learner/out/values");
    gradients = dump_zeros(&d, policy_parameters(policy)->size);
    learner_policy_statistics *statistics = dump_bytes(&d, sizeof *statistics * (size_t)batch);
    must(learner_policy_slot(learner, &slot, advantage_scale, gradients, statistics));
    dump_gradients(policy_parameters(policy), gradients, "learner", "gradient_policy");
    static const char *const names[] = {"error",   "squared_error", "kl",         "kl_k1",
                                        "entropy", "policy_loss",   "importance", "gap"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        double *column = dump_bytes(&d, sizeof(double) * (size_t)batch);
        for (int i = 0; i < batch; i++) {
            const learner_policy_statistics *s = &statistics[i];
            const double all[] = {
                errors[i].error, errors[i].squared_error, s->kl,         s->kl_k1,
                s->entropy,      s->policy_loss,          s->importance, s->log_probability_gap};
            column[i] = all[k];
        }
        dump_add(&d, TENSOR_F64, column, SHAPE(batch), "learner/out/%s", names[k]);
    }
    learner_destroy(learner);
}

static void run_embedding(void) {
    embedding_config config = {.text = random_transformer(),
                               .music = random_transformer(),
                               .vocabulary = dump_between(&d, 5, 200),
                               .levels = dump_between(&d, 1, 4),
                               .output = 16 * dump_between(&d, 1, 4)};
    config.text.positions = dump_between(&d, 2, 24);
    config.music.positions = dump_between(&d, 2, 40);
    config.rhythm_channels = 16 * dump_between(&d, 1, 2);
    config.rhythm_lags = dump_between(&d, 0, config.music.positions - 1);
    config.variation = dump_between(&d, 0, 3) > 0;
    for (int level = 0; level < config.levels; level++)
        config.codebook[level] = 16 * dump_between(&d, 1, 8);
    const int batch = dump_between(&d, 2, 9), words = config.text.positions, frames = config.music.positions;
    embedding *embedding;
    must(embedding_create(&embedding, d.device, &config, true));
    randomise(embedding_parameters(embedding), embedding_values(embedding), 400, "joint");
    must(embedding_pack(embedding));
    dump_number(&d, config.text.heads, "joint", "text_heads");
    dump_number(&d, config.music.heads, "joint", "music_heads");
    int32_t *text = dump_bytes(&d, sizeof(int32_t) * (size_t)(batch * words)),
            *lengths = dump_bytes(&d, sizeof(int32_t) * (size_t)batch);
    for (int i = 0; i < batch * words; i++)
        text[i] = dump_between(&d, 0, config.vocabulary - 1);
    for (int i = 0; i < batch; i++)
        lengths[i] = dump_between(&d, 1, words);
    uint16_t *music = dump_bytes(&d, sizeof(uint16_t) * (size_t)(batch * frames * config.levels));
    for (int i = 0; i < batch * frames * config.levels; i++)
        music[i] = (uint16_t)dump_between(&d, 0, config.codebook[i % config.levels] - 1);
    dump_i32(&d, text, SHAPE(batch, words), "joint/in/text");
    dump_i32(&d, lengths, SHAPE(batch), "joint/in/lengths");
    dump_u16(&d, music, SHAPE(batch, frames, config.levels), "joint/in/music");
    embedding_pass *pass;
    must(embedding_pass_create(&pass, embedding, batch, true));
    const float *output;
    must(embedding_text(embedding, pass, batch, text, lengths, &output));
    dump_f32(&d, output, SHAPE(batch, config.output), "joint/out/text_embedding");
    must(embedding_music(embedding, pass, batch, music, &output));
    dump_f32(&d, output, SHAPE(batch, config.output), "joint/out/music_embedding");
    float *gradients = dump_zeros(&d, embedding_parameters(embedding)->size);
    double loss;
    must(embedding_backward(embedding, pass, batch, gradients, &loss));
    dump_add(&d, TENSOR_F64, &loss, SHAPE_SCALAR, "joint/out/loss");
    dump_gradients(embedding_parameters(embedding), gradients, "joint", "gradient");
    embedding_pass_destroy(pass);
    embedding_destroy(embedding);
}

static void run_policy_and_value(uint64_t seed) {
    const policy_config config = random_config(seed);
    const int batch = seed == 0 ? 3 : dump_between(&d, 1, 5);
    policy *policy;
    must(policy_create(&policy, d.device, &config, WEIGHT_LEARN, WEIGHT_F32));
    randomise(policy_parameters(policy), policy_values(policy), seed + 100, "policy");
    must(policy_pack(policy));
    dump_number(&d, config.temporal.transformer.heads, "policy", "temporal_heads");
    dump_number(&d, config.depth.heads, "policy", "depth_heads");
    const rollout r = sample_rollout(policy, batch);
    policy_pass *pass; // planned for more than it is given
    must(policy_pass_create(&pass, policy, batch + 1, config.temporal.frames, true));
    run_policy_loss(policy, pass, &r);
    run_cross_entropy(policy, pass, &r);
    run_optimizer(policy_parameters(policy));
    run_value(&config.temporal, &r);
    run_reward(&config.temporal);
    run_learner(&config, &r);
    policy_pass_destroy(pass);
    policy_destroy(policy);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: %s SEED FILE.safetensors\n", arguments[0]);
        return 2;
    }
    const uint64_t seed = strtoull(arguments[1], NULL, 10);
    dump_open(&d, seed, PARITY_GPU);
    run_policy_and_value(seed);
    run_embedding();
    dump_write(&d, arguments[2]);
    return 0;
}
