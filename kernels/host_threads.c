#include "kernels/host_threads.h"

#ifdef _OPENMP
#include <omp.h>
#endif

void host_threads_use(int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    (void)threads;
#endif
}
