// What an evaluation leaves: a table, evaluation.json, clips to hear.
#include "launch/evaluate_parts.h"

#include "data/audio_file.h"
#include "data/json_file.h"
#include "data/publish.h"
#include "kernels/memory.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *evaluate_interval_json(const interval *i) {
    return json_pack("{s:o,s:o,s:o}", "mean", number(i->mean), "low", number(i->low), "high",
                     number(i->high));
}

static double diversity_ratio(const evaluation *e, const contestant *model) {
    return e->models[0].diversity > 0.0 ? model->diversity / e->models[0].diversity : NAN;
}

static double standard_errors(const mean_error *gain) {
    return gain->error > 0.0 ? gain->mean / gain->error : 0.0;
}

static json_t *model_json(const evaluation *e, const contestant *m) {
    json_t *json = json_pack("{s:s,s:s,s:I,s:o,s:o}", "name", m->name, "folder", m->folder, "step",
                             (json_int_t)m->step, "mean_opinion_score",
                             m->opinion_count > 0 ? evaluate_interval_json(&m->mean_opinion) : json_null(),
                             "wins", e->judges != NULL ? json_integer((json_int_t)m->wins) : json_null());
    for (int r = 0; r < AUTOMATIC_REWARDS; r++) {
        if (!e->scored[r])
            continue;
        char key[EVALUATE_NAME_MAX];
        snprintf(key, sizeof key, "%s_gain", automatic_reward_names[r]);
        json_object_set_new(json, automatic_reward_names[r], number(m->mean[r].mean));
        json_object_set_new(json, key,
                            json_pack("{s:o,s:o,s:o}", "mean", number(m->gain[r].mean), "standard_error",
                                      number(m->gain[r].error), "standard_errors",
                                      number(standard_errors(&m->gain[r]))));
    }
    json_t *rest =
        json_pack("{s:o,s:o,s:o,s:o,s:b,s:i,s:i,s:i,s:o}", "better_share", number(m->better), "diversity",
                  number(m->diversity), "diversity_ratio", number(diversity_ratio(e, m)), "kl", number(m->kl),
                  "kl_is_bound", m->candidates > 1, "clipped_clips", m->clipped, "silent_clips", m->silent,
                  "stuck_clips", m->stuck, "lowest_rms", number(m->lowest_rms));
    json_object_update(json, rest);
    json_decref(rest);
    return json;
}

json_t *evaluate_pair_json(const char *a, const char *b, const side_by_side *s) {
    const double ratings = s->ratings > 0 ? (double)s->ratings : NAN;
    return json_pack("{s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I}", "a", a, "b", b, "win",
                     number((double)s->wins / ratings), "tie", number((double)s->ties / ratings), "loss",
                     number((double)s->losses / ratings), "win_rate", number(s->win_rate.mean), "low",
                     number(s->win_rate.low), "high", number(s->win_rate.high), "difference",
                     evaluate_interval_json(&s->difference), "wilcoxon_p",
                     s->ratings > 0 ? number(s->test.p) : json_null(), "paper",
                     number(evaluate_paper_win_rate(a, b)), "prompts", (json_int_t)s->prompts, "ratings",
                     (json_int_t)s->ratings);
}

// With every rating, as [prompt, score of a, score of b], and what the whole panel would choose.
static json_t *pair_json(const evaluation *e, const comparison *c) {
    json_t *json = evaluate_pair_json(e->models[c->a].name, e->models[c->b].name, &c->result),
           *scores = json_array();
    for (size_t i = 0; i < c->count; i++)
        json_array_append_new(scores, json_pack("[I,i,i]", (json_int_t)c->ratings[i].prompt,
                                                (int)c->ratings[i].a, (int)c->ratings[i].b));
    json_object_set_new(json, "scores", scores);
    if (c->choices != NULL) {
        json_t *choices = json_array();
        for (size_t p = 0; p < e->prompts.count; p++)
            json_array_append_new(choices, number(c->choices[p]));
        json_object_set_new(json, "choice", evaluate_interval_json(&c->choice));
        json_object_set_new(json, "choices", choices);
    }
    return json;
}

