// The vectorised inner loops of the CPU operators. Their sources (vector_*.c) are compiled twice, for AVX2
// and for AVX-512; a device picks one table at start. Each function works on one row, or one head, in one
// thread, and reduces in an order that depends on its own arguments only. Widths, head dimensions and
// codebook sizes are multiples of VECTOR_LANES.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VECTOR_LANES = 16 }; // of the widest code path

// Coefficients of one row of the policy's loss; see policy_row.
typedef struct policy_row_terms {
    float inverse_temperature;
    float policy_weight;  // multiplies -advantage * log pi(action)
    float kl_weight;      // multiplies KL(pi || reference)
    float entropy_weight; // multiplies -entropy
} policy_row_terms;

typedef struct policy_row_result {
    float log_probability; // log pi(action), temperature applied
    float entropy;         // nats
    float kl;              // KL(pi || reference), nats
} policy_row_result;

typedef struct adamw_terms {
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    float correction1, correction2; // 1 / (1 - beta^t)
    float gradient_scale;           // clipping, applied to the gradient as it is read
} adamw_terms;

// One head's view of the attention over a sequence. Rows of queries and outputs are `stride` floats apart.
typedef struct attention_head {
    int head_dim; // a multiple of VECTOR_LANES
    float scale;  // of the scores, 1 / sqrt(head_dim)
    int limit;    // query row r sees the keys [0, limit + r * limit_step)
    int limit_step;
} attention_head;

// Rows of a product that share blocks of weights in the first-level cache, and words of a block.
enum { STRIP_GROUP = 24, STRIP_BLOCK = 64 };

// One pair of strips of a packed weight; see vector_strips.c.
typedef struct strip_shape {
    int64_t words;    // of a row of x and of the pair
    bool packed_x;    // x is [groups][blocks][STRIP_GROUP][STRIP_BLOCK] instead of [rows, words]
    int64_t chunk;    // words that are summed up in one chain; a multiple of 64, or at least `words`
    int outputs;      // of the pair that exist, 1 .. 32
    int64_t y_stride; // floats between rows of y
    bool accumulate;  // add to y
} strip_shape;

typedef struct vector_operators {
    const char *name;
    void (*round_to_bf16)(size_t count, const float *x, uint16_t *out);
    void (*add)(size_t count, const float *x, float *y); // y += x
    void (*scale)(size_t count, float factor, float *x); // x *= factor
    float (*dot)(size_t count, const float *x, const float *y);
    void (*multiply_add_to)(size_t count, float factor, const float *x, float *y); // y += factor * x
    double (*sum_squares)(size_t count, const float *x);
    bool (*all_finite)(size_t count, const float *x);
    void (*adamw)(size_t count, const adamw_terms *terms, const float *gradient, float *parameter,
                  float *first, float *second);

    // Root mean square normalisation (Zhang & Sennrich 2019): out = x * r * gain, r = 1 / sqrt(mean(x^2) +
    // epsilon), which is returned.
    float (*rms_norm)(size_t width, const float *x, const float *gain, float epsilon, float *out);
    // dx += gradient; x as in the forward pass, inverse_rms as it returned.
    void (*rms_norm_backward)(size_t width, const float *x, const float *gain, float inverse_rms,
                              const float *dy, float *dx);

    // SwiGLU (Shazeer 2020): out = silu(gate) * up.
    void (*swiglu)(size_t width, const float *gate, const float *up, float *out);
    void (*swiglu_backward)(size_t width, const float *gate, const float *up, const float *dout, float *dgate,
                            float *dup);

    // Rotary position embedding (Su et al. 2021) of one head's row in place: the pair (i, i + head_dim / 2)
    // is rotated by the angle of `cosine` [head_dim / 2] and `sine`; direction -1 undoes it.
    void (*rotate)(int head_dim, const float *cosine, const float *sine, float direction, float *x);

    // Transposes `rows` rows of head_dim values, `stride` apart, into blocks of one register: [rows /
    // lanes][head_dim] [lanes], which is the layout of packed keys. The last block is filled with zeros.
    void (*pack_lanes)(int head_dim, int rows, const float *x, size_t stride, float *out);
    // Adds one row to packed keys.
    void (*append_key)(int head_dim, int position, const float *key, float *keys);

    // Softmax attention of `rows` queries of one head. keys: packed by pack_lanes; values: [padded rows,
    // head_dim], value_stride apart; scores: scratch [4, padded keys]; log_sum: [rows] or NULL receives the
    // log of each row's softmax denominator.
    void (*attend)(const attention_head *head, int rows, const float *queries, size_t query_stride,
                   const float *keys, const float *values, size_t value_stride, float *scores, float *out,
                   size_t out_stride, float *log_sum);
    // The parts of attend for one query, equal to it to the last bit. Keys, packed, and values [limit,
    // head_dim] are streams from memory, fetched ahead; follow: where this thread will read next.
    // scores [padded] = query [head_dim] . keys, of which `added` [head_dim] becomes the last one.
    void (*score_keys)(const attention_head *head, const float *query, const float *added, float *keys,
                       const float *follow, float *scores);
    // scores -> weights; returns the factor that makes their sum 1.
    float (*softmax_keys)(const attention_head *head, float *scores);
    // out [head_dim] = factor * sum over keys of weights [limit] * values
    void (*weigh_values)(const attention_head *head, const float *weights, float factor, const float *values,
                         const float *follow, float *out);
    // Gradients of attend over a whole sequence. q and dq: rows `stride` apart; k, dk, dv: [rows, head_dim];
    // out and dout: rows `out_stride` apart; scratch: [8, padded]. dq, dk, dv are overwritten.
    void (*attend_backward)(const attention_head *head, int rows, const float *q, size_t stride,
                            const float *k, const float *packed_keys, const float *packed_values,
                            const float *out, const float *dout, size_t out_stride, const float *log_sum,
                            float *scratch, float *dq, float *dk, float *dv);

    // log softmax(logits / temperature)[action].
    float (*log_probability)(size_t count, const float *logits, float inverse_temperature, uint32_t action);
    // Draws from softmax(logits / temperature) by inverting its distribution function at `uniform` in [0, 1).
    // scratch: [count].
    uint32_t (*sample)(size_t count, const float *logits, float inverse_temperature, float uniform,
                       float *scratch);
    // Log-probability, entropy and exact KL from two rows of logits; the gradient of
    //     - policy_weight * advantage * log pi(action) + kl_weight * KL(pi || reference) - entropy_weight *
    //     entropy
    // with respect to the logits overwrites `logits`. reference may be NULL (KL 0). scratch: [2, count].
    policy_row_result (*policy_row)(size_t count, float *logits, const float *reference, uint32_t action,
                                    float advantage, const policy_row_terms *terms, float *scratch);
    // -log softmax(logits)[target]; the gradient times `weight` overwrites the logits if weight is not 0.
    float (*cross_entropy_row)(size_t count, float *logits, uint32_t target, float weight);

    // y [rows, outputs] = x [rows, words] times a pair of packed strips [words][2][16]; `follow` is where
    // this thread will read next. With AVX-512 strips_bf16 wants a processor with AVX512_BF16 besides.
    void (*strips_f32)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                       const void *follow, float *y);
    void (*strips_bf16)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                        const void *follow, float *y);
    // Up to STRIP_GROUP columns of x, `stride` floats between its rows, as one group of the packed x of a
    // product that sums over the rows: [blocks][STRIP_GROUP][STRIP_BLOCK].
    void (*pack_transposed)(int64_t rows, int columns, const float *x, size_t stride, float *out);
} vector_operators;

extern const vector_operators vector_operators_avx2, vector_operators_avx512;
