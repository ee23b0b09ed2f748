#include "core/kmeans.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum {
    TILE_CLUSTERS = 16,
    TILE_VECTORS = 4,
    BLOCK_VECTORS = 16,      // vectors a thread scores at once
    SEED_VECTORS = 16,       // vectors a cluster that seeding looks at
    PARALLEL_VECTORS = 2048, // fewer are not worth waking threads
    DEAD_SHARE = 20,         // a cluster is dead below 1 / DEAD_SHARE of an even share
    SETTLING_ITERATIONS = 3  // the last ones, without revival
};

typedef float lanes __attribute__((vector_size(32), may_alias));

struct kmeans_index {
    uint32_t clusters, dimension;
    size_t stride;
    float *packed;    // [stride / 16, dimension, 16]
    float *half_norm; // [stride]
};

static size_t round_up(size_t value, size_t unit) {
    return (value + unit - 1) / unit * unit;
}

static void index_fill(kmeans_index *index, const float *centroids) {
    size_t dimension = index->dimension;
    for (size_t k = 0; k < index->stride; k++) {
        double norm = 0;
        float *packed = index->packed + k / TILE_CLUSTERS * dimension * TILE_CLUSTERS + k % TILE_CLUSTERS;
        for (size_t d = 0; d < dimension && k < index->clusters; d++) {
            float value = centroids[k * dimension + d];
            packed[d * TILE_CLUSTERS] = value;
            norm += (double)value * value;
        }
        index->half_norm[k] = k < index->clusters ? (float)(0.5 * norm) : FLT_MAX;
    }
}

status kmeans_index_create(kmeans_index **out, const float *centroids, uint32_t clusters,
                           uint32_t dimension) {
    *out = NULL;
    if (clusters == 0 || clusters > KMEANS_CLUSTERS_MAX || dimension == 0)
        return FAIL_USAGE(
            "a codebook of %u codes of dimension %u was asked for; codes must be 1 to %d and the "
            "dimension at least 1",
            clusters, dimension, KMEANS_CLUSTERS_MAX);
    size_t stride = round_up(clusters, TILE_CLUSTERS);
    size_t head = round_up(sizeof(kmeans_index), 64), norms = round_up(stride * sizeof(float), 64);
    void *block;
    TRY(memory_allocate(&block, head + norms + stride * dimension * sizeof(float), "codebook index"));
    kmeans_index *index = block;
    index->clusters = clusters;
    index->dimension = dimension;
    index->stride = stride;
    index->half_norm = (float *)(void *)((char *)block + head);
    index->packed = (float *)(void *)((char *)block + head + norms);
    index_fill(index, centroids);
    *out = index;
    return STATUS_OK;
}

void kmeans_index_destroy(kmeans_index *index) {
    memory_free(index);
}

size_t kmeans_index_stride(const kmeans_index *index) {
    return index->stride;
}

// Scores of `rows` vectors against 16 centroids. The order of the additions does not depend on `rows`.
static inline __attribute__((always_inline)) void score_tile(const float *packed, const float *half_norm,
                                                             const float *vectors, size_t dimension, int rows,
                                                             float *scores, size_t stride) {
    lanes sum[TILE_VECTORS][2];
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = (lanes){0};
    for (size_t d = 0; d < dimension; d++) {
        const lanes *centroid = (const lanes *)(const void *)(packed + d * TILE_CLUSTERS);
        lanes low = centroid[0], high = centroid[1];
        for (int r = 0; r < rows; r++) {
            float value = vectors[(size_t)r * dimension + d];
            sum[r][0] += low * value;
            sum[r][1] += high * value;
        }
    }
    const lanes *norm = (const lanes *)(const void *)half_norm;
    for (int r = 0; r < rows; r++) {
        lanes out[2] = {norm[0] - sum[r][0], norm[1] - sum[r][1]};
        memcpy(scores + (size_t)r * stride, out, sizeof out);
    }
}

void kmeans_index_score(const kmeans_index *index, const float *vectors, size_t count, float *scores) {
    size_t dimension = index->dimension, stride = index->stride;
    for (size_t k = 0; k < stride; k += TILE_CLUSTERS) {
        const float *packed = index->packed + k * dimension;
        size_t i = 0;
        for (; i + TILE_VECTORS <= count; i += TILE_VECTORS)
            score_tile(packed, index->half_norm + k, vectors + i * dimension, dimension, TILE_VECTORS,
                       scores + i * stride + k, stride);
        for (; i < count; i++)
            score_tile(packed, index->half_norm + k, vectors + i * dimension, dimension, 1,
                       scores + i * stride + k, stride);
    }
}

