// Features behind the semantic tokens: what is played rather than how it sounds exactly. Per token frame 12
// chroma (pitch classes), 4 onset strengths (rises of log-mel in four ranges of bands) and 10 timbre values
// (discrete cosine transform of the mean log-mel). Tokens are k-means clusters of these, standardised and
// stacked with their neighbours, the role that HuBERT's first iteration gives to k-means of MFCCs (Hsu et
// al., 2021).
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    SEMANTIC_CHROMA = 12,
    SEMANTIC_ONSETS = 4,
    SEMANTIC_TIMBRES = 10,
    SEMANTIC_FEATURES = SEMANTIC_CHROMA + SEMANTIC_ONSETS + SEMANTIC_TIMBRES,
};

typedef struct semantic semantic;

// frame_samples: audio samples a token frame; columns, bands: shape of a frame's log-mel. Read-only
// afterwards.
status semantic_create(semantic **out, uint32_t sample_rate, uint32_t frame_samples, uint32_t columns,
                       uint32_t bands);
void semantic_destroy(semantic *semantic); // NULL is allowed

size_t semantic_scratch_bytes(const semantic *semantic, size_t frames);

// audio: [samples]; log_mel: [frames, columns, bands]; features: [frames, SEMANTIC_FEATURES]; scratch:
// 64-byte aligned.
void semantic_extract(const semantic *semantic, const float *audio, size_t samples, const float *log_mel,
                      size_t frames, float *features, void *scratch);

// out[f] = (features[f - radius .. f + radius] - mean) * scale, the first and last frame repeated at the
// ends. mean, scale: [SEMANTIC_FEATURES]; out: [frames, 2 * radius + 1, SEMANTIC_FEATURES].
void semantic_stack(const float *features, size_t frames, const float *mean, const float *scale,
                    uint32_t radius, float *out);
