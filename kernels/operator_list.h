// Every function that a backend supplies, once: the table of a backend (kernels/backend.h), the functions
// that look it up (kernels/dispatch.c) and whatever wraps a backend are made from this list. Contracts are in
// kernels/operators.h, decode.h, product.h and device.h. Define these before including it:
//     OPERATOR(name, parameters, arguments)         returns nothing; the first parameter is the device d
//     QUESTION(type, name, parameters, arguments)   returns a value; the first parameter is the device d
//     PRODUCT(type, name, parameters, arguments)    returns a value; the first parameter is the weight w

QUESTION(int, device_threads, (const device *d), (d))
QUESTION(const char *, device_name, (const device *d), (d))
QUESTION(const char *, device_card, (const device *d), (d))
QUESTION(const char *, device_instruction_set, (const device *d), (d))
QUESTION(const char *, device_library, (const device *d), (d))
QUESTION(bool, device_is_batch_invariant, (const device *d), (d))
QUESTION(bool, device_shares_memory, (const device *d), (d))
QUESTION(device_limits, device_get_limits, (const device *d), (d))
QUESTION(size_t, device_activation_bytes, (const device *d), (d))
QUESTION(status, device_allocate, (device * d, void **out, size_t bytes, const char *what),
         (d, out, bytes, what))
QUESTION(status, device_upload, (device * d, void *to, const void *from, size_t bytes), (d, to, from, bytes))
QUESTION(status, device_download, (device * d, void *to, const void *from, size_t bytes),
         (d, to, from, bytes))
QUESTION(status, device_finish, (device * d), (d))
QUESTION(bool, device_pin, (device * d, void *host, size_t bytes), (d, host, bytes))
OPERATOR(device_unpin, (device * d, void *host), (d, host))
QUESTION(status, device_lane_open, (device * d, device_lane **out), (d, out))
OPERATOR(device_lane_close, (device * d, device_lane *lane), (d, lane))
QUESTION(void *, device_lane_stream, (device * d, const device_lane *lane), (d, lane))
QUESTION(status, device_lane_follow, (device * d, device_lane *lane), (d, lane))
QUESTION(status, device_lane_ended, (device * d, device_lane *lane, bool *ended), (d, lane, ended))
QUESTION(status, device_repeat,
         (device * d, const void *owner, uint64_t key, int count, status (*step)(void *context),
          void *context),
         (d, owner, key, count, step, context))
OPERATOR(device_forget, (device * d, const void *owner), (d, owner))
QUESTION(status, device_measure_rows, (device * d, row_equality *out), (d, out))
QUESTION(status, device_read_memory, (device * d, device_memory *out), (d, out))
OPERATOR(device_plan_begin, (device * d), (d))
QUESTION(uint64_t, device_plan_end, (device * d), (d))

OPERATOR(op_zero, (device * d, size_t bytes, void *out), (d, bytes, out))
OPERATOR(op_store_activations, (device * d, int64_t rows, int64_t width, const float *x, activation *out),
         (d, rows, width, x, out))
OPERATOR(op_rms_norm,
         (device * d, int64_t rows, int64_t width, const float *x, const float *gain, float epsilon,
          activation *out, float *inverse_rms, float *copy),
         (d, rows, width, x, gain, epsilon, out, inverse_rms, copy))
OPERATOR(op_rms_norm_last,
         (device * d, int64_t rows, int64_t width, const float *x, const float *gain, float epsilon,
          float *out, float *inverse_rms),
         (d, rows, width, x, gain, epsilon, out, inverse_rms))
OPERATOR(op_rms_norm_backward,
         (device * d, int64_t rows, int64_t width, const float *x, const float *gain,
          const float *inverse_rms, const activation *dy, float *dx, float *dgain),
         (d, rows, width, x, gain, inverse_rms, dy, dx, dgain))
OPERATOR(op_swiglu, (device * d, int64_t rows, int64_t width, const activation *gate_up, activation *out),
         (d, rows, width, gate_up, out))
OPERATOR(op_swiglu_backward,
         (device * d, int64_t rows, int64_t width, const activation *gate_up, const activation *dout,
          activation *dgate_up),
         (d, rows, width, gate_up, dout, dgate_up))
OPERATOR(op_rotary_table, (device * d, int positions, int head_dim, float *cosine, float *sine),
         (d, positions, head_dim, cosine, sine))
OPERATOR(op_attention,
         (device * d, const attention_shape *shape, activation *qkv, activation *out, float *log_sum,
          float *scratch),
         (d, shape, qkv, out, log_sum, scratch))
