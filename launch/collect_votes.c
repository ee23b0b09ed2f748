#include "launch/collect_parts.h"

#include "kernels/memory.h"
#include "kernels/philox.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)RATING_VOTE_A == (int)VOTE_A && (int)RATING_VOTE_B == (int)VOTE_B &&
                   (int)RATING_VOTE_TIE == (int)VOTE_TIE && (int)RATING_VOTE_BOTH_BAD == (int)VOTE_BOTH_BAD,
               "the panel's votes are stored as they are");

// Judgements of one kind are numbered from its base on, so that no listener answers two questions with the
// same random numbers.
enum { ROWS_PER_SHARD = 65536, PURPOSE_ASSIGN = 0x61736b20 };
static const uint64_t second_votes_from = (uint64_t)1 << 40, scores_from = (uint64_t)2 << 40;

// The study's clock: it opens at this instant, and a listener's next judgement comes this much later.
static const int64_t study_opens = 1767225600; // 2026-01-01T00:00:00Z
enum { LEAST_PAUSE = 8, PAUSE_SPREAD = 30 };   // seconds

typedef struct voting {
    const collection *c;
    panel *panel;
    ratings_writer *writer;
    uint32_t *rater;           // [raters] row of each listener, once it has judged
    uint8_t *known;            // [raters]
    int64_t *clock;            // [raters] when each judged last
    wanted_attributes *wanted; // [captions]
    uint32_t model_version[COLLECTED_SOURCES];
} voting;

static uint32_t below(uint32_t word, uint32_t bound) {
    return (uint32_t)(((uint64_t)word * bound) >> 32);
}

// Random numbers of judgement `position`.
static philox_block draw(const voting *v, uint64_t position) {
    return philox((uint64_t)v->c->config->seed, (uint32_t)position, (uint32_t)(position >> 32),
                  PURPOSE_ASSIGN, 0);
}

// The listener judges: its row, and when.
static status attend(voting *v, uint32_t listener, uint32_t pause, uint32_t *rater, int64_t *time) {
    if (!v->known[listener]) {
        char name[64];
        snprintf(name, sizeof name, "simulated listener %u", listener);
        TRY(ratings_writer_rater(v->writer, name, &v->rater[listener]));
        v->known[listener] = 1;
    }
    v->clock[listener] += LEAST_PAUSE + below(pause, PAUSE_SPREAD);
    *rater = v->rater[listener];
    *time = v->clock[listener];
    return STATUS_OK;
}

// ---- pairs ----------------------------------------------------------------------------------------------

typedef struct question {
    size_t caption, a, b; // clips
    uint32_t listener;
    uint32_t other; // another listener, for a second vote
    uint32_t pause;
} question;

// Vote `vote`: the clips of a caption in all combinations, in a random order of the two, ratings.votes times
// by different listeners.
static question ask(const voting *v, size_t vote) {
    const size_t clips = (size_t)v->c->config->ratings.clips, each = clips * (clips - 1) / 2;
    const size_t votes = (size_t)v->c->config->ratings.votes, index = vote / votes;
    const uint32_t raters = (uint32_t)v->c->config->ratings.raters;
    size_t left = index % each, low = 0;
    while (left >= clips - 1 - low) {
        left -= clips - 1 - low;
        low++;
    }
    const philox_block random = draw(v, index);
    const size_t first = index / each * clips, high = low + 1 + left;
    const int turned = random.word[0] & 1;
    const uint32_t listener = (below(random.word[1], raters) + (uint32_t)(vote % votes)) % raters;
    return (question){.caption = index / each,
                      .a = first + (turned ? high : low),
                      .b = first + (turned ? low : high),
                      .listener = listener,
                      .other = (listener + 1 + below(random.word[2], raters - 1)) % raters,
                      .pause = random.word[3]};
}

static panel_vote answer(const voting *v, const question *q, uint32_t listener, uint64_t position) {
    return panel_compare(v->panel, listener, &v->wanted[q->caption], &v->c->heard[q->a], &v->c->heard[q->b],
                         position);
}

static status vote_on_pairs(voting *v, collected_counts *out) {
    const collection *c = v->c;
    const size_t clips = (size_t)c->config->ratings.clips;
    out->pairs = c->captions * (clips * (clips - 1) / 2) * (size_t)c->config->ratings.votes;
    for (size_t i = 0; i < out->pairs; i++) {
        const question q = ask(v, i);
        const panel_vote vote = answer(v, &q, q.listener, i);
        rating_pair pair = {.clip_a = (uint32_t)q.a,
                            .clip_b = (uint32_t)q.b,
                            .vote = (rating_vote)vote,
                            .model_version = v->model_version[COLLECTED_BASE]};
        TRY(attend(v, q.listener, q.pause, &pair.rater, &pair.time));
        TRY(ratings_writer_add_pair(v->writer, &pair));
        out->votes[vote]++;
    }
    // Second votes on pairs that are spread evenly over all.
    const size_t wanted = (size_t)c->config->ratings.second_votes;
    out->second = wanted < out->pairs ? wanted : out->pairs;
    for (size_t i = 0; i < out->second; i++) {
        const size_t index = (size_t)((unsigned __int128)i * out->pairs / out->second);
        const question q = ask(v, index);
        const panel_vote one = answer(v, &q, q.listener, index),
                         two = answer(v, &q, q.other, second_votes_from + index);
        out->second_same += one == two;
        if (one <= VOTE_B && two <= VOTE_B) {
            out->second_decided++;
            out->second_agreed += one == two;
        }
    }
    return STATUS_OK;
}

