#include "launch/reward_measure.h"

#include <math.h>
#include <string.h>

status reward_score_set(reward_data *d, reward_model *model, reward_pass *pass, reward_inputs *inputs,
                        group *group, const reward_set *set, float *scores, float *pooled) {
    const size_t ranks = group != NULL ? (size_t)group_size(group) : 1,
                 rank = group != NULL ? (size_t)group_index(group) : 0;
    const size_t share = (set->clip_count + ranks - 1) / ranks, first = share * rank;
    const size_t last = first + share < set->clip_count ? first + share : set->clip_count;
    const size_t width = (size_t)d->shape.temporal.transformer.width;
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