// 3 where each prompt of each comparison was judged by three.
static json_t *raters_json(const evaluation *e) {
    if (e->judges == NULL)
        return json_null();
    size_t ratings = 0, prompts = 0;
    for (int c = 0; c < e->comparison_count; c++) {
        ratings += e->comparisons[c].result.ratings;
        prompts += e->comparisons[c].result.prompts;
    }
    if (prompts == 0)
        return json_integer(0);
    return ratings % prompts == 0 ? json_integer((json_int_t)(ratings / prompts))
                                  : json_real((double)ratings / (double)prompts);
}

// Of ids and texts: evaluations on other prompts must not be pooled.
static status digest_prompts(const evaluation *e, char out[DIGEST_HEX]) {
    digest_stream *stream;
    TRY(digest_stream_create(&stream));
    for (size_t i = 0; i < e->prompts.count; i++) {
        digest_stream_update(stream, e->prompts.items[i].id, strlen(e->prompts.items[i].id) + 1);
        digest_stream_update(stream, e->prompts.items[i].text, strlen(e->prompts.items[i].text) + 1);
    }
    const digest found = digest_stream_read(stream);
    digest_stream_destroy(stream);
    digest_to_hex(&found, out);
    return STATUS_OK;
}

status evaluate_write_results(const evaluation *e) {
    char prompts[DIGEST_HEX];
    TRY(digest_prompts(e, prompts));
    json_t *models = json_array(), *pairs = json_array();
    for (int m = 0; m < e->model_count; m++)
        json_array_append_new(models, model_json(e, &e->models[m]));
    for (int c = 0; c < e->comparison_count && e->judges != NULL; c++)
        json_array_append_new(pairs, pair_json(e, &e->comparisons[c]));
    json_t *root = json_pack("{s:I,s:s,s:o,s:o,s:I,s:s,s:o,s:o}", "prompts", (json_int_t)e->prompts.count,
                             "prompts_digest", prompts, "raters", raters_json(e), "judges",
                             e->judges != NULL ? json_string(e->judges) : json_null(), "held_out_captions",
                             (json_int_t)e->caption_count, "baseline", e->models[0].name, "models", models,
                             "pairs", pairs);
    if (root != NULL && e->judges != NULL && strcmp(e->judges, "file") == 0) {
        json_object_set_new(root, "skipped_ratings", json_integer((json_int_t)e->skipped_ratings));
        json_object_set_new(root, "repeated_ratings", json_integer((json_int_t)e->repeated_ratings));
    }
    if (root != NULL && e->judges != NULL && strcmp(e->judges, "panel") == 0)
        json_object_set_new(root, "simulated", json_true());
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/evaluation.json", e->options->output);
    TRY(json_file_publish(path, root));
    const int modelled = generator_levels(e->generator),
              all = (int)codec_describe(e->generator->codec)->levels;
    char note[256];
    snprintf(note, sizeof note,
             "The policy models %d of the codec's %d levels. The %d fine levels of the clips are filled in "
             "by the mean of their code vectors, not by a model.",
             modelled, all, all - modelled);
    snprintf(path, sizeof path, "%s/notes.json", e->options->output);
    return json_file_publish(path, json_pack("[s]", note));
}

// Mean score that raters gave a clip; NaN if nobody did.
static double mean_rating(const contestant *model, size_t prompt) {
    double sum = 0.0, count = 0.0;
    for (size_t i = 0; i < model->opinion_count; i++)
        if (model->opinions[i].prompt == prompt) {
            sum += (double)model->opinions[i].score;
            count += 1.0;
        }
    return count > 0.0 ? sum / count : NAN;
}

static status write_clip(const evaluation *e, const contestant *model, const char *folder, size_t place,
                         size_t prompt, const float *audio, json_t *clips) {
    const generator *g = e->generator;
    char name[EVALUATE_NAME_MAX + 32], path[PATH_MAX];
    snprintf(name, sizeof name, "%s-%02zu.wav", model->name, place);
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return FAIL("path is too long: %.60s...", folder);
    TRY(audio_file_write(path, audio, generator_samples(g), codec_describe(g->codec)->sample_rate));
    json_array_append_new(clips,
                          json_pack("{s:s,s:s,s:o,s:o}", "model", model->name, "file", name, "rating",
                                    number(mean_rating(model, prompt)), "text_adherence",
                                    number((double)model->prompted.score[AUTOMATIC_TEXT_ADHERENCE][prompt])));
    return STATUS_OK;
}

