// Preloaded before the program (LD_PRELOAD) to damage what travels, and the clock. FAULT_FLIP: in the so
// many-th message that this process sends with MPI_Isend (from 1), one bit in the middle is flipped.
// FAULT_CLOCK: the wall clock jumps by so many seconds each time that it is read, there and back.
#include <mpi.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long number_of(const char *name) {
    const char *text = getenv(name);
    return text == NULL ? 0 : atol(text);
}

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
              MPI_Request *request) {
    static long sent;
    int size;
    PMPI_Type_size(type, &size);
    if (++sent == number_of("FAULT_FLIP"))
        ((unsigned char *)buffer)[(size_t)count * (size_t)size / 2] ^= 16;
    return PMPI_Isend(buffer, count, type, to, tag, comm, request);
}

static long jump(void) {
    static long readings;
    return __atomic_fetch_add(&readings, 1, __ATOMIC_RELAXED) % 2 == 0 ? number_of("FAULT_CLOCK")
                                                                       : -number_of("FAULT_CLOCK");
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    const int result = (int)syscall(SYS_clock_gettime, clock, out);
    if (result == 0 && clock == CLOCK_REALTIME)
        out->tv_sec += jump();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL)
        *out = now.tv_sec;
    return now.tv_sec;
}
