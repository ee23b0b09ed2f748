// Products of few rows with packed weights. Outputs are packed in pairs of strips, so that a pair is one
// stream [words][2][16] of memory that is read once: while the rows are multiplied with one block of it from
// the first-level cache, the block two ahead is being fetched. Sampling is limited by that stream.
//
// A word is what one lane takes at a time: one f32 value, or two neighbouring bf16 values. Every output
// element is a chain of fused multiply-adds over `chunk` words, and the chains of all chunks added in order.
#include "kernels/cpu/vector_functions.h"

#ifdef __AVX512F__

enum {
    BLOCK = 64,      // words of a block: 8 KiB of weights
    AHEAD = 2,       // blocks between reading and fetching
    LINE = 64,       // bytes of a cache line, of one register
    GROUP = 16,      // rows that share the blocks in the first-level cache
    TILE_ROWS = 8,   // rows whose sums are kept in registers
    PAIR = 2 * LANES // outputs of a pair of strips
};

INLINE __m512 step_f32(__m512 sum, __m512 x, __m512 weights) {
    return _mm512_fmadd_ps(x, weights, sum);
}

INLINE __m512 step_bf16(__m512 sum, __m512 x, __m512 weights) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)weights);
}

// sums [rows][PAIR] += x [rows][words] times the block at `strip`, or = if first; fetches `lines` cache lines
// a word from `ahead` on.
INLINE void multiply_tile(int rows, int lines, bool bf16, int words, const float *x, size_t stride,
                          const char *strip, const char *ahead, bool first, float *sums) {
    __m512 left[TILE_ROWS], right[TILE_ROWS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        left[r] = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * PAIR);
        right[r] = first ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * PAIR + LANES);
    }
    for (int word = 0; word < words; word++) {
        const __m512 weights_left = _mm512_load_ps(strip), weights_right = _mm512_load_ps(strip + LINE);
        strip += 2 * LINE;
#pragma GCC unroll 2
        for (int i = 0; i < lines; i++)
            _mm_prefetch(ahead + i * LINE, _MM_HINT_T0);
        ahead += lines * LINE;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const __m512 value = _mm512_set1_ps(x[r * stride + (size_t)word]);
            left[r] = bf16 ? step_bf16(left[r], value, weights_left) : step_f32(left[r], value, weights_left);
            right[r] =
                bf16 ? step_bf16(right[r], value, weights_right) : step_f32(right[r], value, weights_right);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        _mm512_store_ps(sums + r * PAIR, left[r]);
        _mm512_store_ps(sums + r * PAIR + LANES, right[r]);
    }
}

INLINE void multiply_fetching(int rows, bool fetch, bool bf16, int words, const float *x, size_t stride,
                              const char *strip, const char *ahead, bool first, float *sums) {
    if (fetch)
        multiply_tile(rows, 2, bf16, words, x, stride, strip, ahead, first, sums);
    else
        multiply_tile(rows, 0, bf16, words, x, stride, strip, NULL, first, sums);
}

// Up to GROUP rows times one block. Of a full group each of the two tiles fetches half of the lines, of a
// part the first tile fetches all.
INLINE void multiply_block(int rows, bool fetch, bool bf16, int words, const float *x, size_t stride,
                           const char *strip, const char *ahead, bool first, float *sums) {
    if (rows == GROUP && fetch) {
        multiply_tile(8, 1, bf16, words, x, stride, strip, ahead, first, sums);
        multiply_tile(8, 1, bf16, words, x + 8 * stride, stride, strip, ahead + words * LINE, first,
                      sums + 8 * PAIR);
        return;
    }
    int row = 0;
    for (; row + 8 <= rows; row += 8)
        multiply_fetching(8, fetch && row == 0, bf16, words, x + row * stride, stride, strip, ahead, first,
                          sums + row * PAIR);
    for (; row + 4 <= rows; row += 4)
        multiply_fetching(4, fetch && row == 0, bf16, words, x + row * stride, stride, strip, ahead, first,
                          sums + row * PAIR);
    for (; row + 2 <= rows; row += 2)
        multiply_fetching(2, fetch && row == 0, bf16, words, x + row * stride, stride, strip, ahead, first,
                          sums + row * PAIR);
    if (row < rows)
        multiply_fetching(1, fetch && row == 0, bf16, words, x + row * stride, stride, strip, ahead, first,
                          sums + row * PAIR);
}

INLINE void multiply_group(const few_rows_shape *shape, int rows, bool fetch, bool bf16, const float *x,
                           const char *strip, const char *follow, float *y) {
    float sums[GROUP * PAIR] __attribute__((aligned(64))), total[GROUP * PAIR] __attribute__((aligned(64)));
    const int64_t words = shape->words, bytes = words * 2 * LINE;
    for (int64_t start = 0; start < words; start += shape->chunk) {
        const int64_t end = start + shape->chunk < words ? start + shape->chunk : words;
        for (int64_t at = start; at < end; at += BLOCK) {
            const int64_t ahead = (at + AHEAD * BLOCK) * 2 * LINE;
            multiply_block(rows, fetch, bf16, (int)(end - at < BLOCK ? end - at : BLOCK), x + at,
                           (size_t)words, strip + at * 2 * LINE,
                           ahead < bytes ? strip + ahead : follow + (ahead - bytes), at == start, sums);
        }
        for (int i = 0; i < rows * PAIR; i += LANES)
            store(total + i, start == 0 ? load(sums + i) : load(total + i) + load(sums + i));
    }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < shape->outputs; i++)
            y[r * shape->y_stride + i] =
                shape->accumulate ? y[r * shape->y_stride + i] + total[r * PAIR + i] : total[r * PAIR + i];
}

INLINE void multiply_rows(const few_rows_shape *shape, int64_t rows, bool bf16, const float *x,
                          const char *strip, const char *follow, float *y) {
    for (int64_t row = 0; row < rows; row += GROUP)
        multiply_group(shape, (int)(rows - row < GROUP ? rows - row : GROUP), row == 0, bf16,
                       x + row * shape->words, strip, follow, y + row * shape->y_stride);
}

void VECTOR_NAME(few_rows_f32)(const few_rows_shape *shape, int64_t rows, const void *x, const void *strip,
                               const void *follow, float *y) {
    multiply_rows(shape, rows, false, x, strip, follow, y);
}

void VECTOR_NAME(few_rows_bf16)(const few_rows_shape *shape, int64_t rows, const void *x, const void *strip,
                                const void *follow, float *y) {
    multiply_rows(shape, rows, true, x, strip, follow, y);
}

#endif
