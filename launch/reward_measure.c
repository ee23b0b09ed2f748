#include "launch/reward_measure.h"

#include "core/agreement.h"
#include "kernels/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

status reward_score_set(reward_data *d, reward_model *model, reward_pass *pass, reward_inputs *inputs,
                        group *group, const reward_set *set, float *scores, float *pooled) {
    const size_t ranks = group != NULL ? (size_t)group_size(group) : 1,
                 rank = group != NULL ? (size_t)group_index(group) : 0;
    const size_t share = (set->clip_count + ranks - 1) / ranks, first = share * rank;
    const size_t last = first + share < set->clip_count ? first + share : set->clip_count;
    const size_t width = (size_t)reward_model_pooled_count(&d->shape);
    status result = STATUS_OK;
    memset(scores, 0, sizeof(float) * set->clip_count); // what other ranks score arrives as a sum with zeros
    if (pooled != NULL)
        memset(pooled, 0, sizeof(float) * set->clip_count * width);
    for (size_t at = first; at < last && result == STATUS_OK; at += inputs->capacity) {
        const size_t count = last - at < inputs->capacity ? last - at : inputs->capacity;
        result = reward_data_load(d, set->clips + at, count, inputs);
        if (result == STATUS_OK)
            result = reward_score(model, pass, count, inputs->prefix, inputs->tokens, d->frames,
                                  inputs->features, scores + at, pooled != NULL ? pooled + at * width : NULL);
    }
    if (ranks == 1)
        return result;
    TRY(result);
    TRY(group_all_reduce_tree(group, scores, set->clip_count));
    return pooled == NULL ? STATUS_OK : group_all_reduce_tree(group, pooled, set->clip_count * width);
}

reward_outcome reward_measure(const reward_set *set, bool quality, const float *scores,
                              const float *threshold) {
    reward_outcome out = {.count = set->count};
    double right = 0.0;
    for (size_t i = 0; i < set->count; i++) {
        const reward_example *e = &set->examples[i];
        const double a = (double)scores[e->a], b = (double)scores[e->b];
        if (quality) {
            out.loss += (a - (double)e->target) * (a - (double)e->target);
            continue;
        }
        double gradient[4];
        out.loss += preference_loss(e->vote, a, b, threshold, gradient);
        if (e->vote != PREFERENCE_A && e->vote != PREFERENCE_B)
            continue;
        out.decisive++;
        right += a == b ? 0.5 : (a > b) == (e->vote == PREFERENCE_A);
    }
    out.loss = set->count > 0 ? out.loss / (double)set->count : NAN;
    out.accuracy = out.decisive > 0 ? right / (double)out.decisive : NAN;
    return out;
}

typedef struct captioned {
    uint64_t caption; // digest
    size_t example;
} captioned;

static int by_caption(const void *left, const void *right) {
    const captioned *a = left, *b = right;
    if (a->caption != b->caption)
        return a->caption < b->caption ? -1 : 1;
    return (a->example > b->example) - (a->example < b->example);
}

status reward_units_create(reward_units *out, const reward_data *d, const reward_set *set) {
    *out = (reward_units){0};
    captioned *list = NULL;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&out->of, sizeof(size_t) * (set->count + 1), "captions"), done);
    TRY_GOTO(result, memory_allocate((void **)&list, sizeof *list * (set->count + 1), "captions"), done);
    for (size_t i = 0; i < set->count; i++) {
        shard_clip strings;
        TRY_GOTO(result, corpus_read_strings(d->clips, set->clips[set->examples[i].a], &strings), done);
        list[i] = (captioned){digest_text(strings.caption), i};
    }
    qsort(list, set->count, sizeof *list, by_caption);
    for (size_t i = 0; i < set->count; i++) {
        if (i == 0 || list[i].caption != list[i - 1].caption)
            out->count++;
        out->of[list[i].example] = out->count - 1;
    }
done:
    memory_free(list);
    if (result != STATUS_OK)
        reward_units_destroy(out);
    return result;
}

void reward_units_destroy(reward_units *units) {
    memory_free(units->of);
    *units = (reward_units){0};
}

typedef struct votes {
    double *right, *decisive; // [units]
} votes;

