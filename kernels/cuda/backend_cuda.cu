// Every function of the table of a backend, on the card. Activations are stored as f32 or as bf16, everything
// else as the operators have it. Products take f32 as TF32, or rounded to bf16 where the weight is; attention
// rounds what it multiplies to bf16.
// Kernels follow one another on the card's stream; nothing waits but what returns a value to the host.
#include "kernels/cuda/backend_cuda.cuh"

#include "kernels/cuda/activation.cuh"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/autocorrelation.cuh"
#include "kernels/cuda/backend_parts.cuh"
#include "kernels/cuda/contrastive.cuh"
#include "kernels/cuda/embedding.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/policy_loss.cuh"
#include "kernels/cuda/rotary.cuh"
#include "kernels/cuda/row_trial.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/sample.cuh"
#include "kernels/cuda/softmax.cuh"
#include "kernels/cuda/time_variation.cuh"
#include "kernels/cuda/update.cuh"

extern "C" {
#include "kernels/host_threads.h"
#include "kernels/library_version.h"
#include "kernels/memory.h"
}

#include <cmath>
#include <cstdio>
#include <cstring>

using namespace cuda_kernels;

namespace {

// Enough for most models, so that what a plan counted is nearly all that is taken.
constexpr size_t FIRST_SCRATCH_BYTES = static_cast<size_t>(64) << 20;

void forget(device *d, kept_work *k) {
    card_forget(d->gpu, k->recording);
    *k = {};
}

// What launch(T()) returns, T being the type in which activations are stored.
template <typename Launch> cudaError_t as_stored(const device *d, Launch launch) {
    return d->bf16 ? launch(bf16()) : launch(float());
}

} // namespace

status cuda_kernels::grow(device *d, void **buffer, size_t *bytes, size_t wanted, const char *what) {
    if (*bytes >= wanted)
        return STATUS_OK;
    // What still uses the smaller one must have ended, and what is kept may have its address.
    TRY(card_finish(d->gpu));
    for (kept_work &k : d->kept)
        forget(d, &k);
    card_free(d->gpu, *buffer);
    *bytes = 0;
    TRY(card_allocate(d->gpu, buffer, wanted, what));
    *bytes = wanted;
    return STATUS_OK;
}

