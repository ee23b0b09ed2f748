// One reward of a run, by its name, for whoever scores clips: the rollouts of RL, the evaluation, the
// ablation.
//     text_adherence  cosine of caption and music in the joint embedding, [-1, 1]
//     quality         predicted mean opinion score of acoustic quality, [1, 5] mapped to [0, 1] (and beyond,
//                     where the model predicts beyond)
//     preference      score of the model of pairwise preference, unbounded: a clip is preferred to another of
//                     its caption with the logistic function of the difference
// A learned reward reads windows of its training length; a longer clip's score is the mean of its first and
// its last window. An ensemble's score is the mean over its members. A clip's score does not depend on the
// clips beside it, nor on the thread count.
#pragma once

#include "core/reward_model.h"
#include "launch/conditioner.h"
#include "launch/run_config.h"

typedef struct scorer scorer;

// Whether `name` is a reward that scorer_create knows.
bool scorer_knows(const char *name);

// Loads the reward `name`: "quality" from data.quality, "preference" from data.preference, what `musicrl
// reward train` publishes there. The conditioner is the run's (data.embedding), borrowed; it must outlive the
// scorer. batch: clips that go through a model at once; no score depends on it. frames: of a clip.
// Refuses a model that was trained on tokens of another codec, on other levels or codebooks, or with another
// joint embedding (whose prefixes and features it reads), and clips shorter than the model's window.
status scorer_create(scorer **out, device *device, const run_config *config, const conditioner *conditioner,
                     const char *name, int batch, int frames);
void scorer_destroy(scorer *scorer); // NULL is allowed

// Scores clips. text: [count, embedding], unit rows (conditioner_text); music: [count, embedding], means of
// unit segments (conditioner_music); prefix: [count, model.prefix] of the text (conditioner_prefix); tokens:
// [count, frames, levels] with levels = 1 + model.coarse_levels. scores: [count]. disagreement: [count]
// receives the standard deviation over the members (0 with one member), or NULL. Fails, naming the reward and
// the clip's index, if a score is not finite; text_adherence reads neither prefix nor tokens.
status scorer_score(scorer *scorer, const float *text, const float *music, const uint16_t *prefix,
                    const uint16_t *tokens, size_t count, float *scores, float *disagreement);
