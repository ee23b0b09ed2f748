// The corpus maker: composes, renders and captions clips in parallel and writes them as audio shards.
#pragma once

#include "kernels/status.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

typedef struct corpus_make_options {
    const char *folder;     // of the shards made-00000.h5, made-00001.h5, ...; created
    size_t count;           // clips, 1 to 10 000 000
    double seconds;         // of a clip
    uint64_t seed;          // clip i depends on the seed, i, the soundfont and the four numbers below alone
    uint32_t sample_rate;   // Hz
    double imperfect;       // share of clips that sound like bad recordings (data/recording.h), 0 to 1
    size_t clips_per_shard; // at least 1
    const char *soundfont;  // NULL for the distribution's
    int workers;            // threads; 0 for one per usable core. The shards do not depend on it
    int replace;            // overwrite the shards of an earlier run
    const volatile sig_atomic_t *stop; // set by a signal handler to stop; may be NULL
    void (*progress)(void *context, size_t done, size_t total); // called now and then; may be NULL
    void *context;
} corpus_make_options;

// Makes the corpus. On failure, or when stopped, nothing is published and an earlier corpus stays as it was.
// In a build without FluidSynth it fails with a line that says so.
status corpus_make(const corpus_make_options *options);