namespace {

// NULL where there is no memory: the failure is noted, and the operator does nothing.
void *scratch_of(device *d, size_t bytes) {
    if (grow(d, &d->scratch, &d->scratch_bytes, bytes > 0 ? bytes : 16, "scratch of kernels") == STATUS_OK)
        return d->scratch;
    card_note_message(d->gpu);
    return nullptr;
}

// The memory of the device.
int cuda_device_threads(const device *d) {
    return d->threads;
}

const char *cuda_device_name(const device *d) {
    return card_name(d->gpu);
}

const char *cuda_device_card(const device *d) {
    return card_bus(d->gpu);
}

const char *cuda_device_instruction_set(const device *d) {
    return d->architecture;
}

const char *cuda_device_library(const device *d) {
    return d->library;
}

bool cuda_device_is_batch_invariant(const device *) {
    return false; // no measurement has shown it
}

bool cuda_device_shares_memory(const device *) {
    return false;
}

device_limits cuda_device_get_limits(const device *) {
    return {HEAD_DIM_MAX, static_cast<int>(NORM_WIDTH_MAX), static_cast<int>(CODEBOOK_MAX)};
}

size_t cuda_device_activation_bytes(const device *d) {
    return d->bf16 ? sizeof(bf16) : sizeof(float);
}

status cuda_device_allocate(device *d, void **out, size_t bytes, const char *what) {
    return card_allocate(d->gpu, out, bytes, what);
}

void cuda_device_free(device *d, void *pointer) {
    card_free(d->gpu, pointer);
}

status cuda_device_upload(device *d, void *to, const void *from, size_t bytes) {
    return card_upload(d->gpu, to, from, bytes);
}

status cuda_device_download(device *d, void *to, const void *from, size_t bytes) {
    return card_download(d->gpu, to, from, bytes);
}

status cuda_device_finish(device *d) {
    return card_finish(d->gpu);
}

bool cuda_device_pin(device *d, void *host, size_t bytes) {
    return card_pin(d->gpu, host, bytes);
}

void cuda_device_unpin(device *d, void *host) {
    card_unpin(d->gpu, host);
}

// A lane of the device is one of the card.
card_lane *lane_of(device_lane *lane) {
    return reinterpret_cast<card_lane *>(lane);
}

status cuda_device_lane_open(device *d, device_lane **out) {
    return card_lane_open(reinterpret_cast<card_lane **>(out), d->gpu);
}

void cuda_device_lane_close(device *, device_lane *lane) {
    card_lane_close(lane_of(lane));
}

void *cuda_device_lane_stream(device *, const device_lane *lane) {
    return card_lane_stream(reinterpret_cast<const card_lane *>(lane));
}

status cuda_device_lane_follow(device *, device_lane *lane) {
    return card_lane_follow(lane_of(lane));
}

status cuda_device_lane_ended(device *, device_lane *lane, bool *ended) {
    return card_lane_ended(lane_of(lane), ended);
}

// The work kept for this owner and key, or else what is to make room for it.
kept_work *find_kept(device *d, const void *owner, uint64_t key) {
    kept_work *oldest = &d->kept[0];
    for (kept_work &k : d->kept) {
        if (k.owner == owner && k.key == key)
            return &k;
        if (k.used < oldest->used)
            oldest = &k;
    }
    return oldest;
}

status record(device *d, status (*step)(void *context), void *context, void **out) {
    TRY(card_record_begin(d->gpu));
    const status stepped = step(context), ended = card_record_end(d->gpu, out);
    if (stepped == STATUS_OK)
        return ended;
    card_forget(d->gpu, *out);
    return stepped;
}

status cuda_device_repeat(device *d, const void *owner, uint64_t key, int count,
                          status (*step)(void *context), void *context) {
    if (count <= 0)
        return STATUS_OK;
    kept_work *k = find_kept(d, owner, key);
    int left = count;
    if (k->owner != owner || k->key != key) {
        void *recording;
        // Once as it is: what is loaded or allocated at a first call would fail a recording.
        TRY(step(context));
        left--;
        forget(d, k);
        TRY(record(d, step, context, &recording));
        *k = {owner, key, 0, recording};
    }
    k->used = ++d->repeats;
    for (int i = 0; i < left; i++)
        card_replay(d->gpu, k->recording);
    return card_check(d->gpu);
}

void cuda_device_forget(device *d, const void *owner) {
    for (kept_work &k : d->kept)
        if (k.owner == owner)
            forget(d, &k);
}

status cuda_device_read_memory(device *d, device_memory *out) {
    card_memory memory;
    TRY(card_read_memory(d->gpu, &memory));
    *out = {memory.live_bytes, memory.peak_bytes, memory.free_bytes, memory.total_bytes};
    return STATUS_OK;
}

void cuda_op_zero(device *d, size_t bytes, void *out) {
    card_zero(d->gpu, out, bytes);
}

// Blocks of a transformer.
void cuda_op_store_activations(device *d, int64_t rows, int64_t width, const float *x, activation *out) {
    note(d,
         d->bf16 ? round_to_bf16(stream_of(d), rows * width, x, stored<bf16>(out))
                 : copy_rows<float>(stream_of(d), rows, width, x, width, stored<float>(out), width, false),
         "storing activations");
}

void cuda_op_rms_norm(device *d, int64_t rows, int64_t width, const float *x, const float *gain,
                      float epsilon, activation *out, float *inverse_rms, float *copy) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return rms_norm<float, T>(stream_of(d), rows, width, x, nullptr, gain, epsilon,
                                                 stored<T>(out), inverse_rms, copy);
                   }),
         "normalisation");
}

void cuda_op_rms_norm_last(device *d, int64_t rows, int64_t width, const float *x, const float *gain,
                           float epsilon, float *out, float *inverse_rms) {
    note(d,
         rms_norm<float, float>(stream_of(d), rows, width, x, nullptr, gain, epsilon, out, inverse_rms,
                                nullptr),
         "normalisation");
}

