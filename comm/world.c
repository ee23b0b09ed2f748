#include "comm/world.h"

#include "comm/cores.h"
#include "comm/mpi_call.h"
#include "kernels/memory.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOST_SIZE = 64, LINE_SIZE = 2048 };

// Written by the thread that waits, read by one that watches.
typedef struct wait_board {
    _Atomic(const char *) what;
    atomic_int peer;
    atomic_ullong count;
} wait_board;

struct world {
    int rank, size, local_rank, local_size;
    int usable_cores, threads;
    bool oversubscribed;
    double deadline;
    char host[HOST_SIZE];
    char *hosts; // [size][HOST_SIZE]
    int *cards;  // [size]
    char warning[512];
    char agreed[LINE_SIZE]; // the message of the last agreed failure, "" before
    wait_board *board;
};

// Broadcast and all-reduce through non-blocking calls, so that waiting follows mpi_wait_all's rules.
static status broadcast(const world *world, void *data, int bytes, int root, const char *what) {
    MPI_Request request;
    TRY(mpi_check(world, MPI_Ibcast(data, bytes, MPI_BYTE, root, MPI_COMM_WORLD, &request), "MPI_Ibcast",
                  root));
    return mpi_wait_all(world, &request, 1, what, root);
}

static status reduce_int(const world *world, int value, MPI_Op operation, int *result, const char *what) {
    MPI_Request request;
    TRY(mpi_check(world, MPI_Iallreduce(&value, result, 1, MPI_INT, operation, MPI_COMM_WORLD, &request),
                  "MPI_Iallreduce", -1));
    return mpi_wait_all(world, &request, 1, what, -1);
}

// Cores that all local ranks may use together, and the threads that follow.
static status find_placement(world *world, MPI_Comm local, int requested_threads) {
    core_set own = cores_of_process(0), together, launcher = cores_of_launcher();
    TRY(mpi_check(world, MPI_Allreduce(&own, &together, (int)sizeof own, MPI_UNSIGNED_CHAR, MPI_BOR, local),
                  "MPI_Allreduce", -1));
    int quota = cores_quota(), own_cores = cores_count(&own), cores = cores_count(&together);
    int available = cores_count(&launcher); // what there was before binding
    const char *slurm = getenv("SLURM_CPUS_ON_NODE"), *advice = "start mpirun with --bind-to none";
    if (available == 0 && slurm != NULL) {
        available = atoi(slurm);
        advice = "give srun a larger --cpus-per-task";
    }
    if (cores < 1)
        cores = own_cores = 1;
    bool limited = quota > 0 && quota < cores;
    if (limited)
        cores = quota;
    world->usable_cores = cores;
    int threads = cores / world->local_size;
    if (threads > own_cores)
        threads = own_cores;
    if (requested_threads > 0)
        threads = requested_threads;
    world->threads = threads > 0 ? threads : 1;
    int total = 0;
    TRY(mpi_check(world, MPI_Allreduce(&world->threads, &total, 1, MPI_INT, MPI_SUM, local), "MPI_Allreduce",
                  -1));
    // A rank bound to fewer cores than it has threads is crowded too, whatever the host as a whole has.
    int crowded = total > cores || world->threads > own_cores, any_crowded = 0;
    TRY(mpi_check(world, MPI_Allreduce(&crowded, &any_crowded, 1, MPI_INT, MPI_MAX, local), "MPI_Allreduce",
                  -1));
    world->oversubscribed = any_crowded != 0;
    const char *plural = world->local_size == 1 ? "" : "s";
    if (available > cores && !limited)
        snprintf(world->warning, sizeof world->warning,
                 "binding leaves cores idle on %s: its %d rank%s may use %d of %d cores; %s", world->host,
                 world->local_size, plural, cores, available, advice);
    else if (any_crowded)
        snprintf(
            world->warning, sizeof world->warning,
            "%s is oversubscribed: %d rank%s with %d threads in all on %d core%s; waiting threads sleep, "
            "fewer ranks or threads would be as fast",
            world->host, world->local_size, plural, total, cores, cores == 1 ? "" : "s");
    return STATUS_OK;
}

// GPUs that whoever started this process grants it.
static int cards_granted(void) {
    const char *visible = getenv("CUDA_VISIBLE_DEVICES"), *slurm = getenv("SLURM_GPUS_ON_NODE");
    if (visible == NULL)
        return slurm != NULL ? atoi(slurm) : 0;
    if (visible[0] == '\0' || visible[0] == '-' || strcmp(visible, "NoDevFiles") == 0)
        return 0;
    int count = 1;
    for (const char *c = visible; *c != '\0'; c++)
        count += *c == ',';
    return count;
}

