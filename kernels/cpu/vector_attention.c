// Softmax attention of one head. Keys lie transposed in blocks of one register, so that a score is one chain
// of fused multiply-adds over the head dimension in every lane. A query row's arithmetic is the same whether
// it comes alone (decoding) or in a tile of four (scoring): a tile only adds blocks whose probabilities are
// exactly 0.
#include "kernels/cpu/vector_functions.h"

// ROW_REGISTERS: of a single query's output, summed up in one walk over the values. A single query reads keys
// and values as one stream, KEY_GROUP blocks of keys at a time, and fetches as many bytes ahead.
enum { TILE = 4, ROW_REGISTERS = LANES == 16 ? 4 : 2, KEY_GROUP = 4, FETCH_KEYS = KEY_GROUP * LANES };

void VECTOR_NAME(pack_lanes)(int head_dim, int rows, const float *x, size_t stride, float *out) {
    for (int block = 0; block * LANES < rows; block++) {
        float *to = out + (size_t)block * LANES * head_dim;
        int filled = rows - block * LANES < LANES ? rows - block * LANES : LANES;
        const float *from = x + (size_t)block * LANES * stride;
        if (filled < LANES)
            memset(to, 0, sizeof(float) * LANES * (size_t)head_dim);
        for (int lane = 0; lane < filled; lane++)
            for (int d = 0; d < head_dim; d++)
                to[d * LANES + lane] = from[(size_t)lane * stride + d];
    }
}

void VECTOR_NAME(append_key)(int head_dim, int position, const float *key, float *keys) {
    float *lane = keys + (size_t)(position / LANES) * LANES * head_dim + position % LANES;
    for (int i = 0; i < head_dim; i++)
        lane[i * LANES] = key[i];
}

// dots[r][0 .. LANES * group) = queries[r] . keys of `group` blocks, for `rows` queries.
INLINE void dot_blocks(int rows, int group, int head_dim, const float *queries, size_t query_stride,
                       const float *keys, float *dots, size_t dots_stride) {
    lanes sum[8];
    for (int i = 0; i < rows * group; i++)
        sum[i] = broadcast(0.0f);
    const size_t block = (size_t)LANES * head_dim;
    for (int d = 0; d < head_dim; d++)
        for (int g = 0; g < group; g++) {
            lanes key = load(keys + g * block + (size_t)d * LANES);
            for (int r = 0; r < rows; r++)
                sum[r * group + g] =
                    multiply_add(broadcast(queries[r * query_stride + d]), key, sum[r * group + g]);
        }
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < group; g++)
            store(dots + r * dots_stride + g * LANES, sum[r * group + g]);
}

// Several blocks at a time keep independent chains in flight; a score does not depend on how blocks are
// grouped.
INLINE void dot_rows(int rows, int head_dim, int blocks, const float *queries, size_t query_stride,
                     const float *keys, float *dots, size_t dots_stride) {
    const size_t block = (size_t)LANES * head_dim;
    int b = 0;
    for (; b + 2 <= blocks; b += 2)
        dot_blocks(rows, 2, head_dim, queries, query_stride, keys + b * block, dots + b * LANES, dots_stride);
    if (b < blocks)
        dot_blocks(rows, 1, head_dim, queries, query_stride, keys + b * block, dots + b * LANES, dots_stride);
}

// out[r][0 .. head_dim) = sum over keys of weights[r][key] * values[key]; four interleaved chains over the
// keys.
INLINE void weigh_rows(int rows, int head_dim, int keys, const float *weights, size_t weights_stride,
                       const float *values, size_t value_stride, const float *factors, float *out,
                       size_t out_stride) {
    const int whole = keys / 4 * 4;
    for (int d = 0; d < head_dim; d += LANES) {
        lanes sum[TILE][4];
        for (int r = 0; r < rows; r++)
            for (int g = 0; g < 4; g++)
                sum[r][g] = broadcast(0.0f);
        for (int key = 0; key < whole; key += 4)
            for (int g = 0; g < 4; g++) {
                lanes value = load(values + (size_t)(key + g) * value_stride + d);
                for (int r = 0; r < rows; r++)
                    sum[r][g] =
                        multiply_add(broadcast(weights[r * weights_stride + key + g]), value, sum[r][g]);
            }
        for (int g = 0; whole + g < keys; g++) {
            lanes value = load(values + (size_t)(whole + g) * value_stride + d);
            for (int r = 0; r < rows; r++)
                sum[r][g] =
                    multiply_add(broadcast(weights[r * weights_stride + whole + g]), value, sum[r][g]);
        }
        for (int r = 0; r < rows; r++)
            store(out + r * out_stride + d,
                  ((sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3])) * broadcast(factors[r]));
    }
}