void cuda_op_rms_norm_backward(device *d, int64_t rows, int64_t width, const float *x, const float *gain,
                               const float *inverse_rms, const activation *dy, float *dx, float *dgain) {
    float *scratch =
        static_cast<float *>(scratch_of(d, sizeof(float) * norm_backward_scratch_floats(rows, width)));
    if (scratch == nullptr)
        return;
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return rms_norm_backward<float, T>(stream_of(d), rows, width, x, gain, inverse_rms,
                                                          stored<T>(dy), dx, dgain, scratch);
                   }),
         "normalisation backward");
}

void cuda_op_swiglu(device *d, int64_t rows, int64_t width, const activation *gate_up, activation *out) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return swiglu<T>(stream_of(d), rows, width, stored<T>(gate_up), stored<T>(out));
                   }),
         "activation");
}

void cuda_op_swiglu_backward(device *d, int64_t rows, int64_t width, const activation *gate_up,
                             const activation *dout, activation *dgate_up) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return swiglu_backward<T>(stream_of(d), rows, width, stored<T>(gate_up),
                                                 stored<T>(dout), stored<T>(dgate_up));
                   }),
         "activation backward");
}

void cuda_op_rotary_table(device *d, int positions, int head_dim, float *cosine, float *sine) {
    const int half = head_dim / 2;
    const size_t count = static_cast<size_t>(positions) * static_cast<size_t>(half);
    float *table = nullptr;
    if (memory_allocate(reinterpret_cast<void **>(&table), 2 * sizeof(float) * count, "rotary table") !=
        STATUS_OK) {
        note(d, cudaErrorMemoryAllocation, "making a rotary table");
        return;
    }
    for (int p = 0; p < positions; p++)
        for (int i = 0; i < half; i++) {
            const double angle = p * std::pow(10000.0, -2.0 * i / head_dim);
            table[p * half + i] = static_cast<float>(std::cos(angle));
            table[count + static_cast<size_t>(p * half + i)] = static_cast<float>(std::sin(angle));
        }
    // A failed copy is kept by the card.
    (void)card_upload(d->gpu, cosine, table, sizeof(float) * count);
    (void)card_upload(d->gpu, sine, table + count, sizeof(float) * count);
    memory_free(table);
}

attention_sizes sizes_of(const attention_shape *s) {
    return {s->batch, s->sequence, s->heads, s->head_dim, s->causal, s->lengths};
}

int longest_of(const attention_shape *s) {
    return s->longest > 0 ? s->longest : s->sequence;
}

decode_sizes decode_sizes_of(const attention_shape *capacity, int position, const int32_t *offset) {
    return {capacity->batch, capacity->heads, capacity->head_dim, capacity->sequence, longest_of(capacity),
            position,        offset};
}

bool is_short(const attention_shape *s) {
    return s->causal && s->sequence <= SHORT_SEQUENCE;
}

// Rotates queries and keys, or back with direction -1.
template <typename T> cudaError_t rotate(device *d, const attention_shape *s, float direction, T *qkv) {
    return rotary_rows<T>(stream_of(d), static_cast<int64_t>(s->batch) * s->sequence, s->sequence, s->heads,
                          s->head_dim, s->cosine, s->sine, direction, qkv);
}

template <typename T>
cudaError_t attend(device *d, const attention_shape *s, T *qkv, T *out, float *log_sum) {
    const bool as_decoded = d->one_order && s->causal;
    if (is_short(s) && !as_decoded)
        return attention_short_forward<T>(stream_of(d), sizes_of(s), s->cosine, s->sine, qkv, out, log_sum);
    const cudaError_t error = rotate(d, s, 1.0f, qkv);
    if (error != cudaSuccess)
        return error;
    return as_decoded ? attention_rows<T>(stream_of(d), sizes_of(s), longest_of(s), qkv, out, log_sum)
                      : attention_forward<T>(stream_of(d), sizes_of(s), qkv, out, log_sum);
}

