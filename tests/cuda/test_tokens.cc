// What stands at the two ends of the model: embeddings, sampling, the losses on logits.
#include "tests/cuda/check.h"

#include "kernels/cuda/embedding.cuh"
#include "kernels/cuda/policy_loss.cuh"
#include "kernels/cuda/sample.cuh"

#include <algorithm>
#include <string>

using namespace cuda_kernels;
using namespace check;

namespace {

const int64_t codebooks[] = {16, 48, 128, 240, 512, 528, 1024, 1040, 2048};

std::vector<int32_t> random_tokens(philox_stream *numbers, int64_t count, int64_t codebook) {
    std::vector<int32_t> out(static_cast<size_t>(count));
    for (int32_t &token : out)
        token = static_cast<int32_t>(philox_next_below(numbers, static_cast<uint32_t>(codebook)));
    return out;
}

template <typename T> void check_policy_loss(int64_t rows, int64_t codebook, bool has_reference) {
    const cpu device;
    philox_stream numbers = random_numbers(static_cast<uint64_t>(codebook));
    const std::vector<float> logits = random_values<T>(&numbers, rows * codebook, 4.0f),
                             reference = random_values<T>(&numbers, rows * codebook, 4.0f),
                             advantages = random_values<float>(&numbers, rows);
    const std::vector<int32_t> actions = random_tokens(&numbers, rows, codebook);
    const policy_loss_terms terms = {0.9f, 0.7f, 0.3f, 0.05f};
    const size_t n = static_cast<size_t>(rows);
    std::vector<float> gradient = logits, log_p(n), entropy(n), kl(n), scored(n),
                       scratch(policy_loss_scratch_floats(device, codebook));
    op_policy_loss(device, rows, codebook, gradient.data(), has_reference ? reference.data() : nullptr,
                   actions.data(), advantages.data(), &terms, log_p.data(), entropy.data(), kl.data(),
                   scratch.data());
    op_log_probability(device, rows, codebook, logits.data(), terms.temperature, actions.data(),
                       scored.data());

    const buffer<T> base(stored<T>(reference)), input(stored<T>(logits));
    const buffer<int32_t> actions_given(actions);
    const buffer<float> advantages_given(advantages);
    const auto found = in_every_order(std::make_tuple(stored<T>(logits), poisoned<float>(rows),
                                                      poisoned<float>(rows), poisoned<float>(rows)),
                                      [&](T *z, float *p, float *e, float *k) {
                                          return policy_loss(nullptr, rows, codebook, z,
                                                             has_reference ? base.data() : nullptr,
                                                             actions_given.data(), advantages_given.data(),
                                                             policy_terms{0.9f, 0.7f, 0.3f, 0.05f}, p, e, k);
                                      });
    expect_close(named<T>("policy_loss gradient"), plain(std::get<0>(found)), gradient, tolerance<T>(2e-6));
    expect_close(named<T>("policy_loss log-probability"), std::get<1>(found), log_p, 2e-6);
    expect_close(named<T>("policy_loss entropy"), std::get<2>(found), entropy, 4e-6);
    expect_close(named<T>("policy_loss KL"), std::get<3>(found), kl, 4e-6);
    const auto alone = in_every_order(std::make_tuple(poisoned<float>(rows)), [&](float *p) {
        return log_probability(nullptr, rows, codebook, input.data(), 0.9f, actions_given.data(), p);
    });
    expect_close(named<T>("log_probability"), std::get<0>(alone), scored, 2e-6);
    assert_true(same_bytes(std::get<0>(alone), std::get<1>(found))); // one softmax for both
}

template <typename T> void check_cross_entropy(int64_t rows, int64_t codebook) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const std::vector<float> logits = random_values<T>(&numbers, rows * codebook, 4.0f);
    const std::vector<int32_t> targets = random_tokens(&numbers, rows, codebook);
    const buffer<int32_t> targets_given(targets);
    for (float weight : {0.0f, 0.25f}) {
        std::vector<float> gradient = logits, losses(static_cast<size_t>(rows));
        op_cross_entropy(device, rows, codebook, gradient.data(), targets.data(), weight, losses.data());
        const auto found =
            in_every_order(std::make_tuple(stored<T>(logits), poisoned<float>(rows)), [&](T *z, float *loss) {
                return cross_entropy(nullptr, rows, codebook, z, targets_given.data(), weight, loss);
            });
        expect_close(named<T>("cross_entropy gradient"), plain(std::get<0>(found)), gradient,
                     weight == 0.0f ? 0.0 : tolerance<T>(1e-6));
        expect_close(named<T>("cross_entropy losses"), std::get<1>(found), losses, 2e-6);
    }
}

