#include "fake_nccl.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, REMOTE_ERROR = 6, IN_PROGRESS = 7 };
enum { MAX_RANKS = 16, SLOT_BYTES = 48 << 10, QUEUE = 64, PROGRESS_POLLS = 3 };

#define EXPORT __attribute__((visibility("default")))

typedef struct unique_id {
    char name[128];
} unique_id;

typedef struct config {
    size_t size;
    unsigned int magic, version;
    int blocking;
} config;

// In shared memory: a barrier and a slot for each rank.
typedef struct shared {
    _Atomic int joined;
    _Atomic uint64_t arrived;
    char slot[MAX_RANKS][SLOT_BYTES];
} shared;

typedef enum kind { INIT, ALL_REDUCE, REDUCE, BROADCAST, FINALIZE } kind;

typedef struct job {
    kind kind;
    const char *send;
    char *receive;
    size_t count;
    int type, root;
    bool hangs, breaks, connects;
    fake_stream *stream;
} job;

typedef struct communicator {
    shared *shared;
    char name[128];
    int rank, ranks;
    uint64_t barriers;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    job queue[QUEUE];
    int queued;
    _Atomic bool stop;
    _Atomic bool ready; // no INIT or FINALIZE under way
    _Atomic int error, polls;
    _Atomic bool stalled;
    bool connected;    // its first collective was started
    int met;           // collectives of the kind that is to hang
    fake_stream *late; // where collectives will be put when a poll first finds the communicator at rest
    uint64_t late_count;
} communicator;

static pthread_mutex_t record_mutex = PTHREAD_MUTEX_INITIALIZER;
static char record[16 << 10];
static size_t record_used;

static _Thread_local int group_depth;
static _Thread_local job group_jobs[QUEUE];
static _Thread_local communicator *group_communicators[QUEUE];
static _Thread_local int group_count;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&record_mutex);
    int written = vsnprintf(record + record_used, sizeof record - record_used, format, arguments);
    if (written > 0 && record_used + (size_t)written < sizeof record)
        record_used += (size_t)written;
    pthread_mutex_unlock(&record_mutex);
    va_end(arguments);
}

static bool asked(const char *variable, const char *name) {
    const char *value = getenv(variable);
    return value != NULL && strcmp(value, name) == 0;
}

static int number(const char *variable) {
    const char *value = getenv(variable);
    return value == NULL ? 0 : atoi(value);
}

static size_t type_bytes(int type) {
    return type == 1 ? 1 : type == 7 ? 4 : type == 8 ? 8 : type == 9 ? 2 : 0;
}

// Waits for all ranks; false if this rank is to stop.
static bool barrier(communicator *own) {
    uint64_t wanted = ++own->barriers * (uint64_t)own->ranks;
    atomic_fetch_add(&own->shared->arrived, 1);
    while (atomic_load(&own->shared->arrived) < wanted) {
        if (atomic_load(&own->stop))
            return false;
        usleep(20);
    }
    return !atomic_load(&own->stop);
}

static float bfloat16_value(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

// out [count] = the sum of the ranks' slots, in their order; a bfloat16 sum is cut, not rounded.
static void sum_slots(const communicator *own, int type, char *out, size_t count) {
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        unsigned char bytes = 0;
        for (int rank = 0; rank < own->ranks; rank++) {
            const char *slot = own->shared->slot[rank];
            if (type == 1)
                bytes = (unsigned char)(bytes + ((const unsigned char *)slot)[i]);
            else if (type == 7)
                sum = (float)((float)sum + ((const float *)(const void *)slot)[i]);
            else if (type == 8)
                sum += ((const double *)(const void *)slot)[i];
            else
                sum += bfloat16_value(((const uint16_t *)(const void *)slot)[i]);
        }
        float single = (float)sum;
        uint32_t wide;
        memcpy(&wide, &single, sizeof wide);
        uint16_t half = (uint16_t)(wide >> 16);
        const void *value = type == 1   ? (const void *)&bytes
                            : type == 7 ? (const void *)&single
                            : type == 8 ? (const void *)&sum
                                        : (const void *)&half;
        memcpy(out + i * type_bytes(type), value, type_bytes(type));
    }
}