static const int32_t lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE lanes masked(lanes value, int first_key, int limit, float fill) {
    integer_lanes number;
    memcpy(&number, lane_numbers, sizeof number);
    return choose(number + first_key < limit, value, broadcast(fill));
}

// scores -> exp(scale * score - maximum), 0 past the limit; returns the sum of the row.
INLINE float softmax_scores(float *scores, int blocks, int limit, float scale, float *log_sum) {
    lanes top = broadcast(-INFINITY), sum = {0};
    for (int b = 0; b < blocks; b++) {
        lanes value = load(scores + b * LANES) * scale;
        if ((b + 1) * LANES > limit)
            value = masked(value, b * LANES, limit, -INFINITY);
        store(scores + b * LANES, value);
        top = maximum(top, value);
    }
    float maximum_score = horizontal_maximum(top);
    for (int b = 0; b < blocks; b++) {
        lanes value = exponential(load(scores + b * LANES) - maximum_score);
        store(scores + b * LANES, value);
        sum += value;
    }
    float total = horizontal_sum(sum);
    if (log_sum != NULL)
        *log_sum = maximum_score + logf(total);
    return total;
}

INLINE void attend_rows(int rows, const attention_head *head, int first_row, const float *queries,
                        size_t query_stride, const float *keys, const float *values, size_t value_stride,
                        size_t padded, float *scores, float *out, size_t out_stride, float *log_sum) {
    int limits[TILE], longest = 0;
    for (int r = 0; r < rows; r++) {
        limits[r] = head->limit + (first_row + r) * head->limit_step;
        longest = limits[r] > longest ? limits[r] : longest;
    }
    const int blocks = (longest + LANES - 1) / LANES;
    float factors[TILE];
    dot_rows(rows, head->head_dim, blocks, queries, query_stride, keys, scores, padded);
    for (int r = 0; r < rows; r++)
        factors[r] = 1.0f / softmax_scores(scores + r * padded, blocks, limits[r], head->scale,
                                           log_sum != NULL ? log_sum + r : NULL);
    weigh_rows(rows, head->head_dim, longest, scores, padded, values, value_stride, factors, out, out_stride);
}

// As the callers reserve it: rounded up alike for every code path.
static size_t padded_keys(const attention_head *head, int rows) {
    int last = head->limit + (rows - 1) * head->limit_step;
    return (size_t)(last + VECTOR_LANES - 1) / VECTOR_LANES * VECTOR_LANES;
}

void VECTOR_NAME(attend)(const attention_head *head, int rows, const float *queries, size_t query_stride,
                         const float *keys, const float *values, size_t value_stride, float *scores,
                         float *out, size_t out_stride, float *log_sum) {
    const size_t padded = padded_keys(head, rows);
    int row = 0;
    for (; row + TILE <= rows; row += TILE)
        attend_rows(TILE, head, row, queries + row * query_stride, query_stride, keys, values, value_stride,
                    padded, scores, out + row * out_stride, out_stride,
                    log_sum != NULL ? log_sum + row : NULL);
    for (; row < rows; row++)
        attend_rows(1, head, row, queries + row * query_stride, query_stride, keys, values, value_stride,
                    padded, scores, out + row * out_stride, out_stride,
                    log_sum != NULL ? log_sum + row : NULL);
}

