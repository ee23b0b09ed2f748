// The CPU in the guise of a GPU: it names a card, keeps its memory to itself, and has a lane for a stand-in
// of NCCL (tests/fake_nccl.h), which works in it while operators run.
#pragma once

#include "kernels/device.h"

// Makes the device, of device_create, one whose card is `card` (borrowed).
void lane_device_disguise(device *device, const char *card);
