// Operators on device buffers, f32 and row-major unless said otherwise. Outputs are overwritten unless a
// comment says "+=". Every reduction has one order, whatever the thread count; a row's result does not depend
// on the rows around it. Widths, head dimensions and codebook sizes are multiples of 16.
#pragma once

#include "kernels/device.h"

enum { EMBEDDING_TABLES_MAX = 20 };

// out [bytes] = 0
void op_zero(device *device, size_t bytes, void *out);

// out [rows, width] = x
void op_store_activations(device *device, int64_t rows, int64_t width, const float *x, activation *out);

// out [rows, width] = x * r * gain [width], r = 1 / sqrt(mean(x^2) + epsilon); inverse_rms: [rows], NULL if
// not wanted. copy: [rows, width] or NULL receives x, ready to have a product added to it.
void op_rms_norm(device *device, int64_t rows, int64_t width, const float *x, const float *gain,
                 float epsilon, activation *out, float *inverse_rms, float *copy);
// The same in f32: what leaves a transformer.
void op_rms_norm_last(device *device, int64_t rows, int64_t width, const float *x, const float *gain,
                      float epsilon, float *out, float *inverse_rms);
// Of both: dx [rows, width] += ..., dgain [width] += ...
void op_rms_norm_backward(device *device, int64_t rows, int64_t width, const float *x, const float *gain,
                          const float *inverse_rms, const activation *dy, float *dx, float *dgain);

// gate_up: [rows, 2 * width], gate first; out: [rows, width] = silu(gate) * up.
void op_swiglu(device *device, int64_t rows, int64_t width, const activation *gate_up, activation *out);
void op_swiglu_backward(device *device, int64_t rows, int64_t width, const activation *gate_up,
                        const activation *dout, activation *dgate_up);

// A rotary table for positions [0, positions): cosine and sine, [positions, head_dim / 2] each, base 10000.
void op_rotary_table(device *device, int positions, int head_dim, float *cosine, float *sine);

// Shape of a self-attention over qkv rows [batch * sequence, 3 * heads * head_dim]: queries, keys, values.
typedef struct attention_shape {
    int batch, sequence, heads, head_dim;
    bool causal;
    const int32_t *lengths; // [batch] keys that exist, 1 .. sequence; NULL: all. Not together with causal.
    const float *cosine, *sine; // rotary table
    // Positions that the model was made for, 0: `sequence`. Where sums go another way over long sequences
    // than over short ones, this decides, so that a row is the same in whatever sequence it stands.
    int longest;
} attention_shape;

// Rotates queries and keys in place, then out [batch * sequence, heads * head_dim] = softmax(q k^T /
// sqrt(head_dim)) v. log_sum: [batch, heads, sequence] or NULL. scratch: attention_scratch_floats floats.
void op_attention(device *device, const attention_shape *shape, activation *qkv, activation *out,
                  float *log_sum, float *scratch);
// qkv as op_attention left it; dqkv: as qkv, with respect to the values before rotation.
void op_attention_backward(device *device, const attention_shape *shape, const activation *qkv,
                           const activation *out, const float *log_sum, const activation *dout,
                           activation *dqkv, float *scratch);
size_t attention_scratch_floats(const device *device, const attention_shape *shape);

// One position of causal attention for a batch: qkv [batch, 3 * heads * head_dim] at `position` is rotated,
// its keys and values are appended to the cache, and out [batch, heads * head_dim] attends to positions 0 ..
// position. On the CPU equal to the last bit to the same row of op_attention. key_cache, value_cache: [batch,
// heads, padded capacity, head_dim] each, zeroed before first use; scratch: attention_scratch_floats for
// sequence = capacity.
void op_attention_decode(device *device, const attention_shape *capacity, int position, activation *qkv,
                         activation *key_cache, activation *value_cache, activation *out, float *scratch);
// Puts the keys and values of the first `positions` rows of every sample, as op_attention left them in qkv
// [batch * positions, ...], into the caches, from where op_attention_decode goes on.
void op_attention_fill_cache(device *device, const attention_shape *capacity, int positions,
                             const activation *qkv, activation *key_cache, activation *value_cache);
// Of each of the two caches.
size_t attention_cache_bytes(const device *device, const attention_shape *capacity);

// out [rows, width] (+)= sum over tables of table[t][index[t][row]]; a negative index adds nothing.
void op_embedding_sum(device *device, int64_t rows, int64_t width, int tables, const float *const *table,
                      const int32_t *const *index, float *out, bool accumulate);
