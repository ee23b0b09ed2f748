// The tables of 'musicrl bench --scaling', on stdout.
#pragma once

#include "launch/bench_scaling.h"

void bench_print_scaling(const bench_scaling *scaling);
