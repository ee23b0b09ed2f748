#include "launch/generator.h"

#include "kernels/memory.h"
#include "launch/codec_file.h"
#include "launch/model_setup.h"
#include "launch/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static status create_parts(generator *g, const run_config *config, const char *title) {
    TRY(run_config_require_path(config, "data.codec", NULL));
    TRY(run_config_require(config, "data.embedding"));
    TRY(stage_create_device(&g->device, config, title));
    TRY(codec_load(&g->codec, config->data.codec));
    TRY(codec_identify(g->codec, g->codec_identity));
    const codec_description *description = codec_describe(g->codec);
    shard_format format = {.kind = SHARD_TOKENS, .levels = description->levels};
    memcpy(format.codebook_size, description->codebook_size, sizeof(uint32_t) * description->levels);
    memcpy(format.codec, g->codec_identity, sizeof format.codec);
    TRY(conditioner_load(&g->conditioner, g->device, config->data.embedding, g->batch));
    TRY(conditioner_check_format(g->conditioner, &format));
    TRY(model_policy_config(&g->shape, config, &format));
    g->shape.temporal.frames = g->frames;
    if (g->conditioner->prefix != g->shape.temporal.prefix)
        return FAIL("the embedding in %s has a prefix of %d, the policy wants %d", config->data.embedding,
                    g->conditioner->prefix, g->shape.temporal.prefix);
    TRY(policy_create(&g->policy, g->device, &g->shape, WEIGHT_SAMPLE, WEIGHT_F32));
    TRY(policy_sampler_create(&g->sampler, g->policy, g->batch, g->frames));
    g->embedding_width = embedding_get_config(g->conditioner->embedding)->output;
    const size_t batch = (size_t)g->batch, vectors = batch * (size_t)g->embedding_width;
    TRY(memory_allocate((void **)&g->text, sizeof(float) * vectors, "caption embeddings"));
    TRY(memory_allocate((void **)&g->music, sizeof(float) * vectors, "music embeddings"));
    TRY(memory_allocate((void **)&g->prefix,
                        sizeof(uint16_t) * (batch * (size_t)g->shape.temporal.prefix + 1), "prefixes"));
    return memory_allocate((void **)&g->log_probabilities,
                           sizeof(float) * batch * (size_t)g->frames * (size_t)g->shape.temporal.levels,
                           "log-probabilities");
}

status generator_create(generator **out, const run_config *config, const char *title, int batch, int frames) {
    *out = NULL;
    generator *g;
    TRY(memory_allocate((void **)&g, sizeof *g, "generator"));
    g->batch = batch;
    g->frames = frames;
    status result = create_parts(g, config, title);
    if (result != STATUS_OK)
        generator_destroy(g);
    else
        *out = g;
    return result;
}

void generator_destroy(generator *g) {
    if (g == NULL)
        return;
    policy_sampler_destroy(g->sampler);
    policy_destroy(g->policy);
    conditioner_destroy(g->conditioner);
    codec_destroy(g->codec);
    memory_free(g->text);
    memory_free(g->music);
    memory_free(g->prefix);
    memory_free(g->log_probabilities);
    device_destroy(g->device);
    memory_free(g);
}

status generator_load(generator *g, const char *run_folder, uint64_t *step) {
    return model_load_policy(g->policy, g->device, run_folder, model_listener, step);
}

int generator_levels(const generator *g) {
    return g->shape.temporal.levels;
}

size_t generator_samples(const generator *g) {
    return (size_t)g->frames * codec_describe(g->codec)->frame_samples;
}