template <typename T>
cudaError_t attend_backward(device *d, const attention_shape *s, const T *qkv, const T *out,
                            const float *log_sum, const T *dout, T *dqkv, float *scratch) {
    if (is_short(s))
        return attention_short_backward<T>(stream_of(d), sizes_of(s), s->cosine, s->sine, qkv, log_sum, dout,
                                           dqkv);
    const cudaError_t error =
        attention_backward<T>(stream_of(d), sizes_of(s), qkv, out, log_sum, dout, dqkv, scratch);
    return error != cudaSuccess ? error : rotate(d, s, -1.0f, dqkv);
}

void cuda_op_attention(device *d, const attention_shape *s, activation *qkv, activation *out, float *log_sum,
                       float *) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return attend<T>(d, s, stored<T>(qkv), stored<T>(out), log_sum);
                   }),
         "attention");
}

void cuda_op_attention_backward(device *d, const attention_shape *s, const activation *qkv,
                                const activation *out, const float *log_sum, const activation *dout,
                                activation *dqkv, float *scratch) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return attend_backward<T>(d, s, stored<T>(qkv), stored<T>(out), log_sum,
                                                 stored<T>(dout), stored<T>(dqkv), scratch);
                   }),
         "attention backward");
}

size_t cuda_attention_scratch_floats(const device *, const attention_shape *s) {
    const size_t deltas = static_cast<size_t>(s->batch) * static_cast<size_t>(s->heads) *
                          static_cast<size_t>(s->sequence),
                 parts = decode_partial_floats(decode_sizes_of(s, 0, nullptr));
    return deltas > parts ? deltas : parts;
}

void decode_attention(device *d, const attention_shape *capacity, const decode_sizes &s, activation *qkv,
                      activation *key_cache, activation *value_cache, activation *out, float *scratch) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return attention_decode<T>(
                           stream_of(d), s, decode_splits(s, card_multiprocessors(d->gpu)), capacity->cosine,
                           capacity->sine, stored<T>(qkv), stored<T>(key_cache), stored<T>(value_cache),
                           stored<T>(out), scratch);
                   }),
         "attention over the cache");
}

void cuda_op_attention_decode(device *d, const attention_shape *capacity, int position, activation *qkv,
                              activation *key_cache, activation *value_cache, activation *out,
                              float *scratch) {
    decode_attention(d, capacity, decode_sizes_of(capacity, position, nullptr), qkv, key_cache, value_cache,
                     out, scratch);
}

void cuda_op_attention_fill_cache(device *d, const attention_shape *capacity, int positions,
                                  const activation *qkv, activation *key_cache, activation *value_cache) {
    note(d,
         as_stored(d,
                   [&](auto type) {
                       using T = decltype(type);
                       return fill_cache<T>(stream_of(d), capacity->batch, positions, capacity->heads,
                                            capacity->head_dim, capacity->sequence, stored<T>(qkv),
                                            stored<T>(key_cache), stored<T>(value_cache));
                   }),
         "filling the cache");
}

size_t cuda_attention_cache_bytes(const device *d, const attention_shape *capacity) {
    return cuda_device_activation_bytes(d) * static_cast<size_t>(capacity->batch) *
           static_cast<size_t>(capacity->heads) * static_cast<size_t>(capacity->sequence) *
           static_cast<size_t>(capacity->head_dim);
}

// Rows and tokens.
void cuda_op_embedding_sum(device *d, int64_t rows, int64_t width, int tables, const float *const *table,
                           const int32_t *const *index, float *out, bool accumulate) {
    embedding_tables<float> all = {};
    all.count = tables;
    for (int i = 0; i < tables; i++) {
        all.table[i] = table[i];
        all.index[i] = index[i];
    }
    note(d, embedding_sum<float>(stream_of(d), rows, width, all, out, accumulate), "embedding");
}

void cuda_op_embedding_backward(device *d, int64_t rows, int64_t entries, int64_t width, const int32_t *index,
                                const float *dout, float *dtable) {
    void *scratch = scratch_of(d, embedding_backward_scratch_bytes(rows, entries, width));
    if (scratch != nullptr)
        note(d, embedding_backward<float>(stream_of(d), rows, entries, width, index, dout, dtable, scratch),
             "embedding backward");
}

