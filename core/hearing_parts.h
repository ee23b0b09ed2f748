// What the parts of hearing share: the spectra of a clip, from which features and measures are taken.
#pragma once

#include "core/hearing.h"
#include "core/mel.h"
#include "core/stft.h"

enum {
    HEARING_BANDS = 40,    // mel bands of a column
    HEARING_ONSETS = 4,    // ranges of bands whose onsets are followed: low, middle, high, all
    HEARING_PITCHES = 60,  // semitones from HEARING_LOWEST upwards
    HEARING_LOWEST = 36,   // MIDI key of the lowest
    HEARING_RATE = 100,    // columns a second
    HEARING_SLOW_RATE = 25 // columns a second of the pitch spectrum
};

// Of one clip; carved from the scratch of hearing_extract.
typedef struct hearing_spectra {
    size_t columns, slow_columns;
    const float *width; // [HEARING_BANDS] log-mel that a magnitude of 1 in every bin gives
    float *log_mel;     // [columns, HEARING_BANDS] nats
    float *level;       // [columns] root mean square of the column's samples
    float *onset;       // [HEARING_ONSETS, columns] rise of log_mel since the column before, 0 at the first
    float *pitch;       // [slow_columns, HEARING_PITCHES] square roots of magnitudes
    float *chroma;      // [slow_columns, 12] unit vectors, 0 in silence; class 0 is C
    float *work;        // [columns] scratch
} hearing_spectra;

size_t hearing_features_count(size_t columns);
// features: [hearing_features_count]
void hearing_features(const hearing_spectra *spectra, float rms, float *features);
// measures: [HEARD_MEASURES], all but HEARD_KEY_CLARITY
void hearing_measures(const hearing_spectra *spectra, float *measures);

// The value below which a share of values [count] lies; reorders them.
float hearing_quantile(float *values, size_t count, float share);
// Sum of centred[t] centred[t + lag] over t, over the sum of squares; centred: [count], mean 0.
float hearing_autocorrelation(const float *centred, size_t count, size_t lag);