// The clips of one prompt by every model. tokens: [models, frames, levels], audio: [models, samples],
// scratch.
static status write_prompt(const evaluation *e, const char *folder, size_t place, size_t prompt,
                           uint16_t *tokens, float *audio, json_t *list) {
    const generator *g = e->generator;
    const size_t clip = (size_t)g->frames * (size_t)generator_levels(g), models = (size_t)e->model_count;
    json_t *clips = json_array();
    json_array_append_new(list, json_pack("{s:s,s:s,s:o}", "id", e->prompts.items[prompt].id, "prompt",
                                          e->prompts.items[prompt].text, "clips", clips));
    for (size_t m = 0; m < models; m++)
        memcpy(tokens + m * clip, e->models[m].prompted.tokens + prompt * clip, sizeof(uint16_t) * clip);
    TRY(generator_decode(g, tokens, models, e->config.samples.iterations, audio, NULL));
    for (size_t m = 0; m < models; m++)
        TRY(write_clip(e, &e->models[m], folder, place, prompt, audio + m * generator_samples(g), clips));
    return STATUS_OK;
}

static bool lists_file(const json_t *list, const char *file) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *clips = json_object_get(json_array_get(list, i), "clips");
        for (size_t c = 0; c < json_array_size(clips); c++) {
            const char *name = json_string_value(json_object_get(json_array_get(clips, c), "file"));
            if (name != NULL && strcmp(name, file) == 0)
                return true;
        }
    }
    return false;
}

// Removes the clips that an earlier evaluation listed and this one does not: of other models, or more of
// them.
static status remove_unlisted(const char *folder, const json_t *before, const json_t *list) {
    for (size_t i = 0; i < json_array_size(before); i++) {
        const json_t *clips = json_object_get(json_array_get(before, i), "clips");
        for (size_t c = 0; c < json_array_size(clips); c++) {
            const char *name = json_string_value(json_object_get(json_array_get(clips, c), "file"));
            char path[PATH_MAX];
            if (name == NULL || strchr(name, '/') != NULL || lists_file(list, name))
                continue;
            if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
                return FAIL("path is too long: %.60s...", folder);
            TRY(publish_remove(path));
        }
    }
    return STATUS_OK;
}

status evaluate_write_samples(const evaluation *e) {
    const size_t wanted = (size_t)e->config.samples.count, prompts = e->prompts.count;
    const size_t count = wanted < prompts ? wanted : prompts;
    char folder[PATH_MAX], path[PATH_MAX + 32];
    snprintf(folder, sizeof folder, "%s/samples", e->options->output);
    TRY(publish_make_folder(folder));
    snprintf(path, sizeof path, "%s/samples.json", folder);
    if (access(path, F_OK) == 0) // an earlier evaluation's folder
        TRY(publish_sweep(folder));
    const size_t models = (size_t)e->model_count,
                 clip = (size_t)e->generator->frames * (size_t)generator_levels(e->generator);
    float *audio = NULL;
    uint16_t *tokens = NULL;
    json_t *list = json_array(), *before = NULL; // before: NULL where there is none, or none that can be read
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&audio, sizeof(float) * models * generator_samples(e->generator),
                             "decoded clips"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&tokens, sizeof(uint16_t) * models * clip, "token clips"),
             done);
    for (size_t i = 0; i < count; i++) // spread over the list
        TRY_GOTO(result, write_prompt(e, folder, i, i * prompts / count, tokens, audio, list), done);
    snprintf(path, sizeof path, "%s/samples.json", folder);
    before = json_load_file(path, 0, NULL);
    TRY_GOTO(result, json_file_publish(path, json_incref(list)), done);
    result = remove_unlisted(folder, before, list);
done:
    json_decref(before);
    memory_free(audio);
    memory_free(tokens);
    json_decref(list);
    return result;
}

