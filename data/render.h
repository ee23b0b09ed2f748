// Sound from a composed piece: FluidSynth with a General MIDI soundfont, without reverb or chorus. Built only
// with MUSICRL_FLUIDSYNTH.
#pragma once

#include "data/composer.h"
#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// A synthesizer with its soundfont loaded. One per thread; two threads must not share one.
typedef struct renderer renderer;

// Finds a General MIDI soundfont in the distribution's usual places; *path is a constant. Fails with a line
// that says what to install if there is none.
status renderer_find_soundfont(const char **path);

// `soundfont`: path of an .sf2 file, or NULL for the first of the distribution's usual places. sample_rate:
// Hz, 8000 to 96000. Not thread-safe (FluidSynth's logging is global); create renderers one after another.
// Free with renderer_destroy. Fails with a line that says what to install if there is no soundfont.
status renderer_create(renderer **out, const char *soundfont, uint32_t sample_rate);
void renderer_destroy(renderer *renderer); // NULL is allowed

// The path of the loaded soundfont; lives as long as the renderer.
const char *renderer_soundfont(const renderer *renderer);

// Renders the first `samples` samples of `piece` to mono within (-1, 1). Lead, accompaniment and drums are
// levelled apart and mixed in fixed proportions, so that each can be heard whatever the instruments; the
// whole is then brought to the level of the piece's dynamics. The result depends on the piece, the soundfont
// and the sample rate alone, not on what was rendered before. Event times are rounded down to 64 samples.
// audio: [samples], owned by the caller. samples >= 1.
status renderer_render(renderer *renderer, const piece *piece, size_t samples, float *audio);

// Converts to 16-bit PCM by rounding to the nearest, without dither. audio, pcm: [samples].
void render_to_pcm(const float *audio, size_t samples, int16_t *pcm);
