// Rows of logits: log-probability, sampling, the policy's loss and cross-entropy. All of them take the
// logarithm of the softmax denominator from one function, so that sampling and scoring agree to the last bit.
#include "kernels/cpu/vector_functions.h"

typedef struct softmax_row {
    float maximum; // of logits * inverse_temperature
    float log_sum; // log of the sum of exp(logits * inverse_temperature - maximum)
    float sum;
} softmax_row;

// exponentials: [count] receives exp(logits * inverse_temperature - maximum); NULL if not wanted.
INLINE softmax_row softmax(size_t count, const float *logits, float inverse_temperature,
                           float *exponentials) {
    lanes top = broadcast(-INFINITY), sum = {0};
    for (size_t i = 0; i < count; i += LANES)
        top = maximum(top, load(logits + i) * inverse_temperature);
    softmax_row row = {.maximum = horizontal_maximum(top)};
    for (size_t i = 0; i < count; i += LANES) {
        lanes value = exponential(load(logits + i) * inverse_temperature - row.maximum);
        if (exponentials != NULL)
            store(exponentials + i, value);
        sum += value;
    }
    row.sum = horizontal_sum(sum);
    row.log_sum = logf(row.sum);
    return row;
}

INLINE float log_probability_of(const softmax_row *row, float logit, float inverse_temperature) {
    return logit * inverse_temperature - row->maximum - row->log_sum;
}

float VECTOR_NAME(log_probability)(size_t count, const float *logits, float inverse_temperature,
                                   uint32_t action) {
    softmax_row row = softmax(count, logits, inverse_temperature, NULL);
    return log_probability_of(&row, logits[action], inverse_temperature);
}

uint32_t VECTOR_NAME(sample)(size_t count, const float *logits, float inverse_temperature, float uniform,
                             float *scratch) {
    softmax_row row = softmax(count, logits, inverse_temperature, scratch);
    float target = uniform * row.sum, before = 0.0f;
    uint32_t last = 0; // the last token of probability above 0: rounding may leave the target past the end
    for (size_t i = 0; i < count; i += LANES) {
        float block = horizontal_sum(load(scratch + i));
        if (before + block <= target && i + LANES < count) {
            before += block;
            if (block > 0.0f)
                last = (uint32_t)i;
            continue;
        }
        for (size_t j = i; j < count && j < i + LANES; j++) {
            before += scratch[j];
            if (scratch[j] > 0.0f)
                last = (uint32_t)j;
            if (before > target)
                return (uint32_t)j;
        }
    }
    if (scratch[last] > 0.0f)
        return last;
    for (uint32_t j = last; j < count; j++)
        if (scratch[j] > 0.0f)
            return j;
    return last;
}

policy_row_result VECTOR_NAME(policy_row)(size_t count, float *logits, const float *reference,
                                          uint32_t action, float advantage, const policy_row_terms *terms,
                                          float *scratch) {
    const float inverse_temperature = terms->inverse_temperature;
    float *probabilities = scratch, *differences = scratch + count;
    softmax_row row = softmax(count, logits, inverse_temperature, probabilities);
    softmax_row base = row;
    if (reference != NULL)
        base = softmax(count, reference, inverse_temperature, NULL);
    const float *other = reference != NULL ? reference : logits;
    const float shift = row.maximum + row.log_sum, base_shift = base.maximum + base.log_sum;
    const float inverse_sum = 1.0f / row.sum;
    lanes kl_sum = {0}, entropy_sum = {0};
    for (size_t i = 0; i < count; i += LANES) {
        lanes p = load(probabilities + i) * inverse_sum;
        lanes log_p = load(logits + i) * inverse_temperature - shift;
        lanes log_q = load(other + i) * inverse_temperature - base_shift;
        lanes difference = log_p - log_q;
        kl_sum = multiply_add(p, difference, kl_sum);
        entropy_sum = multiply_add(p, log_p, entropy_sum);
        store(probabilities + i, p);
        store(differences + i, difference);
    }
    policy_row_result result = {
        .log_probability = log_probability_of(&row, logits[action], inverse_temperature),
        .kl = horizontal_sum(kl_sum),
        .entropy = -horizontal_sum(entropy_sum),
    };
    // d/dz_a, all times 1 / T: policy  w A (p_a - [a == action]);  KL  w p_a (log p_a - log q_a - KL);
    // entropy  w p_a (log p_a + entropy).
    const float policy = terms->policy_weight * advantage;
    for (size_t i = 0; i < count; i += LANES) {
        lanes p = load(probabilities + i);
        lanes log_p = load(logits + i) * inverse_temperature - shift;
        lanes inner = policy + terms->kl_weight * (load(differences + i) - result.kl) +
                      terms->entropy_weight * (log_p + result.entropy);
        store(logits + i, p * inner * inverse_temperature);
    }
    logits[action] -= policy * inverse_temperature;
    return result;
}

float VECTOR_NAME(cross_entropy_row)(size_t count, float *logits, uint32_t target, float weight) {
    lanes top = broadcast(-INFINITY), sum = {0};
    for (size_t i = 0; i < count; i += LANES)
        top = maximum(top, load(logits + i));
    float maximum_logit = horizontal_maximum(top), target_logit = logits[target];
    for (size_t i = 0; i < count; i += LANES) {
        lanes value = exponential(load(logits + i) - maximum_logit);
        if (weight != 0.0f)
            store(logits + i, value);
        sum += value;
    }
    float total = horizontal_sum(sum);
    if (weight != 0.0f) {
        float factor = weight / total;
        for (size_t i = 0; i < count; i += LANES)
            store(logits + i, load(logits + i) * factor);
        logits[target] -= weight;
    }
    return maximum_logit + logf(total) - target_logit;
}
