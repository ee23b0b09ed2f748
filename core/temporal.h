// The temporal stage, shared by policy and value network: one position a frame. A sample's sequence is
//     prefix_0 ... prefix_{P-1}, begin, frame_0, ..., frame_{F-2}
// where a frame enters as the sum of its tokens' embeddings. The output at `begin` speaks of frame 0, that at
// frame t of frame t + 1.
#pragma once

#include "core/transformer.h"

enum { LEVELS_MAX = 16 };

typedef struct temporal_config {
    transformer_config transformer; // positions is derived: prefix + frames
    int levels;
    int codebook[LEVELS_MAX]; // [levels] entries of each level
    int prefix;               // tokens of the prefix
    int prefix_codebook;      // entries of each prefix level
    int frames;               // longest rollout
} temporal_config;

typedef struct temporal temporal;
// Registers prefix.embedding, begin, temporal.embedding.{level} and temporal.*.
status temporal_create(temporal **out, device *device, const temporal_config *config, parameter_list *list,
                       weight_use use, weight_precision precision);
void temporal_destroy(temporal *temporal);
status temporal_pack(temporal *temporal, const float *parameters);
const temporal_config *temporal_get_config(const temporal *temporal);

typedef struct temporal_pass temporal_pass; // workspace for whole sequences
status temporal_pass_create(temporal_pass **out, const temporal *temporal, int batch, int frames, bool keep);
void temporal_pass_destroy(temporal_pass *pass);
// prefix: [batch, prefix], tokens: [batch, frames, levels] on the host. output: [batch * frames, width],
// valid until the next forward.
status temporal_forward(temporal *temporal, const float *parameters, temporal_pass *pass, int batch,
                        const uint16_t *prefix, const uint16_t *tokens, const float **output);
// d_output: [batch * frames, width], overwritten; adds to gradients. `watch` may be NULL.
status temporal_backward(temporal *temporal, const float *parameters, float *gradients, temporal_pass *pass,
                         int batch, const float *d_output, const gradient_watch *watch);

typedef struct temporal_decoder temporal_decoder; // cache for frame-by-frame use
status temporal_decoder_create(temporal_decoder **out, const temporal *temporal, int batch, int frames);
void temporal_decoder_destroy(temporal_decoder *decoder);
// Reads the prefix [batch, prefix] and `begin`; output [batch, width] speaks of frame 0.
status temporal_decode_start(temporal *temporal, const float *parameters, temporal_decoder *decoder,
                             int batch, const uint16_t *prefix, const float **output);
// Reads a frame's tokens [levels][batch] on the device; output speaks of the frame after it, whose number is
// `frame` [1] on the device.
status temporal_decode_frame(temporal *temporal, const float *parameters, temporal_decoder *decoder,
                             int batch, const int32_t *tokens, const int32_t *frame, const float **output);
