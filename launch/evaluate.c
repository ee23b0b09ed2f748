#include "launch/evaluate.h"

#include "core/statistics.h"
#include "data/audio_file.h"
#include "data/clip_order.h"
#include "data/json_file.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/generator.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64, MODELS = 2, EVALUATION_SEED = 0x65766132 };

static const char *const model_names[MODELS] = {"base", "rl"};

// One model's clips on the evaluation captions.
typedef struct contestant {
    uint16_t *tokens; // [captions, frames, levels]
    float *adherence; // [captions]
    float *music;     // [captions, embedding]
    double mean, diversity;
    int clipped, silent, stuck; // clips that fail a sound check
    double lowest_rms;
} contestant;

typedef struct evaluation {
    const run_config *config;
    generator *generator;
    corpus *corpus;
    clip_order *held_out;
    size_t captions;
    char **caption; // [captions]
    contestant models[MODELS];
} evaluation;

static status read_captions(evaluation *e) {
    TRY(run_config_require(e->config, "data.tokens"));
    TRY(corpus_open(&e->corpus, e->config->data.tokens, SHARD_TOKENS));
    TRY(clip_order_create(&e->held_out, e->corpus, true, (uint64_t)e->config->seed, e->config->data.tokens));
    const size_t available = clip_order_count(e->held_out),
                 wanted = (size_t)e->config->train.evaluate_captions;
    e->captions = available < wanted ? available : wanted;
    TRY(memory_allocate((void **)&e->caption, sizeof(char *) * e->captions, "captions"));
    for (size_t i = 0; i < e->captions; i++) {
        shard_clip clip;
        TRY(corpus_read_strings(e->corpus, clip_order_plain(e->held_out, i), &clip));
        e->caption[i] = strdup(clip.caption);
        if (e->caption[i] == NULL)
            return FAIL("out of host memory: captions");
    }
    return STATUS_OK;
}

// Every clip is decoded with few iterations and heard by numbers.
static status check_sound(evaluation *e, contestant *model) {
    const generator *g = e->generator;
    const size_t clip = (size_t)g->frames * (size_t)generator_levels(g), samples = generator_samples(g);
    float *audio;
    TRY(memory_allocate((void **)&audio, sizeof(float) * BATCH * samples, "decoded clips"));
    status result = STATUS_OK;
    model->lowest_rms = INFINITY;
    for (size_t first = 0; first < e->captions && result == STATUS_OK; first += BATCH) {
        const size_t size = e->captions - first < BATCH ? e->captions - first : BATCH;
        result = generator_decode(g, model->tokens + first * clip, size, CODEC_ITERATIONS_MEASURE, audio);
        for (size_t i = 0; i < size && result == STATUS_OK; i++) {
            const sound_check check = sound_check_clip(
                audio + i * samples, samples, codec_describe(g->codec)->sample_rate,
                model->tokens + (first + i) * clip, (size_t)g->frames, (size_t)generator_levels(g));
            model->clipped += check.clipped;
            model->silent += check.silent;
            model->stuck += check.stuck;
            model->lowest_rms = check.rms < model->lowest_rms ? check.rms : model->lowest_rms;
        }
    }
    memory_free(audio);
    return result;
}

static status run_model(evaluation *e, contestant *model, const char *folder) {
    generator *g = e->generator;
    const size_t clip = (size_t)g->frames * (size_t)generator_levels(g), width = (size_t)g->embedding_width;
    TRY(generator_load(g, folder));
    TRY(memory_allocate((void **)&model->tokens, sizeof(uint16_t) * e->captions * clip, "token clips"));
    TRY(memory_allocate((void **)&model->adherence, sizeof(float) * e->captions, "scores"));
    TRY(memory_allocate((void **)&model->music, sizeof(float) * e->captions * width, "music embeddings"));
    TRY(generator_sample(g, (const char *const *)e->caption, e->captions,
                         (uint64_t)e->config->seed + EVALUATION_SEED, 0, (float)e->config->train.temperature,
                         model->tokens, model->adherence, model->music));
    for (size_t i = 0; i < e->captions; i++)
        model->mean += (double)model->adherence[i] / (double)e->captions;
    double *vectors;
    TRY(memory_allocate((void **)&vectors, sizeof(double) * e->captions * width, "music embeddings"));
    for (size_t i = 0; i < e->captions * width; i++)
        vectors[i] = (double)model->music[i];
    model->diversity = statistics_diversity(vectors, width, e->captions, width);
    memory_free(vectors);
    return check_sound(e, model);
}

static json_t *model_json(const contestant *model) {
    return json_pack("{s:f,s:f,s:i,s:i,s:i,s:f}", "text_adherence", model->mean, "diversity",
                     model->diversity, "clipped_clips", model->clipped, "silent_clips", model->silent,
                     "stuck_clips", model->stuck, "lowest_rms", model->lowest_rms);
}

