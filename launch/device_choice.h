// Which device a process computes on: the CPU, or one of its host's GPUs.
#pragma once

#include "comm/world.h"
#include "kernels/device.h"
#include "launch/run_config.h"

enum { DEVICE_NOTE = 512 };

// Opens the device that the setting `device` asks for; with auto a GPU where every rank finds one, else the
// CPU. The ranks of a host take its GPUs in their order, from the first again where there are fewer GPUs.
// world: NULL in a process that computes alone; otherwise collective. threads: of the host. note: one line on
// what was chosen, and why where auto chose; that ranks share a GPU, if some do.
status device_choose(device **out, const run_config *config, world *world, int threads,
                     char note[DEVICE_NOTE]);