static double accuracy_of(void *context, const size_t *drawn, size_t units) {
    const votes *v = context;
    double right = 0.0, decisive = 0.0;
    for (size_t i = 0; i < units; i++) {
        right += v->right[drawn[i]];
        decisive += v->decisive[drawn[i]];
    }
    return decisive > 0.0 ? right / decisive : NAN;
}

// 1 if the scores tell the winner of a decisive vote, 0.5 if they are equal.
static double is_right(const reward_example *e, const float *scores) {
    const float a = scores[e->a], b = scores[e->b];
    return a == b ? 0.5 : (a > b) == (e->vote == PREFERENCE_A);
}

// others: NULL for the accuracy by scores alone.
static status bootstrap_accuracy(const reward_set *set, const reward_units *units, const float *scores,
                                 const float *others, size_t resamples, uint64_t seed, interval *out) {
    votes v;
    TRY(memory_allocate((void **)&v.right, sizeof(double) * 2 * (units->count + 1), "votes by caption"));
    v.decisive = v.right + units->count;
    for (size_t i = 0; i < set->count; i++) {
        const reward_example *e = &set->examples[i];
        if (e->vote != PREFERENCE_A && e->vote != PREFERENCE_B)
            continue;
        v.decisive[units->of[i]] += 1.0;
        v.right[units->of[i]] += is_right(e, scores) - (others != NULL ? is_right(e, others) : 0.0);
    }
    const status result = bootstrap_interval(accuracy_of, &v, units->count, resamples, 0.95, seed, out);
    memory_free(v.right);
    return result;
}

status reward_accuracy(const reward_set *set, const reward_units *units, const float *scores,
                       size_t resamples, uint64_t seed, interval *out) {
    return bootstrap_accuracy(set, units, scores, NULL, resamples, seed, out);
}

status reward_accuracy_gain(const reward_set *set, const reward_units *units, const float *scores,
                            const float *others, size_t resamples, uint64_t seed, interval *out) {
    return bootstrap_accuracy(set, units, scores, others, resamples, seed, out);
}

typedef struct rated {
    size_t *first, *clips; // [units + 1] where a caption's clips begin; [clips] by caption
    const float *scores, *ratings;
    double *x, *y; // [room]
    size_t room;
} rated;

static double spearman_of(void *context, const size_t *drawn, size_t units) {
    rated *r = context;
    size_t count = 0;
    for (size_t i = 0; i < units; i++)
        for (size_t k = r->first[drawn[i]]; k < r->first[drawn[i] + 1] && count < r->room; k++, count++) {
            r->x[count] = (double)r->scores[r->clips[k]];
            r->y[count] = (double)r->ratings[r->clips[k]];
        }
    double rho;
    return spearman_correlation(r->x, r->y, count, &rho) == STATUS_OK ? rho : NAN;
}

status reward_spearman(const reward_set *set, const reward_units *units, const float *scores,
                       const float *ratings, size_t resamples, uint64_t seed, interval *out) {
    const size_t clips = set->clip_count;
    size_t largest = 1, *unit = NULL;
    rated r = {.scores = scores, .ratings = ratings};
    status result;
    TRY_GOTO(result, memory_allocate((void **)&unit, sizeof(size_t) * (clips + 1), "captions"), done);
    TRY_GOTO(result, memory_allocate((void **)&r.first, sizeof(size_t) * (units->count + 2), "captions"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&r.clips, sizeof(size_t) * (clips + 1), "captions"), done);
    for (size_t i = 0; i < set->count; i++)
        unit[set->examples[i].a] = units->of[i];
    for (size_t c = 0; c < clips; c++)
        r.first[unit[c] + 2]++;
    for (size_t u = 0; u < units->count; u++) {
        largest = r.first[u + 2] > largest ? r.first[u + 2] : largest;
        r.first[u + 2] += r.first[u + 1];
    }
    for (size_t c = 0; c < clips; c++) // moves first[u + 1] from the start of unit u to its end
        r.clips[r.first[unit[c] + 1]++] = c;
    r.room = largest * units->count;
    TRY_GOTO(result, memory_allocate((void **)&r.x, sizeof(double) * 2 * r.room, "rated clips"), done);
    r.y = r.x + r.room;
    TRY_GOTO(result, bootstrap_interval(spearman_of, &r, units->count, resamples, 0.95, seed, out), done);
done:
    memory_free(unit);
    memory_free(r.first);
    memory_free(r.clips);
    memory_free(r.x);
    return result;
}
