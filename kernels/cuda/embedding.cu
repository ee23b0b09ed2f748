// The sum gives each thread one chunk of 16 bytes of a row: every table's row is read once, the sum written
// once.
//
// The gradient sorts the rows by entry, stably, by counting; then blocks add PIECE sorted rows each, whatever
// their entries, so that one entry that all rows share costs no more than many. An entry that lies within one
// piece is added to the table at once; of one that goes on beyond, each piece leaves a partial sum, and these
// are added in order. Traffic: dout once, 12 bytes a row for the sort, the table's touched rows twice.
#include "kernels/cuda/embedding.cuh"

namespace cuda_kernels {

namespace {

constexpr int THREADS = 256, PIECE = 128, AHEAD = 4;
constexpr int64_t SORTED_ROWS = 1024; // that one warp places
constexpr int SORTED_ENTRIES = 12288; // that one block counts, in 48 KiB

template <typename T>
__global__ void sum_kernel(int64_t rows, int64_t width, embedding_tables<T> tables, T *out, bool accumulate) {
    const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * PACK<T>;
    const int64_t row = at / width, column = at % width;
    if (row >= rows)
        return;
    float sum[PACK<T>] = {}, value[PACK<T>];
    if (accumulate)
        load_pack(out + at, sum);
    for (int t = 0; t < tables.count; t++) {
        const int32_t index = tables.index[t][row];
        if (index < 0)
            continue;
        load_pack(tables.table[t] + index * width + column, value);
#pragma unroll
        for (int i = 0; i < PACK<T>; i++)
            sum[i] += value[i];
    }
    store_pack(out + at, sum);
}

// Entries of a block's range, which begin at blockIdx.y * SORTED_ENTRIES.
__device__ __forceinline__ int range_of(int entries) {
    return min(entries - static_cast<int>(blockIdx.y) * SORTED_ENTRIES, SORTED_ENTRIES);
}

// A row's entry within a block's range, or -1.
__device__ __forceinline__ int entry_in_range(int32_t entry, int range) {
    const int own = entry - static_cast<int>(blockIdx.y) * SORTED_ENTRIES;
    return entry >= 0 && own >= 0 && own < range ? own : -1;
}

// counts [parts, entries] of the rows of each part. Blocks [parts, ranges].
__global__ void count_kernel(int64_t rows, int entries, const int32_t *index, int32_t *counts) {
    SHARED_DYNAMIC(int32_t, count); // [range]
    const int range = range_of(entries);
    for (int e = static_cast<int>(threadIdx.x); e < range; e += static_cast<int>(blockDim.x))
        count[e] = 0;
    __syncthreads(); // all are 0
    const int64_t first = blockIdx.x * SORTED_ROWS, last = min(first + SORTED_ROWS, rows);
    for (int64_t row = first + threadIdx.x; row < last; row += blockDim.x) {
        const int own = entry_in_range(index[row], range);
        if (own >= 0)
            atomicAdd(&count[own], 1);
    }
    __syncthreads(); // all have been counted
    counts += static_cast<int64_t>(blockIdx.x) * entries + blockIdx.y * SORTED_ENTRIES;
    for (int e = static_cast<int>(threadIdx.x); e < range; e += static_cast<int>(blockDim.x))
        counts[e] = count[e];
}

// counts becomes the number of the entry's rows in earlier parts; starts[entry + 1] the number of its rows.
__global__ void prefix_kernel(int parts, int entries, int32_t *counts, int32_t *starts) {
    const int e = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (e >= entries)
        return;
    int32_t before = 0;
    for (int part = 0; part < parts; part++) {
        int32_t *at = counts + static_cast<int64_t>(part) * entries + e;
        const int32_t count = *at;
        *at = before;
        before += count;
    }
    starts[e + 1] = before;
}

// starts [entries + 1] becomes where each entry's rows begin. One warp.
__global__ void start_kernel(int entries, int32_t *starts) {
    const int lane = static_cast<int>(threadIdx.x);
    int32_t before = 0;
    if (lane == 0)
        starts[0] = 0;
    for (int first = 0; first < entries; first += WARP_LANES) {
        int32_t sum = first + lane < entries ? starts[first + lane + 1] : 0;
        for (unsigned delta = 1; delta < WARP_LANES; delta *= 2) {
            const int32_t other = __shfl_up_sync(WHOLE_WARP, sum, delta);
            if (lane >= static_cast<int>(delta))
                sum += other;
        }
        if (first + lane < entries)
            starts[first + lane + 1] = before + sum;
        before += __shfl_sync(WHOLE_WARP, sum, WARP_LANES - 1);
    }
}

// order [rows]: the rows by entry, those of one entry as they come. One warp a part and range.
__global__ void place_kernel(int64_t rows, int entries, const int32_t *index, const int32_t *counts,
                             const int32_t *starts, int32_t *order) {
    SHARED_DYNAMIC(int32_t, next); // [range] place of the entry's next row
    const int lane = static_cast<int>(threadIdx.x), range = range_of(entries);
    counts += static_cast<int64_t>(blockIdx.x) * entries + blockIdx.y * SORTED_ENTRIES;
    starts += blockIdx.y * SORTED_ENTRIES;
    for (int e = lane; e < range; e += WARP_LANES)
        next[e] = starts[e] + counts[e];
    __syncwarp(); // all have begun
    const int64_t end = min((blockIdx.x + 1) * SORTED_ROWS, rows);
    for (int64_t first = blockIdx.x * SORTED_ROWS; first < end; first += WARP_LANES) {
        const int64_t row = first + lane;
        const int entry = row < end ? entry_in_range(index[row], range) : -1;
        const unsigned same = __match_any_sync(WHOLE_WARP, entry);
        const int rank = __popc(same & ((1u << lane) - 1u));
        if (entry >= 0)
            order[next[entry] + rank] = static_cast<int32_t>(row);
        __syncwarp(); // all have read before one moves on
        if (entry >= 0 && rank == 0)
            next[entry] += __popc(same);
        __syncwarp(); // and moved on before the next read
    }
}

// Blocks [pieces, columns]. edges: [pieces, 2, width], the sum of the piece's part of an entry that began
// before the piece, and of one that goes on after it without having begun before.
template <typename T>
__global__ void gradient_kernel(int64_t width, int entries, const int32_t *index, const int32_t *order,
                                const int32_t *starts, const T *dout, float *dtable, float *edges) {
    const int begin = static_cast<int>(blockIdx.x) * PIECE, end = min(begin + PIECE, starts[entries]);
    const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * PACK<T>;
    if (column >= width || begin >= end)
        return;
    float sum[PACK<T>] = {};
    int32_t entry = index[order[begin]];
    const auto finish = [&]() {
        float *to = dtable + entry * width + column;
        if (starts[entry] < begin)
            to = edges + static_cast<int64_t>(blockIdx.x) * 2 * width + column;
        else if (starts[entry + 1] > end)
            to = edges + (static_cast<int64_t>(blockIdx.x) * 2 + 1) * width + column;
        else {
            float before[PACK<T>];
            load_pack(to, before);
            for (int i = 0; i < PACK<T>; i++)
                sum[i] = before[i] + sum[i];
        }
        store_pack(to, sum);
    };
    for (int first = begin; first < end; first += AHEAD) {
        float value[AHEAD][PACK<T>];
        int32_t entries_ahead[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) // several rows are under way at once
            if (first + a < end) {
                const int32_t row = order[first + a];
                entries_ahead[a] = index[row];
                stream_pack(dout + row * width + column, value[a]);
            }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            if (first + a >= end)
                continue;
            if (entries_ahead[a] != entry) {
                finish();
                entry = entries_ahead[a];
                for (int i = 0; i < PACK<T>; i++)
                    sum[i] = 0.0f;
            }
            for (int i = 0; i < PACK<T>; i++)
                sum[i] += value[a][i];
        }
    }
    finish();
}

// Blocks [entries, columns]: adds what the pieces have left of an entry.
__global__ void edges_kernel(int64_t width, const int32_t *starts, const float *edges, float *dtable) {
    const int32_t begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    const int64_t column = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
    if (column >= width || begin == end || begin / PIECE == (end - 1) / PIECE)
        return;
    float sum = edges[(static_cast<int64_t>(begin / PIECE) * 2 + 1) * width + column];
    for (int64_t piece = begin / PIECE + 1; piece <= (end - 1) / PIECE; piece++)
        sum += edges[piece * 2 * width + column];
    dtable[blockIdx.x * width + column] += sum;
}

struct workspace {
    int64_t parts, pieces;
    size_t counts, starts, order, edges, bytes; // where they begin
};

workspace divide(int64_t rows, int64_t entries, int64_t width) {
    const auto aligned = [](int64_t count) { return (static_cast<size_t>(count) * 4 + 15) / 16 * 16; };
    workspace w = {(rows + SORTED_ROWS - 1) / SORTED_ROWS, (rows + PIECE - 1) / PIECE, 0, 0, 0, 0, 0};
    w.starts = w.counts + aligned(w.parts * entries);
    w.order = w.starts + aligned(entries + 1);
    w.edges = w.order + aligned(rows);
    w.bytes = w.edges + aligned(w.pieces * 2 * width);
    return w;
}

} // namespace

