#include "comm/mpi_call.h"
#include "comm/nccl_table.h"

#include "kernels/memory.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ABORT_SECONDS = 5 };

typedef struct collective_kind {
    const char *name, *wait; // the latter for whoever watches
} collective_kind;
static const collective_kind all_reduce = {"all-reduce", "NCCL's all-reduce"},
                             reduce = {"reduce", "NCCL's reduce"},
                             broadcast = {"broadcast", "NCCL's broadcast"};

// A collective of which the end has not been seen.
typedef struct collective {
    const collective_kind *kind;
    uint64_t number; // collectives of this communicator so far, this one included
    size_t count;    // elements, as the call was given
    nccl_type type;
} collective;

// ncclCommAbort runs in a thread of its own, so that a hang in it keeps nobody. If it never returns, the
// thread keeps this record.
typedef struct abortion {
    pthread_t thread;
    int (*comm_abort)(void *comm);
    void *comm;
    _Atomic bool over;
} abortion;

struct nccl_communicator {
    nccl_library *library;
    group *group;
    void *comm; // NULL once aborted or destroyed
    double deadline;
    abortion *abortion;
    collective first, last; // since the last wait
    uint64_t pending, number;
    bool bundling, unsettled; // unsettled: NCCL has not yet taken what was started last
};

static const struct {
    const char *name;
    int value; // of ncclDataType_t
    size_t bytes;
} types[] = {
    [NCCL_BYTE] = {"bytes", 1, 1},
    [NCCL_FLOAT] = {"float32", 7, 4},
    [NCCL_DOUBLE] = {"float64", 8, 8},
    [NCCL_BFLOAT16] = {"bfloat16", 9, 2},
};

size_t nccl_type_bytes(nccl_type type) {
    return types[type].bytes;
}

static double deadline_of(const nccl_communicator *communicator) {
    return communicator->deadline > 0 ? communicator->deadline
                                      : world_deadline(group_world(communicator->group));
}

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static const char *wait_name(const nccl_communicator *communicator) {
    const collective_kind *kind = communicator->last.kind;
    return kind == communicator->first.kind ? kind->wait : "NCCL's collectives";
}

// "all-reduce 7 (1024 float32, 4096 bytes)"
static void describe(const collective *one, char *text, size_t size) {
    snprintf(text, size, "%s %llu (%zu %s, %zu bytes)", one->kind->name, (unsigned long long)one->number,
             one->count, types[one->type].name, one->count * types[one->type].bytes);
}

static void describe_pending(const nccl_communicator *communicator, char *text, size_t size) {
    char first[128], last[128];
    if (communicator->pending == 0) {
        snprintf(text, size, "an empty bundle");
        return;
    }
    describe(&communicator->first, first, sizeof first);
    describe(&communicator->last, last, sizeof last);
    if (communicator->pending == 1)
        snprintf(text, size, "%s", first);
    else
        snprintf(text, size, "%llu collectives, %s to %s", (unsigned long long)communicator->pending, first,
                 last);
}

static void *run_abort(void *argument) {
    abortion *abortion = argument;
    abortion->comm_abort(abortion->comm);
    atomic_store(&abortion->over, true);
    return NULL;
}

// Ends the communicator, if there is one; returns what became of it, for the end of a message.
static const char *abort_communicator(nccl_communicator *communicator) {
    abortion *abortion = communicator->abortion;
    if (communicator->comm == NULL)
        return "";
    abortion->comm_abort = communicator->library->table.comm_abort;
    abortion->comm = communicator->comm;
    communicator->comm = NULL;
    if (pthread_create(&abortion->thread, NULL, run_abort, abortion) != 0)
        return "; the communicator could not be aborted for want of a thread";
    double start = now_seconds();
    while (!atomic_load(&abortion->over) && now_seconds() - start < ABORT_SECONDS)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    if (atomic_load(&abortion->over)) {
        pthread_join(abortion->thread, NULL);
        return "; the communicator was aborted";
    }
    pthread_detach(abortion->thread);
    communicator->abortion = NULL;
    return "; the communicator's abort did not return either";
}

