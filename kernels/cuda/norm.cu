// A row is held in registers between its one read and its one write: by one warp up to a width of 1024, by
// the eight warps of a block beyond. Traffic of the forward pass: x and added read, out and sum written; of
// the backward pass: x, dy and dx read, dx written, and 1 / ROWS_OF_A_PART of that for the sums over rows.
// Those of dgain are added in two stages, each in a fixed order: a block's rows, then the blocks.
#include "kernels/cuda/norm.cuh"

#include "kernels/cuda/rows.cuh"

namespace cuda_kernels {

namespace {

constexpr int TEAMS = 4;      // warps of a block that have a row each, where one warp holds a row
constexpr int WIDE_WARPS = 8; // of a block that has one row
constexpr int VALUES_OF_A_LANE = 32;
constexpr int NARROW_WIDTH = WARP_LANES * VALUES_OF_A_LANE;
constexpr int64_t ROWS_OF_A_PART = 64, PARTS_MAX = 512;

// Where the chunks of a thread begin: those of a team's threads lie side by side.
template <int WARPS, int COUNT> struct row_team {
    static constexpr int TEAM_THREADS = WARPS * WARP_LANES;
    int64_t rows_at_once, first_row;
    int thread;
    __device__ row_team()
        : rows_at_once(static_cast<int64_t>(gridDim.x) * (WARPS == 1 ? TEAMS : 1)),
          first_row(WARPS == 1 ? static_cast<int64_t>(blockIdx.x) * TEAMS + threadIdx.x / WARP_LANES
                               : blockIdx.x),
          thread(static_cast<int>(threadIdx.x) % TEAM_THREADS) {
    }
    __device__ int64_t column(int chunk) const {
        return (static_cast<int64_t>(chunk) * TEAM_THREADS + thread) * COUNT;
    }
};

template <typename X, typename Y, int WARPS, int CHUNKS>
__global__ void __launch_bounds__(WARPS == 1 ? TEAMS * WARP_LANES : WARPS * WARP_LANES)
    norm_kernel(int64_t rows, int64_t width, const X *x, const X *added, const float *gain, float epsilon,
                Y *out, float *inverse_rms, X *sum) {
    constexpr int COUNT = PACK<X, Y>;
    SHARED(float, partial, [WARPS]);
    const row_team<WARPS, COUNT> team;
    const float share = 1.0f / static_cast<float>(width);
    for (int64_t row = team.first_row; row < rows; row += team.rows_at_once) {
        float value[CHUNKS][COUNT], squares = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const int64_t column = team.column(chunk);
            if (column < width) {
                stream_pack(x + row * width + column, value[chunk]);
                if (added != nullptr) {
                    float other[COUNT];
                    stream_pack(added + row * width + column, other);
#pragma unroll
                    for (int i = 0; i < COUNT; i++)
                        value[chunk][i] = to_float(from_float<X>(value[chunk][i] + other[i]));
                }
                if (sum != nullptr)
                    store_pack(sum + row * width + column, value[chunk]);
            } else {
#pragma unroll
                for (int i = 0; i < COUNT; i++)
                    value[chunk][i] = 0.0f;
            }
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                squares = fmaf(value[chunk][i], value[chunk][i], squares);
        }
        const float inverse = 1.0f / sqrtf(team_sum<WARPS>(squares, &partial[0]) * share + epsilon);
        if (inverse_rms != nullptr && team.thread == 0)
            inverse_rms[row] = inverse;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const int64_t column = team.column(chunk);
            if (column >= width)
                continue;
            float factor[COUNT];
            load_pack(gain + column, factor);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                value[chunk][i] = value[chunk][i] * inverse * factor[i];
            store_pack(out + row * width + column, value[chunk]);
        }
    }
}

