#include "launch/reward_eval.h"

#include "core/agreement.h"
#include "data/json_file.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/reward_variants.h"
#include "launch/run_folder.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *interval_json(const interval *i) {
    return json_pack("{s:o,s:o,s:o}", "mean", number(i->mean), "low", number(i->low), "high",
                     number(i->high));
}

static json_t *calibration_json(const calibration_bin *bins, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:f,s:f,s:I}", "predicted", bins[i].predicted, "observed",
                                              bins[i].observed, "count", (json_int_t)bins[i].count));
    return list;
}

// The selected step, from the summary of a run folder; -1 if there is none.
static json_int_t selected_step(const char *folder) {
    char path[PATH_MAX];
    json_error_t error;
    snprintf(path, sizeof path, "%s/summary.json", folder);
    json_t *json = json_load_file(path, 0, &error);
    const json_t *step = json_object_get(json, "selected_step");
    const json_int_t value = json_is_integer(step) ? json_integer_value(step) : -1;
    json_decref(json);
    return value;
}

// Mean ratings of the test's clips and predictions, both on the scale of opinion scores.
static status measure_quality(reward_test *t, const float *scores, float *ratings, json_t **out) {
    const size_t clips = t->set.clip_count;
    double *predicted = NULL, *observed = NULL;
    float *votes = NULL;
    calibration_bin bins[CALIBRATION_BINS];
    interval spearman;
    int bin_count;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&predicted, sizeof(double) * 2 * clips, "predictions"), done);
    observed = predicted + clips;
    TRY_GOTO(result, memory_allocate((void **)&votes, sizeof(float) * clips, "ratings"), done);
    for (size_t i = 0; i < t->set.count; i++) {
        ratings[t->set.examples[i].a] += t->set.examples[i].target;
        votes[t->set.examples[i].a] += 1.0f;
    }
    double error = 0.0;
    for (size_t c = 0; c < clips; c++) {
        ratings[c] /= votes[c];
        predicted[c] = 1.0 + 4.0 * (double)scores[c];
        observed[c] = 1.0 + 4.0 * (double)ratings[c];
        error += fabs(predicted[c] - observed[c]) / (double)clips;
    }
    TRY_GOTO(result,
             reward_spearman(&t->set, &t->units, scores, ratings, (size_t)t->config->reward.bootstrap,
                             (uint64_t)t->config->seed, &spearman),
             done);
    TRY_GOTO(result, calibration_bins(predicted, observed, clips, bins, &bin_count), done);
    if (world_rank(t->world) == 0) {
        printf("reward: quality on %zu clips of %zu held-out captions\n", clips, t->units.count);
        printf("reward:   Spearman's correlation with the mean rating  %.3f  (%.3f to %.3f)\n", spearman.mean,
               spearman.low, spearman.high);
        printf("reward:   mean absolute error %.2f, expected calibration error %.2f, of ratings 1 to 5\n",
               error, calibration_error(bins, bin_count));
    }
    *out = json_pack("{s:o,s:o,s:f,s:f,s:I,s:I,s:I}", "spearman", interval_json(&spearman), "calibration",
                     calibration_json(bins, bin_count), "ece", calibration_error(bins, bin_count),
                     "absolute_error", error, "clips", (json_int_t)clips, "captions",
                     (json_int_t)t->units.count, "step", selected_step(t->plan.folder));
done:
    memory_free(predicted);
    memory_free(votes);
    return result;
}

static status eval_quality(world *world, const run_config *config, json_t **out) {
    reward_test t;
    float *scores = NULL, *ratings = NULL;
    status result;
    TRY(reward_test_open(&t, world, config, "quality"));
    TRY_GOTO(result, memory_allocate((void **)&scores, sizeof(float) * t.set.clip_count, "scores"), done);
    TRY_GOTO(result, memory_allocate((void **)&ratings, sizeof(float) * t.set.clip_count, "ratings"), done);
    TRY_GOTO(result, reward_test_score(&t, &t.plan, scores), done);
    TRY_GOTO(result, measure_quality(&t, scores, ratings, out), done);
done:
    memory_free(scores);
    memory_free(ratings);
    reward_test_close(&t);
    return result;
}