// Fails with "rank R on HOST: ..." after aborting the communicator.
static status give_up(nccl_communicator *communicator, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static status give_up(nccl_communicator *communicator, const char *format, ...) {
    char what[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    const world *world = group_world(communicator->group);
    const char *fate = abort_communicator(communicator);
    return FAIL("rank %d on %s: %s%s", world_rank(world), world_host(world), what, fate);
}

// The library's words for `code`; what it says of its last error may stem from another call, but names
// causes.
static void explain(const nccl_communicator *communicator, int code, char *text, size_t size) {
    const nccl_table *table = &communicator->library->table;
    const char *kind = table->get_error_string(code), *last = table->get_last_error(communicator->comm);
    snprintf(text, size, "%s", kind == NULL ? "unknown error" : kind);
    if (last != NULL && last[0] != '\0')
        snprintf(text + strlen(text), size - strlen(text), " (%s)", last);
    for (char *at = text; (at = strchr(at, '\n')) != NULL;)
        *at = ' ';
}

// Polls until NCCL has finished the call that returned `code`; the outcome, or NCCL_IN_PROGRESS if the
// deadline passed first. wait: for whoever watches.
static int poll_outcome(nccl_communicator *communicator, int code, const char *wait_for) {
    wait_state wait = wait_begin(group_world(communicator->group), deadline_of(communicator), wait_for, -1);
    while (code == NCCL_IN_PROGRESS && wait_pause(&wait)) {
        int state = NCCL_IN_PROGRESS;
        code = communicator->library->table.comm_get_async_error(communicator->comm, &state);
        if (code == NCCL_SUCCESS)
            code = state;
    }
    wait_end(&wait);
    return code;
}

// The same as a status; a failure aborts the communicator.
static status settle(nccl_communicator *communicator, int code, const char *what) {
    double start = now_seconds();
    code = poll_outcome(communicator, code, communicator->pending > 0 ? wait_name(communicator) : "NCCL");
    if (code == NCCL_SUCCESS)
        return STATUS_OK;
    if (code == NCCL_IN_PROGRESS)
        return give_up(communicator,
                       "waited %.1f s for NCCL to take %s in a group of %d ranks: look at the output of the "
                       "others, or raise the deadline",
                       now_seconds() - start, what, group_size(communicator->group));
    char text[512];
    explain(communicator, code, text, sizeof text);
    return give_up(communicator, "NCCL refused %s after %.1f s: %s", what, now_seconds() - start, text);
}

// What a member tells the others of its attempt to join.
typedef struct attempt {
    int failed; // 0: joined, 1: waited in vain, 2: an error
    char line[1024];
} attempt;

// The unique id of member 0 for all.
static status share_id(nccl_communicator *communicator, nccl_unique_id *id) {
    struct {
        int code;
        nccl_unique_id id;
        char error[256];
    } made = {0};
    group *group = communicator->group;
    if (group_index(group) == 0) {
        made.code = communicator->library->table.get_unique_id(&made.id);
        if (made.code != NCCL_SUCCESS)
            explain(communicator, made.code, made.error, sizeof made.error);
    }
    TRY(group_broadcast(group, &made, sizeof made, 0));
    int rank = group_rank(group, 0);
    if (made.code != NCCL_SUCCESS)
        return FAIL("rank %d on %s: NCCL makes no unique id: %s", rank,
                    world_host_of(group_world(group), rank), made.error);
    *id = made.id;
    return STATUS_OK;
}

// Joins, and agrees with the other members on whether all have.
static status join(nccl_communicator *communicator, const nccl_unique_id *id) {
    group *group = communicator->group;
    nccl_config config = {
        .size = sizeof config, .magic = 0xcafebeefu, .version = NCCL_CONFIG_VERSION, .blocking = 0};
    double start = now_seconds();
    int code = communicator->library->table.comm_init_rank_config(&communicator->comm, group_size(group), *id,
                                                                  group_index(group), &config);
    attempt own = {0}, *attempts;
    TRY(memory_allocate((void **)&attempts, (size_t)group_size(group) * sizeof *attempts, "NCCL's members"));
    status result = settle(communicator, code, "a communicator");
    if (result != STATUS_OK) {
        const double deadline = deadline_of(communicator);
        own.failed = deadline > 0 && now_seconds() - start >= deadline ? 1 : 2;
        snprintf(own.line, sizeof own.line, "%s", status_message());
    }
    TRY_GOTO(result, group_all_gather(group, &own, sizeof own, attempts), cleanup);
    int worst = 0;
    for (int i = 1; i < group_size(group); i++)
        if (attempts[i].failed > attempts[worst].failed)
            worst = i;
    if (attempts[worst].failed) {
        abort_communicator(communicator);
        attempts[worst].line[sizeof attempts[worst].line - 1] = '\0';
        result = FAIL("%s", attempts[worst].line);
    }
cleanup:
    memory_free(attempts);
    return result;
}

status nccl_communicator_create(nccl_communicator **out, nccl_library *library, group *group,
                                double deadline_seconds) {
    *out = NULL;
    if (!(deadline_seconds >= 0))
        return FAIL_USAGE("a deadline of %g s for NCCL: it must not be negative", deadline_seconds);
    nccl_communicator *communicator;
    TRY(memory_allocate((void **)&communicator, sizeof *communicator, "NCCL's communicator"));
    communicator->library = library;
    communicator->group = group;
    communicator->deadline = deadline_seconds;
    status result;
    nccl_unique_id id;
    TRY_GOTO(
        result,
        memory_allocate((void **)&communicator->abortion, sizeof *communicator->abortion, "NCCL's abort"),
        cleanup);
    TRY_GOTO(result, share_id(communicator, &id), cleanup);
    TRY_GOTO(result, join(communicator, &id), cleanup);
    *out = communicator;
    return STATUS_OK;
cleanup:
    memory_free(communicator->abortion);
    memory_free(communicator);
    return result;
}

void nccl_communicator_destroy(nccl_communicator *communicator) {
    if (communicator == NULL)
        return;
    const nccl_table *table = &communicator->library->table;
    if (communicator->comm != NULL) {
        if (poll_outcome(communicator, table->comm_finalize(communicator->comm), "NCCL's end") ==
            NCCL_SUCCESS)
            table->comm_destroy(communicator->comm);
        else
            abort_communicator(communicator);
    }
    memory_free(communicator->abortion);
    memory_free(communicator);
}

static status check_alive(const nccl_communicator *communicator, const char *call) {
    const world *world = group_world(communicator->group);
    if (communicator->comm == NULL)
        return FAIL("rank %d on %s: NCCL's %s after its communicator was aborted; the run must end",
                    world_rank(world), world_host(world), call);
    return STATUS_OK;
}

// Waits until NCCL has taken what was started last: until then it takes nothing else. The first collectives
// of a communicator connect its members, and are taken when all have started them.
static status settle_last(nccl_communicator *communicator) {
    if (!communicator->unsettled)
        return STATUS_OK;
    char text[384];
    communicator->unsettled = false;
    describe_pending(communicator, text, sizeof text);
    return settle(communicator, NCCL_IN_PROGRESS, text);
}

status nccl_settle(nccl_communicator *communicator) {
    TRY(check_alive(communicator, "work"));
    return settle_last(communicator);
}

// Notes that a collective is about to start.
static status start(nccl_communicator *communicator, const collective_kind *kind, size_t count,
                    nccl_type type) {
    TRY(check_alive(communicator, kind->name));
    TRY(settle_last(communicator));
    communicator->last = (collective){kind, ++communicator->number, count, type};
    if (communicator->pending++ == 0)
        communicator->first = communicator->last;
    return STATUS_OK;
}

// Takes what the library returned for the collective that started last.
static status started(nccl_communicator *communicator, int code) {
    char text[160];
    // Inside a bundle nothing is launched yet, and the library says so in either way.
    if (code == NCCL_IN_PROGRESS) {
        communicator->unsettled = !communicator->bundling;
        return STATUS_OK;
    }
    describe(&communicator->last, text, sizeof text);
    return settle(communicator, code, text);
}

status nccl_all_reduce(nccl_communicator *communicator, const void *send, void *receive, size_t count,
                       nccl_type type, void *stream) {
    TRY(start(communicator, &all_reduce, count, type));
    return started(communicator,
                   communicator->library->table.all_reduce(send, receive, count, types[type].value, NCCL_SUM,
                                                           communicator->comm, stream));
}

status nccl_reduce(nccl_communicator *communicator, void *buffer, size_t count, nccl_type type, int root,
                   void *stream) {
    TRY(start(communicator, &reduce, count, type));
    return started(communicator,
                   communicator->library->table.reduce(buffer, buffer, count, types[type].value, NCCL_SUM,
                                                       root, communicator->comm, stream));
}

status nccl_broadcast(nccl_communicator *communicator, void *buffer, size_t count, nccl_type type, int root,
                      void *stream) {
    TRY(start(communicator, &broadcast, count, type));
    return started(communicator,
                   communicator->library->table.broadcast(buffer, buffer, count, types[type].value, root,
                                                          communicator->comm, stream));
}

status nccl_bundle_begin(nccl_communicator *communicator) {
    TRY(check_alive(communicator, "bundle"));
    TRY(settle_last(communicator));
    TRY(settle(communicator, communicator->library->table.group_start(), "the start of a bundle"));
    communicator->bundling = true;
    return STATUS_OK;
}

status nccl_bundle_end(nccl_communicator *communicator) {
    TRY(check_alive(communicator, "bundle"));
    communicator->bundling = false;
    const int code = communicator->library->table.group_end();
    if (code == NCCL_IN_PROGRESS) {
        communicator->unsettled = true;
        return STATUS_OK;
    }
    char text[384];
    describe_pending(communicator, text, sizeof text);
    return settle(communicator, code, text);
}

status nccl_wait(nccl_communicator *communicator, nccl_query query, void *context) {
    TRY(check_alive(communicator, "wait"));
    if (communicator->pending == 0)
        return settle_last(communicator); // of an empty bundle
    char what[384], text[512];
    describe_pending(communicator, what, sizeof what);
    int ranks = group_size(communicator->group);
    double start = now_seconds();
    wait_state wait =
        wait_begin(group_world(communicator->group), deadline_of(communicator), wait_name(communicator), -1);
    for (;;) {
        // First this: before NCCL has put its work into the stream, a stream without work means nothing.
        bool done = false;
        int state = NCCL_SUCCESS,
            code = communicator->library->table.comm_get_async_error(communicator->comm, &state);
        if (code == NCCL_SUCCESS)
            code = state;
        if (query(context, &done) != STATUS_OK) {
            snprintf(text, sizeof text, "%s", status_message());
            return give_up(communicator, "%s among %d ranks failed after %.1f s: %s", what, ranks,
                           now_seconds() - start, text);
        }
        if (code != NCCL_SUCCESS && code != NCCL_IN_PROGRESS) {
            explain(communicator, code, text, sizeof text);
            return give_up(communicator, "NCCL's %s among %d ranks failed after %.1f s: %s", what, ranks,
                           now_seconds() - start, text);
        }
        if (done && code == NCCL_SUCCESS)
            break;
        if (!wait_pause(&wait))
            return give_up(communicator,
                           "waited %.1f s for NCCL's %s among %d ranks; a rank is stuck or slow: look "
                           "at the output of the others, or raise the deadline",
                           now_seconds() - start, what, ranks);
    }
    wait_end(&wait);
    communicator->pending = 0;
    communicator->unsettled = false;
    return STATUS_OK;
}
