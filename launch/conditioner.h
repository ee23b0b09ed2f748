// Text conditioning and text adherence by the joint embedding: captions and music to unit vectors, vectors to
// prefix tokens, and the cosine of the two as a reward. Loaded from the folder that `musicrl embed train`
// writes.
#pragma once

#include "core/embedding.h"
#include "core/rvq.h"
#include "data/shard.h"
#include "data/tokenizer.h"

typedef struct conditioner {
    device *device;
    embedding *embedding;
    embedding_pass *pass;
    tokenizer *tokenizer;
    rvq *quantiser;
    int prefix, prefix_codebook;
    int batch;                   // of a pass
    char codec[SHARD_CODEC_MAX]; // identity of the codec whose tokens it was trained on
    int32_t *text, *lengths;     // [batch, text positions], [batch]
    uint16_t *segments;          // [batch, music positions, levels]
    float *sum, *rvq_scratch;    // [output]
} conditioner;

// Fails if the folder holds no joint embedding, and says how to make one.
status conditioner_check_folder(const char *folder);

// batch: how many captions or segments go through a tower at once; no result depends on it.
status conditioner_load(conditioner **out, device *device, const char *folder, int batch);
void conditioner_destroy(conditioner *conditioner); // NULL is allowed
// Refuses tokens of another codec, or of other levels or codebooks, than the music tower was trained on.
status conditioner_check_format(const conditioner *conditioner, const shard_format *format);

// Publishes embedding.safetensors in `folder`; codebooks: [prefix, prefix_codebook, output].
status conditioner_save(const char *folder, device *device, embedding *embedding, const void *tokenizer_model,
                        size_t tokenizer_bytes, int prefix, int prefix_codebook, const float *codebooks,
                        const char *codec);

// out: [count, output], unit rows. A caption longer than the tower is cut.
status conditioner_text(conditioner *conditioner, const char *const *captions, size_t count, float *out);

// The mean of the unit embeddings of overlapping segments, each as long as the tower's training crop, evenly
// spread from the first frame to the last; its product with a unit text vector is the mean cosine. tokens:
// [count, frames, stride levels] of which the first levels are read; out: [count, output].
status conditioner_music(conditioner *conditioner, const uint16_t *tokens, size_t count, int frames,
                         int stride, float *out);

// Prefix tokens [prefix] of a vector [output], which is normalised first.
void conditioner_prefix(const conditioner *conditioner, const float *vector, uint16_t *prefix);