void cuda_op_copy_rows(device *d, int64_t rows, int64_t width, const float *from, int64_t from_stride,
                       float *to, int64_t to_stride, bool accumulate) {
    note(d, copy_rows<float>(stream_of(d), rows, width, from, from_stride, to, to_stride, accumulate),
         "copying rows");
}

void cuda_op_repeat_rows(device *d, int64_t rows, int64_t repeat, int64_t width, const float *from,
                         float *to) {
    note(d, repeat_rows<float>(stream_of(d), rows, repeat, width, from, to), "repeating rows");
}

void cuda_op_sum_repeated(device *d, int64_t rows, int64_t repeat, int64_t width, const float *from,
                          float *to) {
    note(d, sum_repeated<float>(stream_of(d), rows, repeat, width, from, to), "summing rows");
}

void cuda_op_column_sums(device *d, int64_t rows, int64_t width, const float *x, float *out) {
    float *scratch =
        static_cast<float *>(scratch_of(d, sizeof(float) * column_sums_scratch_floats(rows, width)));
    if (scratch != nullptr)
        note(d, column_sums<float>(stream_of(d), rows, width, x, out, scratch), "column sums");
}

void cuda_op_row_dot(device *d, int64_t rows, int64_t width, const float *x, const float *vector,
                     const float *bias, float *out) {
    note(d, row_dot<float>(stream_of(d), rows, width, x, vector, bias, out), "row products");
}

void cuda_op_row_dot_backward(device *d, int64_t rows, int64_t width, const float *x, const float *vector,
                              const float *dout, float *dx, float *dvector, float *dbias) {
    float *scratch =
        static_cast<float *>(scratch_of(d, sizeof(float) * row_dot_backward_scratch_floats(rows, width)));
    if (scratch != nullptr)
        note(d,
             row_dot_backward<float>(stream_of(d), rows, width, x, vector, dout, dx, dvector, dbias, scratch),
             "row products backward");
}

void cuda_op_mean_pool(device *d, int batch, int sequence, int64_t width, const int32_t *lengths,
                       const float *x, float *out) {
    note(d, mean_pool<float>(stream_of(d), batch, sequence, width, lengths, x, out), "pooling");
}

void cuda_op_mean_pool_backward(device *d, int batch, int sequence, int64_t width, const int32_t *lengths,
                                const float *dout, float *dx) {
    note(d, mean_pool_backward<float>(stream_of(d), batch, sequence, width, lengths, dout, dx),
         "pooling backward");
}

void cuda_op_autocorrelation(device *d, int batch, int sequence, int64_t channels, int lags, float epsilon,
                             float *x, float *out, float *inverse_energies) {
    note(d, autocorrelation(stream_of(d), batch, sequence, channels, lags, epsilon, x, out, inverse_energies),
         "autocorrelation");
}

void cuda_op_autocorrelation_backward(device *d, int batch, int sequence, int64_t channels, int lags,
                                      const float *x, const float *out, const float *inverse_energies,
                                      const float *dout, float *dx, float *scratch) {
    note(d,
         autocorrelation_backward(stream_of(d), batch, sequence, channels, lags, x, out, inverse_energies,
                                  dout, dx, scratch),
         "autocorrelation backward");
}

void cuda_op_time_variation(device *d, int batch, int sequence, int64_t channels, float scale, float epsilon,
                            const float *x, float *out) {
    note(d, time_variation(stream_of(d), batch, sequence, channels, scale, epsilon, x, out), "variation");
}

void cuda_op_time_variation_backward(device *d, int batch, int sequence, int64_t channels, float scale,
                                     const float *x, const float *out, const float *dout, float *dx) {
    note(d, time_variation_backward(stream_of(d), batch, sequence, channels, scale, x, out, dout, dx),
         "variation backward");
}

void cuda_op_normalize_rows(device *d, int64_t rows, int64_t width, const float *x, float *out,
                            float *inverse_norms) {
    note(d, normalize_rows(stream_of(d), rows, width, x, out, inverse_norms), "unit rows");
}

