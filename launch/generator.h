// Captions to music: conditioner, policy and codec together, for generate and evaluate.
#pragma once

#include "core/codec.h"
#include "core/policy.h"
#include "core/sound_check.h"
#include "launch/conditioner.h"
#include "launch/run_config.h"

typedef struct generator {
    device *device;
    codec *codec;
    conditioner *conditioner;
    policy_config shape;
    policy *policy;
    policy_sampler *sampler;
    int batch, frames, embedding_width;
    float *text, *music;      // [batch, embedding]
    uint16_t *prefix;         // [batch, prefix]
    float *log_probabilities; // [batch, frames, levels]
    char codec_identity[SHARD_CODEC_MAX];
} generator;

// Loads codec and embedding of the run file and makes a policy without weights. title: before the line that
// says what it computes on. batch: sampled at a time; no result depends on it.
status generator_create(generator **out, const run_config *config, const char *title, int batch, int frames);
void generator_destroy(generator *generator); // NULL is allowed
// Weights of the selected or, where none is, the newest sound checkpoint of a run folder. step: [1] receives
// its step, may be NULL.
status generator_load(generator *generator, const char *run_folder, uint64_t *step);

// Samples `count` clips. Clip i is drawn with the random numbers of sample `first + i` under `seed`. tokens:
// [count, frames, levels]; adherence: [count] cosine of caption and music; music: [count, embedding] or NULL.
status generator_sample(generator *generator, const char *const *captions, size_t count, uint64_t seed,
                        uint32_t first, sample_terms terms, uint16_t *tokens, float *adherence, float *music);

// Decodes clips in parallel. Levels that the policy does not model are left out of the sum of code vectors,
// which is their mean: the residuals of a trained quantiser average to nearly nothing. audio: [count,
// generator_samples]; loudest: [count] greatest |sample| of each before the limiter, or NULL.
status generator_decode(const generator *generator, const uint16_t *tokens, size_t count, int iterations,
                        float *audio, float *loudest);
size_t generator_samples(const generator *generator); // audio samples of a clip
int generator_levels(const generator *generator);
