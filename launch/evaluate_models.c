#include "launch/evaluate_parts.h"

#include "core/statistics.h"
#include "kernels/memory.h"
#include "launch/model_setup.h"
#include "launch/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// Keep the random numbers of the two lists of captions, and of the candidates of one clip, apart.
enum { HELD_OUT_SEED = 0x65766132, PROMPT_SEED = 0x70726f6d, CANDIDATE_SHIFT = 40 };

const char *const automatic_reward_names[AUTOMATIC_REWARDS] = {"text_adherence", "quality", "preference"};

static size_t clip_tokens(const generator *g) {
    return (size_t)g->frames * (size_t)generator_levels(g);
}

static status allocate_clips(const evaluation *e, size_t count, bool measure_kl, drawn_clips *out) {
    const generator *g = e->generator;
    out->count = count;
    TRY(memory_allocate((void **)&out->tokens, sizeof(uint16_t) * count * clip_tokens(g), "token clips"));
    TRY(memory_allocate((void **)&out->music, sizeof(float) * count * (size_t)g->embedding_width,
                        "music embeddings"));
    for (int r = 0; r < AUTOMATIC_REWARDS; r++)
        if (e->scored[r])
            TRY(memory_allocate((void **)&out->score[r], sizeof(float) * count, "scores"));
    if (measure_kl)
        TRY(memory_allocate((void **)&out->kl, sizeof(double) * count, "divergences"));
    return STATUS_OK;
}

static void release_clips(drawn_clips *clips) {
    memory_free(clips->tokens);
    memory_free(clips->music);
    memory_free(clips->kl);
    for (int r = 0; r < AUTOMATIC_REWARDS; r++)
        memory_free(clips->score[r]);
    *clips = (drawn_clips){0};
}

// Clips `at` to `at + size` of `out`, one candidate of each.
static status draw_candidates(evaluation *e, const char *const *captions, size_t at, size_t size,
                              uint64_t seed, drawn_clips *out) {
    generator *g = e->generator;
    uint16_t *tokens = out->tokens + at * clip_tokens(g);
    float *music = out->music + at * (size_t)g->embedding_width;
    TRY(generator_sample(g, captions + at, size, seed, (uint32_t)at,
                         (sample_terms){.temperature = (float)e->config.train.temperature}, tokens,
                         out->score[AUTOMATIC_TEXT_ADHERENCE] + at, music));
    // The generator holds text vectors and prefixes of the batch that it sampled last.
    for (int r = 0; r < AUTOMATIC_REWARDS; r++)
        if (e->scorers[r] != NULL)
            TRY(scorer_score(e->scorers[r], g->text, music, g->prefix, tokens, size, out->score[r] + at,
                             NULL));
    return STATUS_OK;
}

// Takes candidate `from` over where it is better than what is there.
static void keep_better(const evaluation *e, const drawn_clips *from, size_t at, size_t size,
                        drawn_clips *to) {
    const size_t clip = clip_tokens(e->generator), width = (size_t)e->generator->embedding_width;
    for (size_t i = at; i < at + size; i++) {
        if (!(from->score[e->best_of_reward][i] > to->score[e->best_of_reward][i]))
            continue;
        memcpy(to->tokens + i * clip, from->tokens + i * clip, sizeof(uint16_t) * clip);
        memcpy(to->music + i * width, from->music + i * width, sizeof(float) * width);
        for (int r = 0; r < AUTOMATIC_REWARDS; r++)
            if (e->scored[r])
                to->score[r][i] = from->score[r][i];
    }
}

static status draw_clips(evaluation *e, const contestant *model, const char *const *captions, size_t count,
                         uint64_t seed, bool measure_kl, drawn_clips *out) {
    generator *g = e->generator;
    drawn_clips candidates = {0};
    status result;
    TRY_GOTO(result, allocate_clips(e, count, measure_kl, out), done);
    if (model->candidates > 1)
        TRY_GOTO(result, allocate_clips(e, count, false, &candidates), done);
    for (size_t at = 0; at < count; at += EVALUATE_BATCH) {
        const size_t size = count - at < EVALUATE_BATCH ? count - at : EVALUATE_BATCH;
        TRY_GOTO(result, draw_candidates(e, captions, at, size, seed, out), done);
        for (int c = 1; c < model->candidates; c++) {
            TRY_GOTO(
                result,
                draw_candidates(e, captions, at, size, seed ^ ((uint64_t)c << CANDIDATE_SHIFT), &candidates),
                done);
            keep_better(e, &candidates, at, size, out);
        }
        if (measure_kl)
            TRY_GOTO(result,
                     divergence_measure(e->divergence, g->prefix, out->tokens + at * clip_tokens(g), size,
                                        (float)e->config.train.temperature, out->kl + at),
                     done);
    }
done:
    release_clips(&candidates);
    return result;
}