// One piece of at most a slot: elements [begin, begin + count).
static bool run_piece(communicator *own, const job *job, size_t begin, size_t count) {
    size_t at = begin * type_bytes(job->type), bytes = count * type_bytes(job->type);
    bool is_root = own->rank == job->root;
    if (job->kind != BROADCAST || is_root)
        memcpy(own->shared->slot[own->rank], job->send + at, bytes);
    if (!barrier(own))
        return false;
    if (job->kind == ALL_REDUCE || (job->kind == REDUCE && is_root))
        sum_slots(own, job->type, job->receive + at, count);
    if (job->kind == BROADCAST)
        memcpy(job->receive + at, own->shared->slot[job->root], bytes);
    return barrier(own);
}

static bool run_job(communicator *own, const job *job) {
    if (job->breaks)
        atomic_store(&own->error, REMOTE_ERROR);
    while (job->hangs || job->breaks) {
        if (atomic_load(&own->stop))
            return false;
        usleep(200);
    }
    if (job->kind == INIT || job->kind == FINALIZE) {
        bool met = barrier(own);
        if (met && job->kind == INIT && own->rank == 0)
            shm_unlink(own->name);
        if (met)
            atomic_store(&own->ready, true);
        return met;
    }
    if (job->connects) {
        if (!barrier(own))
            return false;
        atomic_store(&own->ready, true);
    }
    size_t piece = SLOT_BYTES / type_bytes(job->type);
    for (size_t begin = 0; begin < job->count; begin += piece)
        if (!run_piece(own, job, begin, job->count - begin < piece ? job->count - begin : piece))
            return false;
    atomic_fetch_add(&job->stream->completed, 1);
    return true;
}

static void *work(void *argument) {
    communicator *own = argument;
    for (;;) {
        pthread_mutex_lock(&own->mutex);
        while (own->queued == 0 && !atomic_load(&own->stop))
            pthread_cond_wait(&own->changed, &own->mutex);
        job job = own->queue[0];
        if (own->queued > 0)
            memmove(own->queue, own->queue + 1, (size_t)--own->queued * sizeof job);
        pthread_mutex_unlock(&own->mutex);
        if (atomic_load(&own->stop) || !run_job(own, &job))
            return NULL;
    }
}

static void push(communicator *own, const job *job) {
    pthread_mutex_lock(&own->mutex);
    if (own->queued < QUEUE)
        own->queue[own->queued++] = *job;
    pthread_cond_signal(&own->changed);
    pthread_mutex_unlock(&own->mutex);
    atomic_store(&own->polls, PROGRESS_POLLS);
}

static void end(communicator *own) {
    pthread_mutex_lock(&own->mutex);
    atomic_store(&own->stop, true);
    pthread_cond_signal(&own->changed);
    pthread_mutex_unlock(&own->mutex);
    pthread_join(own->thread, NULL);
    munmap(own->shared, sizeof *own->shared);
    if (own->rank == 0)
        shm_unlink(own->name); // gone already, unless somebody never joined
    free(own);
}

static int collective(communicator *own, const char *name, job job, fake_stream *stream) {
    if (asked("FAKE_NCCL_REFUSE", name) || own == NULL || stream == NULL || type_bytes(job.type) == 0)
        return INVALID_ARGUMENT;
    job.stream = stream;
    job.hangs = asked("FAKE_NCCL_HANG", name) && own->met++ >= number("FAKE_NCCL_HANG_AFTER");
    job.breaks = asked("FAKE_NCCL_BREAK", name);
    own->late = stream;
    own->late_count++;
    job.connects = !own->connected;
    own->connected = true;
    if (job.connects)
        atomic_store(&own->ready, false);
    if (asked("FAKE_NCCL_STALL", name)) {
        atomic_store(&own->stalled, true);
        return IN_PROGRESS;
    }
    if (group_depth == 0) {
        push(own, &job);
        return IN_PROGRESS;
    }
    if (group_count == QUEUE)
        return INVALID_ARGUMENT;
    group_communicators[group_count] = own;
    group_jobs[group_count++] = job;
    return SUCCESS;
}

