// Learned rewards: a regressor of the mean opinion score and a model of pairwise preference. Both read a
// window of token frames with the policy's temporal stage (with the caption's prefix before it, or without
// text) and pool its outputs over the frames: their mean, and how much they vary (op_time_variation); a
// linear head reads what was pooled and, optionally, features of the joint text-music embedding:
//     score = head.pooled . mean_t h_t + head.variation . variation_t h_t
//             + head.features . features(text, music) + head.bias
// A clip's score does not depend on the clips beside it in a batch, nor on the thread count, where the device
// is batch invariant.
#pragma once

#include "core/temporal.h"

#include <stdint.h>

// What the head reads of the joint embedding of width E.
typedef enum reward_features {
    REWARD_FEATURES_NONE,
    REWARD_FEATURES_MUSIC,      // [E] sqrt(E) * music
    REWARD_FEATURES_MUSIC_TEXT, // [2 E] the same, then E * music * text, element by element
} reward_features;

typedef struct reward_model_config {
    temporal_config temporal; // the policy's; frames: of a window; prefix 0: the text is not read as tokens
    reward_features features;
    int embedding; // width E of the joint embedding, a multiple of 16
} reward_model_config;

int reward_model_feature_count(
    const reward_model_config *config); // numbers of a clip's features: 0, E or 2 E
// Numbers that a clip's outputs are pooled to: 3 widths, [mean, log variance, log mean squared step].
int reward_model_pooled_count(const reward_model_config *config);
// features [count, feature count] of text [count, E], unit rows, and music [count, E], means of unit rows.
// text may be NULL for REWARD_FEATURES_MUSIC, both for REWARD_FEATURES_NONE.
void reward_model_make_features(const reward_model_config *config, size_t count, const float *text,
                                const float *music, float *features);

typedef struct reward_model reward_model;
// Registers the temporal stage's tensors under the policy's names, so that it starts from a policy's
// checkpoint, then head.pooled.weight [width], head.variation.weight [2 width], head.features.weight [feature
// count], head.bias [1] and preference.threshold [2] (see preference_loss). learn: the backward pass will be
// used, which wants f32.
status reward_model_create(reward_model **out, device *device, const reward_model_config *config, bool learn,
                           weight_precision precision);
void reward_model_destroy(reward_model *model); // NULL is allowed
const reward_model_config *reward_model_get_config(const reward_model *model);
const parameter_list *reward_model_parameters(const reward_model *model);
float *reward_model_values(reward_model *model); // the flat parameter buffer; then reward_model_pack
status reward_model_pack(reward_model *model);
// preference.threshold [2] on the host, as of the last reward_model_pack.
const float *reward_model_threshold(const reward_model *model);
// Sets the parts of the head that are not NULL: [pooled count], for the mean and the variation, [feature
// count], [1], [2]; then reward_model_pack.
typedef struct reward_head {
    const float *pooled, *features, *bias, *threshold;
} reward_head;
status reward_model_set_head(reward_model *model, const reward_head *head);

// Workspace for batches of windows; keep: a backward pass will follow.
typedef struct reward_pass reward_pass;
status reward_pass_create(reward_pass **out, const reward_model *model, int batch, bool keep);
void reward_pass_destroy(reward_pass *pass); // NULL is allowed

// Reads one window of each clip. prefix: [batch, prefix]; tokens: [batch, frames, levels], frames at least
// the window's; starts: [batch] first frame of each window, NULL: 0; features: [batch, feature count].
// scores: [batch], in the pass until the next forward. All on the host.
status reward_forward(reward_model *model, reward_pass *pass, int batch, const uint16_t *prefix,
                      const uint16_t *tokens, int frames, const int *starts, const float *features,
                      const float **scores);
// d_scores: [batch] on the host; adds to gradients [reward_model_parameters()->size].
status reward_backward(reward_model *model, reward_pass *pass, int batch, const float *d_scores,
                       float *gradients);
// The gradient of preference.threshold, which reward_backward leaves alone: d_threshold [2] on the host.
status reward_threshold_gradient(reward_model *model, const float *d_threshold, float *gradients);
// Without a backward pass, for any number of clips: a clip's score is that of its window, or the mean of its
// first and its last one if it is longer. prefix: [count, prefix]; tokens: [count, frames, levels]; features:
// [count, feature count]; scores: [count]. pooled: [count, pooled count] receives the pooled vectors,
// averaged alike, NULL if not wanted.
status reward_score(reward_model *model, reward_pass *pass, size_t count, const uint16_t *prefix,
                    const uint16_t *tokens, int frames, const float *features, float *scores, float *pooled);

// A vote on a pair of clips.
typedef enum preference_vote {
    PREFERENCE_A,
    PREFERENCE_B,
    PREFERENCE_TIE,
    PREFERENCE_BOTH_BAD,
} preference_vote;

// Negative log-likelihood of a vote, in nats, with d = a - b:
//     P(both bad) = s(threshold[1] - a) s(threshold[1] - b),              s the logistic function
//     P(A)   = (1 - P(both bad)) e^{d/2}  / (e^{d/2} + e^{-d/2} + e^{threshold[0]}),  P(B) likewise with -d
//     P(tie) = (1 - P(both bad)) e^{threshold[0]} / (the same sum)
// that is: a listener who finds neither clip good enough says so; otherwise the pair follows the model of
// Bradley and Terry (1952) with ties after Davidson (1970). A decisive vote is won by A with s(d). Both-bad
// votes are all that sets the level of the scores, which differences leave free.
// gradient: [4], overwritten: with respect to a, b, threshold[0], threshold[1].
double preference_loss(preference_vote vote, double a, double b, const float *threshold, double *gradient);
// Thresholds under which two clips of score 0 tie, or are both bad, as often as in `votes` [4] (counts by
// preference_vote, each taken to be at least a half).
void preference_initial_threshold(const double *votes, float *threshold);