OPERATOR(op_attention_backward,
         (device * d, const attention_shape *shape, const activation *qkv, const activation *out,
          const float *log_sum, const activation *dout, activation *dqkv, float *scratch),
         (d, shape, qkv, out, log_sum, dout, dqkv, scratch))
QUESTION(size_t, attention_scratch_floats, (const device *d, const attention_shape *shape), (d, shape))
OPERATOR(op_attention_decode,
         (device * d, const attention_shape *capacity, int position, activation *qkv, activation *key_cache,
          activation *value_cache, activation *out, float *scratch),
         (d, capacity, position, qkv, key_cache, value_cache, out, scratch))
OPERATOR(op_attention_fill_cache,
         (device * d, const attention_shape *capacity, int positions, const activation *qkv,
          activation *key_cache, activation *value_cache),
         (d, capacity, positions, qkv, key_cache, value_cache))
QUESTION(size_t, attention_cache_bytes, (const device *d, const attention_shape *capacity), (d, capacity))
OPERATOR(op_embedding_sum,
         (device * d, int64_t rows, int64_t width, int tables, const float *const *table,
          const int32_t *const *index, float *out, bool accumulate),
         (d, rows, width, tables, table, index, out, accumulate))
OPERATOR(op_embedding_backward,
         (device * d, int64_t rows, int64_t entries, int64_t width, const int32_t *index, const float *dout,
          float *dtable),
         (d, rows, entries, width, index, dout, dtable))
OPERATOR(op_copy_rows,
         (device * d, int64_t rows, int64_t width, const float *from, int64_t from_stride, float *to,
          int64_t to_stride, bool accumulate),
         (d, rows, width, from, from_stride, to, to_stride, accumulate))
OPERATOR(op_repeat_rows,
         (device * d, int64_t rows, int64_t repeat, int64_t width, const float *from, float *to),
         (d, rows, repeat, width, from, to))
OPERATOR(op_sum_repeated,
         (device * d, int64_t rows, int64_t repeat, int64_t width, const float *from, float *to),
         (d, rows, repeat, width, from, to))
OPERATOR(op_column_sums, (device * d, int64_t rows, int64_t width, const float *x, float *out),
         (d, rows, width, x, out))
OPERATOR(op_row_dot,
         (device * d, int64_t rows, int64_t width, const float *x, const float *vector, const float *bias,
          float *out),
         (d, rows, width, x, vector, bias, out))
OPERATOR(op_row_dot_backward,
         (device * d, int64_t rows, int64_t width, const float *x, const float *vector, const float *dout,
          float *dx, float *dvector, float *dbias),
         (d, rows, width, x, vector, dout, dx, dvector, dbias))
OPERATOR(op_mean_pool,
         (device * d, int batch, int sequence, int64_t width, const int32_t *lengths, const float *x,
          float *out),
         (d, batch, sequence, width, lengths, x, out))
OPERATOR(op_mean_pool_backward,
         (device * d, int batch, int sequence, int64_t width, const int32_t *lengths, const float *dout,
          float *dx),
         (d, batch, sequence, width, lengths, dout, dx))
OPERATOR(op_autocorrelation,
         (device * d, int batch, int sequence, int64_t channels, int lags, float epsilon, float *x,
          float *out, float *inverse_energies),
         (d, batch, sequence, channels, lags, epsilon, x, out, inverse_energies))
OPERATOR(op_autocorrelation_backward,
         (device * d, int batch, int sequence, int64_t channels, int lags, const float *x, const float *out,
          const float *inverse_energies, const float *dout, float *dx, float *scratch),
         (d, batch, sequence, channels, lags, x, out, inverse_energies, dout, dx, scratch))
OPERATOR(op_time_variation,
         (device * d, int batch, int sequence, int64_t channels, float scale, float epsilon, const float *x,
          float *out),
         (d, batch, sequence, channels, scale, epsilon, x, out))
OPERATOR(op_time_variation_backward,
         (device * d, int batch, int sequence, int64_t channels, float scale, const float *x,
          const float *out, const float *dout, float *dx),
         (d, batch, sequence, channels, scale, x, out, dout, dx))
OPERATOR(op_normalize_rows,
         (device * d, int64_t rows, int64_t width, const float *x, float *out, float *inverse_norms),
         (d, rows, width, x, out, inverse_norms))
OPERATOR(op_normalize_rows_backward,
         (device * d, int64_t rows, int64_t width, const float *out, const float *inverse_norms,
          const float *dout, float *dx),
         (d, rows, width, out, inverse_norms, dout, dx))
