// Whether an audio file is all there: libsndfile reads what is left of some that are cut or damaged without a
// word.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stdint.h>

// Refuses, of a file of `bytes` bytes: WAV whose header promises more than follows; Ogg with a page that is
// damaged, missing or cut. Other formats pass.
status audio_check_whole(const char *path, uint64_t bytes);

// Whether an MP3 file says in its first frame how many frames it has, so that its length is no estimate.
bool audio_mp3_tells_length(const char *path);
