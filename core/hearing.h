// What a simulated listener hears: numbers measured from audio alone, never from tokens, never by a reward
// model. Three layers:
//     features     a long vector that describes timbre, rhythm and pitch classes of a clip
//     attributes   what detectors (core/detector.h), fitted on features, make of them: tempo, lead, drums ...
//     measures     single numbers with a meaning of their own: noise, dropouts, clarity of key ...
// A heard_clip holds the last two, which is all that the panel (core/panel.h) judges by.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// Attributes that a caption can promise and a detector can hear. The order is part of the file of listeners.
typedef enum heard_attribute {
    HEARD_TEMPO,
    HEARD_METRE,
    HEARD_TONIC,
    HEARD_MODE,
    HEARD_LEAD,
    HEARD_ACCOMPANIMENT,
    HEARD_DRUMS,
    HEARD_DENSITY,
    HEARD_DYNAMICS,
    HEARD_REGISTER,
    HEARD_ARTICULATION,
    HEARD_ATTRIBUTES,
} heard_attribute;

enum { HEARD_CLASSES_MAX = 14 };

extern const char *const heard_attribute_names[HEARD_ATTRIBUTES]; // "tempo"
extern const int heard_attribute_classes[HEARD_ATTRIBUTES];       // at most HEARD_CLASSES_MAX

// Measures of sound, then of musicality. What is good or bad of each is a matter of calibration
// (core/panel.h).
typedef enum heard_measure {
    HEARD_NOISE,       // flatness of the spectrum: 0 a few tones, 1 white
    HEARD_CLIPPING,    // rise of the loudest moments over the median level, dB; clipped sound has little
    HEARD_BANDWIDTH,   // log-mel of the upper half of the bands less that of all, nats
    HEARD_DROPOUTS,    // a second: falls by 20 dB that are made good within 0.2 s
    HEARD_GLITCHES,    // distance of each moment from the median of itself and its neighbours, nats
    HEARD_SILENCE,     // share of the time below -50 dB of full scale
    HEARD_KEY_CLARITY, // probability of the likeliest tonic
    HEARD_REGULARITY,  // best autocorrelation of onsets over the lags of beats
    HEARD_MOVEMENT,    // change of the pitch classes within a quarter of a second: 1 - cosine
    HEARD_STUCK,       // likeness of the sound to itself a short time ago, at the likest lag, 0 to 1
    HEARD_MEASURES,
    HEARD_MUSICALITY = HEARD_KEY_CLARITY, // the first measure of musicality
} heard_measure;

extern const char *const heard_measure_names[HEARD_MEASURES]; // "noise"

// Plain data; may be copied and stored.
typedef struct heard_clip {
    float probability[HEARD_ATTRIBUTES][HEARD_CLASSES_MAX]; // a row sums to 1; 0 beyond its classes
    float measure[HEARD_MEASURES];
} heard_clip;

// The analysis of clips of one length. Read-only after creation, shared by threads.
typedef struct hearing hearing;

// sample_rate: Hz, 8000 or more; samples: of every clip, at least a second. Free with hearing_destroy.
status hearing_create(hearing **out, uint32_t sample_rate, size_t samples);
void hearing_destroy(hearing *hearing); // NULL is allowed

size_t hearing_feature_count(const hearing *hearing);
size_t hearing_scratch_bytes(const hearing *hearing);

// audio: [samples], mono, full scale 1; features: [hearing_feature_count]; measures: [HEARD_MEASURES], all
// but HEARD_KEY_CLARITY, which is a detector's (set to 0 here); scratch: hearing_scratch_bytes, 64-byte
// aligned. All results are finite for finite audio, silence included.
void hearing_extract(const hearing *hearing, const float *audio, float *features, float *measures,
                     void *scratch);
