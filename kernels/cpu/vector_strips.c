// Products with weights packed in pairs of strips, [words][2][16], so that a pair is one stream of memory
// that is read once: while the rows are multiplied with one block of it from the first-level cache, the block
// two ahead is being fetched. Sampling is limited by that stream.
//
// A word is what one lane takes at a time: one f32 value, or two neighbouring bf16 values. Every output
// element is a chain of fused multiply-adds over `chunk` words, and the chains of all chunks added in order:
// no row depends on the rows around it.
#include "kernels/cpu/vector_functions.h"

enum {
    BLOCK = STRIP_BLOCK,       // words: 8 KiB of weights
    AHEAD = 2,                 // blocks between reading and fetching
    LINE = 64,                 // bytes of a cache line
    PAIR = 2 * VECTOR_LANES,   // outputs of a pair of strips
    PARTS = PAIR / (2 * LANES) // of a pair, each two registers wide
};

INLINE lanes step_f32(lanes sum, float x, lanes weights) {
    return multiply_add(broadcast(x), weights, sum);
}

// sum + the product of the first values of the words + that of the second ones.
INLINE lanes step_bf16(lanes sum, float x, lanes weights) {
#ifdef __AVX512F__
    return (lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)broadcast(x), (__m512bh)weights);
#else
    const integer_lanes both = (integer_lanes)broadcast(x), high = {0};
    const integer_lanes upper = high + (int32_t)0xFFFF0000;
    sum = multiply_add((lanes)(both << 16), (lanes)((integer_lanes)weights << 16), sum);
    return multiply_add((lanes)(both & upper), (lanes)((integer_lanes)weights & upper), sum);
#endif
}

// sums [rows][PAIR] += x [rows][words] times one part of the block at `strip`, or = if first; fetches `lines`
// cache lines a word from `ahead` on. Sums are kept in registers.
INLINE void multiply_tile(int rows, int lines, bool bf16, int words, const float *x, size_t stride,
                          const float *strip, const char *ahead, bool first, float *sums) {
    enum { ROWS_MAX = 8 };
    lanes left[ROWS_MAX], right[ROWS_MAX];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        left[r] = first ? broadcast(0.0f) : load(sums + r * PAIR);
        right[r] = first ? broadcast(0.0f) : load(sums + r * PAIR + LANES);
    }
    for (int word = 0; word < words; word++) {
        const lanes weights_left = load(strip), weights_right = load(strip + LANES);
        strip += PAIR;
#pragma GCC unroll 2
        for (int i = 0; i < lines; i++)
            _mm_prefetch(ahead + i * LINE, _MM_HINT_T0);
        if (lines > 0) // NULL otherwise
            ahead += lines * LINE;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const float value = x[r * stride + (size_t)word];
            left[r] = bf16 ? step_bf16(left[r], value, weights_left) : step_f32(left[r], value, weights_left);
            right[r] =
                bf16 ? step_bf16(right[r], value, weights_right) : step_f32(right[r], value, weights_right);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        store(sums + r * PAIR, left[r]);
        store(sums + r * PAIR + LANES, right[r]);
    }
}

// All parts of a block; whichever comes first fetches.
INLINE void multiply_parts(int rows, int lines, bool bf16, int words, const float *x, size_t stride,
                           const float *strip, const char *ahead, bool first, float *sums) {
    switch (lines) {
    case 2:
        multiply_tile(rows, 2, bf16, words, x, stride, strip, ahead, first, sums);
        break;
    case 1:
        multiply_tile(rows, 1, bf16, words, x, stride, strip, ahead, first, sums);
        break;
    default:
        multiply_tile(rows, 0, bf16, words, x, stride, strip, NULL, first, sums);
    }
    for (int part = 1; part < PARTS; part++)
        multiply_tile(rows, 0, bf16, words, x, stride, strip + part * 2 * LANES, NULL, first,
                      sums + part * 2 * LANES);
}