void test_losses(void **) {
    for (int64_t codebook : codebooks)
        for (int64_t rows : {1, 4, 9}) {
            check_policy_loss<float>(rows, codebook, rows != 4);
            check_policy_loss<bf16>(rows, codebook, rows != 4);
            check_cross_entropy<float>(rows, codebook);
            check_cross_entropy<bf16>(rows, codebook);
        }
}

// Codes that do not exist: no probability, no gradient, finite entropy and KL; all but one: certainty.
void test_masks(void **) {
    const int64_t codebook = 48;
    for (int left : {1, 2, 47}) {
        philox_stream numbers = random_numbers();
        std::vector<float> logits = random_values<float>(&numbers, codebook), reference = logits;
        for (size_t i = static_cast<size_t>(left); i < logits.size(); i++)
            logits[i] = reference[i] = -INFINITY;
        const buffer<int32_t> action(std::vector<int32_t>(1, left - 1)),
            outside(std::vector<int32_t>(1, static_cast<int32_t>(codebook)));
        const buffer<float> advantage(std::vector<float>(1, 0.5f)), base(reference);
        const auto found =
            once(std::make_tuple(logits, poisoned<float>(1), poisoned<float>(1), poisoned<float>(1)),
                 [&](float *z, float *p, float *e, float *k) {
                     return policy_loss(nullptr, 1, codebook, z, base.data(), action.data(), advantage.data(),
                                        policy_terms{1.0f, 1.0f, 1.0f, 1.0f}, p, e, k);
                 });
        const std::vector<float> &gradient = std::get<0>(found);
        const float log_p = std::get<1>(found)[0], entropy = std::get<2>(found)[0],
                    kl = std::get<3>(found)[0];
        double sum = 0.0;
        for (size_t i = 0; i < gradient.size(); i++) {
            assert_true(std::isfinite(gradient[i]));
            assert_true(i < static_cast<size_t>(left) || gradient[i] == 0.0f);
            sum += static_cast<double>(gradient[i]);
        }
        assert_true(std::fabs(sum) < 1e-5);
        assert_true(kl == 0.0f && entropy >= 0.0f && entropy <= std::log(static_cast<float>(left)) + 1e-6f);
        assert_true(left > 1 || (log_p == 0.0f && entropy == 0.0f));
        const auto value = once(std::make_tuple(std::vector<float>(1)), [&](float *p) {
            return log_probability(nullptr, 1, codebook, base.data(), 1.0f, outside.data(), p);
        });
        assert_true(std::isnan(std::get<0>(value)[0]));
    }
    std::vector<float> logits(64);
    int32_t token = 0;
    float value;
    for (int64_t wrong : {int64_t{0}, int64_t{24}, int64_t{4096}})
        assert_int_equal(log_probability(nullptr, 1, wrong, static_cast<const float *>(logits.data()), 1.0f,
                                         &token, &value),
                         cudaErrorInvalidValue);
}