static status write_evaluation(const evaluation *e) {
    const contestant *base = &e->models[0], *rl = &e->models[1];
    double difference = 0.0, squares = 0.0;
    size_t wins = 0;
    for (size_t i = 0; i < e->captions; i++)
        difference += ((double)rl->adherence[i] - (double)base->adherence[i]) / (double)e->captions;
    for (size_t i = 0; i < e->captions; i++) {
        const double d = (double)rl->adherence[i] - (double)base->adherence[i];
        squares += (d - difference) * (d - difference);
        wins += d > 0.0;
    }
    const double error =
        e->captions > 1 ? sqrt(squares / (double)(e->captions - 1) / (double)e->captions) : 0.0;
    printf("evaluate: %zu held-out captions, the same draws for both\n", e->captions);
    for (int m = 0; m < MODELS; m++)
        printf("evaluate: %-4s text adherence %.4f, diversity %.4f; clips clipped %d, silent %d, stuck %d\n",
               model_names[m], e->models[m].mean, e->models[m].diversity, e->models[m].clipped,
               e->models[m].silent, e->models[m].stuck);
    printf("evaluate: paired difference %+.4f, standard error %.4f (%.1f of them); better on %.0f %% of "
           "captions\n",
           difference, error, error > 0.0 ? difference / error : 0.0,
           100.0 * (double)wins / (double)e->captions);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/evaluation.json", e->config->folder);
    return json_file_publish(
        path, json_pack("{s:I,s:o,s:o,s:f,s:f,s:f,s:f,s:f}", "captions", (json_int_t)e->captions, "base",
                        model_json(base), "rl", model_json(rl), "paired_difference", difference,
                        "standard_error", error, "standard_errors", error > 0.0 ? difference / error : 0.0,
                        "better_share", (double)wins / (double)e->captions, "diversity_ratio",
                        base->diversity > 0.0 ? rl->diversity / base->diversity : 0.0));
}

static status write_samples(const evaluation *e) {
    const generator *g = e->generator;
    const size_t wanted = (size_t)e->config->samples.count, samples = generator_samples(g);
    const size_t count = wanted < e->captions ? wanted : e->captions;
    const uint32_t sample_rate = codec_describe(g->codec)->sample_rate;
    char folder[PATH_MAX], path[PATH_MAX + 64], name[MODELS][32];
    snprintf(folder, sizeof folder, "%s/samples", e->config->folder);
    TRY(publish_make_folder(folder));
    TRY(publish_sweep(folder));
    float *audio;
    TRY(memory_allocate((void **)&audio, sizeof(float) * MODELS * (count + 1) * samples, "decoded clips"));
    status result = STATUS_OK;
    for (int m = 0; m < MODELS && result == STATUS_OK; m++)
        result = generator_decode(g, e->models[m].tokens, count, e->config->samples.iterations,
                                  audio + (size_t)m * count * samples);
    json_t *list = json_array();
    for (size_t i = 0; i < count && result == STATUS_OK; i++) {
        for (int m = 0; m < MODELS && result == STATUS_OK; m++) {
            snprintf(name[m], sizeof name[m], "%s-%02zu.wav", model_names[m], i);
            snprintf(path, sizeof path, "%s/%s", folder, name[m]);
            result = audio_file_write(path, audio + ((size_t)m * count + i) * samples, samples, sample_rate);
        }
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:f,s:f}", "prompt", e->caption[i], "base",
                                              name[0], "rl", name[1], "base_text_adherence",
                                              (double)e->models[0].adherence[i], "rl_text_adherence",
                                              (double)e->models[1].adherence[i]));
    }
    memory_free(audio);
    if (result != STATUS_OK) {
        json_decref(list);
        return result;
    }
    snprintf(path, sizeof path, "%s/samples.json", folder);
    return json_file_publish(path, list);
}

static status write_notes(const evaluation *e) {
    char path[PATH_MAX], note[256];
    const int modelled = generator_levels(e->generator),
              all = (int)codec_describe(e->generator->codec)->levels;
    snprintf(note, sizeof note,
             "The policy models %d of the codec's %d levels. The %d fine levels of the clips are filled in "
             "by the mean "
             "of their code vectors, not by a model.",
             modelled, all, all - modelled);
    snprintf(path, sizeof path, "%s/notes.json", e->config->folder);
    return json_file_publish(path, json_pack("[s]", note));
}

status evaluate_run(const run_config *config) {
    evaluation e = {.config = config};
    status result;
    TRY_GOTO(result, run_config_require(config, "data.base"), done);
    TRY_GOTO(result, generator_create(&e.generator, config, BATCH, config->train.frames), done);
    TRY_GOTO(result, read_captions(&e), done);
    TRY_GOTO(result, run_model(&e, &e.models[0], config->data.base), done);
    TRY_GOTO(result, run_model(&e, &e.models[1], config->folder), done);
    TRY_GOTO(result, write_samples(&e), done);
    TRY_GOTO(result, write_notes(&e), done);
    TRY_GOTO(result, write_evaluation(&e), done);
done:
    for (int m = 0; m < MODELS; m++) {
        memory_free(e.models[m].tokens);
        memory_free(e.models[m].adherence);
        memory_free(e.models[m].music);
    }
    for (size_t i = 0; e.caption != NULL && i < e.captions; i++)
        free(e.caption[i]);
    memory_free(e.caption);
    clip_order_destroy(e.held_out);
    corpus_close(e.corpus);
    generator_destroy(e.generator);
    return result;
}