// dtable [entries, width] += the rows of dout that looked up each entry.
void op_embedding_backward(device *device, int64_t rows, int64_t entries, int64_t width, const int32_t *index,
                           const float *dout, float *dtable);

// Copies `rows` rows of `width` values between strides (in floats), adding if accumulate.
void op_copy_rows(device *device, int64_t rows, int64_t width, const float *from, int64_t from_stride,
                  float *to, int64_t to_stride, bool accumulate);
// to [rows, repeat, width] = from [rows, width]
void op_repeat_rows(device *device, int64_t rows, int64_t repeat, int64_t width, const float *from,
                    float *to);
// to [rows, width] = sum over repeat of from [rows, repeat, width]
void op_sum_repeated(device *device, int64_t rows, int64_t repeat, int64_t width, const float *from,
                     float *to);
// out [width] += column sums of x [rows, width].
void op_column_sums(device *device, int64_t rows, int64_t width, const float *x, float *out);

// out [rows] = x [rows, width] . vector [width] + bias [1]; bias NULL: 0.
void op_row_dot(device *device, int64_t rows, int64_t width, const float *x, const float *vector,
                const float *bias, float *out);
// dx [rows, width] = dout [rows] vector; dvector [width] and dbias [1] += ...; dbias NULL:
// not wanted.
void op_row_dot_backward(device *device, int64_t rows, int64_t width, const float *x, const float *vector,
                         const float *dout, float *dx, float *dvector, float *dbias);

// out [batch, width] = mean over the first lengths[b] rows of x [batch, sequence, width]; lengths NULL: all
// rows.
void op_mean_pool(device *device, int batch, int sequence, int64_t width, const int32_t *lengths,
                  const float *x, float *out);
void op_mean_pool_backward(device *device, int batch, int sequence, int64_t width, const int32_t *lengths,
                           const float *dout, float *dx);

// Autocorrelation over time, of every channel for itself: x [batch, sequence, channels] is centred in place
// by its mean over the sequence; then out [batch, lags, channels], lag 1 first, = r * sum_t x_t x_{t + lag}
// with r = 1 / (sum_t x_t^2 + sequence * epsilon), which inverse_energies [batch, channels] receives. lags <
// sequence.
void op_autocorrelation(device *device, int batch, int sequence, int64_t channels, int lags, float epsilon,
                        float *x, float *out, float *inverse_energies);
// x, out and inverse_energies as op_autocorrelation left them; dx: [batch, sequence, channels], with respect
// to the values before centring. scratch: [batch, channels].
void op_autocorrelation_backward(device *device, int batch, int sequence, int64_t channels, int lags,
                                 const float *x, const float *out, const float *inverse_energies,
                                 const float *dout, float *dx, float *scratch);

// How much every channel of x [batch, sequence, channels] varies over time, and how much from one moment to
// the next: out [batch, 2, channels] = log(scale * v + epsilon) with v = mean_t (x_t - mean)^2, then with
// v = mean_t (x_{t + 1} - x_t)^2. sequence >= 2.
void op_time_variation(device *device, int batch, int sequence, int64_t channels, float scale, float epsilon,
                       const float *x, float *out);
// out as op_time_variation left it; adds to dx [batch, sequence, channels].
void op_time_variation_backward(device *device, int batch, int sequence, int64_t channels, float scale,
                                const float *x, const float *out, const float *dout, float *dx);

// out [rows, width] = x / |x|; inverse_norms [rows] = 1 / max(|x|, 1e-12).
void op_normalize_rows(device *device, int64_t rows, int64_t width, const float *x, float *out,
                       float *inverse_norms);
void op_normalize_rows_backward(device *device, int64_t rows, int64_t width, const float *out,
                                const float *inverse_norms, const float *dout, float *dx);

// The symmetric contrastive loss of matching rows (CLIP, Radford et al. 2021; MuLan, Huang et al. 2022): the
// mean of the cross-entropies of scale * a b^T [rows, rows] over rows and over columns, the diagonal being
// right. Returns the loss; da, db [rows, width] are overwritten, *dscale, on the host, receives the scale's
// gradient.
// scratch: [2, rows, rows].
double op_contrastive_loss(device *device, int64_t rows, int64_t width, const float *a, const float *b,
                           float scale, float *da, float *db, float *dscale, float *scratch);