// Of the decisive votes: the probability that the model gave to the clip that it prefers, against whether
// that clip won.
static status calibrate_votes(const reward_test *t, const float *scores, calibration_bin *bins,
                              int *bin_count) {
    double *predicted;
    size_t count = 0;
    TRY(memory_allocate((void **)&predicted, sizeof(double) * 2 * (t->set.count + 1), "predictions"));
    double *observed = predicted + t->set.count;
    for (size_t i = 0; i < t->set.count; i++) {
        const reward_example *e = &t->set.examples[i];
        if (e->vote != PREFERENCE_A && e->vote != PREFERENCE_B)
            continue;
        const double difference = (double)scores[e->a] - (double)scores[e->b];
        predicted[count] = 1.0 / (1.0 + exp(-fabs(difference)));
        observed[count++] = difference == 0.0 ? 0.5 : (difference > 0.0) == (e->vote == PREFERENCE_A);
    }
    const status result = calibration_bins(predicted, observed, count, bins, bin_count);
    memory_free(predicted);
    return result;
}

// A predictor of preference, measured on the test's votes.
typedef struct measured {
    bool there;
    interval accuracy;
    interval behind;        // the run's model less it
    interval behind_tokens; // of SCRATCH: TOKENS, which differs from it in the start alone, less it
} measured;

static void print_row(const reward_test *t, reward_variant variant, const measured *m, double ceiling) {
    const double paper = reward_variant_paper(variant);
    if (world_rank(t->world) != 0)
        return;
    printf("reward:   %-32s %5.1f %%  (%.1f to %.1f)", reward_variant_name(variant), 100.0 * m->accuracy.mean,
           100.0 * m->accuracy.low, 100.0 * m->accuracy.high);
    if (isfinite(ceiling))
        printf("  %4.0f %% of the way", 100.0 * (m->accuracy.mean - 0.5) / (ceiling - 0.5));
    if (variant != REWARD_VARIANT_FULL)
        printf("  behind by %.1f (%.1f to %.1f)", 100.0 * m->behind.mean, 100.0 * m->behind.low,
               100.0 * m->behind.high);
    if (variant == REWARD_VARIANT_SCRATCH)
        printf(", behind tokens only by %.1f (%.1f to %.1f)", 100.0 * m->behind_tokens.mean,
               100.0 * m->behind_tokens.low, 100.0 * m->behind_tokens.high);
    if (isfinite(paper))
        printf("  paper %.1f", 100.0 * paper);
    printf("\n");
}

static json_t *row_json(const reward_test *t, reward_variant variant, const measured *m) {
    json_t *row = json_pack("{s:s,s:o,s:o,s:I,s:o}", "name", reward_variant_name(variant), "accuracy",
                            interval_json(&m->accuracy), "behind", interval_json(&m->behind), "pairs",
                            (json_int_t)t->set.count, "paper", number(reward_variant_paper(variant)));
    if (variant == REWARD_VARIANT_SCRATCH)
        json_object_set_new(row, "behind_tokens", interval_json(&m->behind_tokens));
    return row;
}

static void print_head(const reward_test *t, double agreement, double ceiling) {
    if (world_rank(t->world) != 0)
        return;
    size_t decisive = 0;
    for (size_t i = 0; i < t->set.count; i++)
        decisive += t->set.examples[i].vote == PREFERENCE_A || t->set.examples[i].vote == PREFERENCE_B;
    printf("reward: preference on %zu decisive votes (of %zu) of %zu held-out captions, raters: %s\n",
           decisive, t->set.count, t->units.count,
           ratings_get_origin(t->data.ratings) == RATINGS_SIMULATED ? "simulated listeners" : "people");
    if (isfinite(ceiling))
        printf("reward:   two raters agree on %.1f %% of pairs, the best possible model on %.1f %%\n",
               100.0 * agreement, 100.0 * ceiling);
    printf("reward:   accuracy (95 %% interval over captions)\n");
}

