#include "core/codec_train.h"

#include "core/codec_features.h"
#include "core/kmeans.h"
#include "core/principal.h"
#include "core/rvq.h"
#include "kernels/memory.h"

#include <math.h>
#include <string.h>

enum { SLOTS = 16, SEMANTIC_PURPOSE = 0x53454D00 };

static const double least_deviation = 1e-3; // of a semantic feature

codec_train_settings codec_train_default(void) {
    return (codec_train_settings){
        .config = codec_config_default(), .iterations = 12, .frames = 60000, .seed = 1};
}

void codec_from_pcm(const int16_t *pcm, size_t samples, float *audio) {
    for (size_t i = 0; i < samples; i++)
        audio[i] = (float)pcm[i] * (1.0f / 32768.0f);
}

// What training needs of the clips.
typedef struct dataset {
    size_t clips, samples, frames; // frames of a clip
    size_t step, count;            // every step-th frame of the joined clips is trained on, count in all
    size_t width, stacked_width;
    float *log_mel;  // [count, width]
    float *semantic; // [clips * frames, SEMANTIC_FEATURES]
} dataset;

// Scratch of one slot.
typedef struct workspace {
    float *audio;   // [samples]
    float *log_mel; // [frames, width]
    void *features; // scratch of the features
} workspace;

static workspace carve(arena *arena, const codec_features *features, const dataset *data) {
    return (workspace){
        .audio = arena_take(arena, data->samples * sizeof(float)),
        .log_mel = arena_take(arena, data->frames * data->width * sizeof(float)),
        .features = arena_take(arena, codec_features_scratch_bytes(features, data->samples)),
    };
}

static void extract_clip(const codec_features *features, const int16_t *pcm, size_t clip, dataset *data,
                         workspace *work) {
    codec_from_pcm(pcm, data->samples, work->audio);
    codec_features_log_mel(features, work->audio, data->samples, work->log_mel, work->features);
    codec_features_semantic(features, work->audio, data->samples, work->log_mel,
                            data->semantic + clip * data->frames * SEMANTIC_FEATURES, work->features);
    size_t first = clip * data->frames, kept = (first + data->step - 1) / data->step;
    for (; kept * data->step < first + data->frames; kept++)
        memcpy(data->log_mel + kept * data->width, work->log_mel + (kept * data->step - first) * data->width,
               data->width * sizeof(float));
}

// Fills the data set; clips are dealt to a fixed number of slots, each with its own scratch.
static status extract_features(const codec_features *features, const int16_t *audio, dataset *data) {
    arena one = {0};
    carve(&one, features, data);
    char *block;
    TRY(memory_allocate((void **)&block, SLOTS * one.used, "codec training scratch"));
#pragma omp parallel for schedule(dynamic)
    for (size_t slot = 0; slot < SLOTS; slot++) {
        arena views = {.base = block + slot * one.used, .capacity = one.used};
        workspace work = carve(&views, features, data);
        for (size_t clip = slot; clip < data->clips; clip += SLOTS)
            extract_clip(features, audio + clip * data->samples, clip, data, &work);
    }
    memory_free(block);
    return STATUS_OK;
}

static status train_acoustic(const codec_train_settings *settings, const dataset *data, float *mean,
                             float *basis, float *codebooks) {
    const codec_config *config = &settings->config;
    size_t count = data->count;
    TRY(principal_components(data->log_mel, count, data->width, config->dimension, settings->seed, mean,
                             basis));
    float *projected = NULL, *centred = NULL;
    status result;
    TRY_GOTO(
        result,
        memory_allocate((void **)&projected, count * config->dimension * sizeof(float), "projected frames"),
        done);
    TRY_GOTO(result,
             memory_allocate((void **)&centred, SLOTS * data->width * sizeof(float), "centred frames"), done);
#pragma omp parallel for schedule(dynamic)
    for (size_t slot = 0; slot < SLOTS; slot++) {
        for (size_t i = slot * count / SLOTS; i < (slot + 1) * count / SLOTS; i++)
            codec_features_project(basis, mean, config->dimension, data->width,
                                   data->log_mel + i * data->width, centred + slot * data->width,
                                   projected + i * config->dimension);
    }
    rvq_settings quantiser = {.dimension = config->dimension,
                              .levels = config->acoustic_levels,
                              .codebook_size = config->acoustic_codebook,
                              .iterations = settings->iterations,
                              .seed = settings->seed};
    TRY_GOTO(result, rvq_train(projected, count, &quantiser, codebooks), done);
done:
    memory_free(projected);
    memory_free(centred);
    return result;
}