// Where the draws of a rollout stand: random numbers are a function of seed, step, sample, frame and level
// alone.
typedef struct sample_state {
    uint64_t seed;
    uint32_t step;
    int32_t frame;
} sample_state;
typedef struct sample_position {
    const sample_state *state; // [1] on the device
    uint32_t level;
    const uint32_t *samples; // [rows] index of each row's sample in its step
} sample_position;

// What is drawn from: softmax(logits / temperature), or a part of it.
typedef struct sample_terms {
    float temperature;
    int top_k;   // only the k most probable tokens, and those as probable as the k-th; 0: all
    float top_p; // of these, the most probable ones that together have at least this share; 0 or 1: all
} sample_terms;

// Draws tokens [rows] for logits [rows, codebook], and their log-probabilities [rows], which are those of the
// whole distribution, as scoring finds them. At least one token is always left. scratch: [rows, codebook].
void op_sample(device *device, int64_t rows, int64_t codebook, const float *logits, const sample_terms *terms,
               const sample_position *position, int32_t *tokens, float *log_probabilities, float *scratch);

// What is repeated (device_repeat) counts on the device: ++*counter; and keeps a row of its results: row
// *index of to [.., width] = from [width].
void op_advance(device *device, int32_t *counter);
void op_put_row(device *device, const int32_t *index, int64_t width, const int32_t *from, int32_t *to);

// log softmax(logits / temperature)[tokens]; logits [rows, codebook], tokens and out [rows].
void op_log_probability(device *device, int64_t rows, int64_t codebook, const float *logits,
                        float temperature, const int32_t *tokens, float *out);

// Whether PPO's objective min(ratio A, clip(ratio) A) of a token is the constant one: with clip > 0, where
// the ratio has left [1 - clip, 1 + clip] in the direction of the advantage A.
static inline bool importance_is_clipped(float ratio, float advantage, float clip) {
    return clip > 0.0f &&
           ((advantage > 0.0f && ratio > 1.0f + clip) || (advantage < 0.0f && ratio < 1.0f - clip));
}
// What tokens that other weights drew count for, all [rows]: ratios = exp(scored - sampled),
// log-probabilities now and then; weighed = advantages * min(ratio, cap), or 0 where clipped.
void op_importance(device *device, int64_t rows, const float *scored, const float *sampled,
                   const float *advantages, float cap, float clip, float *ratios, float *weighed);

typedef struct policy_loss_terms {
    float temperature;
    float policy_weight, kl_weight, entropy_weight;
} policy_loss_terms;

// Per row: log-probability of the action, entropy, exact KL(policy || reference) in nats, all [rows]; the
// gradient of sum over rows of - policy_weight * advantage * log pi(action) + kl_weight * KL - entropy_weight
// * entropy overwrites logits [rows, codebook]. reference: [rows, codebook] or NULL. scratch:
// policy_loss_scratch_floats floats.
void op_policy_loss(device *device, int64_t rows, int64_t codebook, float *logits, const float *reference,
                    const int32_t *actions, const float *advantages, const policy_loss_terms *terms,
                    float *log_probabilities, float *entropies, float *kls, float *scratch);
size_t policy_loss_scratch_floats(const device *device, int64_t codebook);

// losses [rows] = -log softmax(logits)[targets]; with weight != 0 its gradient times weight overwrites the
// logits.
void op_cross_entropy(device *device, int64_t rows, int64_t codebook, float *logits, const int32_t *targets,
                      float weight, float *losses);

// x [count] *= factor
void op_scale(device *device, size_t count, float factor, float *x);

// One slot of a balanced tree of sums (comm/tree.h): values [count] = partial 0 + values, then partial 1 +
// that, and so on for the first `depth` of them; if keep, partial `depth` = values. Partial l: [count] at
// partial + l * stride.
void op_add_slot(device *device, size_t count, int depth, bool keep, size_t stride, float *partial,
                 float *values);

// Sum of squares in double, over fixed chunks added in order.
double op_sum_squares(device *device, size_t count, const float *x);
bool op_all_finite(device *device, size_t count, const float *x);

typedef struct adamw_step {
    float learning_rate, beta1, beta2, epsilon, weight_decay;
    float gradient_scale;
    int64_t step; // 1 for the first update; bias correction
} adamw_step;
// Decoupled weight decay (Loshchilov & Hutter 2019); parameter, first and second moment in place.
void op_adamw(device *device, size_t count, const adamw_step *step, const float *gradient, float *parameter,
              float *first, float *second);