static status measure_diversity(const evaluation *e, contestant *model) {
    const size_t width = (size_t)e->generator->embedding_width, count = model->held_out.count;
    double *vectors;
    TRY(memory_allocate((void **)&vectors, sizeof(double) * count * width, "music embeddings"));
    for (size_t i = 0; i < count * width; i++)
        vectors[i] = (double)model->held_out.music[i];
    model->diversity = statistics_diversity(vectors, width, count, width);
    memory_free(vectors);
    return STATUS_OK;
}

static status compare_with_baseline(const evaluation *e, contestant *model) {
    const drawn_clips *base = &e->models[0].held_out, *own = &model->held_out;
    double *values;
    TRY(memory_allocate((void **)&values, sizeof(double) * own->count, "scores"));
    for (int r = 0; r < AUTOMATIC_REWARDS; r++) {
        if (!e->scored[r])
            continue;
        for (size_t i = 0; i < own->count; i++)
            values[i] = (double)own->score[r][i];
        model->mean[r] = mean_with_error(values, own->count);
        for (size_t i = 0; i < own->count; i++)
            values[i] -= (double)base->score[r][i];
        model->gain[r] = mean_with_error(values, own->count);
        if (r == AUTOMATIC_TEXT_ADHERENCE)
            for (size_t i = 0; i < own->count; i++)
                model->better += (values[i] > 0.0) / (double)own->count;
    }
    // The best of n independent draws: KL <= log n - (n - 1) / n, an equality where no two draws are equal.
    const double n = model->candidates;
    if (own->kl != NULL)
        model->kl = mean_with_error(own->kl, own->count).mean;
    else
        model->kl = log(n) - (n - 1.0) / n;
    memory_free(values);
    return STATUS_OK;
}

static void add_sound(contestant *model, const sound_check *check) {
    model->clipped += check->clipped;
    model->silent += check->silent;
    model->stuck += check->stuck;
    model->lowest_rms = check->rms < model->lowest_rms ? check->rms : model->lowest_rms;
}

// Every clip of the prompts is decoded once, with few iterations, checked by numbers and heard.
static status listen(const evaluation *e, contestant *model) {
    const generator *g = e->generator;
    const size_t samples = generator_samples(g), levels = (size_t)generator_levels(g);
    const drawn_clips *clips = &model->prompted;
    float *audio, loudest[EVALUATE_BATCH];
    TRY(memory_allocate((void **)&audio, sizeof(float) * EVALUATE_BATCH * samples, "decoded clips"));
    status result = STATUS_OK;
    if (e->listeners != NULL)
        TRY_GOTO(result,
                 memory_allocate((void **)&model->heard, sizeof(heard_clip) * clips->count, "heard clips"),
                 done);
    model->lowest_rms = INFINITY;
    for (size_t first = 0; first < clips->count; first += EVALUATE_BATCH) {
        const size_t size = clips->count - first < EVALUATE_BATCH ? clips->count - first : EVALUATE_BATCH;
        const uint16_t *tokens = clips->tokens + first * clip_tokens(g);
        TRY_GOTO(result, generator_decode(g, tokens, size, CODEC_ITERATIONS_MEASURE, audio, loudest), done);
        for (size_t i = 0; i < size; i++) {
            const sound_check check = sound_check_clip(
                audio + i * samples, samples, loudest[i], codec_describe(g->codec)->sample_rate,
                tokens + i * clip_tokens(g), (size_t)g->frames, levels);
            add_sound(model, &check);
        }
        if (e->listeners != NULL)
            TRY_GOTO(result, evaluate_hear(e, model, audio, first, size), done);
    }
done:
    memory_free(audio);
    return result;
}

status evaluate_model(evaluation *e, contestant *model) {
    generator *g = e->generator;
    const uint64_t seed = (uint64_t)e->config.seed;
    const double start = stage_seconds();
    TRY(model_load_policy(g->policy, g->device, model->folder, model_listener, &model->step));
    TRY(draw_clips(e, model, (const char *const *)e->captions, e->caption_count, seed + HELD_OUT_SEED,
                   model->candidates == 1, &model->held_out));
    TRY(draw_clips(e, model, e->prompt_texts, e->prompts.count, seed + PROMPT_SEED, false, &model->prompted));
    const double drawn = stage_seconds();
    TRY(measure_diversity(e, model));
    TRY(compare_with_baseline(e, model));
    TRY(listen(e, model));
    printf("evaluate: %s, step %llu of %s: sampled and scored in %.1f s, decoded and heard in %.1f s\n",
           model->name, (unsigned long long)model->step, model->folder, drawn - start,
           stage_seconds() - drawn);
    fflush(stdout);
    return STATUS_OK;
}

void evaluate_model_release(contestant *model) {
    release_clips(&model->held_out);
    release_clips(&model->prompted);
    memory_free(model->heard);
    memory_free(model->opinions);
}
