// The speed of every kernel: cases at the sizes of the medium configuration, each with the bytes or
// operations that its work needs. The cases also run in the shim, at sizes that are quickly emulated
// (tests/cuda/test_bench.cc), so that a wrong argument shows without a card.
#pragma once

#include "kernels/cuda/kernel.cuh"
#include "tests/cuda/runner.h"

extern "C" {
#include "kernels/cuda/product_cublas.h"
}

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace bench {

using cuda_kernels::bf16;

// Sizes of the cases; those of the learner are one pass over a batch.
struct sizes {
    int64_t rows;                   // positions of a batch of clips
    int64_t width, feed_forward;    // of the temporal transformer
    int heads;                      //
    int64_t depth_width;            // of the depth transformer
    int depth_heads, levels;        //
    int64_t codebook, logit_rows;   // rows of logits of all levels
    int64_t parameters;             // that one update changes
    int batch, frames;              // clips, and positions of each, where a kernel looks at sequences
    int decode_batch, decode_small; // samples of a decoded position
    int64_t attention_rows;         // positions of a batch where the length of its sequences varies
    int64_t attention_width;        //
    std::vector<int> lengths;       // of these sequences
    int multiprocessors;
};
sizes medium_sizes(int multiprocessors);
sizes smallest_sizes(); // that still have more than one tile, chunk and block

// Buffers of one case, freed with it.
class memory {
  public:
    explicit memory(uint64_t seed) : next_seed(seed) {
    }
    ~memory();
    memory(const memory &) = delete;
    memory &operator=(const memory &) = delete;
    // Between -scale and scale; positive: between 0 and scale.
    template <typename T> T *random(int64_t count, float scale = 1.0f, bool positive = false);
    int32_t *indices(int64_t count, int64_t below);
    template <typename T> T *empty(int64_t count) {
        return static_cast<T *>(take(static_cast<size_t>(count) * sizeof(T)));
    }
    template <typename T> T *filled(const std::vector<T> &values) {
        T *out = empty<T>(static_cast<int64_t>(values.size()));
        runner::upload(out, values.data(), values.size() * sizeof(T));
        return out;
    }

  private:
    void *take(size_t bytes);
    std::vector<void *> taken;
    uint64_t next_seed;
};

typedef std::function<cudaError_t(cudaStream_t)> work;

// Copy bandwidth; the rate of large matrix products from bf16, from f32 taken as TF32; none known.
enum class ceiling { COPY, MATRIX, MATRIX_TF32, NONE };

struct kernel_case {
    const char *name;    // "rms_norm"
    const char *storage; // "f32", "bf16"
    // Names and values that define the work, the same for a peer that does it.
    std::vector<std::pair<const char *, int64_t>> shape;
    ceiling limit;
    double amount;       // bytes of global memory, or operations
    const char *formula; // of amount
    std::function<work(memory &)> prepare;
};
typedef std::vector<kernel_case> cases;

// "bf16, 96000 rows, width 1024"
std::string config_of(const kernel_case &c);

template <typename T> constexpr const char *storage_of = sizeof(T) == 2 ? "bf16" : "f32";

void add_row_cases(cases *to, const sizes &s);       // norms, activations, moves, sums
void add_token_cases(cases *to, const sizes &s);     // embeddings, losses, sampling
void add_attention_cases(cases *to, const sizes &s); //
void add_update_cases(cases *to, const sizes &s);    // the optimiser's step
// By cuBLASLt; NULL where cases are only to be named.
void add_product_cases(cases *to, const sizes &s, cublas *products);
// A large square product: what the ceilings are measured with.
kernel_case square_product(int64_t size, const char *storage, cublas *products);

} // namespace bench