// srun without the plugin of this MPI starts so many runs of one rank, which would fight over one folder.
static status check_launcher(const world *world) {
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS"), *inside = getenv("OMPI_COMM_WORLD_SIZE");
    if (world->size == 1 && tasks != NULL && inside == NULL && atoi(tasks) > 1)
        return FAIL("srun started %s tasks, but MPI sees this one alone; start them with srun --mpi=pmix",
                    tasks);
    return STATUS_OK;
}

static status find_ranks(world *world, int thread_level, int requested_threads) {
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    TRY(memory_allocate((void **)&world->hosts, (size_t)world->size * HOST_SIZE, "host names"));
    TRY(check_launcher(world));
    if (thread_level < MPI_THREAD_SERIALIZED)
        return FAIL("MPI gives thread level %d, level %d (serialized) is needed; use a threaded build of MPI",
                    thread_level, MPI_THREAD_SERIALIZED);
    TRY(mpi_check(
        world,
        MPI_Allgather(world->host, HOST_SIZE, MPI_CHAR, world->hosts, HOST_SIZE, MPI_CHAR, MPI_COMM_WORLD),
        "MPI_Allgather", -1));
    TRY(memory_allocate((void **)&world->cards, (size_t)world->size * sizeof(int), "numbers of cards"));
    const int own_cards = cards_granted();
    TRY(mpi_check(world, MPI_Allgather(&own_cards, 1, MPI_INT, world->cards, 1, MPI_INT, MPI_COMM_WORLD),
                  "MPI_Allgather", -1));
    MPI_Comm local;
    TRY(mpi_check(
        world, MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world->rank, MPI_INFO_NULL, &local),
        "MPI_Comm_split_type", -1));
    MPI_Comm_set_errhandler(local, MPI_ERRORS_RETURN);
    MPI_Comm_rank(local, &world->local_rank);
    MPI_Comm_size(local, &world->local_size);
    status result = find_placement(world, local, requested_threads);
    MPI_Comm_free(&local);
    return result;
}

// A batch system's own name of the node, which is what its tools take, or the host's.
static void name_host(char *name, size_t size) {
    const char *node = getenv("SLURMD_NODENAME");
    if (node != NULL && node[0] != '\0')
        snprintf(name, size, "%s", node);
    else
        gethostname(name, size - 1);
}

status world_create(world **out, const world_options *options) {
    *out = NULL;
    int initialised = 0, level = 0;
    MPI_Initialized(&initialised);
    if (initialised)
        return FAIL("MPI is already running in this process; a process makes one world");
    struct world *world;
    TRY(memory_allocate((void **)&world, sizeof *world, "world"));
    if (memory_allocate((void **)&world->board, sizeof *world->board, "world") != STATUS_OK) {
        memory_free(world);
        return STATUS_FAILED;
    }
    name_host(world->host, sizeof world->host);
    world->deadline = options->deadline_seconds;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS) {
        memory_free(world->board);
        memory_free(world);
        return FAIL("MPI_Init_thread failed: MPI cannot start; see its lines above");
    }
    MPI_Comm_rank(MPI_COMM_WORLD, &world->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &world->size);
    if (find_ranks(world, level, options->threads) != STATUS_OK)
        world_abort(world, status_message());
    *out = world;
    return STATUS_OK;
}

void world_destroy(world *world) {
    if (world == NULL)
        return;
    if (world_barrier(world) != STATUS_OK)
        world_abort(world, status_message());
    MPI_Finalize();
    memory_free(world->cards);
    memory_free(world->hosts);
    memory_free(world->board);
    memory_free(world);
}

int world_rank(const world *world) {
    return world->rank;
}

int world_size(const world *world) {
    return world->size;
}

const char *world_host(const world *world) {
    return world->host;
}

const char *world_host_of(const world *world, int rank) {
    return rank >= 0 && rank < world->size ? world->hosts + (size_t)rank * HOST_SIZE : "no host";
}

int world_cards_of(const world *world, int rank) {
    return world->cards[rank];
}

int world_local_rank(const world *world) {
    return world->local_rank;
}

int world_local_size(const world *world) {
    return world->local_size;
}

int world_usable_cores(const world *world) {
    return world->usable_cores;
}

int world_threads(const world *world) {
    return world->threads;
}

bool world_oversubscribed(const world *world) {
    return world->oversubscribed;
}

double world_deadline(const world *world) {
    return world->deadline;
}

void world_set_deadline(world *world, double seconds) {
    world->deadline = seconds;
}

void world_look_at_wait(const world *world, world_wait *out) {
    *out = (world_wait){atomic_load(&world->board->what), atomic_load(&world->board->peer),
                        atomic_load(&world->board->count)};
}

void world_note_wait(const world *world, const char *what, int peer) {
    atomic_store(&world->board->peer, peer);
    atomic_store(&world->board->what, what);
    if (what != NULL)
        atomic_fetch_add(&world->board->count, 1);
}

const char *world_placement_warning(const world *world) {
    return world->warning;
}