void cuda_op_normalize_rows_backward(device *d, int64_t rows, int64_t width, const float *out,
                                     const float *inverse_norms, const float *dout, float *dx) {
    note(d, normalize_rows_backward(stream_of(d), rows, width, out, inverse_norms, dout, dx),
         "unit rows backward");
}

double cuda_op_contrastive_loss(device *d, int64_t rows, int64_t width, const float *a, const float *b,
                                float scale, float *da, float *db, float *dscale, float *) {
    double loss = NAN;
    *dscale = NAN;
    void *scratch = scratch_of(d, contrastive_scratch_bytes(rows));
    if (scratch == nullptr)
        return loss;
    note(d,
         contrastive_loss(stream_of(d), rows, width, a, b, scale, da, db, &d->values->scale,
                          &d->values->number, scratch),
         "contrastive loss");
    // A failure is kept by the card.
    if (card_download(d->gpu, &loss, &d->values->number, sizeof loss) == STATUS_OK)
        (void)card_download(d->gpu, dscale, &d->values->scale, sizeof *dscale);
    return loss;
}

void cuda_op_sample(device *d, int64_t rows, int64_t codebook, const float *logits, const sample_terms *terms,
                    const sample_position *position, int32_t *tokens, float *log_probabilities, float *) {
    static_assert(sizeof(draw_state) == sizeof(sample_state) &&
                      offsetof(draw_state, frame) == offsetof(sample_state, frame),
                  "one layout");
    const draw_terms cut = {terms->temperature, terms->top_k, terms->top_p};
    const draw_position at = {reinterpret_cast<const draw_state *>(position->state), position->level,
                              position->samples};
    note(d, sample<float>(stream_of(d), rows, codebook, logits, cut, at, tokens, log_probabilities),
         "sampling");
}

void cuda_op_advance(device *d, int32_t *counter) {
    note(d, advance(stream_of(d), counter), "counting");
}

void cuda_op_put_row(device *d, const int32_t *index, int64_t width, const int32_t *from, int32_t *to) {
    note(d, put_row(stream_of(d), index, width, from, to), "keeping a row");
}

void cuda_op_log_probability(device *d, int64_t rows, int64_t codebook, const float *logits,
                             float temperature, const int32_t *tokens, float *out) {
    note(d, log_probability<float>(stream_of(d), rows, codebook, logits, temperature, tokens, out),
         "log-probabilities");
}

void cuda_op_importance(device *d, int64_t rows, const float *scored, const float *sampled,
                        const float *advantages, float cap, float clip, float *ratios, float *weighed) {
    note(d, importance(stream_of(d), rows, scored, sampled, advantages, cap, clip, ratios, weighed),
         "importance weights");
}

void cuda_op_policy_loss(device *d, int64_t rows, int64_t codebook, float *logits, const float *reference,
                         const int32_t *actions, const float *advantages, const policy_loss_terms *terms,
                         float *log_probabilities, float *entropies, float *kls, float *) {
    const policy_terms with = {terms->temperature, terms->policy_weight, terms->kl_weight,
                               terms->entropy_weight};
    note(d,
         policy_loss<float>(stream_of(d), rows, codebook, logits, reference, actions, advantages, with,
                            log_probabilities, entropies, kls),
         "policy loss");
}

size_t cuda_policy_loss_scratch_floats(const device *, int64_t) {
    return 0;
}

void cuda_op_cross_entropy(device *d, int64_t rows, int64_t codebook, float *logits, const int32_t *targets,
                           float weight, float *losses) {
    note(d, cross_entropy<float>(stream_of(d), rows, codebook, logits, targets, weight, losses),
         "cross-entropy");
}

// Updates.
void cuda_op_scale(device *d, size_t count, float factor, float *x) {
    note(d, scale(stream_of(d), static_cast<int64_t>(count), factor, x), "scaling");
}

void cuda_op_add_slot(device *d, size_t count, int depth, bool keep, size_t stride, float *partial,
                      float *values) {
    note(d,
         add_slot(stream_of(d), static_cast<int64_t>(count), depth, keep, static_cast<int64_t>(stride),
                  partial, values),
         "adding gradients");
}

