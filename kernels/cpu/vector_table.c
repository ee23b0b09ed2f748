#include "kernels/cpu/vector_functions.h"

#define VECTOR_STRING_(name) #name
#define VECTOR_STRING(name) VECTOR_STRING_(name)

const vector_operators VECTOR_NAME(vector_operators) = {
    .name = VECTOR_STRING(VECTOR_ISA),
    .round_to_bf16 = VECTOR_NAME(round_to_bf16),
    .add = VECTOR_NAME(add),
    .scale = VECTOR_NAME(scale),
    .dot = VECTOR_NAME(dot),
    .multiply_add_to = VECTOR_NAME(multiply_add_to),
    .sum_squares = VECTOR_NAME(sum_squares),
    .all_finite = VECTOR_NAME(all_finite),
    .adamw = VECTOR_NAME(adamw),
    .rms_norm = VECTOR_NAME(rms_norm),
    .rms_norm_backward = VECTOR_NAME(rms_norm_backward),
    .swiglu = VECTOR_NAME(swiglu),
    .swiglu_backward = VECTOR_NAME(swiglu_backward),
    .rotate = VECTOR_NAME(rotate),
    .pack_lanes = VECTOR_NAME(pack_lanes),
    .append_key = VECTOR_NAME(append_key),
    .attend = VECTOR_NAME(attend),
    .score_keys = VECTOR_NAME(score_keys),
    .softmax_keys = VECTOR_NAME(softmax_keys),
    .weigh_values = VECTOR_NAME(weigh_values),
    .attend_backward = VECTOR_NAME(attend_backward),
    .log_probability = VECTOR_NAME(log_probability),
    .sample = VECTOR_NAME(sample),
    .policy_row = VECTOR_NAME(policy_row),
    .cross_entropy_row = VECTOR_NAME(cross_entropy_row),
    .strips_f32 = VECTOR_NAME(strips_f32),
    .strips_bf16 = VECTOR_NAME(strips_bf16),
    .pack_transposed = VECTOR_NAME(pack_transposed),
};