// Those of a predictor that are wanted, in their order, so that TOKENS comes before SCRATCH. lead: scores of
// the run's model.
static status measure_variants(reward_test *t, const reward_variant *variants, int count, const float *lead,
                               measured *out) {
    const size_t clips = t->set.clip_count, resamples = (size_t)t->config->reward.bootstrap;
    const uint64_t seed = (uint64_t)t->config->seed;
    float *scores, *tokens;
    TRY(memory_allocate((void **)&scores, sizeof(float) * 2 * (clips + 1), "scores"));
    tokens = scores + clips + 1;
    status result = STATUS_OK;
    for (int i = 0; i < count; i++) {
        const reward_variant variant = variants[i];
        measured *m = &out[variant];
        m->there = reward_variant_can_be_had(t, variant);
        if (!m->there) {
            if (world_rank(t->world) == 0)
                printf("reward: '%s' is left out: there is no model in data.quality\n",
                       reward_variant_name(variant));
            continue;
        }
        if (variant == REWARD_VARIANT_FULL)
            memcpy(scores, lead, sizeof(float) * clips);
        else
            TRY_GOTO(result, reward_variant_score(t, variant, scores), done);
        TRY_GOTO(result, reward_accuracy(&t->set, &t->units, scores, resamples, seed, &m->accuracy), done);
        TRY_GOTO(result, reward_accuracy_gain(&t->set, &t->units, lead, scores, resamples, seed, &m->behind),
                 done);
        if (variant == REWARD_VARIANT_TOKENS)
            memcpy(tokens, scores, sizeof(float) * clips);
        if (variant == REWARD_VARIANT_SCRATCH)
            TRY_GOTO(
                result,
                reward_accuracy_gain(&t->set, &t->units, tokens, scores, resamples, seed, &m->behind_tokens),
                done);
    }
done:
    memory_free(scores);
    return result;
}

static status eval_preference(world *world, const run_config *config, json_t **out) {
    static const reward_variant variants[] = {REWARD_VARIANT_FULL,      REWARD_VARIANT_TOKENS,
                                              REWARD_VARIANT_SCRATCH,   REWARD_VARIANT_LINEAR,
                                              REWARD_VARIANT_ADHERENCE, REWARD_VARIANT_QUALITY};
    enum { COUNT = sizeof variants / sizeof variants[0] };
    reward_test t;
    float *scores = NULL;
    calibration_bin bins[CALIBRATION_BINS];
    measured found[REWARD_VARIANTS];
    double agreement, ceiling;
    int bin_count;
    json_t *list = json_array();
    status result;
    TRY_GOTO(result, reward_test_open(&t, world, config, "preference"), failed);
    reward_panel_numbers(config, t.data.ratings, &agreement, &ceiling);
    TRY_GOTO(result, memory_allocate((void **)&scores, sizeof(float) * (t.set.clip_count + 1), "scores"),
             done);
    TRY_GOTO(result, reward_test_score(&t, &t.plan, scores), done);
    TRY_GOTO(result, calibrate_votes(&t, scores, bins, &bin_count), done);
    TRY_GOTO(result, measure_variants(&t, variants, COUNT, scores, found), done);
    print_head(&t, agreement, ceiling);
    for (int i = 0; i < COUNT; i++) {
        if (!found[variants[i]].there)
            continue;
        print_row(&t, variants[i], &found[variants[i]], ceiling);
        if (i > 0)
            json_array_append_new(list, row_json(&t, variants[i], &found[variants[i]]));
    }
    if (world_rank(world) == 0)
        printf("reward:   expected calibration error %.3f\n", calibration_error(bins, bin_count));
    *out = json_pack("{s:o,s:f,s:o,s:o,s:I,s:I,s:I,s:o,s:O}", "accuracy",
                     interval_json(&found[REWARD_VARIANT_FULL].accuracy), "ece",
                     calibration_error(bins, bin_count), "ceiling", number(ceiling), "agreement",
                     number(agreement), "pairs", (json_int_t)t.set.count, "captions",
                     (json_int_t)t.units.count, "step", selected_step(t.plan.folder), "calibration",
                     calibration_json(bins, bin_count), "baselines", list);
done:
    memory_free(scores);
    reward_test_close(&t);
failed:
    json_decref(list);
    return result;
}

// What data.ratings holds.
typedef struct ratings_kinds {
    bool simulated, scores, pairs;
} ratings_kinds;

