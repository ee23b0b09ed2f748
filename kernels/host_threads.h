// How many threads the parallel loops of this process use.
#pragma once

void host_threads_use(int threads);
