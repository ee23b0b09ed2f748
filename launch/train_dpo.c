// Direct preference optimisation on rated pairs, the offline rival of RL: it takes the place of sampling,
// scoring and policy gradient in a step, and shares everything else, evaluation and selection included. The
// pairs of a step, their gradient slots and the order of all sums depend on nothing but the run file.
#include "launch/train_parts.h"

#include "kernels/memory.h"

#include <stdio.h>
#include <string.h>

// A, B and nothing else says which clip to prefer; captions that are held out stay unseen.
static bool is_usable(const dpo_role *d, const rating_pair *pair) {
    return (pair->vote == RATING_VOTE_A || pair->vote == RATING_VOTE_B) &&
           !ratings_clip_is_held_out(d->ratings, pair->clip_a);
}

// Counts what is left out, in passing over all pairs once.
static status count_pairs(train *t) {
    enum { CHUNK = 4096 };
    dpo_role *d = &t->dpo;
    const size_t count = d->count = ratings_pair_count(d->ratings);
    size_t used = 0, ties = 0, both_bad = 0, held_out = 0;
    rating_pair *chunk;
    TRY(memory_allocate((void **)&chunk, sizeof *chunk * CHUNK, "rated pairs"));
    status result = STATUS_OK;
    for (size_t first = 0; first < count && result == STATUS_OK; first += CHUNK) {
        const size_t size = count - first < CHUNK ? count - first : CHUNK;
        result = ratings_read_pairs(d->ratings, first, size, chunk);
        for (size_t i = 0; i < size && result == STATUS_OK; i++) {
            if (is_usable(d, &chunk[i]))
                used++;
            else if (ratings_clip_is_held_out(d->ratings, chunk[i].clip_a))
                held_out++;
            else if (chunk[i].vote == RATING_VOTE_TIE)
                ties++;
            else
                both_bad++;
        }
    }
    memory_free(chunk);
    TRY(result);
    if (used == 0)
        return FAIL(
            "%s has %zu pairs, but none to learn from: %zu ties, %zu of two bad clips, %zu of held-out "
            "captions; collect votes for one clip or the other",
            t->config->data.ratings, count, ties, both_bad, held_out);
    if (world_rank(t->world) == roles_rank(&t->layout, ROLE_LEARNER, 0))
        printf("train: %zu of %zu pairs to learn from; left out are %zu ties, %zu of two bad clips, %zu of "
               "held-out captions\n",
               used, count, ties, both_bad, held_out);
    return STATUS_OK;
}

status train_dpo_widen(train *t) {
    char path[RUN_CONFIG_PATH_MAX + 16];
    corpus *clips;
    TRY(run_config_require(t->config, "data.ratings"));
    snprintf(path, sizeof path, "%s/clips", t->config->data.ratings);
    TRY(corpus_open(&clips, path, SHARD_TOKENS));
    const int frames = (int)corpus_get_format(clips)->frames;
    corpus_close(clips);
    if (t->shape.temporal.frames < frames)
        t->shape.temporal.frames = frames;
    return STATUS_OK;
}

static status check_clips(train *t) {
    dpo_role *d = &t->dpo;
    const shard_format *format = corpus_get_format(ratings_clips(d->ratings));
    const temporal_config *shape = &t->shape.temporal;
    if (strcmp(format->codec, t->format.codec) != 0)
        return FAIL(
            "the clips of %s are tokens of codec %s, those of %s of codec %s; collect ratings of clips of "
            "this codec",
            t->config->data.ratings, format->codec, t->config->data.tokens, t->format.codec);
    if (format->levels < (uint32_t)shape->levels)
        return FAIL(
            "the clips of %s have %u levels, the policy models %d; collect ratings of clips that have "
            "them",
            t->config->data.ratings, format->levels, shape->levels);
    d->frames = (int)format->frames;
    d->levels = (int)format->levels;
    return STATUS_OK;
}

status train_dpo_create(train *t) {
    dpo_role *d = &t->dpo;
    const run_config *config = t->config;
    if (config->train.method != RUN_METHOD_DPO || !t->learner.active)
        return STATUS_OK;
    TRY(ratings_open(&d->ratings, config->data.ratings));
    TRY(check_clips(t));
    TRY(count_pairs(t));
    const size_t batch = (size_t)config->dpo.batch, pairs = batch / (size_t)config->train.gradient_slots;
    const size_t clip = (size_t)d->frames * (size_t)t->shape.temporal.levels;
    TRY(memory_allocate((void **)&d->pairs, sizeof *d->pairs * batch, "rated pairs"));
    TRY(memory_allocate((void **)&d->captions, sizeof *d->captions * pairs, "caption list"));
    TRY(memory_allocate((void **)&d->text, sizeof(float) * pairs * (size_t)t->embedding_width,
                        "caption embeddings"));
    TRY(memory_allocate((void **)&d->clip, sizeof(uint16_t) * (size_t)d->frames * (size_t)d->levels,
                        "rated clip"));
    TRY(memory_allocate((void **)&d->prefix, sizeof(uint16_t) * 2 * pairs * (size_t)t->shape.temporal.prefix,
                        "rated prefixes"));
    TRY(memory_allocate((void **)&d->tokens, sizeof(uint16_t) * 2 * pairs * clip, "rated tokens"));
    TRY(memory_allocate((void **)&d->statistics, sizeof *d->statistics * pairs, "statistics"));
    TRY(memory_allocate((void **)&d->rows, sizeof(double) * batch * DPO_COLUMNS, "statistics of the batch"));
    const dpo_config shape = {.slot_pairs = (int)pairs,
                              .frames = d->frames,
                              .batch = config->dpo.batch,
                              .beta = (float)config->dpo.beta,
                              .temperature = (float)config->train.temperature};
    return dpo_create(&d->dpo, t->device, learner_policy(t->learner.learner),
                      learner_reference(t->learner.learner), &shape);
}