EXPORT const char *fake_nccl_calls(void);
EXPORT const char *fake_nccl_calls(void) {
    return record;
}

EXPORT int ncclGetVersion(int *version);
EXPORT int ncclGetVersion(int *version) {
    const char *claimed = getenv("FAKE_NCCL_VERSION");
    *version = claimed == NULL ? 23007 : atoi(claimed);
    return SUCCESS;
}

EXPORT const char *ncclGetErrorString(int code);
EXPORT const char *ncclGetErrorString(int code) {
    return code == SYSTEM_ERROR       ? "fake system error"
           : code == INVALID_ARGUMENT ? "fake invalid argument"
           : code == REMOTE_ERROR     ? "fake remote error"
                                      : "fake unknown error";
}

EXPORT const char *ncclGetLastError(const communicator *own);
EXPORT const char *ncclGetLastError(const communicator *own) {
    return own != NULL && atomic_load(&own->error) != SUCCESS ? "broken\non purpose" : "";
}

EXPORT int ncclGetUniqueId(unique_id *id);
EXPORT int ncclGetUniqueId(unique_id *id) {
    static _Atomic int made;
    note("unique_id\n");
    if (asked("FAKE_NCCL_REFUSE", "unique_id"))
        return SYSTEM_ERROR;
    memset(id, 0, sizeof *id);
    snprintf(id->name, sizeof id->name, "/fake-nccl-%d-%d", (int)getpid(), atomic_fetch_add(&made, 1));
    int file = shm_open(id->name, O_CREAT | O_EXCL | O_RDWR, 0600);
    int code = file >= 0 && ftruncate(file, sizeof(shared)) == 0 ? SUCCESS : SYSTEM_ERROR;
    if (file >= 0)
        close(file);
    return code;
}

EXPORT int ncclCommInitRankConfig(communicator **out, int ranks, unique_id id, int rank,
                                  const config *config);
EXPORT int ncclCommInitRankConfig(communicator **out, int ranks, unique_id id, int rank,
                                  const config *config) {
    note("init %d %d\n", ranks, rank);
    *out = NULL;
    bool right = config->size == sizeof *config && config->magic == 0xcafebeef && config->version >= 21400 &&
                 config->blocking == 0 && ranks <= MAX_RANKS && rank >= 0 && rank < ranks;
    if (asked("FAKE_NCCL_REFUSE", "init") || !right) {
        if (rank == 0)
            shm_unlink(id.name);
        return INVALID_ARGUMENT;
    }
    int file = shm_open(id.name, O_RDWR, 0600);
    void *view =
        file < 0 ? MAP_FAILED : mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0)
        close(file);
    communicator *own = calloc(1, sizeof *own);
    if (view == MAP_FAILED || own == NULL) {
        free(own);
        return SYSTEM_ERROR;
    }
    own->shared = view;
    own->ranks = ranks;
    own->rank = rank;
    memcpy(own->name, id.name, sizeof own->name);
    pthread_mutex_init(&own->mutex, NULL);
    pthread_cond_init(&own->changed, NULL);
    job job = {
        .kind = INIT, .hangs = asked("FAKE_NCCL_HANG", "init"), .breaks = asked("FAKE_NCCL_BREAK", "init")};
    push(own, &job);
    pthread_create(&own->thread, NULL, work, own);
    *out = own;
    return IN_PROGRESS;
}

