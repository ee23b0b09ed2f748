#include "core/rvq.h"

#include "core/kmeans.h"
#include "kernels/memory.h"

#include <float.h>
#include <string.h>

struct rvq {
    uint32_t dimension, levels, size, greedy_levels, beam;
    size_t stride;                       // scores of a level
    kmeans_index *index[RVQ_LEVELS_MAX]; // [levels]
    float *codebooks;                    // [levels, size, dimension]
};

static status check_shape(uint32_t dimension, uint32_t levels, uint32_t size) {
    if (dimension == 0 || levels == 0 || levels > RVQ_LEVELS_MAX || size == 0 || size > KMEANS_CLUSTERS_MAX)
        return FAIL_USAGE(
            "a quantiser of %u levels of %u codes over dimension %u was asked for; levels must be 1 "
            "to %d, codes 1 to %d, the dimension at least 1",
            levels, size, dimension, RVQ_LEVELS_MAX, KMEANS_CLUSTERS_MAX);
    return STATUS_OK;
}

status rvq_train(const float *vectors, size_t count, const rvq_settings *settings, float *codebooks) {
    size_t dimension = settings->dimension, size = settings->codebook_size;
    TRY(check_shape(settings->dimension, settings->levels, settings->codebook_size));
    float *residual = NULL;
    uint16_t *codes = NULL;
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&residual, count * dimension * sizeof *residual, "quantiser residuals"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&codes, count * sizeof *codes, "quantiser codes"), done);
    memcpy(residual, vectors, count * dimension * sizeof *residual);
    for (uint32_t level = 0; level < settings->levels; level++) {
        float *codebook = codebooks + level * size * dimension;
        kmeans_settings clustering = {.clusters = settings->codebook_size,
                                      .dimension = settings->dimension,
                                      .iterations = settings->iterations,
                                      .seed = settings->seed,
                                      .purpose = 0x52565100u + level};
        TRY_GOTO(result, kmeans_train(residual, count, &clustering, codebook), done);
        kmeans_index *index;
        TRY_GOTO(result, kmeans_index_create(&index, codebook, settings->codebook_size, settings->dimension),
                 done);
        kmeans_index_assign(index, residual, count, codes, NULL);
        kmeans_index_destroy(index);
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < count; i++) {
            for (size_t d = 0; d < dimension; d++)
                residual[i * dimension + d] -= codebook[codes[i] * dimension + d];
        }
    }
done:
    memory_free(residual);
    memory_free(codes);
    return result;
}

status rvq_create(rvq **out, const float *codebooks, uint32_t dimension, uint32_t levels,
                  uint32_t codebook_size, uint32_t greedy_levels, uint32_t beam) {
    *out = NULL;
    TRY(check_shape(dimension, levels, codebook_size));
    if (beam == 0 || beam > RVQ_BEAM_MAX)
        return FAIL_USAGE("a quantiser search of %u candidates was asked for; 1 to %d are possible", beam,
                          RVQ_BEAM_MAX);
    size_t floats = (size_t)levels * codebook_size * dimension;
    void *block;
    TRY(memory_allocate(&block, sizeof(rvq) + floats * sizeof(float), "quantiser"));
    rvq *quantiser = block;
    *quantiser = (rvq){.dimension = dimension,
                       .levels = levels,
                       .size = codebook_size,
                       .greedy_levels = greedy_levels,
                       .beam = beam,
                       .codebooks = (float *)(quantiser + 1)};
    memcpy(quantiser->codebooks, codebooks, floats * sizeof(float));
    for (uint32_t level = 0; level < levels; level++) {
        status result = kmeans_index_create(&quantiser->index[level],
                                            codebooks + (size_t)level * codebook_size * dimension,
                                            codebook_size, dimension);
        if (result != STATUS_OK) {
            rvq_destroy(quantiser);
            return result;
        }
    }
    quantiser->stride = kmeans_index_stride(quantiser->index[0]);
    *out = quantiser;
    return STATUS_OK;
}