static void print_pairs(const evaluation *e) {
    const bool panel = strcmp(e->judges, "panel") == 0;
    printf("\n%-14s %-14s %5s %5s %5s  %8s %-13s %9s  %s%s\n", "model", "against", "win", "tie", "loss",
           "win rate", "[95 %]", "p", panel ? "whole panel          " : "", "paper");
    for (int c = 0; c < e->comparison_count; c++) {
        const comparison *pair = &e->comparisons[c];
        const side_by_side *s = &pair->result;
        const char *a = e->models[pair->a].name, *b = e->models[pair->b].name;
        if (s->ratings == 0) {
            printf("%-14s %-14s nobody rated both\n", a, b);
            continue;
        }
        const double share = 100.0 / (double)s->ratings, paper = evaluate_paper_win_rate(a, b);
        printf("%-14s %-14s %5.1f %5.1f %5.1f", a, b, share * (double)s->wins, share * (double)s->ties,
               share * (double)s->losses);
        if (isnan(s->win_rate.mean))
            printf("  %8s %-13s", "-", "");
        else
            printf("  %6.1f %% [%4.1f, %5.1f]", 100.0 * s->win_rate.mean, 100.0 * s->win_rate.low,
                   100.0 * s->win_rate.high);
        printf(" %9.2g", s->test.p);
        if (panel)
            printf("  %4.1f %% [%4.1f, %4.1f]", 100.0 * pair->choice.mean, 100.0 * pair->choice.low,
                   100.0 * pair->choice.high);
        if (!isnan(paper))
            printf("  %.0f %%", 100.0 * paper);
        printf("\n");
    }
}

static void print_models(const evaluation *e) {
    printf("\n%-14s %9s %7s", "model", "adherence", "gain");
    for (int r = AUTOMATIC_TEXT_ADHERENCE + 1; r < AUTOMATIC_REWARDS; r++)
        if (e->scored[r])
            printf(" %11s", automatic_reward_names[r]);
    printf(" %9s %7s %7s", "diversity", "of base", "KL");
    if (e->judges != NULL)
        printf("  %7s %-12s %5s", "opinion", "[95 %]", "wins");
    printf("  clipped silent stuck\n");
    for (int i = 0; i < e->model_count; i++) {
        const contestant *m = &e->models[i];
        printf("%-14s %9.4f %+7.4f", m->name, m->mean[AUTOMATIC_TEXT_ADHERENCE].mean,
               m->gain[AUTOMATIC_TEXT_ADHERENCE].mean);
        for (int r = AUTOMATIC_TEXT_ADHERENCE + 1; r < AUTOMATIC_REWARDS; r++)
            if (e->scored[r])
                printf(" %11.4f", m->mean[r].mean);
        printf(" %9.4f %5.0f %% %s%6.2f", m->diversity, 100.0 * diversity_ratio(e, m),
               m->candidates > 1 ? "<" : " ", m->kl);
        if (e->judges != NULL)
            printf("  %7.2f [%4.2f, %4.2f] %5zu", m->mean_opinion.mean, m->mean_opinion.low,
                   m->mean_opinion.high, m->wins);
        printf("  %7d %6d %5d\n", m->clipped, m->silent, m->stuck);
    }
}

void evaluate_print(const evaluation *e) {
    print_models(e);
    printf("\n");
    for (int i = 1; i < e->model_count; i++) {
        const contestant *m = &e->models[i];
        const mean_error *gain = &m->gain[AUTOMATIC_TEXT_ADHERENCE];
        printf("%s: paired difference of text adherence to %s %+.4f, standard error %.4f (%.1f of them); "
               "better on %.0f %% of %zu held-out captions\n",
               m->name, e->models[0].name, gain->mean, gain->error, standard_errors(gain), 100.0 * m->better,
               e->caption_count);
    }
    if (e->judges == NULL) {
        printf("\nNobody rated the clips side by side: set data.listeners (simulated listeners, 'musicrl "
               "reward listeners'), or give the ratings of people with --ratings FILE.\n");
        return;
    }
    print_pairs(e);
    if (strcmp(e->judges, "panel") == 0)
        printf(
            "\n%zu prompts, %d simulated listeners a comparison; p: Wilcoxon's signed-rank test of the "
            "prompts' mean differences; whole panel: how often its listeners would choose the model's clip, "
            "without the noise of votes; intervals resample prompts.\n",
            e->prompts.count, e->options->raters);
    else
        printf("\nRatings of people from %s; p: Wilcoxon's signed-rank test of the prompts' mean "
               "differences; intervals resample prompts. Repeated: %zu, skipped: %zu.\n",
               e->options->ratings, e->repeated_ratings, e->skipped_ratings);
}