// The CPU's draws: the same tokens with AVX-512, whose order of sums the kernel follows. AVX2 adds in another
// order, so that a draw on the very edge between two tokens may differ.
template <typename T> void check_draws(int64_t rows, int64_t codebook) {
    const cpu device;
    philox_stream numbers = random_numbers();
    std::vector<float> logits = random_values<T>(&numbers, rows * codebook, 5.0f);
    for (size_t i = 3; i < logits.size(); i += 11) // some are never drawn
        logits[i] = -INFINITY;
    const size_t n = static_cast<size_t>(rows);
    std::vector<uint32_t> samples(n);
    for (size_t i = 0; i < n; i++)
        samples[i] = static_cast<uint32_t>(5 * i + 2);
    const sample_state state = {5, 3, 7};
    const draw_state same_state = {5, 3, 7};
    std::vector<int32_t> tokens(n);
    std::vector<float> log_p(n), scratch(logits.size());
    sample_position position = {};
    position.state = &state;
    position.level = 1;
    position.samples = samples.data();
    const sample_terms terms = {0.9f, 0, 0.0f};
    op_sample(device, rows, codebook, logits.data(), &terms, &position, tokens.data(), log_p.data(),
              scratch.data());
    const buffer<T> input(stored<T>(logits));
    const buffer<draw_state> state_given(std::vector<draw_state>(1, same_state));
    const buffer<uint32_t> samples_given(samples);
    const draw_position place = {state_given.data(), 1, samples_given.data()};
    const auto found = in_every_order(
        std::make_tuple(poisoned<int32_t>(rows), poisoned<float>(rows)), [&](int32_t *to, float *p) {
            return sample(nullptr, rows, codebook, input.data(), draw_terms{0.9f, 0, 0.0f}, place, to, p);
        });
    int64_t different = 0;
    for (size_t i = 0; i < n; i++)
        different += std::get<0>(found)[i] != tokens[i];
    record(named<T>("sample, tokens that the CPU draws otherwise"), static_cast<double>(different),
           static_cast<double>(rows / 500 + 1));
    if (std::string(device_instruction_set(device)) == "avx512")
        assert_int_equal(different, 0);
    assert_true(different <= rows / 500 + 1);
    const buffer<int32_t> drawn(std::get<0>(found));
    const auto scored = once(std::make_tuple(poisoned<float>(rows)), [&](float *p) {
        return log_probability(nullptr, rows, codebook, input.data(), 0.9f, drawn.data(), p);
    });
    assert_true(same_bytes(std::get<0>(scored), std::get<1>(found)));
}

void test_draws(void **) {
    for (int64_t codebook : codebooks)
        check_draws<float>(67, codebook);
    check_draws<float>(1500, 48);
    check_draws<bf16>(67, 1024);
    check_draws<bf16>(1, 528);
}

// Which tokens top-k and top-p leave, by sorting.
std::vector<bool> kept_by_sorting(const std::vector<float> &logits, float temperature, int top_k,
                                  float top_p) {
    std::vector<float> z = logits;
    for (float &x : z)
        x *= 1.0f / temperature;
    std::vector<float> sorted = z;
    std::sort(sorted.begin(), sorted.end(), [](float a, float b) { return a > b; });
    const size_t k =
        top_k > 0 && static_cast<size_t>(top_k) < z.size() ? static_cast<size_t>(top_k) : z.size();
    const float lowest = sorted[k - 1];
    double total = 0.0, above = 0.0;
    for (float x : z)
        if (x >= lowest)
            total += std::exp(static_cast<double>(x - sorted[0]));
    float threshold = lowest;
    for (size_t i = 0; i < sorted.size() && sorted[i] >= lowest; i++) {
        above += std::exp(static_cast<double>(sorted[i] - sorted[0]));
        if (above >= static_cast<double>(top_p) * total) {
            threshold = sorted[i];
            break;
        }
    }
    std::vector<bool> kept(z.size());
    for (size_t i = 0; i < z.size(); i++)
        kept[i] = z[i] >= threshold && z[i] > -INFINITY;
    return kept;
}

