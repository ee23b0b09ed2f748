#include "core/side_by_side.h"

#include "kernels/memory.h"

#include <math.h>
#include <string.h>

static const double level = 0.95;

// Sums of one prompt. What a statistic of drawn prompts is made from.
typedef struct prompt_sums {
    double top, bottom; // the statistic is sum of top / sum of bottom
    double difference;  // sum of a - b
    size_t ratings;
} prompt_sums;

static double ratio_of_sums(void *context, const size_t *drawn, size_t units) {
    const prompt_sums *sums = context;
    double top = 0.0, bottom = 0.0;
    for (size_t i = 0; i < units; i++) {
        top += sums[drawn[i]].top;
        bottom += sums[drawn[i]].bottom;
    }
    return bottom > 0.0 ? top / bottom : NAN;
}

// Moves the prompts that have ratings to the front, in order; returns how many.
static size_t drop_unrated(prompt_sums *sums, size_t prompts) {
    size_t rated = 0;
    for (size_t p = 0; p < prompts; p++)
        if (sums[p].ratings > 0)
            sums[rated++] = sums[p];
    return rated;
}

status side_by_side_compare(const rated_pair *pairs, size_t count, size_t prompts, size_t resamples,
                            uint64_t seed, side_by_side *out) {
    *out = (side_by_side){
        .ratings = count, .win_rate = {NAN, NAN, NAN}, .difference = {NAN, NAN, NAN}, .test = {.p = 1.0}};
    if (count == 0)
        return STATUS_OK;
    prompt_sums *sums;
    double *means = NULL;
    TRY(memory_allocate((void **)&sums, sizeof *sums * prompts, "sums of prompts"));
    status result;
    for (size_t i = 0; i < count; i++) {
        prompt_sums *s = &sums[pairs[i].prompt];
        const double difference = (double)pairs[i].a - (double)pairs[i].b;
        out->wins += difference > 0.0;
        out->ties += difference == 0.0;
        out->losses += difference < 0.0;
        s->top += difference > 0.0;
        s->bottom += difference != 0.0;
        s->difference += difference;
        s->ratings++;
    }
    out->prompts = drop_unrated(sums, prompts);
    TRY_GOTO(result, memory_allocate((void **)&means, sizeof(double) * out->prompts, "means of prompts"),
             done);
    for (size_t p = 0; p < out->prompts; p++)
        means[p] = sums[p].difference / (double)sums[p].ratings;
    TRY_GOTO(result,
             bootstrap_interval(ratio_of_sums, sums, out->prompts, resamples, level, seed, &out->win_rate),
             done);
    TRY_GOTO(result, bootstrap_mean(means, out->prompts, resamples, level, seed, &out->difference), done);
    result = wilcoxon_signed_rank(means, out->prompts, &out->test);
done:
    memory_free(sums);
    memory_free(means);
    return result;
}

status mean_opinion_score(const opinion *opinions, size_t count, size_t prompts, size_t resamples,
                          uint64_t seed, interval *out) {
    *out = (interval){NAN, NAN, NAN};
    if (count == 0)
        return STATUS_OK;
    prompt_sums *sums;
    TRY(memory_allocate((void **)&sums, sizeof *sums * prompts, "sums of prompts"));
    for (size_t i = 0; i < count; i++) {
        sums[opinions[i].prompt].top += (double)opinions[i].score;
        sums[opinions[i].prompt].bottom += 1.0;
        sums[opinions[i].prompt].ratings++;
    }
    const status result =
        bootstrap_interval(ratio_of_sums, sums, drop_unrated(sums, prompts), resamples, level, seed, out);
    memory_free(sums);
    return result;
}
