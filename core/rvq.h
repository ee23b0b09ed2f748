// Residual vector quantisation: level 0 quantises the vector, each further level what the levels before left
// over (Juang and Gray, 1982; Zeghidour et al., "SoundStream", 2021). Generic over the dimension: the codec
// uses it for frames of log-mel, the text-music embedding for prefix tokens.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum { RVQ_LEVELS_MAX = 16, RVQ_BEAM_MAX = 32 };

typedef struct rvq_settings {
    uint32_t dimension;     // of a vector
    uint32_t levels;        // 1 .. RVQ_LEVELS_MAX
    uint32_t codebook_size; // codes a level
    uint32_t iterations;    // of k-means a level
    uint64_t seed;
} rvq_settings;

// vectors: [count, dimension], count >= codebook_size; codebooks: [levels, codebook_size, dimension] receives
// the result. Deterministic, independent of the number of threads.
status rvq_train(const float *vectors, size_t count, const rvq_settings *settings, float *codebooks);

// A quantiser ready for use. Read-only afterwards, shared by threads.
typedef struct rvq rvq;

// codebooks: [levels, codebook_size, dimension], copied. greedy_levels: the first levels take the nearest
// code each, so that they are plain functions of the vector; the rest is searched jointly with `beam`
// candidates, 1 .. RVQ_BEAM_MAX (1: greedy throughout).
status rvq_create(rvq **out, const float *codebooks, uint32_t dimension, uint32_t levels,
                  uint32_t codebook_size, uint32_t greedy_levels, uint32_t beam);
void rvq_destroy(rvq *quantiser); // NULL is allowed

size_t rvq_scratch_floats(const rvq *quantiser); // scratch of rvq_encode, 64-byte aligned

// vector: [dimension]; codes: [levels].
void rvq_encode(const rvq *quantiser, const float *vector, uint16_t *codes, float *scratch);

// The sum of the codes of the first `levels` levels. codes: [levels], each below codebook_size;
// vector: [dimension].
void rvq_decode(const rvq *quantiser, const uint16_t *codes, uint32_t levels, float *vector);
