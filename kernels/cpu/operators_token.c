// Operators at the two ends of the model: embedding sums, sampling, losses.
#include "kernels/cpu/device_cpu.h"
#include "kernels/operators.h"
#include "kernels/philox.h"

#include <math.h>
#include <string.h>

void cpu_op_embedding_sum(device *d, int64_t rows, int64_t width, int tables, const float *const *table,
                          const int32_t *const *index, float *out, bool accumulate) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++) {
        float *to = out + row * width;
        if (!accumulate)
            memset(to, 0, sizeof(float) * (size_t)width);
        for (int t = 0; t < tables; t++)
            if (index[t][row] >= 0)
                v->add((size_t)width, table[t] + (int64_t)index[t][row] * width, to);
    }
}

void cpu_op_embedding_backward(device *d, int64_t rows, int64_t entries, int64_t width, const int32_t *index,
                               const float *dout, float *dtable) {
    (void)d;
    (void)entries;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < width; first += COLUMN_CHUNK) {
        int64_t last = first + COLUMN_CHUNK < width ? first + COLUMN_CHUNK : width;
        for (int64_t row = 0; row < rows; row++) {
            if (index[row] < 0)
                continue;
            float *to = dtable + (int64_t)index[row] * width;
            for (int64_t i = first; i < last; i++)
                to[i] += dout[row * width + i];
        }
    }
}

void cpu_op_copy_rows(device *d, int64_t rows, int64_t width, const float *from, int64_t from_stride,
                      float *to, int64_t to_stride, bool accumulate) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static) if (rows * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++) {
        if (accumulate)
            v->add((size_t)width, from + row * from_stride, to + row * to_stride);
        else
            memcpy(to + row * to_stride, from + row * from_stride, sizeof(float) * (size_t)width);
    }
}

void cpu_op_repeat_rows(device *d, int64_t rows, int64_t repeat, int64_t width, const float *from,
                        float *to) {
    (void)d;
#pragma omp parallel for schedule(static) if (rows * repeat * width >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows * repeat; row++)
        memcpy(to + row * width, from + row / repeat * width, sizeof(float) * (size_t)width);
}

void cpu_op_sum_repeated(device *d, int64_t rows, int64_t repeat, int64_t width, const float *from,
                         float *to) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        memcpy(to + row * width, from + row * repeat * width, sizeof(float) * (size_t)width);
        for (int64_t i = 1; i < repeat; i++)
            v->add((size_t)width, from + (row * repeat + i) * width, to + row * width);
    }
}

void cpu_op_column_sums(device *d, int64_t rows, int64_t width, const float *x, float *out) {
    (void)d;
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < width; first += COLUMN_CHUNK) {
        int64_t last = first + COLUMN_CHUNK < width ? first + COLUMN_CHUNK : width;
        float sum[COLUMN_CHUNK] = {0};
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = first; i < last; i++)
                sum[i - first] += x[row * width + i];
        for (int64_t i = first; i < last; i++)
            out[i] += sum[i - first];
    }
}