static uint32_t lowest(const float *scores, uint32_t count) {
    uint32_t best = 0;
    for (uint32_t k = 1; k < count; k++) {
        if (scores[k] < scores[best])
            best = k;
    }
    return best;
}

static float squared_norm(const float *vector, size_t dimension) {
    float sum = 0;
    for (size_t d = 0; d < dimension; d++)
        sum += vector[d] * vector[d];
    return sum;
}

void kmeans_index_assign(const kmeans_index *index, const float *vectors, size_t count, uint16_t *codes,
                         float *distance) {
    size_t dimension = index->dimension;
    // Scores a tile of centroids at a time and keeps only the best, so that no table of scores is needed.
#pragma omp parallel for schedule(static) if (count > PARALLEL_VECTORS)
    for (size_t first = 0; first < count; first += BLOCK_VECTORS) {
        size_t rows = count - first < BLOCK_VECTORS ? count - first : BLOCK_VECTORS;
        float best[BLOCK_VECTORS], scores[BLOCK_VECTORS * TILE_CLUSTERS] __attribute__((aligned(64)));
        uint16_t code[BLOCK_VECTORS] = {0};
        for (size_t r = 0; r < rows; r++)
            best[r] = FLT_MAX;
        for (size_t k = 0; k < index->stride; k += TILE_CLUSTERS) {
            kmeans_index tile = {.clusters = TILE_CLUSTERS,
                                 .dimension = index->dimension,
                                 .stride = TILE_CLUSTERS,
                                 .packed = index->packed + k * dimension,
                                 .half_norm = index->half_norm + k};
            kmeans_index_score(&tile, vectors + first * dimension, rows, scores);
            for (size_t r = 0; r < rows; r++) {
                const float *row = scores + r * TILE_CLUSTERS;
                float least = row[0];
                for (int i = 1; i < TILE_CLUSTERS; i++)
                    least = row[i] < least ? row[i] : least;
                if (least < best[r]) {
                    best[r] = least;
                    code[r] = (uint16_t)(k + lowest(row, TILE_CLUSTERS));
                }
            }
        }
        for (size_t r = 0; r < rows; r++) {
            codes[first + r] = code[r];
            if (distance != NULL)
                distance[first + r] =
                    fmaxf(0.0f, 2.0f * best[r] + squared_norm(vectors + (first + r) * dimension, dimension));
        }
    }
}

// Draws a vector with probability proportional to its weight; `fallback` if all weights are 0.
static size_t draw_weighted(const float *weight, size_t count, float uniform, size_t fallback) {
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += weight[i];
    double goal = uniform * total, sum = 0;
    if (!(total > 0))
        return fallback;
    for (size_t i = 0; i < count; i++) {
        sum += weight[i];
        if (sum > goal)
            return i;
    }
    return count - 1;
}

// distance[i] = min(distance[i], |vector i * step - centroid|^2)
static void lower_distances(const float *vectors, size_t count, size_t step, size_t dimension,
                            const float *centroid, float *distance) {
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++) {
        const float *vector = vectors + i * step * dimension;
        lanes sum = {0};
        size_t d = 0;
        for (; d + 8 <= dimension; d += 8) {
            lanes a, b;
            memcpy(&a, vector + d, sizeof a);
            memcpy(&b, centroid + d, sizeof b);
            sum += (a - b) * (a - b);
        }
        float rest = 0;
        for (; d < dimension; d++)
            rest += (vector[d] - centroid[d]) * (vector[d] - centroid[d]);
        float squared =
            ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7])) + rest;
        if (squared < distance[i])
            distance[i] = squared;
    }
}

// Seeds from an evenly spaced part of the vectors: every cluster costs a pass over them.
static void seed_centroids(const float *vectors, size_t count, const kmeans_settings *settings,
                           philox_stream *random, float *distance, float *centroids) {
    size_t dimension = settings->dimension;
    size_t step = count / ((size_t)SEED_VECTORS * settings->clusters) + 1, kept = (count + step - 1) / step;
    size_t chosen = philox_next_below(random, (uint32_t)kept);
    for (size_t i = 0; i < kept; i++)
        distance[i] = FLT_MAX;
    for (uint32_t k = 0; k < settings->clusters; k++) {
        float *centroid = centroids + k * dimension;
        memcpy(centroid, vectors + chosen * step * dimension, dimension * sizeof *centroid);
        lower_distances(vectors, kept, step, dimension, centroid, distance);
        chosen = draw_weighted(distance, kept, philox_next_uniform(random), k % kept);
    }
}