static status train_semantic(const codec_train_settings *settings, const dataset *data, float *mean,
                             float *scale, float *centroids) {
    size_t count = data->clips * data->frames;
    for (int d = 0; d < SEMANTIC_FEATURES; d++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < count; i++) {
            double value = data->semantic[i * SEMANTIC_FEATURES + d];
            sum += value;
            squares += value * value;
        }
        double average = sum / (double)count;
        double deviation = sqrt(fmax(0.0, squares / (double)count - average * average));
        mean[d] = (float)average;
        scale[d] = (float)(1.0 / fmax(deviation, least_deviation));
    }
    size_t clip_stride = data->frames * data->stacked_width;
    float *stacked, *clip_stacked;
    TRY(memory_allocate((void **)&stacked, (data->count * data->stacked_width + clip_stride) * sizeof(float),
                        "semantic features"));
    clip_stacked = stacked + data->count * data->stacked_width;
    for (size_t clip = 0; clip < data->clips; clip++) {
        semantic_stack(data->semantic + clip * data->frames * SEMANTIC_FEATURES, data->frames, mean, scale,
                       settings->config.semantic_radius, clip_stacked);
        size_t first = clip * data->frames, kept = (first + data->step - 1) / data->step;
        for (; kept * data->step < first + data->frames; kept++)
            memcpy(stacked + kept * data->stacked_width,
                   clip_stacked + (kept * data->step - first) * data->stacked_width,
                   data->stacked_width * sizeof(float));
    }
    kmeans_settings clustering = {.clusters = settings->config.semantic_codebook,
                                  .dimension = (uint32_t)data->stacked_width,
                                  .iterations = settings->iterations,
                                  .seed = settings->seed,
                                  .purpose = SEMANTIC_PURPOSE};
    status result = kmeans_train(stacked, data->count, &clustering, centroids);
    memory_free(stacked);
    return result;
}

status codec_train(codec **out, const codec_train_settings *settings, const int16_t *audio, size_t clips,
                   size_t samples) {
    *out = NULL;
    const codec_config *config = &settings->config;
    if (clips == 0 || samples == 0)
        return FAIL("a codec cannot be trained on %zu clips of %zu samples", clips, samples);
    if (settings->iterations == 0 || settings->iterations > 1000)
        return FAIL_USAGE("codec training iterations are %u; they must be from 1 to 1000",
                          settings->iterations);
    if (settings->frames == 0)
        return FAIL_USAGE(
            "a codec cannot be trained on 0 frames; allow at least as many as a codebook has codes");
    codec_features features;
    TRY(codec_features_open(&features, config));
    dataset data = {.clips = clips,
                    .samples = samples,
                    .frames = codec_features_frames(&features, samples),
                    .width = (size_t)config->columns * config->mel_bands,
                    .stacked_width = (2 * (size_t)config->semantic_radius + 1) * SEMANTIC_FEATURES};
    size_t all = clips * data.frames;
    data.step = (all + settings->frames - 1) / settings->frames;
    data.count = (all + data.step - 1) / data.step;
    codec_tensor tensors[CODEC_TENSORS];
    codec_tensor_layout(config, tensors);
    float *values[CODEC_TENSORS] = {NULL};
    status result;
    TRY_GOTO(
        result,
        memory_allocate((void **)&data.log_mel, data.count * data.width * sizeof(float), "log-mel frames"),
        done);
    TRY_GOTO(result,
             memory_allocate((void **)&data.semantic, all * SEMANTIC_FEATURES * sizeof(float),
                             "semantic features"),
             done);
    for (int i = 0; i < CODEC_TENSORS; i++) {
        TRY_GOTO(result,
                 memory_allocate((void **)&values[i], codec_tensor_elements(&tensors[i]) * sizeof(float),
                                 "codec tensor"),
                 done);
        tensors[i].data = values[i];
    }
    TRY_GOTO(result, extract_features(&features, audio, &data), done);
    TRY_GOTO(result,
             train_acoustic(settings, &data, values[CODEC_TENSOR_MEAN], values[CODEC_TENSOR_BASIS],
                            values[CODEC_TENSOR_CODEBOOKS]),
             done);
    TRY_GOTO(result,
             train_semantic(settings, &data, values[CODEC_TENSOR_SEMANTIC_MEAN],
                            values[CODEC_TENSOR_SEMANTIC_SCALE], values[CODEC_TENSOR_SEMANTIC_CENTROIDS]),
             done);
    TRY_GOTO(result, codec_create(out, config, tensors), done);
done:
    for (int i = 0; i < CODEC_TENSORS; i++)
        memory_free(values[i]);
    memory_free(data.log_mel);
    memory_free(data.semantic);
    codec_features_close(&features);
    return result;
}