double cuda_op_sum_squares(device *d, size_t count, const float *x) {
    const int64_t values = static_cast<int64_t>(count);
    double sum = NAN;
    double *scratch = static_cast<double *>(scratch_of(d, sum_squares_scratch_bytes(values)));
    if (scratch == nullptr)
        return sum;
    note(d, sum_squares(stream_of(d), values, x, &d->values->number, scratch), "sum of squares");
    (void)card_download(d->gpu, &sum, &d->values->number, sizeof sum);
    return sum;
}

bool cuda_op_all_finite(device *d, size_t count, const float *x) {
    int32_t finite = 0;
    note(d, all_finite(stream_of(d), static_cast<int64_t>(count), x, &d->values->flag),
         "looking for what is not finite");
    (void)card_download(d->gpu, &finite, &d->values->flag, sizeof finite);
    return finite != 0;
}

void cuda_op_adamw(device *d, size_t count, const adamw_step *step, const float *gradient, float *parameter,
                   float *first, float *second) {
    const double updates = static_cast<double>(step->step);
    const auto correction = [updates](float beta) {
        return static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(beta), updates)));
    };
    const adamw_terms terms = {step->learning_rate,
                               step->beta1,
                               step->beta2,
                               step->epsilon,
                               step->weight_decay,
                               step->gradient_scale,
                               correction(step->beta1),
                               correction(step->beta2)};
    note(d, adamw(stream_of(d), static_cast<int64_t>(count), terms, gradient, parameter, first, second),
         "update");
}

status cuda_device_measure_rows(device *d, row_equality *out) {
    return measure_rows(d->gpu, d->products, &out->shapes, &out->equal);
}

// A position through all blocks.
size_t cuda_decode_scratch_bytes(const device *, const decode_stack *) {
    return 0;
}

status cuda_op_decode(device *d, const decode_stack *s, int position) {
    const int64_t rows = s->capacity.batch,
                  width = static_cast<int64_t>(s->capacity.heads) * s->capacity.head_dim;
    for (int i = 0; i < s->layers; i++) {
        const decode_layer *l = &s->layer[i];
        cuda_op_rms_norm(d, rows, width, s->x, l->norm1, s->epsilon, s->normed, nullptr, nullptr);
        TRY(cuda_block_product(l->qkv, rows, s->normed, s->qkv));
        decode_attention(d, &s->capacity, decode_sizes_of(&s->capacity, position, s->offset), s->qkv, l->keys,
                         l->values, s->attended, s->attention_scratch);
        TRY(cuda_block_product_add(l->out, rows, s->attended, s->x));
        cuda_op_rms_norm(d, rows, width, s->x, l->norm2, s->epsilon, s->normed, nullptr, nullptr);
        TRY(cuda_block_product(l->gate_up, rows, s->normed, s->gate_up));
        cuda_op_swiglu(d, rows, s->feed_forward, s->gate_up, s->activated);
        TRY(cuda_block_product_add(l->down, rows, s->activated, s->x));
    }
    cuda_op_rms_norm_last(d, rows, width, s->x, s->norm, s->epsilon, s->output, nullptr);
    return card_check(d->gpu);
}

void cuda_device_destroy(device *d) {
    if (d->gpu != nullptr) {
        for (kept_work &k : d->kept)
            forget(d, &k);
        card_free(d->gpu, d->values);
        card_free(d->gpu, d->scratch);
        for (const scratch_memory &rounded : d->rounded)
            card_free(d->gpu, rounded.at);
    }
    cublas_close(d->products);
    card_close(d->gpu);
    memory_free(d);
}

void cuda_device_plan_begin(device *d);
uint64_t cuda_device_plan_end(device *d);