// Up to STRIP_GROUP rows times one block, in tiles of as many rows as the registers hold sums for. With more
// than one tile each of the first two fetches half of the lines.
INLINE void multiply_block(int rows, bool fetch, bool bf16, int words, const float *x, size_t stride,
                           const float *strip, const char *ahead, bool first, float *sums) {
    enum { TILE = LANES == 16 ? 8 : 6 };
    int row = 0;
    for (; row + TILE <= rows; row += TILE) {
        const bool half = rows >= 2 * TILE;
        const int lines = !fetch || row >= 2 * TILE || (row > 0 && !half) ? 0 : half ? 1 : 2;
        multiply_parts(TILE, lines, bf16, words, x + row * stride, stride, strip,
                       row == 0 ? ahead : ahead + words * LINE, first, sums + row * PAIR);
    }
    for (; row + 4 <= rows; row += 4)
        multiply_parts(4, fetch && row == 0 ? 2 : 0, bf16, words, x + row * stride, stride, strip, ahead,
                       first, sums + row * PAIR);
    for (; row + 2 <= rows; row += 2)
        multiply_parts(2, fetch && row == 0 ? 2 : 0, bf16, words, x + row * stride, stride, strip, ahead,
                       first, sums + row * PAIR);
    if (row < rows)
        multiply_parts(1, fetch && row == 0 ? 2 : 0, bf16, words, x + row * stride, stride, strip, ahead,
                       first, sums + row * PAIR);
}

INLINE void multiply_group(const strip_shape *shape, int rows, bool fetch, bool bf16, const float *x,
                           const char *strip, const char *follow, float *y) {
    float sums[STRIP_GROUP * PAIR] __attribute__((aligned(64))),
        total[STRIP_GROUP * PAIR] __attribute__((aligned(64)));
    const int64_t words = shape->words, bytes = words * 2 * LINE;
    const size_t stride = shape->packed_x ? BLOCK : (size_t)words;
    for (int64_t start = 0; start < words; start += shape->chunk) {
        const int64_t end = start + shape->chunk < words ? start + shape->chunk : words;
        for (int64_t at = start; at < end; at += BLOCK) {
            const int64_t ahead = (at + AHEAD * BLOCK) * 2 * LINE;
            multiply_block(rows, fetch, bf16, (int)(end - at < BLOCK ? end - at : BLOCK),
                           shape->packed_x ? x + at * STRIP_GROUP : x + at, stride,
                           (const float *)(strip + at * 2 * LINE),
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

INLINE void multiply_rows(const strip_shape *shape, int64_t rows, bool bf16, const float *x,
                          const char *strip, const char *follow, float *y) {
    const int64_t length = shape->packed_x ? (shape->words + BLOCK - 1) / BLOCK * BLOCK : shape->words;
    for (int64_t row = 0; row < rows; row += STRIP_GROUP)
        multiply_group(shape, (int)(rows - row < STRIP_GROUP ? rows - row : STRIP_GROUP), row == 0, bf16,
                       x + row * length, strip, follow, y + row * shape->y_stride);
}

void VECTOR_NAME(strips_f32)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                             const void *follow, float *y) {
    multiply_rows(shape, rows, false, x, strip, follow, y);
}

void VECTOR_NAME(strips_bf16)(const strip_shape *shape, int64_t rows, const void *x, const void *strip,
                              const void *follow, float *y) {
    multiply_rows(shape, rows, true, x, strip, follow, y);
}

// Eight rows of eight values, `stride` apart, as eight rows of a block.
INLINE void transpose_eight(const float *x, size_t stride, float *out) {
    __m256 row[8], pair[8], four[8];
    for (int i = 0; i < 8; i++)
        row[i] = _mm256_loadu_ps(x + (size_t)i * stride);
    for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            four[i + 2 * j] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], 0x44);
            four[i + 2 * j + 1] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], 0xEE);
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * BLOCK, _mm256_permute2f128_ps(four[i], four[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * BLOCK, _mm256_permute2f128_ps(four[i], four[i + 4], 0x31));
    }
}

void VECTOR_NAME(pack_transposed)(int64_t rows, int columns, const float *x, size_t stride, float *out) {
    for (int64_t at = 0; at < rows; at += BLOCK, x += BLOCK * stride, out += STRIP_GROUP * BLOCK) {
        const int count = (int)(rows - at < BLOCK ? rows - at : BLOCK), whole_rows = count / 8 * 8,
                  whole_columns = columns / 8 * 8;
        for (int c = 0; c < whole_columns; c += 8)
            for (int r = 0; r < whole_rows; r += 8)
                transpose_eight(x + (size_t)r * stride + c, stride, out + c * BLOCK + r);
        for (int r = 0; r < count; r++)
            for (int c = r < whole_rows ? whole_columns : 0; c < columns; c++)
                out[c * BLOCK + r] = x[(size_t)r * stride + (size_t)c];
    }
}
