// Preloaded before the program (LD_PRELOAD) to damage what travels, and the clock. FAULT_FLIP: in the so
// many-th message that this process sends with MPI_Isend (from 1), one bit in the middle is flipped.
// FAULT_CLOCK: the wall clock jumps by so many seconds each time that it is read, there and back. FAULT_HANG:
// as long as a file of that name exists, opening a file by a relative path, writing and syncing wait, as they
// do on a file server that does not answer.
#include <fcntl.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
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

static void wait_for_server(void) {
    const char *hangs = getenv("FAULT_HANG");
    const struct timespec pause = {0, 10000000};
    while (hangs != NULL && access(hangs, F_OK) == 0)
        nanosleep(&pause, NULL);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (path[0] != '/')
        wait_for_server();
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t offset) {
    wait_for_server();
    return syscall(SYS_pwrite64, file, bytes, size, offset);
}

int fsync(int file) {
    wait_for_server();
    return (int)syscall(SYS_fsync, file);
}