// Draws of one row under several cuts, against the distribution function of what a sort leaves, inverted in
// double at the same random number.
void test_cuts(void **) {
    const cpu device;
    const int64_t codebook = 48, draws = 24;
    philox_stream numbers = random_numbers();
    std::vector<float> one = random_values<bf16>(&numbers, codebook);
    one[5] = one[17] = one[30]; // ties
    one[11] = -INFINITY;
    std::vector<float> logits;
    std::vector<uint32_t> samples;
    for (int64_t i = 0; i < draws; i++) {
        logits.insert(logits.end(), one.begin(), one.end());
        samples.push_back(static_cast<uint32_t>(i));
    }
    const buffer<float> input(logits);
    const buffer<draw_state> state_given(std::vector<draw_state>(1, draw_state{8, 1, 9}));
    const buffer<uint32_t> samples_given(samples);
    const draw_position place = {state_given.data(), 2, samples_given.data()};
    static const struct {
        int top_k;
        float top_p;
    } cuts[] = {{1, 1.0f},  {2, 1.0f}, {10, 1.0f}, {47, 1.0f}, {500, 1.0f},
                {0, 1e-9f}, {0, 0.3f}, {0, 0.9f},  {12, 0.8f}, {0, 0.9999999f}};
    for (const auto &c : cuts) {
        const std::vector<bool> kept = kept_by_sorting(one, 0.8f, c.top_k, c.top_p);
        std::vector<double> below(1); // the distribution function, not yet divided by its end
        for (size_t i = 0; i < one.size(); i++)
            below.push_back(below.back() + (kept[i] ? std::exp(static_cast<double>(one[i]) / 0.8) : 0.0));
        const auto found = in_every_order(std::make_tuple(poisoned<int32_t>(draws), poisoned<float>(draws)),
                                          [&](int32_t *to, float *p) {
                                              return sample(nullptr, draws, codebook, input.data(),
                                                            draw_terms{0.8f, c.top_k, c.top_p}, place, to, p);
                                          });
        const buffer<int32_t> drawn(std::get<0>(found));
        const auto scored = once(std::make_tuple(poisoned<float>(draws)), [&](float *p) {
            return log_probability(nullptr, draws, codebook, input.data(), 0.8f, drawn.data(), p);
        });
        assert_true(same_bytes(std::get<0>(scored), std::get<1>(found))); // of the whole distribution
        const sample_state state = {8, 1, 9};
        sample_position position = {};
        position.state = &state;
        position.level = 2;
        position.samples = samples.data();
        const sample_terms terms = {0.8f, c.top_k, c.top_p};
        std::vector<int32_t> tokens(samples.size());
        std::vector<float> log_p(samples.size()), scratch(logits.size());
        op_sample(device, draws, codebook, logits.data(), &terms, &position, tokens.data(), log_p.data(),
                  scratch.data());
        assert_true(same_bytes(std::get<0>(found), tokens)); // the CPU cuts the same tokens
        for (size_t i = 0; i < samples.size(); i++) {
            const size_t token = static_cast<size_t>(std::get<0>(found)[i]);
            const double target =
                             static_cast<double>(philox_uniform(philox(8, 1, samples[i], 9, 2).word[0])) *
                             below.back(),
                         slack = 1e-6 * below.back();
            if (!(token < one.size() && kept[token] && below[token] <= target + slack &&
                  target < below[token + 1] + slack))
                fail_msg("top-k %d, top-p %g: draw %zu is token %zu", c.top_k, static_cast<double>(c.top_p),
                         i, token);
        }
    }
}

