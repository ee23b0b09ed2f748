// The functions of one code path, as vector_table.c collects them; contracts in vector.h.
#pragma once

#include "kernels/cpu/vector_math.h"

void VECTOR_NAME(round_to_bf16)(size_t count, const float *x, uint16_t *out);
void VECTOR_NAME(add)(size_t count, const float *x, float *y);
void VECTOR_NAME(scale)(size_t count, float factor, float *x);
float VECTOR_NAME(dot)(size_t count, const float *x, const float *y);
void VECTOR_NAME(multiply_add_to)(size_t count, float factor, const float *x, float *y);
double VECTOR_NAME(sum_squares)(size_t count, const float *x);
bool VECTOR_NAME(all_finite)(size_t count, const float *x);
void VECTOR_NAME(adamw)(size_t count, const adamw_terms *terms, const float *gradient, float *parameter,
                        float *first, float *second);
float VECTOR_NAME(rms_norm)(size_t width, const float *x, const float *gain, float epsilon, float *out);
void VECTOR_NAME(rms_norm_backward)(size_t width, const float *x, const float *gain, float inverse_rms,
                                    const float *dy, float *dx);
void VECTOR_NAME(swiglu)(size_t width, const float *gate, const float *up, float *out);
void VECTOR_NAME(swiglu_backward)(size_t width, const float *gate, const float *up, const float *dout,
                                  float *dgate, float *dup);
void VECTOR_NAME(rotate)(int head_dim, const float *cosine, const float *sine, float direction, float *x);
void VECTOR_NAME(pack_lanes)(int head_dim, int rows, const float *x, size_t stride, float *out);
void VECTOR_NAME(append_key)(int head_dim, int position, const float *key, float *keys);
void VECTOR_NAME(attend)(const attention_head *head, int rows, const float *queries, size_t query_stride,
                         const float *keys, const float *values, size_t value_stride, float *scores,
                         float *out, size_t out_stride, float *log_sum);
void VECTOR_NAME(score_keys)(const attention_head *head, const float *query, const float *added, float *keys,
                             const float *follow, float *scores);
float VECTOR_NAME(softmax_keys)(const attention_head *head, float *scores);
void VECTOR_NAME(weigh_values)(const attention_head *head, const float *weights, float factor,
                               const float *values, const float *follow, float *out);
void VECTOR_NAME(attend_backward)(const attention_head *head, int rows, const float *q, size_t stride,
                                  const float *k, const float *packed_keys, const float *packed_values,
                                  const float *out, const float *dout, size_t out_stride,
                                  const float *log_sum, float *scratch, float *dq, float *dk, float *dv);
float VECTOR_NAME(log_probability)(size_t count, const float *logits, float inverse_temperature,
                                   uint32_t action);
uint32_t VECTOR_NAME(sample)(size_t count, const float *logits, float inverse_temperature, float uniform,
                             float *scratch);
policy_row_result VECTOR_NAME(policy_row)(size_t count, float *logits, const float *reference,
                                          uint32_t action, float advantage, const policy_row_terms *terms,
                                          float *scratch);
float VECTOR_NAME(cross_entropy_row)(size_t count, float *logits, uint32_t target, float weight);
void VECTOR_NAME(strips_f32)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                             const void *follow, float *y);
void VECTOR_NAME(strips_bf16)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                              const void *follow, float *y);
void VECTOR_NAME(pack_transposed)(int64_t rows, int columns, const float *x, size_t stride, float *out);