QUESTION(double, op_contrastive_loss,
         (device * d, int64_t rows, int64_t width, const float *a, const float *b, float scale, float *da,
          float *db, float *dscale, float *scratch),
         (d, rows, width, a, b, scale, da, db, dscale, scratch))
OPERATOR(op_sample,
         (device * d, int64_t rows, int64_t codebook, const float *logits, const sample_terms *terms,
          const sample_position *position, int32_t *tokens, float *log_probabilities, float *scratch),
         (d, rows, codebook, logits, terms, position, tokens, log_probabilities, scratch))
OPERATOR(op_advance, (device * d, int32_t *counter), (d, counter))
OPERATOR(op_put_row, (device * d, const int32_t *index, int64_t width, const int32_t *from, int32_t *to),
         (d, index, width, from, to))
OPERATOR(op_log_probability,
         (device * d, int64_t rows, int64_t codebook, const float *logits, float temperature,
          const int32_t *tokens, float *out),
         (d, rows, codebook, logits, temperature, tokens, out))
OPERATOR(op_importance,
         (device * d, int64_t rows, const float *scored, const float *sampled, const float *advantages,
          float cap, float clip, float *ratios, float *weighed),
         (d, rows, scored, sampled, advantages, cap, clip, ratios, weighed))
OPERATOR(op_policy_loss,
         (device * d, int64_t rows, int64_t codebook, float *logits, const float *reference,
          const int32_t *actions, const float *advantages, const policy_loss_terms *terms,
          float *log_probabilities, float *entropies, float *kls, float *scratch),
         (d, rows, codebook, logits, reference, actions, advantages, terms, log_probabilities, entropies, kls,
          scratch))
QUESTION(size_t, policy_loss_scratch_floats, (const device *d, int64_t codebook), (d, codebook))
OPERATOR(op_cross_entropy,
         (device * d, int64_t rows, int64_t codebook, float *logits, const int32_t *targets, float weight,
          float *losses),
         (d, rows, codebook, logits, targets, weight, losses))
OPERATOR(op_scale, (device * d, size_t count, float factor, float *x), (d, count, factor, x))
OPERATOR(op_add_slot,
         (device * d, size_t count, int depth, bool keep, size_t stride, float *partial, float *values),
         (d, count, depth, keep, stride, partial, values))
QUESTION(double, op_sum_squares, (device * d, size_t count, const float *x), (d, count, x))
QUESTION(bool, op_all_finite, (device * d, size_t count, const float *x), (d, count, x))
OPERATOR(op_adamw,
         (device * d, size_t count, const adamw_step *step, const float *gradient, float *parameter,
          float *first, float *second),
         (d, count, step, gradient, parameter, first, second))

QUESTION(status, op_decode, (device * d, const decode_stack *stack, int position), (d, stack, position))
QUESTION(size_t, decode_scratch_bytes, (const device *d, const decode_stack *stack), (d, stack))

PRODUCT(size_t, weight_bytes, (const weight *w), (w))
PRODUCT(status, weight_pack, (weight * w, const float *plain), (w, plain))
PRODUCT(status, weight_prepare, (weight * w, int64_t rows, bool backward), (w, rows, backward))
PRODUCT(status, product_forward, (weight * w, int64_t rows, const float *x, float *y, bool accumulate),
        (w, rows, x, y, accumulate))
PRODUCT(status, product_backward_data,
        (weight * w, int64_t rows, const float *dy, float *dx, bool accumulate),
        (w, rows, dy, dx, accumulate))
PRODUCT(status, product_backward_weight,
        (weight * w, int64_t rows, const float *x, const float *dy, float *dw, bool accumulate),
        (w, rows, x, dy, dw, accumulate))
PRODUCT(status, weight_prepare_block, (weight * w, int64_t rows, bool backward), (w, rows, backward))
PRODUCT(status, block_product, (weight * w, int64_t rows, const activation *x, activation *y),
        (w, rows, x, y))
PRODUCT(status, block_product_add, (weight * w, int64_t rows, const activation *x, float *y), (w, rows, x, y))
PRODUCT(status, block_backward_data, (weight * w, int64_t rows, const activation *dy, activation *dx),
        (w, rows, dy, dx))
PRODUCT(status, block_backward_weight,
        (weight * w, int64_t rows, const activation *x, const activation *dy, float *dw),
        (w, rows, x, dy, dw))

#undef OPERATOR
#undef QUESTION
#undef PRODUCT