// ---- scores ---------------------------------------------------------------------------------------------

static status score_clip(voting *v, size_t clip, collected_source source, collected_counts *out) {
    const uint32_t raters = (uint32_t)v->c->config->ratings.raters,
                   each = (uint32_t)v->c->config->ratings.scores;
    // Different listeners: a random first one, and equal steps from there.
    const philox_block random = draw(v, scores_from + clip);
    const uint32_t first = below(random.word[0], raters), step = raters / each;
    for (uint32_t i = 0; i < each; i++) {
        const uint32_t listener = (first + i * step) % raters;
        rating_score score = {.clip = (uint32_t)clip, .model_version = v->model_version[source]};
        score.score = panel_rate_quality(v->panel, listener, &v->c->heard[clip], scores_from + clip);
        TRY(attend(v, listener, random.word[1] + i * 0x9E3779B9u, &score.rater, &score.time));
        TRY(ratings_writer_add_score(v->writer, &score));
        out->score[score.score]++;
        out->scores++;
        out->mean_score[source] += score.score;
    }
    return STATUS_OK;
}

static status score_clips(voting *v, collected_counts *out) {
    const collection *c = v->c;
    for (int source = 0; source < COLLECTED_SOURCES; source++) {
        const size_t available = c->first[source + 1] - c->first[source];
        // Of the base model's clips some are scored, spread evenly; of the others all.
        const size_t wanted =
            source == COLLECTED_BASE ? (size_t)c->config->ratings.generated_clips : available;
        const size_t count = wanted < available ? wanted : available, before = out->scores;
        for (size_t i = 0; i < count; i++)
            TRY(score_clip(v, c->first[source] + (size_t)((unsigned __int128)i * available / count),
                           (collected_source)source, out));
        out->mean_score[source] = count == 0 ? NAN : out->mean_score[source] / (double)(out->scores - before);
    }
    return STATUS_OK;
}

// ---- both -----------------------------------------------------------------------------------------------

static status prepare(voting *v, const corpus *clips, const char *folder) {
    const collection *c = v->c;
    const run_config *config = c->config;
    const size_t raters = (size_t)config->ratings.raters;
    TRY(panel_create(&v->panel, listeners_calibration(c->listeners), (uint64_t)config->listeners.label_seed,
                     config->ratings.raters));
    TRY(memory_allocate((void **)&v->rater, sizeof *v->rater * raters, "listeners"));
    TRY(memory_allocate((void **)&v->known, sizeof *v->known * raters, "listeners"));
    TRY(memory_allocate((void **)&v->clock, sizeof *v->clock * raters, "listeners"));
    TRY(memory_allocate((void **)&v->wanted, sizeof *v->wanted * c->captions, "promises of captions"));
    for (size_t i = 0; i < raters; i++)
        v->clock[i] = study_opens;
    for (size_t i = 0; i < c->captions; i++) {
        shard_clip clip;
        TRY(corpus_read_strings(c->corpus, c->caption[i], &clip));
        status known = listeners_wanted(clip.attributes, &v->wanted[i]);
        if (known != STATUS_OK)
            return status_prefix(known, "clip '%s' of %s: ", clip.id, config->data.tokens);
    }
    TRY(ratings_writer_create(&v->writer, folder, clips, RATINGS_SIMULATED, ROWS_PER_SHARD));
    char base[64];
    snprintf(base, sizeof base, "base, step %llu", (unsigned long long)c->base_step);
    const char *const names[COLLECTED_SOURCES] = {base, "corpus", "corpus, damaged"};
    for (int source = 0; source < COLLECTED_SOURCES; source++)
        TRY(ratings_writer_model_version(v->writer, names[source], &v->model_version[source]));
    return STATUS_OK;
}

status collect_votes(const collection *c, const corpus *clips, const char *folder, collected_counts *out) {
    voting v = {.c = c};
    *out = (collected_counts){0};
    status result;
    TRY_GOTO(result, prepare(&v, clips, folder), done);
    TRY_GOTO(result, vote_on_pairs(&v, out), done);
    TRY_GOTO(result, score_clips(&v, out), done);
    result = ratings_writer_finish(v.writer);
    v.writer = NULL;
done:
    ratings_writer_abort(v.writer);
    panel_destroy(v.panel);
    memory_free(v.rater);
    memory_free(v.known);
    memory_free(v.clock);
    memory_free(v.wanted);
    return result;
}
