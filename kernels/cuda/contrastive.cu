// Three kernels: all products of rows (a warp each); the softmax of each row of them in both directions, with
// its loss and gradient (a warp each, in double like the CPU's); the gradients of the vectors (a thread a
// column). Matrices are small: rows^2 products of `width` values, 2 rows^2 floats between the kernels.
#include "kernels/cuda/contrastive.cuh"

namespace cuda_kernels {

namespace {

constexpr int TEAMS = 8, THREADS = TEAMS * WARP_LANES;

__device__ __forceinline__ double warp_sum_double(double x) {
#pragma unroll
    for (int bits = WARP_LANES / 2; bits > 0; bits /= 2)
        x += __shfl_xor_sync(WHOLE_WARP, x, bits);
    return x;
}

// similarity [rows, rows]: a_i . b_j, and its transpose behind it.
__global__ void similarity_kernel(int64_t rows, int64_t width, const float *a, const float *b,
                                  float *similarity) {
    const int64_t pair = static_cast<int64_t>(blockIdx.x) * TEAMS + threadIdx.x / WARP_LANES;
    const int64_t i = pair / rows, j = pair % rows;
    if (i >= rows)
        return;
    float sum = 0.0f;
    for (int64_t column = threadIdx.x % WARP_LANES * 4; column < width; column += WARP_LANES * 4) {
        float x[4], y[4];
        load_pack(a + i * width + column, x);
        load_pack(b + j * width + column, y);
#pragma unroll
        for (int k = 0; k < 4; k++)
            sum = fmaf(x[k], y[k], sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP_LANES == 0) {
        similarity[pair] = sum;
        similarity[rows * rows + j * rows + i] = sum;
    }
}

// A warp turns row r of the 2 * rows rows of similarities into the gradient with respect to them; parts [2 *
// rows, 2] receives its loss and the sum of gradient times similarity.
__global__ void direction_kernel(int64_t rows, float scale, float *similarity, double *parts) {
    const int64_t r = static_cast<int64_t>(blockIdx.x) * TEAMS + threadIdx.x / WARP_LANES;
    const int lane = static_cast<int>(threadIdx.x) % WARP_LANES;
    if (r >= 2 * rows)
        return;
    float *row = similarity + r * rows, top = -INFINITY;
    const int64_t match = r % rows;
    for (int64_t c = lane; c < rows; c += WARP_LANES)
        top = fmaxf(top, row[c]);
    top = warp_maximum(top);
    double sum = 0.0, along = 0.0;
    for (int64_t c = lane; c < rows; c += WARP_LANES)
        sum += exp(static_cast<double>(scale * (row[c] - top)));
    sum = warp_sum_double(sum);
    const double loss = log(sum) - static_cast<double>(scale * (row[match] - top));
    __syncwarp(); // all lanes have read the match before one overwrites it
    for (int64_t c = lane; c < rows; c += WARP_LANES) {
        double p = exp(static_cast<double>(scale * (row[c] - top))) / sum - (c == match ? 1.0 : 0.0);
        p /= 2.0 * static_cast<double>(rows);
        along += p * static_cast<double>(row[c]);
        row[c] = static_cast<float>(p);
    }
    along = warp_sum_double(along);
    if (lane == 0) {
        parts[2 * r] = loss;
        parts[2 * r + 1] = along;
    }
}

// Blocks [rows, columns, 2]: da_i = scale * sum over j of (g_ij + h_ji) b_j, db likewise; h is the second
// half.
__global__ void vector_kernel(int64_t rows, int64_t width, float scale, const float *gradient, const float *a,
                              const float *b, float *da, float *db) {
    const int64_t r = blockIdx.x, column = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
    if (column >= width)
        return;
    const bool second = blockIdx.z == 1;
    const float *own = gradient + (second ? rows * rows : 0), *across = gradient + (second ? 0 : rows * rows),
                *other = second ? a : b;
    float sum = 0.0f;
    for (int64_t c = 0; c < rows; c++)
        sum = fmaf(scale * (own[r * rows + c] + across[c * rows + r]), other[c * width + column], sum);
    (second ? db : da)[r * width + column] = sum;
}

// One warp.
__global__ void loss_kernel(int64_t rows, const double *parts, float *dscale, double *loss) {
    double total = 0.0, along = 0.0;
    for (int64_t r = threadIdx.x; r < 2 * rows; r += WARP_LANES) {
        total += parts[2 * r];
        along += parts[2 * r + 1];
    }
    total = warp_sum_double(total);
    along = warp_sum_double(along);
    if (threadIdx.x == 0) {
        *loss = total / (2.0 * static_cast<double>(rows));
        *dscale = static_cast<float>(along);
    }
}

} // namespace

cudaError_t contrastive_loss(cudaStream_t stream, int64_t rows, int64_t width, const float *a, const float *b,
                             float scale, float *da, float *db, float *dscale, double *loss, void *scratch) {
    double *parts = static_cast<double *>(scratch);
    float *similarity = reinterpret_cast<float *>(parts + 4 * rows);
    cudaError_t error = launch(similarity_kernel, blocks_for(rows * rows, TEAMS), THREADS, 0, stream, rows,
                               width, a, b, similarity);
    if (error == cudaSuccess)
        error = launch(direction_kernel, blocks_for(2 * rows, TEAMS), THREADS, 0, stream, rows, scale,
                       similarity, parts);
    if (error == cudaSuccess)
        error =
            launch(vector_kernel, dim3(static_cast<unsigned>(rows), blocks_for(width, THREADS), 2), THREADS,
                   0, stream, rows, width, scale, static_cast<const float *>(similarity), a, b, da, db);
    if (error == cudaSuccess)
        error = launch(loss_kernel, 1, WARP_LANES, 0, stream, rows, static_cast<const double *>(parts),
                       dscale, loss);
    return error;
}

size_t contrastive_scratch_bytes(int64_t rows) {
    const size_t n = static_cast<size_t>(rows);
    return sizeof(double) * 4 * n + sizeof(float) * 2 * n * n;
}

} // namespace cuda_kernels
