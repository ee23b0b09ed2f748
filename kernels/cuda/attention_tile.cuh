// Tiles of bf16 rows in shared memory, and the fragments that the tensor cores take from them.
#pragma once

#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/ptx.cuh"

namespace cuda_kernels {

constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;
// A place for scores that are masked out: far below every score, and no infinity, which would make NaN of a
// difference.
constexpr float MASKED = -1e30f;

// A tile is [rows, D] of bf16 in units of 16 bytes. A row's units are permuted by its number, so that eight
// rows of one column of units lie in different banks, as ldmatrix reads them.
template <int D> __device__ __forceinline__ int tile_unit(int row, int unit) {
    constexpr int UNITS = D / 8; // of a row
    constexpr int TURN = UNITS >= 8 ? 1 : 8 / UNITS;
    return row * UNITS + (unit ^ (row / TURN % (UNITS < 8 ? UNITS : 8)));
}

template <int D> __device__ __forceinline__ bf16 *tile_at(bf16 *tile, int row, int column) {
    return tile + tile_unit<D>(row, column / 8) * 8;
}

// Eight values of a row as bf16: for bf16 storage asynchronously, so a group must be committed and waited
// for.
__device__ __forceinline__ void copy_unit(bf16 *to, const bf16 *from, bool exists) {
    cp_async_16(to, from, exists ? 16 : 0);
}
__device__ __forceinline__ void copy_unit(bf16 *to, const float *from, bool exists) {
    float low[4] = {0.0f, 0.0f, 0.0f, 0.0f}, high[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (exists) {
        load_pack(from, low);
        load_pack(from + 4, high);
    }
    const float all[8] = {low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]};
    store_pack(to, all);
}

// Rows first .. first + ROWS of `from`, whose rows are `stride` values apart; zeros where a row is not below
// `rows` or a column not below head_dim. The whole block calls it.
template <int D, int ROWS, int THREADS, typename T>
__device__ __forceinline__ void load_tile(bf16 *tile, const T *from, int64_t stride, int first, int rows,
                                          int head_dim) {
    constexpr int UNITS = D / 8;
    static_assert(ROWS * UNITS % THREADS == 0, "every thread copies as many units");
#pragma unroll
    for (int i = 0; i < ROWS * UNITS / THREADS; i++) {
        const int unit = static_cast<int>(threadIdx.x) + i * THREADS, row = unit / UNITS,
                  column = unit % UNITS * 8;
        const bool exists = first + row < rows && column < head_dim;
        // The address must be one of the buffer even where nothing is read.
        copy_unit(tile_at<D>(tile, row, column),
                  exists ? from + static_cast<int64_t>(first + row) * stride + column : from, exists);
    }
}

// Of rows first .. first + 15: the 16 x 16 left operand at columns column .. column + 15.
template <int D>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], bf16 *tile, int first, int column) {
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    ldmatrix_x4(a, tile_at<D>(tile, first + lane % 16, column + lane / 16 * 8));
}

// Right operands of two products: rows first .. first + 15 of the tile are the columns of [16, 8] matrices,
// whose rows are the tile's columns column .. column + 15. b[0] belongs to the first eight rows.
template <int D>
__device__ __forceinline__ void load_right(uint32_t (&b)[2][2], bf16 *tile, int first, int column) {
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    uint32_t all[4];
    ldmatrix_x4(all, tile_at<D>(tile, first + lane / 16 * 8 + lane % 8, column + lane / 8 % 2 * 8));
    b[0][0] = all[0];
    b[0][1] = all[1];
    b[1][0] = all[2];
    b[1][1] = all[3];
}

// The same with the tile as it stands: its rows first .. first + 15 are the rows of the matrices, b[0] has
// the eight columns from `column` on, b[1] the eight after them.
template <int D>
__device__ __forceinline__ void load_right_plain(uint32_t (&b)[2][2], bf16 *tile, int first, int column) {
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    uint32_t all[4];
    ldmatrix_x4_transposed(all, tile_at<D>(tile, first + lane % 16, column + lane / 16 * 8));
    b[0][0] = all[0];
    b[0][1] = all[1];
    b[1][0] = all[2];
    b[1][1] = all[3];
}

// Sums of two neighbouring 16 x 8 products as the left operand of the next product.
__device__ __forceinline__ void left_of_sums(uint32_t (&a)[4], const float (&first)[4],
                                             const float (&second)[4]) {
    a[0] = pack_bf16(first[0], first[1]);
    a[1] = pack_bf16(first[2], first[3]);
    a[2] = pack_bf16(second[0], second[1]);
    a[3] = pack_bf16(second[2], second[3]);
}

// Over the four lanes that share a row of sums.
__device__ __forceinline__ float quad_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(WHOLE_WARP, x, 1);
    return x + __shfl_xor_sync(WHOLE_WARP, x, 2);
}

__device__ __forceinline__ void store_pair(float *to, float low, float high) {
    *reinterpret_cast<float2 *>(to) = make_float2(low, high);
}
__device__ __forceinline__ void store_pair(bf16 *to, float low, float high) {
    *reinterpret_cast<unsigned *>(to) = pack_bf16(low, high);
}

} // namespace cuda_kernels