void rvq_destroy(rvq *quantiser) {
    if (quantiser == NULL)
        return;
    for (uint32_t level = 0; level < quantiser->levels; level++)
        kmeans_index_destroy(quantiser->index[level]);
    memory_free(quantiser);
}

size_t rvq_scratch_floats(const rvq *quantiser) {
    return (size_t)quantiser->beam * (2 * quantiser->dimension + quantiser->stride) + 16;
}

// A way to quantise the first levels: the sum of its scores is half the squared error less half |vector|^2.
typedef struct candidate {
    float cost;
    uint16_t parent, code;
} candidate;

// Puts an entry into the sorted list of at most `capacity` best; equal costs keep their order of arrival.
static int insert_candidate(candidate *best, int count, int capacity, candidate entry) {
    int place = count;
    while (place > 0 && entry.cost < best[place - 1].cost)
        place--;
    if (place == capacity)
        return count;
    int last = count < capacity ? count : capacity - 1;
    memmove(best + place + 1, best + place, (size_t)(last - place) * sizeof *best);
    best[place] = entry;
    return count < capacity ? count + 1 : capacity;
}

void rvq_encode(const rvq *quantiser, const float *vector, uint16_t *codes, float *scratch) {
    size_t dimension = quantiser->dimension, stride = quantiser->stride;
    uint32_t levels = quantiser->levels, beam = quantiser->beam;
    float *scores = scratch;                           // [beam, stride]
    float *residual = scores + beam * stride;          // [beam, dimension]
    float *next = residual + (size_t)beam * dimension; // [beam, dimension]
    uint16_t path[2][RVQ_BEAM_MAX][RVQ_LEVELS_MAX] = {{{0}}};
    candidate best[RVQ_BEAM_MAX + 1];
    float cost[RVQ_BEAM_MAX] = {0};
    int alive = 1;
    memcpy(residual, vector, dimension * sizeof *vector);
    for (uint32_t level = 0; level < levels; level++) {
        int capacity = level < quantiser->greedy_levels ? 1 : (int)beam, found = 0;
        // The last level needs the single best only.
        if (level + 1 == levels)
            capacity = 1;
        kmeans_index_score(quantiser->index[level], residual, (size_t)alive, scores);
        for (int b = 0; b < alive; b++) {
            const float *row = scores + (size_t)b * stride;
            for (uint32_t k = 0; k < quantiser->size; k++) {
                float total = cost[b] + row[k];
                if (found < capacity || total < best[found - 1].cost)
                    found =
                        insert_candidate(best, found, capacity, (candidate){total, (uint16_t)b, (uint16_t)k});
            }
        }
        for (int i = 0; i < found; i++) {
            const float *code =
                quantiser->codebooks + (level * (size_t)quantiser->size + best[i].code) * dimension;
            const float *from = residual + best[i].parent * dimension;
            float *to = next + (size_t)i * dimension;
            for (size_t d = 0; d < dimension; d++)
                to[d] = from[d] - code[d];
            memcpy(path[(level + 1) % 2][i], path[level % 2][best[i].parent], level * sizeof(uint16_t));
            path[(level + 1) % 2][i][level] = best[i].code;
            cost[i] = best[i].cost;
        }
        float *swap = residual;
        residual = next;
        next = swap;
        alive = found;
    }
    memcpy(codes, path[levels % 2][0], levels * sizeof *codes);
}

void rvq_decode(const rvq *quantiser, const uint16_t *codes, uint32_t levels, float *vector) {
    size_t dimension = quantiser->dimension;
    memset(vector, 0, dimension * sizeof *vector);
    for (uint32_t level = 0; level < levels; level++) {
        const float *code =
            quantiser->codebooks + (level * (size_t)quantiser->size + codes[level]) * dimension;
        for (size_t d = 0; d < dimension; d++)
            vector[d] += code[d];
    }
}