const backend *table_of_card() {
    static const backend table = [] {
        backend t = {};
#define OPERATOR(name, parameters, arguments) t.name = cuda_##name;
#define QUESTION(type, name, parameters, arguments) t.name = cuda_##name;
#define PRODUCT(type, name, parameters, arguments) t.name = cuda_##name;
#include "kernels/operator_list.h"
        t.device_destroy = cuda_device_destroy;
        t.device_free = cuda_device_free;
        t.weight_create = cuda_weight_create;
        t.weight_destroy = cuda_weight_destroy;
        return t;
    }();
    return &table;
}

// While memory is planned: what computes does nothing, what allocates goes to the card, which counts.
template <typename... P> void compute_nothing(P...) {
}
template <typename... P> status succeed(P...) {
    return STATUS_OK;
}

const backend *table_of_plan() {
    static const backend table = [] {
        backend t = *table_of_card();
#define OPERATOR(name, parameters, arguments) t.name = compute_nothing;
#define QUESTION(type, name, parameters, arguments)
#define PRODUCT(type, name, parameters, arguments)
#include "kernels/operator_list.h"
        t.device_plan_begin = cuda_device_plan_begin;
        t.op_decode = succeed;
        t.weight_pack = succeed;
        t.product_forward = succeed;
        t.product_backward_data = succeed;
        t.product_backward_weight = succeed;
        t.block_product = succeed;
        t.block_product_add = succeed;
        t.block_backward_data = succeed;
        t.block_backward_weight = succeed;
        return t;
    }();
    return &table;
}

void cuda_device_plan_begin(device *d) {
    for (int i = 0; i < 2; i++) {
        d->kept_rounded[i] = d->rounded[i];
        d->rounded[i] = {};
    }
    d->table = table_of_plan();
    card_plan_begin(d->gpu);
}

uint64_t cuda_device_plan_end(device *d) {
    for (int i = 0; i < 2; i++) {
        card_free(d->gpu, d->rounded[i].at);
        d->rounded[i] = d->kept_rounded[i];
    }
    d->table = table_of_card();
    return card_plan_end(d->gpu);
}

// "CUDA 13.0, driver 13.0, cuBLASLt 13.0.2"
void describe_libraries(device *d) {
    int driver, runtime;
    char cuda[16], of_driver[16];
    const char *cublas = cublas_version_text(d->products);
    card_cuda_versions(d->gpu, &driver, &runtime);
    snprintf(cuda, sizeof cuda, "%d.%d", runtime / 1000, runtime % 1000 / 10);
    snprintf(of_driver, sizeof of_driver, "%d.%d", driver / 1000, driver % 1000 / 10);
    snprintf(d->library, sizeof d->library, "CUDA %s, driver %s, cuBLASLt %s", cuda, of_driver, cublas);
    kernels_note_gpu(card_name(d->gpu), d->architecture, cuda, of_driver, cublas);
}

status open_device(device *d, const cuda_calls *calls, const gpu_options &options, const char *cublas_path) {
    int major = 0, minor = 0, cards;
    TRY(card_count(calls, &cards));
    TRY(card_open(&d->gpu, calls, options.place % cards));
    card_capability(d->gpu, &major, &minor);
    TRY(cublas_open(&d->products, d->gpu, cublas_path));
    snprintf(d->architecture, sizeof d->architecture, "sm_%d%d", major, minor);
    describe_libraries(d);
    TRY(grow(d, &d->scratch, &d->scratch_bytes, FIRST_SCRATCH_BYTES, "scratch of kernels"));
    return card_allocate(d->gpu, reinterpret_cast<void **>(&d->values), sizeof *d->values,
                         "values of updates");
}

} // namespace

namespace cuda_kernels {

status create_device(device **out, const cuda_calls *calls, const gpu_options &options,
                     const char *cublas_path) {
    *out = nullptr;
    void *memory;
    TRY(memory_allocate(&memory, sizeof(device), "device"));
    device *d = static_cast<device *>(memory);
    d->table = table_of_card();
    d->threads = options.threads;
    d->one_order = options.one_order;
    d->bf16 = options.bf16;
    host_threads_use(options.threads);
    const status result = open_device(d, calls, options, cublas_path);
    if (result != STATUS_OK)
        cuda_device_destroy(d);
    else
        *out = d;
    return result;
}

} // namespace cuda_kernels