// "rank R on HOST: message", once: comm's own messages already begin so.
static void name_message(const world *world, const char *message, char *line, size_t size) {
    char prefix[HOST_SIZE + 32];
    snprintf(prefix, sizeof prefix, "rank %d on %s: ", world->rank, world->host);
    bool named = strncmp(message, prefix, strlen(prefix)) == 0;
    snprintf(line, size, "%s%s", named ? "" : prefix, message);
}

status world_agree(world *world, status outcome) {
    // The lowest failing rank wins; a stop on request comes after every failure.
    int key = INT_MAX, first = INT_MAX;
    if (outcome == STATUS_STOPPED)
        key = world->rank + world->size;
    else if (outcome != STATUS_OK)
        key = world->rank;
    struct {
        int code;
        char line[LINE_SIZE];
    } report = {(int)outcome, ""};
    if (outcome != STATUS_OK)
        name_message(world, status_message(), report.line, sizeof report.line);
    TRY(reduce_int(world, key, MPI_MIN, &first, "agreement on errors"));
    if (first == INT_MAX)
        return STATUS_OK;
    TRY(broadcast(world, &report, (int)sizeof report, first % world->size, "a failed rank's message"));
    report.line[LINE_SIZE - 1] = '\0';
    snprintf(world->agreed, sizeof world->agreed, "%s", report.line);
    return status_set((status)report.code, "%s", report.line);
}

void world_abort(world *world, const char *message) {
    char line[LINE_SIZE];
    // What all ranks agreed on names its rank already, and one of them says it before any ends.
    const bool agreed = world != NULL && world->agreed[0] != '\0' && strcmp(world->agreed, message) == 0;
    if (world == NULL || agreed)
        snprintf(line, sizeof line, "%s", message);
    else
        name_message(world, message, line, sizeof line);
    if (!agreed || world->rank == 0)
        fprintf(stderr, "musicrl: %s\n", line);
    fflush(stderr);
    if (agreed)
        world_barrier(world);
    int running = 0, over = 0;
    MPI_Initialized(&running);
    MPI_Finalized(&over);
    if (running && !over)
        MPI_Abort(MPI_COMM_WORLD, STATUS_FAILED);
    _exit(STATUS_FAILED);
}

status world_barrier(world *world) {
    MPI_Request request;
    TRY(mpi_check(world, MPI_Ibarrier(MPI_COMM_WORLD, &request), "MPI_Ibarrier", -1));
    return mpi_wait_all(world, &request, 1, "a barrier of all ranks", -1);
}

status world_any(world *world, bool flag, bool *any) {
    int result = 0;
    TRY(reduce_int(world, flag ? 1 : 0, MPI_MAX, &result, "agreement on a flag"));
    *any = result != 0;
    return STATUS_OK;
}

status world_largest(world *world, int number, int *largest) {
    return reduce_int(world, number, MPI_MAX, largest, "agreement on a number");
}

// The first item of `text` that differs from the item at the same place in `other`.
static void first_difference(const char *text, const char *other, char item[512], char other_item[512]) {
    for (;;) {
        size_t length = strcspn(text, ";"), other_length = strcspn(other, ";");
        bool last = text[length] == '\0' || other[other_length] == '\0';
        if (last || length != other_length || strncmp(text, other, length) != 0) {
            snprintf(item, 512, "%.*s", (int)length, text);
            snprintf(other_item, 512, "%.*s", (int)other_length, other);
            return;
        }
        text += length + 1 + (text[length + 1] == ' ');
        other += other_length + 1 + (other[other_length + 1] == ' ');
    }
}

status world_compare_identity(world *world, const char *identity, char *warning, size_t size) {
    char wanted[LINE_SIZE], own[LINE_SIZE];
    snprintf(own, sizeof own, "%s", identity);
    memcpy(wanted, own, sizeof wanted);
    TRY(broadcast(world, wanted, (int)sizeof wanted, 0, "rank 0's build and libraries"));
    bool same = strcmp(wanted, own) == 0;
    int first = INT_MAX, differing = 0;
    TRY(reduce_int(world, same ? INT_MAX : world->rank, MPI_MIN, &first, "comparison of builds"));
    TRY(reduce_int(world, same ? 0 : 1, MPI_SUM, &differing, "comparison of builds"));
    char line[LINE_SIZE] = "";
    if (first != INT_MAX) {
        if (first == world->rank) {
            char item[512], wanted_item[512];
            first_difference(own, wanted, item, wanted_item);
            snprintf(
                line, sizeof line,
                "rank %d on %s has '%s', rank 0 on %s has '%s' (%d of %d ranks differ from rank 0): results "
                "may differ in their last bits from a run on equal machines",
                first, world->host, item, world_host_of(world, 0), wanted_item, differing, world->size);
        }
        TRY(broadcast(world, line, (int)sizeof line, first, "a comparison of builds"));
    }
    snprintf(warning, size, "%s", line);
    return STATUS_OK;
}