// Orders floats as unsigned numbers.
static uint32_t ordered(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Of the logits whose order is at least `threshold`: how many, and the sum of their weights.
typedef struct above {
    int count;
    double share;
} above;

static above find_above(size_t codebook, const float *logits, float inverse_temperature, const float *weights,
                        uint32_t threshold) {
    above found = {0};
    for (size_t i = 0; i < codebook; i++)
        if (ordered(logits[i] * inverse_temperature) >= threshold) {
            found.count++;
            found.share += (double)weights[i];
        }
    return found;
}

// out [codebook] receives the logits of the tokens that are left, and -infinity for those that the terms cut.
// A cut needs a threshold, not an order: it is built from its highest bit down, as on a card
// (kernels/cuda/sample.cu).
static void cut_logits(size_t codebook, const float *logits, const sample_terms *terms, float *out) {
    const float inverse = 1.0f / terms->temperature;
    float maximum = -INFINITY, *weights = out;
    for (size_t i = 0; i < codebook; i++)
        maximum = fmaxf(maximum, logits[i] * inverse);
    for (size_t i = 0; i < codebook; i++)
        weights[i] = expf(logits[i] * inverse - maximum);
    uint32_t lowest = 0;
    for (uint32_t bit = 1u << 31; terms->top_k > 0 && bit > 0; bit >>= 1)
        if (find_above(codebook, logits, inverse, weights, lowest | bit).count >= terms->top_k)
            lowest |= bit;
    if (terms->top_p > 0.0f && terms->top_p < 1.0f) {
        const double wanted =
            (double)terms->top_p * find_above(codebook, logits, inverse, weights, lowest).share;
        uint32_t threshold = 0;
        for (uint32_t bit = 1u << 31; bit > 0; bit >>= 1) {
            const uint32_t next = threshold | bit;
            const double share =
                find_above(codebook, logits, inverse, weights, next > lowest ? next : lowest).share;
            if (share >= wanted && share > 0.0)
                threshold = next;
        }
        lowest = threshold > lowest ? threshold : lowest;
    }
    for (size_t i = 0; i < codebook; i++)
        out[i] = ordered(logits[i] * inverse) >= lowest ? logits[i] : -INFINITY;
}

void cpu_op_sample(device *d, int64_t rows, int64_t codebook, const float *logits, const sample_terms *terms,
                   const sample_position *position, int32_t *tokens, float *log_probabilities,
                   float *scratch) {
    const vector_operators *v = d->vector;
    const float inverse = 1.0f / terms->temperature;
    const bool whole =
        (terms->top_k <= 0 || terms->top_k >= codebook) && (terms->top_p <= 0.0f || terms->top_p >= 1.0f);
    const sample_state state = *position->state;
#pragma omp parallel for schedule(static) if (rows * codebook >= PARALLEL_ELEMENTS)
    for (int64_t row = 0; row < rows; row++) {
        const float *z = logits + row * codebook;
        philox_block block =
            philox(state.seed, state.step, position->samples[row], (uint32_t)state.frame, position->level);
        float *weights = scratch + row * codebook;
        if (!whole)
            cut_logits((size_t)codebook, z, terms, weights);
        uint32_t token =
            v->sample((size_t)codebook, whole ? z : weights, inverse, philox_uniform(block.word[0]), weights);
        tokens[row] = (int32_t)token;
        log_probabilities[row] = v->log_probability((size_t)codebook, z, inverse, token);
    }
}

void cpu_op_advance(device *d, int32_t *counter) {
    (void)d;
    ++*counter;
}

void cpu_op_put_row(device *d, const int32_t *index, int64_t width, const int32_t *from, int32_t *to) {
    (void)d;
    memcpy(to + *index * width, from, sizeof(int32_t) * (size_t)width);
}

void cpu_op_log_probability(device *d, int64_t rows, int64_t codebook, const float *logits, float temperature,
                            const int32_t *tokens, float *out) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        out[row] = v->log_probability((size_t)codebook, logits + row * codebook, 1.0f / temperature,
                                      (uint32_t)tokens[row]);
}

size_t cpu_policy_loss_scratch_floats(const device *d, int64_t codebook) {
    return 2 * (size_t)codebook * (size_t)d->threads;
}

void cpu_op_importance(device *d, int64_t rows, const float *scored, const float *sampled,
                       const float *advantages, float cap, float clip, float *ratios, float *weighed) {
    (void)d;
    for (int64_t row = 0; row < rows; row++) {
        const float ratio = expf(scored[row] - sampled[row]), advantage = advantages[row];
        const float weight = ratio < cap ? ratio : cap;
        ratios[row] = ratio;
        weighed[row] = advantage * (importance_is_clipped(ratio, advantage, clip) ? 0.0f : weight);
    }
}

void cpu_op_policy_loss(device *d, int64_t rows, int64_t codebook, float *logits, const float *reference,
                        const int32_t *actions, const float *advantages, const policy_loss_terms *terms,
                        float *log_probabilities, float *entropies, float *kls, float *scratch) {
    const vector_operators *v = d->vector;
    const policy_row_terms row_terms = {1.0f / terms->temperature, terms->policy_weight, terms->kl_weight,
                                        terms->entropy_weight};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        policy_row_result result = v->policy_row(
            (size_t)codebook, logits + row * codebook, reference != NULL ? reference + row * codebook : NULL,
            (uint32_t)actions[row], advantages[row], &row_terms, scratch + 2 * codebook * thread_number());
        log_probabilities[row] = result.log_probability;
        entropies[row] = result.entropy;
        kls[row] = result.kl;
    }
}

void cpu_op_cross_entropy(device *d, int64_t rows, int64_t codebook, float *logits, const int32_t *targets,
                          float weight, float *losses) {
    const vector_operators *v = d->vector;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++)
        losses[row] =
            v->cross_entropy_row((size_t)codebook, logits + row * codebook, (uint32_t)targets[row], weight);
}