template <typename T> void check_embedding(int64_t rows, int64_t entries, int64_t width, int kind) {
    const cpu device;
    philox_stream numbers = random_numbers();
    const int tables = 3;
    std::vector<std::vector<float>> table;
    std::vector<std::vector<int32_t>> index;
    std::vector<buffer<T>> table_given;
    std::vector<buffer<int32_t>> index_given;
    for (int t = 0; t < tables; t++) {
        table.push_back(random_values<T>(&numbers, entries * width));
        table_given.emplace_back(stored<T>(table.back()));
        index.push_back(random_tokens(&numbers, rows, entries));
        for (size_t i = 0; i < index.back().size(); i++)
            if (kind == 1)
                index.back()[i] = static_cast<int32_t>(i % 7 != 0 ? 0 : entries - 1); // two entries for all
            else if (kind == 2 || i % 5 == 2)
                index.back()[i] = -1; // nothing, or nothing at all
        index_given.emplace_back(index.back());
    }
    const float *plain_tables[tables];
    const int32_t *indices[tables];
    embedding_tables<T> list = {};
    list.count = tables;
    for (int t = 0; t < tables; t++) {
        plain_tables[t] = table[static_cast<size_t>(t)].data();
        list.table[t] = table_given[static_cast<size_t>(t)].data();
        indices[t] = index[static_cast<size_t>(t)].data();
        list.index[t] = index_given[static_cast<size_t>(t)].data();
    }
    const std::vector<float> before = random_values<T>(&numbers, rows * width);
    for (bool accumulate : {false, true}) {
        std::vector<float> wanted = before;
        op_embedding_sum(device, rows, width, tables, plain_tables, indices, wanted.data(), accumulate);
        const auto found = in_every_order(
            std::make_tuple(accumulate ? stored<T>(before) : poisoned<T>(rows * width)),
            [&](T *out) { return embedding_sum(nullptr, rows, width, list, out, accumulate); });
        expect_close(named<T>("embedding_sum"), plain(std::get<0>(found)), wanted, tolerance<T>(0.0));
    }
    const std::vector<float> start = random_values<float>(&numbers, entries * width);
    std::vector<float> wanted = start;
    op_embedding_backward(device, rows, entries, width, indices[0], before.data(), wanted.data());
    const buffer<T> dout(stored<T>(before));
    const size_t bytes = embedding_backward_scratch_bytes(rows, entries, width);
    const auto found = in_every_order(
        std::make_tuple(start, poisoned<float>(static_cast<int64_t>(bytes / 4))),
        [&](float *to, float *scratch) {
            return embedding_backward(nullptr, rows, entries, width, list.index[0], dout.data(), to, scratch);
        });
    // Many rows share an entry: what the CPU's own sum of them rounds is what may be wrong.
    std::vector<double> exact(start.begin(), start.end());
    for (int64_t at = 0; at < rows * width; at++)
        if (indices[0][at / width] >= 0)
            exact[static_cast<size_t>(indices[0][at / width] * width + at % width)] +=
                static_cast<double>(before[static_cast<size_t>(at)]);
    expect_no_worse(named<T>("embedding_backward"), std::get<0>(found), wanted, exact);
}

void test_importance(void **) {
    for (int64_t rows : {1, 257})
        for (float clip : {0.0f, 0.1f}) {
            const cpu device;
            philox_stream numbers = random_numbers();
            const std::vector<float> scored = random_values<float>(&numbers, rows),
                                     sampled = random_values<float>(&numbers, rows),
                                     advantages = random_values<float>(&numbers, rows);
            std::vector<float> ratios(scored.size()), weighed(scored.size());
            op_importance(device, rows, scored.data(), sampled.data(), advantages.data(), 1.2f, clip,
                          ratios.data(), weighed.data());
            const buffer<float> now(scored), then(sampled), given(advantages);
            const auto found = in_every_order(
                std::make_tuple(poisoned<float>(rows), poisoned<float>(rows)), [&](float *r, float *w) {
                    return importance(nullptr, rows, now.data(), then.data(), given.data(), 1.2f, clip, r, w);
                });
            expect_close("importance, ratios", std::get<0>(found), ratios, 1e-6);
            expect_close("importance", std::get<1>(found), weighed, 1e-6);
        }
}

void test_embedding(void **) {
    for (int kind = 0; kind < 3; kind++)
        for (int64_t rows : {1, 31, 129, 1500})
            for (int64_t width : {16, 272}) {
                check_embedding<float>(rows, 48, width, kind);
                check_embedding<bf16>(rows, 5, width, kind);
            }
    check_embedding<float>(300, 2100, 48, 0);
    check_embedding<bf16>(1500, 30000, 16, 0); // more entries than one block counts
}

} // namespace

int main() {
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_losses), cmocka_unit_test(test_masks),      cmocka_unit_test(test_draws),
        cmocka_unit_test(test_cuts),   cmocka_unit_test(test_importance), cmocka_unit_test(test_embedding),
    };
    return cmocka_run_group_tests(tests, begin, report);
}