// The mean of each cluster, summed in the order of the vectors. order: [count] scratch, start: [clusters +
// 1].
static void update_centroids(const float *vectors, size_t count, const kmeans_settings *settings,
                             const uint16_t *codes, uint32_t *order, uint32_t *start, float *centroids) {
    uint32_t clusters = settings->clusters;
    size_t dimension = settings->dimension;
    memset(start, 0, (clusters + 1) * sizeof *start);
    for (size_t i = 0; i < count; i++)
        start[codes[i] + 1]++;
    for (uint32_t k = 0; k < clusters; k++)
        start[k + 1] += start[k];
    for (size_t i = 0; i < count; i++)
        order[start[codes[i]]++] = (uint32_t)i;
    for (uint32_t k = clusters; k > 0; k--)
        start[k] = start[k - 1];
    start[0] = 0;
#pragma omp parallel for schedule(dynamic, 4)
    for (uint32_t k = 0; k < clusters; k++) {
        uint32_t members = start[k + 1] - start[k];
        if (members == 0)
            continue;
        float *centroid = centroids + k * dimension;
        for (size_t d0 = 0; d0 < dimension; d0 += 64) {
            size_t width = dimension - d0 < 64 ? dimension - d0 : 64;
            double sum[64] = {0};
            for (uint32_t m = start[k]; m < start[k + 1]; m++) {
                const float *vector = vectors + order[m] * dimension + d0;
                for (size_t d = 0; d < width; d++)
                    sum[d] += vector[d];
            }
            for (size_t d = 0; d < width; d++)
                centroid[d0 + d] = (float)(sum[d] / members);
        }
    }
}

// Moves each dead cluster to a vector that is badly served; the vectors next to it are then served.
static void revive_dead(const float *vectors, size_t count, const kmeans_settings *settings,
                        const uint32_t *start, philox_stream *random, float *distance, float *centroids) {
    size_t dimension = settings->dimension;
    for (uint32_t k = 0; k < settings->clusters; k++) {
        uint64_t members = start[k + 1] - start[k];
        if (members * settings->clusters * DEAD_SHARE >= count)
            continue;
        size_t chosen = draw_weighted(distance, count, philox_next_uniform(random), k % count);
        memcpy(centroids + k * dimension, vectors + chosen * dimension, dimension * sizeof *centroids);
        lower_distances(vectors, count, 1, dimension, centroids + k * dimension, distance);
    }
}

status kmeans_train(const float *vectors, size_t count, const kmeans_settings *settings, float *centroids) {
    uint32_t clusters = settings->clusters;
    if (count < clusters || count > UINT32_MAX)
        return FAIL(
            "%u clusters cannot be trained on %zu vectors; give at least %u vectors or fewer clusters",
            clusters, count, clusters);
    for (size_t i = 0; i < count * settings->dimension; i++) {
        if (!isfinite(vectors[i]))
            return FAIL("vector %zu of %zu for clustering is not finite in dimension %zu; check the audio it "
                        "came from",
                        i / settings->dimension, count, i % settings->dimension);
    }
    size_t sizes[4] = {count * sizeof(float), count * sizeof(uint16_t), count * sizeof(uint32_t),
                       (clusters + 1) * sizeof(uint32_t)};
    size_t total = 0;
    for (int i = 0; i < 4; i++)
        total += round_up(sizes[i], 64);
    void *block;
    TRY(memory_allocate(&block, total, "clustering scratch"));
    arena views = {.base = block, .capacity = total};
    float *distance = arena_take(&views, sizes[0]);
    uint16_t *codes = arena_take(&views, sizes[1]);
    uint32_t *order = arena_take(&views, sizes[2]), *start = arena_take(&views, sizes[3]);
    philox_stream random = {.key = settings->seed, .purpose = settings->purpose};
    seed_centroids(vectors, count, settings, &random, distance, centroids);
    kmeans_index *index;
    status result = kmeans_index_create(&index, centroids, clusters, settings->dimension);
    for (uint32_t i = 0; result == STATUS_OK && i < settings->iterations; i++) {
        kmeans_index_assign(index, vectors, count, codes, distance);
        update_centroids(vectors, count, settings, codes, order, start, centroids);
        if (i + SETTLING_ITERATIONS < settings->iterations)
            revive_dead(vectors, count, settings, start, &random, distance, centroids);
        index_fill(index, centroids);
    }
    if (result == STATUS_OK)
        kmeans_index_destroy(index);
    memory_free(block);
    return result;
}