// dots[0 .. LANES * group) = query . keys of `group` blocks; fetches as much from `ahead` on. added: a key
// that goes to `lane` of the last block first, as it is read; NULL: none.
INLINE void dot_group(int group, bool add, int head_dim, const float *query, const float *added, int lane,
                      float *keys, const float *ahead, float *dots) {
    const size_t block = (size_t)LANES * head_dim;
    integer_lanes number;
    memcpy(&number, lane_numbers, sizeof number);
    const integer_lanes place = number == lane;
    lanes sum[KEY_GROUP];
    for (int g = 0; g < group; g++)
        sum[g] = broadcast(0.0f);
    for (int d = 0; d < head_dim; d++)
        for (int g = 0; g < group; g++) {
            float *at = keys + g * block + (size_t)d * LANES;
            _mm_prefetch((const char *)(ahead + (size_t)(d * group + g) * LANES), _MM_HINT_T0);
            lanes key = load(at);
            if (add && g + 1 == group) {
                key = choose(place, broadcast(added[d]), key);
                store(at, key);
            }
            sum[g] = multiply_add(broadcast(query[d]), key, sum[g]);
        }
    for (int g = 0; g < group; g++)
        store(dots + g * LANES, sum[g]);
}

void VECTOR_NAME(score_keys)(const attention_head *head, const float *query, const float *added, float *keys,
                             const float *follow, float *scores) {
    const int head_dim = head->head_dim, lane = (head->limit - 1) % LANES;
    const size_t block = (size_t)LANES * head_dim;
    int left = (head->limit + LANES - 1) / LANES;
    for (; left > KEY_GROUP; left -= KEY_GROUP, keys += KEY_GROUP * block, scores += KEY_GROUP * LANES)
        dot_group(KEY_GROUP, false, head_dim, query, NULL, 0, keys, keys + KEY_GROUP * block, scores);
    if (left == KEY_GROUP) {
        dot_group(KEY_GROUP, true, head_dim, query, added, lane, keys, follow, scores);
        return;
    }
    if (left > 2) {
        dot_group(2, false, head_dim, query, NULL, 0, keys, keys + 2 * block, scores);
        left -= 2, keys += 2 * block, scores += 2 * LANES;
    }
    if (left == 2)
        dot_group(2, true, head_dim, query, added, lane, keys, follow, scores);
    else
        dot_group(1, true, head_dim, query, added, lane, keys, follow, scores);
}

float VECTOR_NAME(softmax_keys)(const attention_head *head, float *scores) {
    return 1.0f / softmax_scores(scores, (head->limit + LANES - 1) / LANES, head->limit, head->scale, NULL);
}

// As weigh_rows, for one row and `registers` registers of its output. The first walk fetches whole values:
// those FETCH_KEYS ahead, and in the end the beginning of what follows.
INLINE void weigh_part(int registers, bool fetch, int head_dim, int keys, const float *weights,
                       const float *values, const float *follow, float factor, float *out) {
    const int whole = keys / 4 * 4;
    lanes sum[4][ROW_REGISTERS];
    for (int g = 0; g < 4; g++)
        for (int i = 0; i < registers; i++)
            sum[g][i] = broadcast(0.0f);
    for (int key = 0; key < whole; key += 4) {
        const float *value = values + (size_t)key * head_dim;
        if (fetch) {
            const int next = key + FETCH_KEYS;
            const float *ahead =
                next < whole ? values + (size_t)next * head_dim : follow + (size_t)(next - whole) * head_dim;
            for (int i = 0; i < 4 * head_dim; i += VECTOR_LANES)
                _mm_prefetch((const char *)(ahead + i), _MM_HINT_T0);
        }
        for (int g = 0; g < 4; g++, value += head_dim)
            for (int i = 0; i < registers; i++)
                sum[g][i] = multiply_add(broadcast(weights[key + g]), load(value + i * LANES), sum[g][i]);
    }
    for (int g = 0; whole + g < keys; g++) {
        const float *value = values + (size_t)(whole + g) * head_dim;
        for (int i = 0; i < registers; i++)
            sum[g][i] = multiply_add(broadcast(weights[whole + g]), load(value + i * LANES), sum[g][i]);
    }
    for (int i = 0; i < registers; i++)
        store(out + i * LANES, ((sum[0][i] + sum[1][i]) + (sum[2][i] + sum[3][i])) * broadcast(factor));
}

void VECTOR_NAME(weigh_values)(const attention_head *head, const float *weights, float factor,
                               const float *values, const float *follow, float *out) {
    const int head_dim = head->head_dim;
    int d = 0;
    for (; d + ROW_REGISTERS * LANES <= head_dim; d += ROW_REGISTERS * LANES)
        if (d == 0)
            weigh_part(ROW_REGISTERS, true, head_dim, head->limit, weights, values, follow, factor, out);
        else
            weigh_part(ROW_REGISTERS, false, head_dim, head->limit, weights, values + d, NULL, factor,
                       out + d);
    for (; d < head_dim; d += LANES)
        weigh_part(1, false, head_dim, head->limit, weights, values + d, NULL, factor, out + d);
}