// Adherence is measured where a clip is at least as long as the segments that the embedding hears.
static status score(generator *g, const uint16_t *tokens, size_t count, float *adherence, float *music) {
    const size_t width = (size_t)g->embedding_width;
    if (g->frames < embedding_get_config(g->conditioner->embedding)->music.positions) {
        for (size_t i = 0; i < count; i++)
            adherence[i] = NAN;
        if (music != NULL)
            memset(music, 0, sizeof(float) * count * width);
        return STATUS_OK;
    }
    TRY(conditioner_music(g->conditioner, tokens, count, g->frames, generator_levels(g), g->music));
    for (size_t i = 0; i < count; i++) {
        adherence[i] = 0.0f;
        for (size_t d = 0; d < width; d++)
            adherence[i] += g->text[i * width + d] * g->music[i * width + d];
    }
    if (music != NULL)
        memcpy(music, g->music, sizeof(float) * count * width);
    return STATUS_OK;
}

status generator_sample(generator *g, const char *const *captions, size_t count, uint64_t seed,
                        uint32_t first, sample_terms terms, uint16_t *tokens, float *adherence,
                        float *music) {
    const size_t width = (size_t)g->embedding_width, prefix = (size_t)g->shape.temporal.prefix;
    const size_t clip = (size_t)g->frames * (size_t)generator_levels(g);
    uint32_t *samples;
    TRY(memory_allocate((void **)&samples, sizeof(uint32_t) * (size_t)g->batch, "sample indices"));
    status result = STATUS_OK;
    for (size_t at = 0; at < count && result == STATUS_OK; at += (size_t)g->batch) {
        const size_t size = count - at < (size_t)g->batch ? count - at : (size_t)g->batch;
        TRY_GOTO(result, conditioner_text(g->conditioner, captions + at, size, g->text), done);
        for (size_t i = 0; i < size; i++) {
            conditioner_prefix(g->conditioner, g->text + i * width, g->prefix + i * prefix);
            samples[i] = first + (uint32_t)(at + i);
        }
        const rollout_request request = {.batch = (int)size,
                                         .frames = g->frames,
                                         .prefix = g->prefix,
                                         .samples = samples,
                                         .seed = seed,
                                         .step = 0,
                                         .terms = terms};
        TRY_GOTO(result,
                 policy_sample(g->policy, g->sampler, &request, tokens + at * clip, g->log_probabilities),
                 done);
        TRY_GOTO(
            result,
            score(g, tokens + at * clip, size, adherence + at, music != NULL ? music + at * width : NULL),
            done);
    }
done:
    memory_free(samples);
    return result;
}

// Puts the policy's levels into full frames, as the codec reads them.
static status decode_clip(const generator *g, const uint16_t *tokens, int iterations, uint16_t *full,
                          float *audio, float *loudest) {
    const size_t levels = (size_t)generator_levels(g), all = codec_describe(g->codec)->levels;
    memset(full, 0, sizeof(uint16_t) * (size_t)g->frames * all);
    for (size_t f = 0; f < (size_t)g->frames; f++)
        memcpy(full + f * all, tokens + f * levels, sizeof(uint16_t) * levels);
    return codec_decode_coarse(g->codec, full, (size_t)g->frames, (uint32_t)levels, iterations, audio,
                               loudest);
}

status generator_decode(const generator *g, const uint16_t *tokens, size_t count, int iterations,
                        float *audio, float *loudest) {
    const size_t clip = (size_t)g->frames * (size_t)generator_levels(g), samples = generator_samples(g);
    const size_t full_clip = (size_t)g->frames * codec_describe(g->codec)->levels;
    uint16_t *full;
    TRY(memory_allocate((void **)&full, sizeof(uint16_t) * full_clip * count, "token frames"));
    int64_t failed = -1;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < (int64_t)count; i++)
        if (decode_clip(g, tokens + (size_t)i * clip, iterations, full + (size_t)i * full_clip,
                        audio + (size_t)i * samples, loudest != NULL ? loudest + i : NULL) != STATUS_OK)
#pragma omp critical
            failed = i;
    status result = STATUS_OK;
    if (failed >= 0) // again, so that this thread has the message
        result = decode_clip(g, tokens + (size_t)failed * clip, iterations, full,
                             audio + (size_t)failed * samples, NULL);
    memory_free(full);
    return result;
}
