// A panel of simulated listeners: people are what a real study asks, this stands in for them in the
// demonstration and in tests, and every figure that comes from it is to be called simulated.
//
// A listener i has a utility for a clip c under a caption w,
//     u_i(w, c) = scale * [ a_i match_i(w, c) + b_i acoustics_i(c) + c_i musicality_i(c) - d collapse(c) ]
// match is the mean probability of what the caption promises, over attributes that can be heard reliably,
// with the listener's own weights; acoustics and musicality are means, weighted likewise, of ramps of the
// measures of core/hearing.h, 0 bad to 1 good; collapse is 0 for every ordinary clip and rises to 1 for
// silence, plain noise and a stuck loop, which match nothing either. The first three are shifted and scaled
// by their mean, and their deviation among clips of one caption, on the base model. Everything is bounded, so
// that no listener is won by an extreme.
//
// A vote on clips a and b with d = u_a - u_b follows Bradley and Terry ("Rank analysis of incomplete block
// designs", 1952) with ties after Davidson ("On extending the Bradley-Terry model to accommodate ties",
// 1970):
//     P(A) = e^{d/2} / Z,   P(B) = e^{-d/2} / Z,   P(neither) = nu / Z,   Z = e^{d/2} + e^{-d/2} + nu
// with nu = PANEL_TIE, so that among decided votes P(A) is exactly the logistic function of d. Who does not
// decide says "both bad" with probability sigma(floor_i - (u_a + u_b) / 2), otherwise "tie": in d, a tie and
// a both-bad have the same likelihood.
//
// A rating of 1 to 5 is where the utility, with the Gumbel noise that makes a choice between two utilities a
// Bradley-Terry one, falls among the listener's four thresholds: a half and one and a half deviations on
// either side of the mean of the base model's clips, give or take the listener's leniency. A rating of
// quality does the same with acoustics and collapse alone and with the spread of corpus, damaged and
// generated clips; damage to the sound is easier to agree on than taste, so that half of the variance of one
// rating is the clip's.
//
// Everything a listener is and does is a function of (seed of the panel, listener, position).
#pragma once

#include "core/hearing.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What a caption promises: the wanted class of every attribute, -1 where it promises nothing.
typedef struct wanted_attributes {
    int8_t value[HEARD_ATTRIBUTES];
} wanted_attributes;

typedef enum panel_vote {
    VOTE_A,
    VOTE_B,
    VOTE_TIE,
    VOTE_BOTH_BAD,
    PANEL_VOTES,
} panel_vote;

extern const char *const panel_vote_names[PANEL_VOTES]; // "A", "B", "tie", "both_bad"

#define PANEL_TIE 0.5 // nu above

// From a measure to how good it is: 0 at `bad` and beyond, 1 at `good` and beyond, linear between; either may
// be the larger. weight: 0 where the measure does not tell good from bad reliably.
typedef struct panel_ramp {
    float bad, good, weight;
} panel_ramp;

// From a measure to a collapse: 0 up to `begin`, 1 from `end` on, begin < end.
typedef struct panel_alarm {
    float begin, end;
} panel_alarm;

typedef enum panel_alarm_kind {
    PANEL_ALARM_NOISE,   // of HEARD_NOISE
    PANEL_ALARM_SILENCE, // of HEARD_SILENCE
    PANEL_ALARM_STUCK,   // of HEARD_STUCK
    PANEL_ALARMS,
} panel_alarm_kind;

typedef enum panel_part_kind {
    PANEL_MATCH,
    PANEL_ACOUSTICS,
    PANEL_MUSICALITY,
    PANEL_PARTS,
} panel_part_kind;

typedef struct panel_spread {
    double mean, deviation;
} panel_spread;

// What all listeners share. Plain data.
typedef struct panel_calibration {
    float reliability[HEARD_ATTRIBUTES]; // 0 to 1: weight of the attribute; 0: it cannot be heard
    panel_ramp ramp[HEARD_MEASURES];
    panel_alarm alarm[PANEL_ALARMS];
    panel_spread part[PANEL_PARTS]; // of the mean listener, among clips of one caption by the base model
    panel_spread overall, quality; // of the mean listener's utility / scale: on those clips; on clips to rate
    double scale;                  // of utilities
    double agreement, ceiling;     // measured at this scale, shares of pairs
} panel_calibration;

typedef struct panel panel;

// Draws `count` listeners (1 .. 65536). The calibration is copied. Another seed is another panel. Free with
// panel_destroy.
status panel_create(panel **out, const panel_calibration *calibration, uint64_t seed, int count);
void panel_destroy(panel *panel); // NULL is allowed

// Functions of one listener: listener < the count of panel_create; position: the caller's number of this
// judgement, any value, the same one gives the same answer.

// Utility of a clip under a caption.
double panel_utility(const panel *panel, uint32_t listener, const wanted_attributes *wanted,
                     const heard_clip *clip);
// Probability that the listener prefers a to b, given that it decides: sigma(u_a - u_b).
double panel_preference_probability(const panel *panel, uint32_t listener, const wanted_attributes *wanted,
                                    const heard_clip *a, const heard_clip *b);
// The mean of that over all listeners of the panel: what votes would tend to, without their noise.
double panel_choice(const panel *panel, const wanted_attributes *wanted, const heard_clip *a,
                    const heard_clip *b);
panel_vote panel_compare(const panel *panel, uint32_t listener, const wanted_attributes *wanted,
                         const heard_clip *a, const heard_clip *b, uint64_t position);
// Probabilities of the four votes, for tests and for the stated likelihood. out: [PANEL_VOTES].
void panel_vote_probabilities(const panel *panel, uint32_t listener, const wanted_attributes *wanted,
                              const heard_clip *a, const heard_clip *b, double *out);
// 1 to 5: of the sound alone, and of everything.
int panel_rate_quality(const panel *panel, uint32_t listener, const heard_clip *clip, uint64_t position);
int panel_rate(const panel *panel, uint32_t listener, const wanted_attributes *wanted, const heard_clip *clip,
               uint64_t position);

// A pair of clips of one caption, for calibration and for ceilings. Pointers are borrowed.
typedef struct panel_pair {
    const wanted_attributes *wanted;
    const heard_clip *a, *b;
} panel_pair;

// Over pairs [count] and all listeners of the panel, of the choice between two clips (ties left aside):
//     agreement  probability that two different listeners choose the same clip
//     ceiling    E[max(p, 1 - p)], p the share of listeners that choose a: what no model of the pair
//                alone can exceed when it predicts a vote
// Needs two listeners or more. Either pointer may be NULL.
void panel_agreement(const panel *panel, const panel_pair *pairs, size_t count, double *agreement,
                     double *ceiling);

// Sets the spreads and the scale so that panels agree on a share `agreement` (0.5 to 1) of the pairs of clips
// of one caption. clips, wanted: [count] of the base model with their captions' promises, `group` successive
// ones of one caption; 2 <= group, which divides count. quality_clips: [quality_count] to spread the ratings
// of quality over. reliability, ramp and alarm are already set. Fails, with the largest share that can be
// reached, if listeners differ too much for that.
status panel_calibrate(panel_calibration *calibration, const heard_clip *clips,
                       const wanted_attributes *wanted, size_t count, size_t group,
                       const heard_clip *quality_clips, size_t quality_count, double agreement);
