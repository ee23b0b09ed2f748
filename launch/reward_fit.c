#include "launch/reward_train_parts.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

enum { FIT_EXAMPLES_MIN = 256 };

// Rows of [pooled, features] of the set's clips.
static status make_rows(reward_trainer *t, const reward_set *set, float **out) {
    const size_t width = (size_t)reward_model_pooled_count(&t->data.shape),
                 features = (size_t)reward_model_feature_count(&t->data.shape), total = width + features;
    float *rows = NULL, *pooled = NULL, *scores = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&rows, sizeof(float) * set->clip_count * total, "fit rows"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&pooled, sizeof(float) * set->clip_count * width, "fit rows"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&scores, sizeof(float) * set->clip_count, "fit rows"), done);
    TRY_GOTO(result, reward_score_set(&t->data, t->model, t->pass, &t->inputs, t->group, set, scores, pooled),
             done);
    for (size_t at = 0; at < set->clip_count; at += t->inputs.capacity) {
        const size_t left = set->clip_count - at,
                     count = left < t->inputs.capacity ? left : t->inputs.capacity;
        TRY_GOTO(result, reward_data_load(&t->data, set->clips + at, count, &t->inputs), done);
        for (size_t i = 0; i < count; i++) {
            memcpy(rows + (at + i) * total, pooled + (at + i) * width, sizeof(float) * width);
            memcpy(rows + (at + i) * total + width, t->inputs.features + i * features,
                   sizeof(float) * features);
        }
    }
    *out = rows;
    rows = NULL;
done:
    memory_free(rows);
    memory_free(pooled);
    memory_free(scores);
    return result;
}

typedef struct fit {
    const reward_set *set;
    float *rows; // [clips of the set, width]
    int *fold;   // [pairs, or clips]
    size_t width;
    fit_pair *pairs; // [examples of the set]
    size_t pair_count;
    float *targets, *importances; // [clips of the set]
    double *weights;              // [width + 1], the constant last
    float threshold[2];
} fit;

static status list_targets(const reward_trainer *t, fit *f) {
    for (size_t i = 0; i < f->set->count; i++) {
        const reward_example *e = &f->set->examples[i];
        f->importances[e->a] += 1.0f;
        f->targets[e->a] += e->target;
    }
    for (size_t i = 0; i < f->set->clip_count; i++) {
        f->targets[i] /= f->importances[i];
        TRY(reward_data_fold(&t->data, f->set->clips[i], &f->fold[i]));
    }
    return STATUS_OK;
}

static status list_pairs(const reward_trainer *t, fit *f) {
    double votes[4] = {0.0};
    for (size_t i = 0; i < f->set->count; i++) {
        const reward_example *e = &f->set->examples[i];
        votes[e->vote] += 1.0;
        if (e->vote == PREFERENCE_BOTH_BAD)
            continue;
        const float outcome = e->vote == PREFERENCE_A ? 1.0f : e->vote == PREFERENCE_B ? 0.0f : 0.5f;
        TRY(reward_data_fold(&t->data, f->set->clips[e->a], &f->fold[f->pair_count]));
        f->pairs[f->pair_count++] = (fit_pair){.a = e->a, .b = e->b, .outcome = outcome};
    }
    preference_initial_threshold(votes, f->threshold);
    return STATUS_OK;
}

static status solve(const reward_trainer *t, fit *f) {
    double ridges[REWARD_RIDGES], chosen;
    const fit_options options = reward_fit_options(t->config, f->fold, ridges);
    if (t->data.plan.quality)
        return fit_scores(f->rows, f->width, f->targets, f->importances, f->set->clip_count, &options,
                          f->weights, &chosen);
    TRY(fit_preference(f->rows, f->width, f->pairs, f->pair_count, &options, f->weights, &chosen));
    // Differences leave the level free: the mean score is 0.
    double mean = 0.0;
    for (size_t i = 0; i < f->set->clip_count; i++)
        for (size_t j = 0; j < f->width; j++)
            mean += f->weights[j] * (double)f->rows[i * f->width + j] / (double)f->set->clip_count;
    f->weights[f->width] = -mean;
    return STATUS_OK;
}

