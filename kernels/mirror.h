// A device buffer within reach of the host: the buffer itself where both share memory, elsewhere a copy on
// the host, which is fetched from the device and stored to it. What reads and writes whole buffers of
// parameters on the host (files, messages, random numbers) goes through one, and costs nothing on the CPU.
#pragma once

#include "kernels/device.h"

typedef struct mirror {
    device *device;
    void *buffer; // on the device
    void *host;
    size_t bytes;
    bool pinned;
} mirror;

// `what` names the copy in the error. The copy is not fetched. Release with mirror_release.
status mirror_create(mirror *out, device *device, void *buffer, size_t bytes, const char *what);
void mirror_release(mirror *mirror); // one that was zeroed is allowed

status mirror_fetch(mirror *mirror);
status mirror_store(mirror *mirror);