void train_dpo_destroy(train *t) {
    dpo_role *d = &t->dpo;
    dpo_destroy(d->dpo);
    ratings_close(d->ratings);
    memory_free(d->pairs);
    memory_free(d->captions);
    memory_free(d->text);
    memory_free(d->clip);
    memory_free(d->prefix);
    memory_free(d->tokens);
    memory_free(d->statistics);
    memory_free(d->rows);
}

// The next usable pairs, in another order every epoch; every learner reads all of them, they are small.
static status next_pairs(train *t) {
    dpo_role *d = &t->dpo;
    for (int i = 0; i < t->config->dpo.batch;) {
        if (d->position >= d->count) {
            d->position = 0;
            d->epoch++;
        }
        const size_t row =
            ratings_order(d->position++, d->count, (uint64_t)t->config->seed, (uint64_t)d->epoch);
        TRY(ratings_read_pairs(d->ratings, row, 1, &d->pairs[i]));
        i += is_usable(d, &d->pairs[i]);
    }
    return STATUS_OK;
}

// Tokens of a rated clip, the levels of the policy only.
static status read_clip(train *t, uint32_t clip, uint16_t *tokens) {
    dpo_role *d = &t->dpo;
    const size_t levels = (size_t)t->shape.temporal.levels;
    TRY(corpus_read_tokens(ratings_clips(d->ratings), clip, d->clip));
    for (size_t f = 0; f < (size_t)d->frames; f++)
        memcpy(tokens + f * levels, d->clip + f * (size_t)d->levels, sizeof(uint16_t) * levels);
    return STATUS_OK;
}

// Pairs first .. first + count of the step into the slot's arrays.
static status read_slot(train *t, size_t first, size_t count) {
    dpo_role *d = &t->dpo;
    const size_t clip = (size_t)d->frames * (size_t)t->shape.temporal.levels;
    const size_t prefix = (size_t)t->shape.temporal.prefix, width = (size_t)t->embedding_width;
    for (size_t i = 0; i < count; i++) {
        const rating_pair *pair = &d->pairs[first + i];
        const bool first_won = pair->vote == RATING_VOTE_A;
        TRY(read_clip(t, first_won ? pair->clip_a : pair->clip_b, d->tokens + 2 * i * clip));
        TRY(read_clip(t, first_won ? pair->clip_b : pair->clip_a, d->tokens + (2 * i + 1) * clip));
        shard_clip strings;
        TRY(corpus_read_strings(ratings_clips(d->ratings), pair->clip_a, &strings));
        d->captions[i] = strings.caption;
    }
    TRY(conditioner_text(t->conditioner, d->captions, count, d->text));
    for (size_t i = 0; i < count; i++) {
        conditioner_prefix(t->conditioner, d->text + i * width, d->prefix + 2 * i * prefix);
        memcpy(d->prefix + (2 * i + 1) * prefix, d->prefix + 2 * i * prefix, sizeof(uint16_t) * prefix);
    }
    return STATUS_OK;
}

static dpo_result summarise(const train *t) {
    const int batch = t->config->dpo.batch;
    dpo_result out = {0};
    for (int i = 0; i < batch; i++) {
        const double *row = t->dpo.rows + i * DPO_COLUMNS;
        out.loss += row[DPO_LOSS] / batch;
        out.margin += row[DPO_MARGIN] / batch;
        out.preferred += row[DPO_PREFERRED] / batch;
        out.rejected += row[DPO_REJECTED] / batch;
        out.accuracy += (row[DPO_MARGIN] > 0.0 ? 1.0 : row[DPO_MARGIN] == 0.0 ? 0.5 : 0.0) / batch;
    }
    return out;
}

status train_dpo_update(train *t, float rate_factor, step_result *result, dpo_result *out) {
    dpo_role *d = &t->dpo;
    learner_role *l = &t->learner;
    const size_t pairs = (size_t)(t->config->dpo.batch / t->config->train.gradient_slots);
    *result = (step_result){0};
    memset(d->rows, 0, sizeof(double) * (size_t)t->config->dpo.batch * DPO_COLUMNS);
    TRY(next_pairs(t));
    for (uint32_t slot = l->slots.first; slot < l->slots.first + l->slots.count; slot++) {
        const dpo_slot view = {d->prefix, d->tokens, train_next_watch(t, NETWORK_POLICY)};
        TRY(read_slot(t, slot * pairs, pairs));
        TRY(dpo_pass_slot(d->dpo, &view, gradient_sum_values(l->policy_gradients), d->statistics));
        for (size_t i = 0; i < pairs; i++) {
            double *row = d->rows + (slot * pairs + i) * DPO_COLUMNS;
            row[DPO_LOSS] = d->statistics[i].loss;
            row[DPO_MARGIN] = d->statistics[i].margin;
            row[DPO_PREFERRED] = d->statistics[i].preferred;
            row[DPO_REJECTED] = d->statistics[i].rejected;
        }
        gradient_sum_add(l->policy_gradients);
    }
    TRY(group_all_reduce_tree_double(l->group, d->rows, (size_t)t->config->dpo.batch * DPO_COLUMNS));
    *out = summarise(t);
    if (t->step == 0 && out->margin != 0.0)
        return FAIL("the policy starts as the base, but the mean margin of the first step is %g, not 0",
                    out->margin);
    return train_learner_apply(t, rate_factor, result);
}