template <typename T>
cudaError_t embedding_sum(cudaStream_t stream, int64_t rows, int64_t width, const embedding_tables<T> &tables,
                          T *out, bool accumulate) {
    return launch(sum_kernel<T>, blocks_for(rows * width / PACK<T>, THREADS), THREADS, 0, stream, rows, width,
                  tables, out, accumulate);
}

template <typename T>
cudaError_t embedding_backward(cudaStream_t stream, int64_t rows, int64_t entries, int64_t width,
                               const int32_t *index, const T *dout, float *dtable, void *scratch) {
    if (rows == 0)
        return cudaSuccess;
    if (rows > INT32_MAX)
        return cudaErrorInvalidValue;
    const workspace w = divide(rows, entries, width);
    char *base = static_cast<char *>(scratch);
    int32_t *counts = reinterpret_cast<int32_t *>(base + w.counts),
            *starts = reinterpret_cast<int32_t *>(base + w.starts),
            *order = reinterpret_cast<int32_t *>(base + w.order);
    float *edges = reinterpret_cast<float *>(base + w.edges);
    const int all = static_cast<int>(entries);
    const unsigned parts = static_cast<unsigned>(w.parts);
    const dim3 blocks(parts, blocks_for(entries, SORTED_ENTRIES));
    const size_t shared = sizeof(int32_t) * static_cast<size_t>(min(all, SORTED_ENTRIES));
    cudaError_t error = launch(count_kernel, blocks, THREADS, shared, stream, rows, all, index, counts);
    if (error == cudaSuccess)
        error = launch(prefix_kernel, blocks_for(entries, THREADS), THREADS, 0, stream,
                       static_cast<int>(parts), all, counts, starts);
    if (error == cudaSuccess)
        error = launch(start_kernel, 1, WARP_LANES, 0, stream, all, starts);
    if (error == cudaSuccess)
        error = launch(place_kernel, blocks, WARP_LANES, shared, stream, rows, all, index,
                       static_cast<const int32_t *>(counts), static_cast<const int32_t *>(starts), order);
    if (error == cudaSuccess)
        error = launch(gradient_kernel<T>,
                       dim3(static_cast<unsigned>(w.pieces), blocks_for(width / PACK<T>, WARP_LANES * 2)),
                       WARP_LANES * 2, 0, stream, width, all, index, static_cast<const int32_t *>(order),
                       static_cast<const int32_t *>(starts), dout, dtable, edges);
    if (error == cudaSuccess)
        error = launch(edges_kernel, dim3(static_cast<unsigned>(entries), blocks_for(width, THREADS)),
                       THREADS, 0, stream, width, static_cast<const int32_t *>(starts),
                       static_cast<const float *>(edges), dtable);
    return error;
}

size_t embedding_backward_scratch_bytes(int64_t rows, int64_t entries, int64_t width) {
    return divide(rows, entries, width).bytes;
}

#define INSTANTIATE(T)                                                                                       \
    template cudaError_t embedding_sum(cudaStream_t, int64_t, int64_t, const embedding_tables<T> &, T *,     \
                                       bool);                                                                \
    template cudaError_t embedding_backward(cudaStream_t, int64_t, int64_t, int64_t, const int32_t *,        \
                                            const T *, float *, void *)
INSTANTIATE(float);
INSTANTIATE(bf16);

} // namespace cuda_kernels
