// What the single-process stages share: the device, token clips, the time.
#pragma once

#include "data/clip_order.h"
#include "kernels/device.h"
#include "launch/run_config.h"

// The device of this process by config->device, with config->threads threads, or as many as cores are usable.
// Prints what it computes on, behind `title`; NULL: prints nothing.
status stage_create_device(device **out, const run_config *config, const char *title);

// Reads the first `levels` levels of `frames` frames from `start` of a clip; out: [frames, levels]. scratch:
// [format->frames, format->levels].
status stage_read_tokens(corpus *corpus, size_t clip, int start, int frames, int levels, uint16_t *scratch,
                         uint16_t *out);

double stage_seconds(void); // of the monotonic clock