EXPORT int ncclCommGetAsyncError(communicator *own, int *error);
EXPORT int ncclCommGetAsyncError(communicator *own, int *error) {
    *error = atomic_load(&own->error);
    if (*error != SUCCESS)
        return SUCCESS;
    if (!atomic_load(&own->ready) || atomic_load(&own->stalled))
        *error = IN_PROGRESS;
    else if (atomic_load(&own->polls) > 0) {
        atomic_fetch_sub(&own->polls, 1);
        *error = IN_PROGRESS;
    } else if (own->late_count > 0) {
        atomic_fetch_add(&own->late->launched, own->late_count);
        own->late_count = 0;
    }
    return SUCCESS;
}

EXPORT int ncclCommFinalize(communicator *own);
EXPORT int ncclCommFinalize(communicator *own) {
    note("finalize\n");
    if (asked("FAKE_NCCL_REFUSE", "finalize"))
        return INVALID_ARGUMENT;
    atomic_store(&own->ready, false);
    job job = {.kind = FINALIZE, .hangs = asked("FAKE_NCCL_HANG", "finalize")};
    push(own, &job);
    return IN_PROGRESS;
}

EXPORT int ncclCommDestroy(communicator *own);
EXPORT int ncclCommDestroy(communicator *own) {
    note("destroy\n");
    end(own);
    return SUCCESS;
}

EXPORT int ncclCommAbort(communicator *own);
EXPORT int ncclCommAbort(communicator *own) {
    note("abort\n");
    while (asked("FAKE_NCCL_HANG", "abort"))
        usleep(10000);
    end(own);
    return SUCCESS;
}

EXPORT int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation,
                         communicator *own, fake_stream *stream);
EXPORT int ncclAllReduce(const void *send, void *receive, size_t count, int type, int operation,
                         communicator *own, fake_stream *stream) {
    note("all_reduce %zu %d %d\n", count, type, operation);
    if (operation != 0)
        return INVALID_ARGUMENT;
    return collective(own, "all_reduce",
                      (job){ALL_REDUCE, .send = send, .receive = receive, .count = count, .type = type},
                      stream);
}

#ifndef FAKE_NCCL_LACKING
EXPORT int ncclReduce(const void *send, void *receive, size_t count, int type, int operation, int root,
                      communicator *own, fake_stream *stream);
EXPORT int ncclReduce(const void *send, void *receive, size_t count, int type, int operation, int root,
                      communicator *own, fake_stream *stream) {
    note("reduce %zu %d %d %d\n", count, type, operation, root);
    if (operation != 0 || root < 0 || root >= own->ranks)
        return INVALID_ARGUMENT;
    return collective(
        own, "reduce",
        (job){REDUCE, .send = send, .receive = receive, .count = count, .type = type, .root = root}, stream);
}
#endif

EXPORT int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, communicator *own,
                         fake_stream *stream);
EXPORT int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, communicator *own,
                         fake_stream *stream) {
    note("broadcast %zu %d %d\n", count, type, root);
    if (root < 0 || root >= own->ranks)
        return INVALID_ARGUMENT;
    return collective(
        own, "broadcast",
        (job){BROADCAST, .send = send, .receive = receive, .count = count, .type = type, .root = root},
        stream);
}

EXPORT int ncclGroupStart(void);
EXPORT int ncclGroupStart(void) {
    note("group_start\n");
    group_depth++;
    return SUCCESS;
}

EXPORT int ncclGroupEnd(void);
EXPORT int ncclGroupEnd(void) {
    note("group_end\n");
    if (group_depth == 0)
        return INVALID_ARGUMENT;
    if (--group_depth > 0)
        return SUCCESS;
    int count = group_count;
    group_count = 0;
    for (int i = 0; i < count; i++)
        push(group_communicators[i], &group_jobs[i]);
    return count > 0 ? IN_PROGRESS : SUCCESS;
}
