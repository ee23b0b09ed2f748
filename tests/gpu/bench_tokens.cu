// Embeddings, losses on logits, sampling.
#include "kernels/cuda/embedding.cuh"
#include "kernels/cuda/policy_loss.cuh"
#include "kernels/cuda/sample.cuh"
#include "tests/gpu/bench.cuh"

using namespace cuda_kernels;

namespace bench {

namespace {

template <typename T> void add_embeddings(cases *to, const sizes &s) {
    const int64_t rows = s.rows, width = s.width, entries = s.codebook, count = rows * width;
    const int tables = s.levels;
    const double row_bytes = static_cast<double>(sizeof(T)) * static_cast<double>(count);
    to->push_back({"embedding_sum",
                   storage_of<T>,
                   {{"rows", rows}, {"width", width}, {"entries", entries}, {"tables", tables}},
                   ceiling::COPY,
                   row_bytes + 4.0 * static_cast<double>(rows * tables),
                   "indices read, rows written (the tables are read from the caches)",
                   [=](memory &m) -> work {
                       embedding_tables<T> list = {};
                       list.count = tables;
                       for (int t = 0; t < tables; t++) {
                           list.table[t] = m.random<T>(entries * width);
                           list.index[t] = m.indices(rows, entries);
                       }
                       T *out = m.empty<T>(count);
                       return [=](cudaStream_t stream) {
                           return embedding_sum(stream, rows, width, list, out, false);
                       };
                   }});
    to->push_back(
        {"embedding_backward",
         storage_of<T>,
         {{"rows", rows}, {"width", width}, {"entries", entries}},
         ceiling::COPY,
         row_bytes + 20.0 * static_cast<double>(rows) + 8.0 * static_cast<double>(entries * width),
         "dout read, indices sorted, entries read and written",
         [=](memory &m) -> work {
             const int32_t *index = m.indices(rows, entries);
             const T *dout = m.random<T>(count);
             float *dtable = m.random<float>(entries * width);
             void *scratch =
                 m.empty<char>(static_cast<int64_t>(embedding_backward_scratch_bytes(rows, entries, width)));
             return [=](cudaStream_t stream) {
                 return embedding_backward(stream, rows, entries, width, index, dout, dtable, scratch);
             };
         }});
}

template <typename T> void add_losses(cases *to, const sizes &s) {
    const int64_t rows = s.logit_rows, codebook = s.codebook, count = rows * codebook;
    const double values = static_cast<double>(sizeof(T)) * static_cast<double>(count);
    const std::vector<std::pair<const char *, int64_t>> shape = {{"rows", rows}, {"codebook", codebook}};
    to->push_back({"log_probability", storage_of<T>, shape, ceiling::COPY, values, "logits read",
                   [=](memory &m) -> work {
                       const T *logits = m.random<T>(count, 4.0f);
                       const int32_t *tokens = m.indices(rows, codebook);
                       float *out = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return log_probability(stream, rows, codebook, logits, 0.99f, tokens, out);
                       };
                   }});
    to->push_back({"policy_loss", storage_of<T>, shape, ceiling::COPY, 3.0 * values,
                   "logits and the reference's read, the gradient written", [=](memory &m) -> work {
                       T *logits = m.random<T>(count, 4.0f);
                       const T *reference = m.random<T>(count, 4.0f);
                       const int32_t *actions = m.indices(rows, codebook);
                       const float *advantages = m.random<float>(rows);
                       float *log_p = m.empty<float>(rows), *entropy = m.empty<float>(rows),
                             *kl = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return policy_loss(stream, rows, codebook, logits, reference, actions, advantages,
                                              policy_terms{0.99f, 0.9f, 0.1f, 0.0f}, log_p, entropy, kl);
                       };
                   }});
    to->push_back({"cross_entropy", storage_of<T>, shape, ceiling::COPY, 2.0 * values,
                   "logits read, the gradient written", [=](memory &m) -> work {
                       T *logits = m.random<T>(count, 4.0f);
                       const int32_t *targets = m.indices(rows, codebook);
                       float *losses = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return cross_entropy(stream, rows, codebook, logits, targets, 1.0f, losses);
                       };
                   }});
}

void add_importance(cases *to, const sizes &s) {
    const int64_t rows = s.logit_rows;
    to->push_back({"importance",
                   "f32",
                   {{"rows", rows}},
                   ceiling::COPY,
                   20.0 * static_cast<double>(rows),
                   "two log-probabilities and the advantage read, ratio and weight written",
                   [=](memory &m) -> work {
                       const float *scored = m.random<float>(rows), *sampled = m.random<float>(rows),
                                   *advantages = m.random<float>(rows);
                       float *ratios = m.empty<float>(rows), *weighed = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return importance(stream, rows, scored, sampled, advantages, 2.0f, 0.2f, ratios,
                                             weighed);
                       };
                   }});
}

template <typename T> void add_draws(cases *to, const sizes &s, const char *name, draw_terms terms) {
    const int64_t rows = s.logit_rows, codebook = s.codebook, count = rows * codebook;
    to->push_back({name,
                   storage_of<T>,
                   {{"rows", rows}, {"codebook", codebook}},
                   ceiling::COPY,
                   static_cast<double>(sizeof(T)) * static_cast<double>(count),
                   "logits read",
                   [=](memory &m) -> work {
                       const T *logits = m.random<T>(count, 4.0f);
                       std::vector<uint32_t> numbers(static_cast<size_t>(rows));
                       for (size_t i = 0; i < numbers.size(); i++)
                           numbers[i] = static_cast<uint32_t>(i);
                       const draw_state *state = m.filled(std::vector<draw_state>(1, draw_state{5, 3, 7}));
                       const uint32_t *samples = m.filled(numbers);
                       int32_t *tokens = m.empty<int32_t>(rows);
                       float *log_p = m.empty<float>(rows);
                       return [=](cudaStream_t stream) {
                           return sample(stream, rows, codebook, logits, terms,
                                         draw_position{state, 1, samples}, tokens, log_p);
                       };
                   }});
}

} // namespace

void add_token_cases(cases *to, const sizes &s) {
    add_embeddings<bf16>(to, s);
    add_embeddings<float>(to, s);
    add_losses<bf16>(to, s);
    add_losses<float>(to, s);
    add_importance(to, s);
    add_draws<bf16>(to, s, "sample", draw_terms{0.99f, 0, 1.0f});
    add_draws<float>(to, s, "sample", draw_terms{0.99f, 0, 1.0f});
    add_draws<bf16>(to, s, "sample, top-k 50, top-p 0.9", draw_terms{0.99f, 50, 0.9f});
}

} // namespace bench
