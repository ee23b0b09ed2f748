#include "core/code_embedding.h"

#include "kernels/philox.h"

#include <math.h>
#include <stdio.h>

enum { PURPOSE_PROJECTION = 0x50524f4a };

// The code vectors of one level.
typedef struct code_vectors {
    const float *data; // [count, dimension]
    size_t count, dimension;
    uint32_t space; // levels of one space are projected alike
    double rms;     // of a code's norm over all levels of the space
} code_vectors;

static double mean_norm(const codec_tensor *tensor, size_t dimension) {
    const size_t elements = codec_tensor_elements(tensor);
    double sum = 0.0;
    for (size_t i = 0; i < elements; i++)
        sum += (double)tensor->data[i] * (double)tensor->data[i];
    return sqrt(sum / (double)elements * (double)dimension);
}

static code_vectors vectors_of(const codec *codec, int level) {
    codec_tensor tensors[CODEC_TENSORS];
    codec_get_tensors(codec, tensors);
    const codec_tensor *semantic = &tensors[CODEC_TENSOR_SEMANTIC_CENTROIDS],
                       *acoustic = &tensors[CODEC_TENSOR_CODEBOOKS];
    if (level == 0) {
        const size_t dimension = (size_t)semantic->shape[1];
        return (code_vectors){semantic->data, (size_t)semantic->shape[0], dimension, 0,
                              mean_norm(semantic, dimension)};
    }
    const size_t count = (size_t)acoustic->shape[1], dimension = (size_t)acoustic->shape[2];
    return (code_vectors){acoustic->data + (size_t)(level - 1) * count * dimension, count, dimension, 1,
                          mean_norm(acoustic, dimension)};
}

// The sum of twelve uniform numbers is normal enough for a projection.
static float normal(philox_stream *draws) {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++)
        sum += philox_next_uniform(draws);
    return sum;
}

// One column of the table at a time: out[code] = gain * sum over dimensions of draw * vector.
static void project(const code_vectors *codes, uint64_t seed, float gain, size_t width, float *table) {
    for (size_t column = 0; column < width; column++) {
        philox_stream draws = {
            .key = seed, .purpose = PURPOSE_PROJECTION + codes->space, .position = (uint64_t)column << 32};
        for (size_t code = 0; code < codes->count; code++)
            table[code * width + column] = 0.0f;
        for (size_t d = 0; d < codes->dimension; d++) {
            const float weight = gain * normal(&draws);
            for (size_t code = 0; code < codes->count; code++)
                table[code * width + column] += weight * codes->data[code * codes->dimension + d];
        }
    }
}

status code_embedding_start(const codec *codec, uint64_t seed, const parameter_list *list, const char *prefix,
                            int levels, float rms, float *values) {
    const int available = (int)codec_describe(codec)->levels;
    if (levels > available)
        return FAIL("the model reads %d token levels, the codec has %d", levels, available);
    for (int level = 0; level < levels; level++) {
        char name[PARAMETER_NAME_MAX];
        snprintf(name, sizeof name, "%s.%d.weight", prefix, level);
        const parameter *table = parameter_list_find(list, name);
        const code_vectors codes = vectors_of(codec, level);
        if (table == NULL || (size_t)table->rows != codes.count)
            return FAIL("the model's %s has %lld entries, the codec has %zu codes on this level; use the "
                        "codec that made the tokens",
                        name, table == NULL ? 0LL : (long long)table->rows, codes.count);
        const float gain = codes.rms > 0.0 ? (float)((double)rms / codes.rms) : 0.0f;
        project(&codes, seed, gain, (size_t)table->columns, values + table->offset);
    }
    return STATUS_OK;
}

status code_embedding_start_prefix(const float *codebooks, int levels, int entries, int dimension,
                                   uint64_t seed, const parameter_list *list, float rms, float *values) {
    static const char name[] = "prefix.embedding.weight";
    const parameter *table = parameter_list_find(list, name);
    if (table == NULL || table->rows != (int64_t)levels * entries)
        return FAIL(
            "the model's %s has %lld entries, the joint embedding has %d levels of %d codes; train the "
            "embedding with the same model.prefix and model.prefix_codebook",
            name, table == NULL ? 0LL : (long long)table->rows, levels, entries);
    const code_vectors codes = {codebooks, (size_t)levels * (size_t)entries, (size_t)dimension, 2, 0.0};
    double squares = 0.0; // of one code of every level, in the mean
    for (size_t i = 0; i < codes.count * codes.dimension; i++)
        squares += (double)codebooks[i] * (double)codebooks[i] / entries;
    project(&codes, seed, squares > 0.0 ? (float)((double)rms / sqrt(squares)) : 0.0f, (size_t)table->columns,
            values + table->offset);
    return STATUS_OK;
}
