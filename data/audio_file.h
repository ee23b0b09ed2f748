// Audio files in and out: anything libsndfile reads (WAV, FLAC, OGG, MP3, ...) to mono, and 16-bit WAV.
// All functions may run in any number of threads at once.
#pragma once

#include "kernels/status.h"

#include <stddef.h>
#include <stdint.h>

// Default target of audio_normalise, and the highest true peak it lets through.
#define AUDIO_LOUDNESS_TARGET (-18.0)  // LUFS
#define AUDIO_LOUDNESS_SILENCE (-60.0) // LUFS; what is softer is left as it is
#define AUDIO_TRUE_PEAK_MAX 0.98       // of full scale

// Reads a file as mono (the mean of its channels) at `sample_rate` Hz, resampled with the best windowed sinc
// of libsamplerate. `out` [count], nominally within [-1, 1], is freed with memory_free. A file that is
// missing, of an unknown format, cut or damaged as far as that can be told, without samples or with a sample
// that is no finite number is an error.
status audio_file_read(const char *path, uint32_t sample_rate, float **out, size_t *count);

// Scales audio [count] to an integrated loudness of `target` LUFS (EBU R 128, ITU-R BS.1770; mono counts as
// one channel), with less gain where the true peak would pass AUDIO_TRUE_PEAK_MAX. Silence, and audio shorter
// than the 0.4 s of one gating block, is left alone but for that peak. `gain` (may be NULL) receives the
// factor.
status audio_normalise(float *audio, size_t count, uint32_t sample_rate, double target, double *gain);

// Rounds to 16 bits with saturation. in, out: [count].
void audio_to_pcm(const float *in, size_t count, int16_t *out);

// Publishes a mono 16-bit WAV file. audio: [count]; what lies beyond [-1, 1] is saturated, a sample that is
// no finite number is an error.
status audio_file_write(const char *path, const float *audio, size_t count, uint32_t sample_rate);
status audio_file_write_pcm(const char *path, const int16_t *audio, size_t count, uint32_t sample_rate);
