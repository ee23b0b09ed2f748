// What bad recordings do to sound. Music collections are full of them, and a generator that learnt from one
// makes such sound again, which is what listeners' ratings of quality are about.
#pragma once

#include "kernels/philox.h"

#include <stddef.h>
#include <stdint.h>

typedef enum recording {
    RECORDING_CLEAN,
    RECORDING_NOISY,     // white noise, 20 dB (severity 0) to 3 dB (severity 1) below the music's RMS
    RECORDING_MUFFLED,   // low-passed, 24 dB an octave above 2500 Hz to 500 Hz
    RECORDING_DISTORTED, // driven 6 dB to 24 dB into a hard limit
    RECORDING_BROKEN,    // silent gaps of 40 to 160 ms, 0.5 to 2.5 of them a second
    RECORDINGS,
} recording;

// Words as stored in the attributes JSON.
extern const char *const recording_names[RECORDINGS];

// Does to `audio` [samples] what such a recording does; severity within [0, 1]. Noise, filter and limit keep
// the RMS, as far as [-1, 1] leaves room, so that the damage is not told by loudness. Random numbers come
// from `draws`.
void recording_damage(recording kind, float severity, uint32_t sample_rate, float *audio, size_t samples,
                      philox_stream *draws);