static status look_at_ratings(const run_config *config, ratings_kinds *out) {
    ratings *r;
    TRY(ratings_open(&r, config->data.ratings));
    *out = (ratings_kinds){ratings_get_origin(r) == RATINGS_SIMULATED, ratings_score_count(r) > 0,
                           ratings_pair_count(r) > 0};
    ratings_close(r);
    return STATUS_OK;
}

// Runs `body` in a world; rank 0 publishes what it makes as FOLDER/NAME.
static status publish_from(const run_config *config, const char *name,
                           status (*body)(world *world, const run_config *config, json_t **out)) {
    world *world;
    json_t *json = NULL;
    char path[PATH_MAX];
    run_catch_signals();
    const world_options options = {.threads = config->threads};
    TRY(world_create(&world, &options));
    status result = world_agree(world, body(world, config, &json));
    if (result == STATUS_OK && world_rank(world) == 0) {
        result = publish_make_folder(config->folder);
        snprintf(path, sizeof path, "%s/%s", config->folder, name);
        if (result == STATUS_OK)
            result = json_file_publish(path, json_incref(json));
    }
    json_decref(json);
    result = world_agree(world, result);
    run_speak_once(world, result);
    world_destroy(world);
    return result;
}

static void say_left_out(const world *world, const run_config *config, const char *kind, const char *what) {
    if (world_rank(world) == 0)
        printf("reward: %s is left out: %s holds no %s\n", kind, config->data.ratings, what);
}

static status eval_both(world *world, const run_config *config, json_t **out) {
    json_t *quality = NULL, *preference = NULL;
    ratings_kinds kinds;
    status result;
    TRY_GOTO(result, run_config_require(config, "data.ratings"), done);
    TRY_GOTO(result, look_at_ratings(config, &kinds), done);
    if (kinds.scores || !kinds.pairs)
        TRY_GOTO(result, eval_quality(world, config, &quality), done);
    else
        say_left_out(world, config, "quality", "scores of clips");
    if (kinds.pairs)
        TRY_GOTO(result, eval_preference(world, config, &preference), done);
    else
        say_left_out(world, config, "preference", "votes on pairs");
    *out = json_object();
    if (quality != NULL)
        json_object_set(*out, "quality", quality);
    if (preference != NULL)
        json_object_set(*out, "preference", preference);
    json_object_set_new(*out, "simulated", json_boolean(kinds.simulated));
done:
    json_decref(quality);
    json_decref(preference);
    return result;
}

status reward_eval(const run_config *config) {
    return publish_from(config, "reward.json", eval_both);
}

static status ablate(world *world, const run_config *config, json_t **out) {
    reward_test t;
    double agreement, ceiling;
    float *scores = NULL;
    reward_variant variants[REWARD_VARIANTS];
    measured found[REWARD_VARIANTS];
    json_t *rows = json_array();
    status result;
    TRY_GOTO(result, reward_test_open(&t, world, config, "preference"), failed);
    reward_panel_numbers(config, t.data.ratings, &agreement, &ceiling);
    TRY_GOTO(result, memory_allocate((void **)&scores, sizeof(float) * (t.set.clip_count + 1), "scores"),
             done);
    TRY_GOTO(result, reward_variant_score(&t, REWARD_VARIANT_FULL, scores), done);
    for (int v = 0; v < REWARD_VARIANTS; v++)
        variants[v] = (reward_variant)v;
    TRY_GOTO(result, measure_variants(&t, variants, REWARD_VARIANTS, scores, found), done);
    print_head(&t, agreement, ceiling);
    for (int v = 0; v < REWARD_VARIANTS; v++) {
        if (!found[v].there)
            continue;
        print_row(&t, (reward_variant)v, &found[v], ceiling);
        json_array_append_new(rows, row_json(&t, (reward_variant)v, &found[v]));
    }
    *out = json_pack("{s:o,s:f,s:O,s:I,s:b}", "ceiling", number(ceiling), "chance", 0.5, "rows", rows,
                     "captions", (json_int_t)t.units.count, "simulated",
                     ratings_get_origin(t.data.ratings) == RATINGS_SIMULATED);
done:
    memory_free(scores);
    reward_test_close(&t);
failed:
    json_decref(rows);
    return result;
}

status reward_ablate(const run_config *config) {
    return publish_from(config, "ablation.json", ablate);
}