// With n = x r and g = gain dy: dx += r (g - n mean(g n)); dgain += dy n. parts: [gridDim.x, width] sums of
// dgain.
template <typename X, typename Y, int WARPS, int CHUNKS>
__global__ void __launch_bounds__(WARPS == 1 ? TEAMS * WARP_LANES : WARPS * WARP_LANES)
    norm_backward_kernel(int64_t rows, int64_t width, const X *x, const float *gain, const float *inverse_rms,
                         const Y *dy, X *dx, float *parts) {
    constexpr int COUNT = PACK<X, Y>;
    SHARED(float, partial, [WARPS]);
    SHARED_DYNAMIC(float, sums); // [TEAMS, width]
    const row_team<WARPS, COUNT> team;
    const float share = 1.0f / static_cast<float>(width);
    float gain_sum[CHUNKS][COUNT];
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++)
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            gain_sum[chunk][i] = 0.0f;
    for (int64_t row = team.first_row; row < rows; row += team.rows_at_once) {
        const float inverse = inverse_rms[row];
        float normed[CHUNKS][COUNT], scaled[CHUNKS][COUNT], along = 0.0f;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const int64_t column = team.column(chunk);
            if (column < width) {
                float factor[COUNT];
                stream_pack(x + row * width + column, normed[chunk]);
                stream_pack(dy + row * width + column, scaled[chunk]);
                load_pack(gain + column, factor);
#pragma unroll
                for (int i = 0; i < COUNT; i++) {
                    normed[chunk][i] *= inverse;
                    gain_sum[chunk][i] = fmaf(scaled[chunk][i], normed[chunk][i], gain_sum[chunk][i]);
                    scaled[chunk][i] *= factor[i];
                    along = fmaf(scaled[chunk][i], normed[chunk][i], along);
                }
            }
        }
        along = team_sum<WARPS>(along, &partial[0]) * share;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            const int64_t column = team.column(chunk);
            if (column >= width)
                continue;
            float gradient[COUNT];
            stream_pack(dx + row * width + column, gradient);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                gradient[i] += inverse * (scaled[chunk][i] - normed[chunk][i] * along);
            store_pack(dx + row * width + column, gradient);
        }
    }
    float *to = parts + blockIdx.x * width;
    if (WARPS == 1) {
        for (int chunk = 0; chunk < CHUNKS; chunk++)
            if (team.column(chunk) < width)
                store_pack(sums + threadIdx.x / WARP_LANES * width + team.column(chunk), gain_sum[chunk]);
        __syncthreads(); // all warps have put theirs down
        for (int64_t column = threadIdx.x; column < width; column += blockDim.x) {
            float sum = sums[column];
            for (int i = 1; i < TEAMS; i++)
                sum += sums[i * width + column];
            to[column] = sum;
        }
    } else {
        for (int chunk = 0; chunk < CHUNKS; chunk++)
            if (team.column(chunk) < width)
                store_pack(to + team.column(chunk), gain_sum[chunk]);
    }
}

// Calls action(warps, chunks), both as compile-time constants, for the narrowest kernel that holds a row.
template <int COUNT, typename Action> cudaError_t choose_team(int64_t width, Action action) {
    if (width < 16 || width % 16 != 0 || width > NORM_WIDTH_MAX)
        return cudaErrorInvalidValue;
    constexpr int MOST = VALUES_OF_A_LANE / COUNT;
    if (width > NARROW_WIDTH)
        return action(std::integral_constant<int, WIDE_WARPS>(), std::integral_constant<int, MOST>());
    if (width > NARROW_WIDTH / 2)
        return action(std::integral_constant<int, 1>(), std::integral_constant<int, MOST>());
    if (width > NARROW_WIDTH / 4)
        return action(std::integral_constant<int, 1>(), std::integral_constant<int, MOST / 2>());
    return action(std::integral_constant<int, 1>(), std::integral_constant<int, MOST / 4>());
}

int64_t parts_for(int64_t rows) {
    const int64_t parts = (rows + ROWS_OF_A_PART - 1) / ROWS_OF_A_PART;
    return parts < PARTS_MAX ? parts : PARTS_MAX;
}

} // namespace

template <typename X, typename Y>
cudaError_t rms_norm(cudaStream_t stream, int64_t rows, int64_t width, const X *x, const X *added,
                     const float *gain, float epsilon, Y *out, float *inverse_rms, X *sum) {
    return choose_team<PACK<X, Y>>(width, [&](auto warps, auto chunks) {
        constexpr int WARPS = decltype(warps)::value, CHUNKS = decltype(chunks)::value;
        return launch(norm_kernel<X, Y, WARPS, CHUNKS>, blocks_for(rows, WARPS == 1 ? TEAMS : 1),
                      WARP_LANES * (WARPS == 1 ? TEAMS : WARPS), 0, stream, rows, width, x, added, gain,
                      epsilon, out, inverse_rms, sum);
    });
}

template <typename X, typename Y>
cudaError_t rms_norm_backward(cudaStream_t stream, int64_t rows, int64_t width, const X *x, const float *gain,
                              const float *inverse_rms, const Y *dy, X *dx, float *dgain, float *scratch) {
    if (rows == 0)
        return cudaSuccess;
    const int64_t parts = parts_for(rows);
    const cudaError_t error = choose_team<PACK<X, Y>>(width, [&](auto warps, auto chunks) {
        constexpr int WARPS = decltype(warps)::value, CHUNKS = decltype(chunks)::value;
        return launch(norm_backward_kernel<X, Y, WARPS, CHUNKS>, static_cast<unsigned>(parts),
                      WARP_LANES * (WARPS == 1 ? TEAMS : WARPS),
                      WARPS == 1 ? sizeof(float) * TEAMS * static_cast<size_t>(width) : 0, stream, rows,
                      width, x, gain, inverse_rms, dy, dx, scratch);
    });
    return error != cudaSuccess ? error : column_sums(stream, parts, width, scratch, dgain, nullptr);
}

size_t norm_backward_scratch_floats(int64_t rows, int64_t width) {
    return static_cast<size_t>(parts_for(rows) * width);
}

#define INSTANTIATE(X, Y)                                                                                    \
    template cudaError_t rms_norm(cudaStream_t, int64_t, int64_t, const X *, const X *, const float *,       \
                                  float, Y *, float *, X *);                                                 \
    template cudaError_t rms_norm_backward(cudaStream_t, int64_t, int64_t, const X *, const float *,         \
                                           const float *, const Y *, X *, float *, float *)
INSTANTIATE(float, float);
INSTANTIATE(float, bf16);
INSTANTIATE(bf16, bf16);

} // namespace cuda_kernels
