// The joint text-music embedding (the role of MuLan, Huang et al. 2022): a text tower over caption tokens and
// a music tower over token frames, both bidirectional transformers, pooled by the mean, projected and
// normalised to unit length; trained contrastively. The music tower reads only the levels that the policy
// emits. Beside the mean over its frames it hears what a mean over the outputs of few blocks hardly finds:
// rhythm, the autocorrelation over time of some learned channels of its input, and variation, how much every
// number of its input varies over the segment and from frame to frame.
#pragma once

#include "core/transformer.h"

enum { EMBEDDING_LEVELS_MAX = 16 };

typedef struct embedding_config {
    transformer_config text, music; // positions: longest caption in tokens, frames of a segment
    int vocabulary;                 // of the caption tokenizer
    int levels;
    int codebook[EMBEDDING_LEVELS_MAX]; // [levels]
    int output;                         // width of the joint space, a multiple of 16
    int rhythm_channels, rhythm_lags;   // a multiple of 16; below music.positions, 0: no sense of rhythm
    bool variation;                     // heard or not
} embedding_config;

typedef struct embedding embedding;
status embedding_create(embedding **out, device *device, const embedding_config *config, bool learn);
void embedding_destroy(embedding *embedding); // NULL is allowed
const embedding_config *embedding_get_config(const embedding *embedding);
const parameter_list *embedding_parameters(const embedding *embedding);
float *embedding_values(embedding *embedding); // the flat parameter buffer; then embedding_pack
status embedding_pack(embedding *embedding);
// The logits' factor, exp of the learned log scale, at most 100, as of the last embedding_pack.
float embedding_scale(const embedding *embedding);
status embedding_set_scale(embedding *embedding, float scale); // then embedding_pack

typedef struct embedding_pass embedding_pass;
status embedding_pass_create(embedding_pass **out, const embedding *embedding, int batch, bool keep);
void embedding_pass_destroy(embedding_pass *pass);

// tokens: [batch, text positions], padded; lengths: [batch], at least 1. output: [batch, output], unit rows,
// on the host, in the pass until the next text forward; NULL: not wanted there.
status embedding_text(embedding *embedding, embedding_pass *pass, int batch, const int32_t *tokens,
                      const int32_t *lengths, const float **output);
// tokens: [batch, music positions, levels]. output: as of embedding_text.
status embedding_music(embedding *embedding, embedding_pass *pass, int batch, const uint16_t *tokens,
                       const float **output);
// The contrastive loss of the last two forwards of the full batch; adds to gradients.
status embedding_backward(embedding *embedding, embedding_pass *pass, int batch, float *gradients,
                          double *loss);
