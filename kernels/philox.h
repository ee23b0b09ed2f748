// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A number is a pure function of key and counter, so it does not matter which rank or thread asks.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define PHILOX_INLINE __host__ __device__ static inline
#else
#define PHILOX_INLINE static inline
#endif

typedef struct philox_block {
    uint32_t word[4];
} philox_block;

// key: [2], counter: [4].
PHILOX_INLINE philox_block philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    philox_block block = {{c0, c1, c2, c3}};
    return block;
}

// Maps a word to [0, 1) with 24 bits, exactly representable in f32.
PHILOX_INLINE float philox_uniform(uint32_t word) {
    return (float)(word >> 8) * 0x1p-24f;
}

// A stream for sequential use (composer, initialisation, shuffling): one key, a running counter.
typedef struct philox_stream {
    uint64_t key;
    uint64_t position; // next 32-bit word
    uint32_t purpose;  // keeps streams with the same key apart
} philox_stream;

// Words 4 index to 4 index + 3 of a stream.
static inline philox_block philox_stream_block(uint64_t key, uint32_t purpose, uint64_t index) {
    return philox(key, (uint32_t)index, (uint32_t)(index >> 32), purpose, 0x53545245u);
}

static inline uint32_t philox_next(philox_stream *stream) {
    const uint64_t index = stream->position++;
    return philox_stream_block(stream->key, stream->purpose, index >> 2).word[index & 3];
}

static inline float philox_next_uniform(philox_stream *stream) {
    return philox_uniform(philox_next(stream));
}

// Uniform integer in [0, bound), bound >= 1; multiply-shift, bias below 2^-32 * bound.
static inline uint32_t philox_next_below(philox_stream *stream, uint32_t bound) {
    return (uint32_t)(((uint64_t)philox_next(stream) * bound) >> 32);
}
