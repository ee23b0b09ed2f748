// Codec: audio <-> tokens. A frame holds one semantic token and `acoustic_levels` acoustic tokens, coarse
// first. The first half of this header is the interface of any codec with its own decoder; the second half
// makes the native one: residual vector quantisation of stacked log-mel columns, and Griffin-Lim.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

enum { CODEC_LEVELS_MAX = 16 };

typedef struct codec codec;

typedef struct codec_description {
    uint32_t sample_rate;                     // Hz
    uint32_t frame_samples;                   // audio samples a token frame
    uint32_t levels;                          // 1 semantic + acoustic levels
    uint32_t codebook_size[CODEC_LEVELS_MAX]; // [levels]
} codec_description;

const codec_description *codec_describe(const codec *codec);

// Frames of a clip of `samples` samples; the last one is filled up with silence.
size_t codec_frame_count(const codec *codec, size_t samples);

// audio: [samples], mono, nominally within [-1, 1], samples >= 1; tokens: [codec_frame_count(samples),
// levels]. Thread-safe on one codec. The result does not depend on threads. Fails on samples that are not
// finite.
status codec_encode(const codec *codec, const float *audio, size_t samples, uint16_t *tokens);

// tokens: [frames, levels], frames >= 1; audio: [frames * frame_samples], limited to [-1, 1]. `iterations` of
// phase reconstruction: few for measuring, more for listening. Thread-safe on one codec. Fails on a token
// outside its codebook.
status codec_decode(const codec *codec, const uint16_t *tokens, size_t frames, int iterations, float *audio);

// The same from the first `levels` levels of each frame only (1 .. levels of the description); the rest is
// not looked at. loudest [1]: the greatest |sample| before the limiter; may be NULL.
status codec_decode_coarse(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels,
                           int iterations, float *audio, float *loudest);

// The same with the caller's scratch [codec_decode_scratch_bytes(codec, frames)], 64-byte aligned; allocates
// nothing. One scratch serves one call at a time.
size_t codec_decode_scratch_bytes(const codec *codec, size_t frames);
status codec_decode_into(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels,
                         int iterations, float *audio, float *loudest, void *scratch);

enum { CODEC_ITERATIONS_MEASURE = 6, CODEC_ITERATIONS_LISTEN = 32, CODEC_ITERATIONS_MAX = 1000 };

void codec_destroy(codec *codec); // NULL is allowed

// ---- the native codec ----

typedef struct codec_config {
    uint32_t sample_rate;       // Hz
    uint32_t frame_samples;     // audio samples a token frame, a multiple of columns
    uint32_t columns;           // log-mel columns a frame; their hop is frame_samples / columns
    uint32_t window;            // samples of a column's spectrum, a power of two, at least twice the hop
    uint32_t mel_bands;         // of a column
    float mel_low, mel_high;    // Hz, range of the bands
    float log_floor;            // log-mel is log(mel + log_floor)
    uint32_t dimension;         // principal components of a frame's log-mel that are quantised
    uint32_t acoustic_levels;   // 1 .. CODEC_LEVELS_MAX - 1
    uint32_t acoustic_codebook; // codes a level
    uint32_t greedy_levels;     // first levels that take the nearest code; the others are searched jointly
    uint32_t beam;              // candidates of that search
    uint32_t semantic_codebook; // codes
    uint32_t semantic_radius;   // frames of context on each side
} codec_config;

codec_config codec_config_default(void);

// Refuses settings that cannot work, naming the setting, its value and the range.
status codec_config_check(const codec_config *config);

// The settings by name, for files and options.
typedef struct codec_setting {
    const char *name;
    const char *meaning;
    size_t offset; // in codec_config
    int is_real;   // float, otherwise uint32_t
} codec_setting;
const codec_setting *codec_settings(size_t *count);

// The trained arrays, all float, in this order.
typedef enum codec_tensor_index {
    CODEC_TENSOR_MEAN,               // [columns * mel_bands]
    CODEC_TENSOR_BASIS,              // [dimension, columns * mel_bands] orthonormal rows
    CODEC_TENSOR_CODEBOOKS,          // [acoustic_levels, acoustic_codebook, dimension]
    CODEC_TENSOR_SEMANTIC_MEAN,      // [SEMANTIC_FEATURES]
    CODEC_TENSOR_SEMANTIC_SCALE,     // [SEMANTIC_FEATURES]
    CODEC_TENSOR_SEMANTIC_CENTROIDS, // [semantic_codebook, (2 * semantic_radius + 1) * SEMANTIC_FEATURES]
    CODEC_TENSORS,
} codec_tensor_index;

typedef struct codec_tensor {
    const char *name;
    int rank;
    int64_t shape[3];  // [rank]
    const float *data; // [shape[0], ..., shape[rank - 1]]
} codec_tensor;

// Names and shapes for a configuration that passed codec_config_check; data is NULL. out: [CODEC_TENSORS].
void codec_tensor_layout(const codec_config *config, codec_tensor *out);
size_t codec_tensor_elements(const codec_tensor *tensor);

// tensors: [CODEC_TENSORS] with the layout of `config`; the data are copied. Fails on values that are not
// finite.
status codec_create(codec **out, const codec_config *config, const codec_tensor *tensors);

const codec_config *codec_get_config(const codec *codec);
// The codec's own tensors; the data live as long as the codec. out: [CODEC_TENSORS].
void codec_get_tensors(const codec *codec, codec_tensor *out);

// Log-mel of audio, and log-mel as the tokens' first `levels` levels describe it, to measure the error of the
// quantiser. log_mel: [frames, columns * mel_bands], nats.
status codec_analyse(const codec *codec, const float *audio, size_t samples, float *log_mel);
status codec_describe_tokens(const codec *codec, const uint16_t *tokens, size_t frames, uint32_t levels,
                             float *log_mel);
