// A device whose memory the host cannot touch: the CPU's, with all that device_allocate gave made
// inaccessible outside its functions. A host access to a device buffer ends the process with SIGSEGV, and a
// host buffer handed to an operator with a message, on machines without any card.
#pragma once

#include "kernels/device.h"

// Guards a device that device_create made, from now on. Only one thread may use it.
void checking_device_guard(device *device);
