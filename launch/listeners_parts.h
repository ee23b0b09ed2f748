// What fitting and using the listeners share.
#pragma once

#include "core/detector.h"
#include "data/digest.h"
#include "launch/listeners.h"

struct listeners {
    hearing *hearing;
    uint32_t sample_rate;
    int frames, levels;
    size_t samples, width; // audio samples and features of a clip
    char codec[DIGEST_HEX];
    float *mean, *scale;               // [width] standardisation of features
    float *detector[HEARD_ATTRIBUTES]; // [width + 1, classes]
    panel_calibration calibration;
};

// Without detectors and calibration: memory, hearing, and what they are for.
status listeners_create(listeners **out, const char *codec, uint32_t sample_rate, size_t samples, int frames,
                        int levels);
status listeners_save(const listeners *listeners, const char *path);

// Decodes and measures clips in parallel, for the fit. tokens: as listeners_hear, of this codec; features:
// [count, width] or NULL; out: [count]; `detect`: fill in probabilities and clarity of key, which needs the
// detectors.
status listeners_extract(const listeners *listeners, const codec *codec, const uint16_t *tokens, size_t count,
                         int stride, bool detect, float *features, heard_clip *out);
