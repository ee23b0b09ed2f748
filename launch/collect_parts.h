// The parts of a collection of simulated ratings.
#pragma once

#include "core/panel.h"
#include "data/ratings.h"
#include "data/shard.h"
#include "launch/generator.h"
#include "launch/listeners.h"
#include "launch/run_config.h"

// What a clip is.
typedef enum collected_source {
    COLLECTED_BASE,     // sampled from the base model
    COLLECTED_CORPUS,   // of the corpus
    COLLECTED_DEGRADED, // of the corpus, decoded, damaged and encoded again
    COLLECTED_SOURCES,
} collected_source;

typedef struct collection {
    const run_config *config;
    generator *generator;
    listeners *listeners;
    corpus *corpus;                      // data.tokens
    size_t captions;                     // training captions, then held-out ones
    size_t *caption;                     // [captions] a clip of the corpus that has the caption
    size_t first[COLLECTED_SOURCES + 1]; // clips of a source: first[s] .. first[s + 1] - 1
    size_t *origin;     // [clips] the clip of the corpus that it is of, or has the caption of
    heard_clip *heard;  // [clips]
    size_t clip_tokens; // frames x levels
    uint64_t base_step;
} collection;

// Tokens of `count` clips of the corpus from origin[first] on, cut to the policy's frames and levels; with
// damaged sound if `degraded`. names: [count, COLLECT_SOURCE_MAX] receives where each comes from. Independent
// of threads. out: [count, clip_tokens].
enum { COLLECT_SOURCE_MAX = 128 };
status collect_corpus_tokens(const collection *c, size_t first, size_t count, int degraded, uint16_t *out,
                             char (*names)[COLLECT_SOURCE_MAX]);

typedef struct collected_counts {
    size_t pairs, scores;
    size_t votes[PANEL_VOTES];
    size_t score[RATING_SCORE_MAX + 1];           // of each value
    double mean_score[COLLECTED_SOURCES];         // NAN without clips
    size_t second, second_decided, second_agreed; // votes given twice; both decided; for the same clip
    size_t second_same;                           // the same of the four votes
} collected_counts;

// Lets the panel vote and score, and writes FOLDER/votes.
status collect_votes(const collection *c, const corpus *clips, const char *folder, collected_counts *out);