static status set_head(reward_trainer *t, const fit *f) {
    const size_t width = (size_t)reward_model_pooled_count(&t->data.shape);
    reward_head head = {.threshold = t->data.plan.quality ? NULL : f->threshold};
    float *weights = NULL; // [width + 1], the constant last
    if (t->data.plan.fit) {
        TRY(memory_allocate((void **)&weights, sizeof(float) * (f->width + 1), "fit weights"));
        for (size_t j = 0; j <= f->width; j++)
            weights[j] = (float)f->weights[j];
        head.pooled = weights;
        head.features = weights + width;
        head.bias = weights + f->width;
    }
    const status result = reward_model_set_head(t->model, &head);
    memory_free(weights);
    return result;
}

fit_options reward_fit_options(const run_config *config, const int *fold, double ridges[REWARD_RIDGES]) {
    double ridge = 1000.0 * config->reward.fit_ridge;
    for (int i = 0; i < REWARD_RIDGES; i++, ridge /= sqrt(10.0))
        ridges[i] = ridge;
    return (fit_options){.fold = fold, .folds = REWARD_FOLDS, .ridges = ridges, .ridge_count = REWARD_RIDGES};
}

static status fit_set(reward_trainer *t, const reward_set *set) {
    fit f = {.set = set};
    f.width = (size_t)reward_model_pooled_count(&t->data.shape) +
              (size_t)reward_model_feature_count(&t->data.shape);
    const size_t most = set->clip_count > set->count ? set->clip_count : set->count;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&f.pairs, sizeof(fit_pair) * set->count, "fit pairs"), done);
    TRY_GOTO(result, memory_allocate((void **)&f.targets, sizeof(float) * set->clip_count, "fit targets"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&f.importances, sizeof(float) * set->clip_count, "fit targets"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&f.weights, sizeof(double) * (f.width + 1), "fit weights"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&f.fold, sizeof(int) * most, "fit folds"), done);
    TRY_GOTO(result, t->data.plan.quality ? list_targets(t, &f) : list_pairs(t, &f), done);
    if (t->data.plan.fit) {
        TRY_GOTO(result, make_rows(t, set, &f.rows), done);
        TRY_GOTO(result, solve(t, &f), done);
    } else if (t->data.plan.quality) { // the mean score is a better start than 0
        double sum = 0.0, count = 0.0;
        for (size_t i = 0; i < set->clip_count; i++) {
            sum += (double)f.targets[i] * (double)f.importances[i];
            count += (double)f.importances[i];
        }
        const float mean = (float)(sum / count);
        TRY_GOTO(result, reward_model_set_head(t->model, &(reward_head){.bias = &mean}), done);
    }
    result = set_head(t, &f);
done:
    memory_free(f.rows);
    memory_free(f.fold);
    memory_free(f.pairs);
    memory_free(f.targets);
    memory_free(f.importances);
    memory_free(f.weights);
    return result;
}

status reward_fit_head(reward_trainer *t) {
    const size_t wanted = (size_t)t->config->reward.fit_examples;
    const size_t runs = (t->data.rows + t->slot_rows - 1) / t->slot_rows;
    reward_set set;
    TRY(reward_set_create(&set, wanted > FIT_EXAMPLES_MIN ? wanted : FIT_EXAMPLES_MIN));
    status result = STATUS_OK;
    for (uint64_t position = 0; position < runs && set.count < set.capacity && result == STATUS_OK;
         position++)
        result = reward_add_run(t, &set, position);
    if (result == STATUS_OK && set.count == 0)
        result = FAIL("%s holds no %s of training captions (nine captions in ten are); collect more",
                      t->config->data.ratings, t->data.plan.quality ? "scores" : "votes");
    if (result == STATUS_OK)
        result = fit_set(t, &set);
    reward_set_destroy(&set);
    return result;
}
