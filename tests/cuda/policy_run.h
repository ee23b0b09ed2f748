// A policy that is scored, learns and samples, with everything that it found: the same on every device but
// for rounding.
#pragma once

#include "tests/cuda/check.h"

extern "C" {
#include "core/optimizer.h"
#include "core/policy.h"
}

#include <cmath>
#include <vector>

namespace policy_run {

enum { CODEBOOK = 32, WIDTH = 32, FRAMES = 28, LEVELS = 3, BATCH = 2, PREFIX = 8 };

inline void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

struct outcome {
    std::vector<float> logits[LEVELS], gradients, values;
    std::vector<uint16_t> tokens;
    std::vector<float> sampled, scored; // log-probabilities of the tokens drawn
    double norm;
};

inline policy_config config_of() {
    policy_config c = {};
    c.temporal.transformer.layers = c.depth.layers = 1;
    c.temporal.transformer.width = c.depth.width = WIDTH;
    c.temporal.transformer.heads = c.depth.heads = 2;
    c.temporal.transformer.feed_forward = c.depth.feed_forward = 64;
    c.temporal.levels = LEVELS;
    c.temporal.prefix = PREFIX;
    c.temporal.prefix_codebook = 4;
    c.temporal.frames = FRAMES;
    for (int level = 0; level < LEVELS; level++)
        c.temporal.codebook[level] = CODEBOOK;
    return c;
}

template <typename T> std::vector<T> fetch(device *d, const T *from, size_t count) {
    std::vector<T> to(count);
    must(device_download(d, to.data(), from, sizeof(T) * count));
    return to;
}

inline outcome run(device *d, weight_use use) {
    outcome out;
    const policy_config config = config_of();
    policy *p;
    policy_pass *pass;
    must(policy_create(&p, d, &config, use, WEIGHT_F32));
    must(policy_pass_create(&pass, p, BATCH, FRAMES, true));
    const size_t size = policy_parameters(p)->size, rows = BATCH * FRAMES;
    std::vector<float> initial(size);
    parameter_list_initialise(policy_parameters(p), 3, initial.data());
    must(device_upload(d, policy_values(p), initial.data(), sizeof(float) * size));
    must(policy_pack(p));

    uint16_t prefix[BATCH * PREFIX];
    for (size_t i = 0; i < BATCH * PREFIX; i++)
        prefix[i] = static_cast<uint16_t>((3 * i + 1) % 4);
    std::vector<uint16_t> tokens(rows * LEVELS);
    for (size_t i = 0; i < tokens.size(); i++)
        tokens[i] = static_cast<uint16_t>(i * 7 % CODEBOOK);
    must(policy_forward(p, pass, BATCH, prefix, tokens.data()));
    float *gradients, *advantages, *results, *scratch, *moments;
    must(device_allocate(d, reinterpret_cast<void **>(&gradients), sizeof(float) * size, "gradients"));
    must(device_allocate(d, reinterpret_cast<void **>(&moments), sizeof(float) * 2 * size, "moments"));
    must(device_allocate(d, reinterpret_cast<void **>(&advantages), sizeof(float) * rows, "advantages"));
    must(device_allocate(d, reinterpret_cast<void **>(&results), sizeof(float) * 3 * rows, "results"));
    must(device_allocate(d, reinterpret_cast<void **>(&scratch),
                         sizeof(float) * policy_loss_scratch_floats(d, CODEBOOK), "scratch"));
    std::vector<float> given(rows);
    for (size_t i = 0; i < rows; i++)
        given[i] = static_cast<float>(i % 5) - 1.7f;
    must(device_upload(d, advantages, given.data(), sizeof(float) * rows));
    const policy_loss_terms terms = {1.0f, 1.0f, 0.0f, 0.0f};
    for (int level = 0; level < LEVELS; level++) {
        float *logits = policy_pass_logits(pass, level);
        out.logits[level] = fetch(d, logits, rows * CODEBOOK);
        op_policy_loss(d, rows, CODEBOOK, logits, nullptr, policy_pass_actions(pass, level), advantages,
                       &terms, results, results + rows, results + 2 * rows, scratch);
    }
    must(policy_backward(p, pass, BATCH, gradients, NULL));
    out.gradients = fetch(d, gradients, size);
    out.norm = std::sqrt(op_sum_squares(d, size, gradients));
    assert_true(op_all_finite(d, size, gradients));
    const adamw_step step = {1e-2f, 0.9f, 0.99f, 1e-8f, 0.0f, 1.0f, 1};
    op_adamw(d, size, &step, gradients, policy_values(p), moments, moments + size);
    out.values = fetch(d, policy_values(p), size);

    must(policy_pack(p));
    policy_sampler *sampler;
    must(policy_sampler_create(&sampler, p, BATCH, FRAMES));
    const uint32_t samples[BATCH] = {4, 9};
    const rollout_request request = {BATCH, FRAMES, prefix, samples, 7, 2, {1.0f, 0, 0.0f}};
    out.tokens.resize(rows * LEVELS);
    out.sampled.resize(rows * LEVELS);
    out.scored.resize(rows * LEVELS);
    must(policy_sample(p, sampler, &request, out.tokens.data(), out.sampled.data()));
    // Other terms hold at once, whatever the device keeps of the rollout before: the most probable tokens do
    // not depend on the seed.
    std::vector<uint16_t> greedy[2];
    for (uint64_t seed : {0, 1}) {
        const rollout_request other = {BATCH, FRAMES, prefix, samples, seed, 2, {1.0f, 1, 0.0f}};
        greedy[seed].resize(rows * LEVELS);
        must(policy_sample(p, sampler, &other, greedy[seed].data(), out.scored.data()));
    }
    assert_true(greedy[0] == greedy[1]);
    must(policy_forward(p, pass, BATCH, prefix, out.tokens.data()));
    for (size_t level = 0; level < LEVELS; level++) {
        op_log_probability(d, rows, CODEBOOK, policy_pass_logits(pass, static_cast<int>(level)), 1.0f,
                           policy_pass_actions(pass, static_cast<int>(level)), results);
        const std::vector<float> scored = fetch(d, results, rows);
        for (size_t row = 0; row < rows; row++)
            out.scored[row * LEVELS + level] = scored[row];
    }
    policy_sampler_destroy(sampler);
    policy_pass_destroy(pass);
    policy_destroy(p);
    for (float *buffer : {gradients, moments, advantages, results, scratch})
        device_free(d, buffer);
    return out;
}

// Size of the difference, relative to that of what is wanted.
inline double distance(const std::vector<float> &found, const std::vector<float> &wanted) {
    double difference = 0.0, size = 0.0;
    for (size_t i = 0; i < wanted.size(); i++) {
        difference += std::pow(static_cast<double>(found[i]) - wanted[i], 2.0);
        size += std::pow(static_cast<double>(wanted[i]), 2.0);
    }
    return std::sqrt(difference / size);
}

// What differs from the CPU is attention over more than 16 positions, whose probabilities are rounded to 8
// bits; one unit of these bounds what is left of it in the whole.
constexpr double UNIT = 0x1p-7;

} // namespace policy_run
