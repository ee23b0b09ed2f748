// The file of listeners: detectors fitted on decoded audio, and the calibration of the panel. Its listeners
// are simulated; figures that come from them say so.
#pragma once

#include "core/codec.h"
#include "core/hearing.h"
#include "core/panel.h"
#include "launch/run_config.h"

typedef struct listeners listeners;

// Fits detectors on clips of data.tokens, decoded as the policy's clips are (train.frames frames, semantic
// and model.coarse_levels levels, CODEC_ITERATIONS_MEASURE), measures them on held-out captions, calibrates
// the panel on pairs of clips of the base model, and publishes data.listeners (safetensors) and a JSON report
// beside it (.json). Prints a table. `musicrl reward listeners`.
status listeners_run(const run_config *config);

// Loads a file that listeners_run made. Free with listeners_destroy.
status listeners_load(listeners **out, const char *path);
void listeners_destroy(listeners *listeners); // NULL is allowed

// What they were fitted for: token frames of a clip, levels that are decoded, and the codec (its identity,
// hexadecimal).
int listeners_frames(const listeners *listeners);
int listeners_levels(const listeners *listeners);
const char *listeners_codec(const listeners *listeners);

// To draw panels from: panel_create(&panel, listeners_calibration(l), seed, count). Lives as long as `l`.
const panel_calibration *listeners_calibration(const listeners *listeners);

// Reads the promise of a caption from its attribute record, a JSON object as attributes_write_json makes it
// (data/caption_writer.h): tempo, metre, tonic, mode, lead, accompaniment, drums, density, dynamics,
// register, articulation; absent or null: nothing is promised (-1). Where the record has a list `said`, only
// what it names is promised: nobody can miss what a caption leaves unsaid. seconds, tempo_bpm, beats_per_bar,
// key and recording are passed over. Another name or word is an error that names it and the nearest known
// one.
status listeners_wanted(const char *attributes_json, wanted_attributes *out);
// What is true of the clip by the same record, said or not: what detectors are fitted to hear.
status listeners_truth(const char *attributes_json, wanted_attributes *out);

// Decodes clips as they were decoded for the fit, and hears them, in parallel over clips. tokens: [count,
// frames, stride], of which the first `levels` of each frame are read; out: [count]. Refuses another codec,
// another number of frames or of levels than the listeners were fitted for. The result of a clip depends on
// its tokens alone.
status listeners_hear(const listeners *listeners, const codec *codec, const uint16_t *tokens, size_t count,
                      int frames, int stride, int levels, heard_clip *out);

// Hears one clip of audio as it is. audio: [samples]. Refuses another rate or length. Thread-safe.
status listeners_hear_audio(const listeners *listeners, const float *audio, size_t samples,
                            uint32_t sample_rate, heard_clip *out);