// dk[key] += sum over the tile of ds * q, dv[key] += sum of p * dout.
INLINE void add_outer(int rows, int head_dim, int keys, const float *weights, size_t weights_stride,
                      const float *vectors, size_t vector_stride, float *out, size_t out_stride) {
    for (int d = 0; d < head_dim; d += LANES) {
        lanes vector[TILE];
        for (int r = 0; r < rows; r++)
            vector[r] = load(vectors + r * vector_stride + d);
        for (int key = 0; key < keys; key++) {
            float *to = out + (size_t)key * out_stride + d;
            lanes sum = load(to);
            for (int r = 0; r < rows; r++)
                sum = multiply_add(broadcast(weights[r * weights_stride + key]), vector[r], sum);
            store(to, sum);
        }
    }
}

INLINE void backward_rows(int rows, const attention_head *head, int first_row, const float *q, size_t stride,
                          const float *k, const float *packed_keys, const float *packed_values,
                          const float *out, const float *dout, size_t out_stride, const float *log_sum,
                          size_t padded, float *scratch, float *dq, float *dk, float *dv) {
    float *p = scratch, *dp = scratch + TILE * padded;
    const int head_dim = head->head_dim;
    int longest = head->limit + (first_row + rows - 1) * head->limit_step;
    const int blocks = (longest + LANES - 1) / LANES;
    dot_rows(rows, head_dim, blocks, q, stride, packed_keys, p, padded);
    dot_rows(rows, head_dim, blocks, dout, out_stride, packed_values, dp, padded);
    float ones[TILE];
    for (int r = 0; r < rows; r++) {
        ones[r] = 1.0f;
        int limit = head->limit + (first_row + r) * head->limit_step;
        lanes delta_sum = {0}; // sum of dout * out: the softmax's share of the gradient
        for (int d = 0; d < head_dim; d += LANES)
            delta_sum =
                multiply_add(load(out + r * out_stride + d), load(dout + r * out_stride + d), delta_sum);
        float delta = horizontal_sum(delta_sum);
        for (int b = 0; b < blocks; b++) {
            size_t at = r * padded + (size_t)b * LANES;
            lanes probability = exponential(load(p + at) * head->scale - log_sum[r]);
            if ((b + 1) * LANES > limit)
                probability = masked(probability, b * LANES, limit, 0.0f);
            store(p + at, probability);
            store(dp + at, probability * (load(dp + at) - delta) * head->scale);
        }
    }
    const size_t width = (size_t)head_dim;
    weigh_rows(rows, head_dim, longest, dp, padded, k, width, ones, dq, stride);
    add_outer(rows, head_dim, longest, dp, padded, q, stride, dk, width);
    add_outer(rows, head_dim, longest, p, padded, dout, out_stride, dv, width);
}

void VECTOR_NAME(attend_backward)(const attention_head *head, int rows, const float *q, size_t stride,
                                  const float *k, const float *packed_keys, const float *packed_values,
                                  const float *out, const float *dout, size_t out_stride,
                                  const float *log_sum, float *scratch, float *dq, float *dk, float *dv) {
    const size_t padded = padded_keys(head, rows);
    memset(dk, 0, sizeof(float) * (size_t)rows * (size_t)head->head_dim);
    memset(dv, 0, sizeof(float) * (size_t)rows * (size_t)head->head_dim);
    int row = 0;
    for (; row + TILE <= rows; row += TILE)
        backward_rows(TILE, head, row, q + row * stride, stride, k, packed_keys, packed_values,
                      out + row * out_stride, dout + row * out_stride, out_stride, log_sum + row, padded,
                      scratch, dq + row * stride, dk, dv);
    for (; row < rows; row++)
        backward_rows(1, head, row, q + row * stride, stride, k, packed_keys, packed_values,
                      out + row * out_stride, dout + row * out_stride, out_stride, log_sum + row, padded,
                      scratch, dq + row * stride, dk, dv);
}
