#include "launch/watch.h"

#include "kernels/memory.h"
#include "launch/heartbeat.h"
#include "launch/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const phase_names[WATCH_PHASES] = {"rollout", "reward", "learn", "sync", "save", "end"};

// LOOKS_STILL: looks without anything new before that means anything; one may fall between two beats.
enum { RANKS_PER_SECOND = 64, LOOKS_STILL = 3 };

struct watch {
    world *world;
    watch_plan plan;
    char folder[PATH_MAX];            // of the heartbeats
    double interval, deadline_before; // the latter: of waits in comm
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ends; // under the lock
    // Written by the rank, read by the thread.
    atomic_int phase;
    atomic_llong step;
    atomic_ullong entries; // calls of watch_enter
    // The thread's own.
    heartbeat own;
    unsigned long long seen_entries;
    uint64_t seen_waits;
    uint64_t phase_beats, quiet_beats; // since the phase began; of the successor
    double stop_since;                 // of the clock, when the request was seen; 0: none
    uint64_t successor_beat;
    bool writes;       // the last heartbeat could be written
    heartbeat *others; // [ranks] as seen last, while this rank waits past its deadline
    int *quiet_looks;  // [ranks] looks in a row without a new heartbeat
    int looks_still;   // looks at all ranks without a change
};

watch_plan watch_plan_make(const run_config *config, const char *folder, const char *roles) {
    return (watch_plan){.folder = folder,
                        .roles = roles,
                        .deadlines = {[WATCH_ROLLOUT] = config->deadlines.rollout,
                                      [WATCH_REWARD] = config->deadlines.reward,
                                      [WATCH_LEARN] = config->deadlines.learn,
                                      [WATCH_SYNC] = config->deadlines.sync,
                                      [WATCH_SAVE] = config->deadlines.save,
                                      [WATCH_END] = config->deadlines.sync},
                        .silence = config->deadlines.silence,
                        .stop = config->deadlines.stop,
                        .stop_requested = run_stop_requested};
}

double watch_interval(const watch_plan *plan, int ranks) {
    double shortest = 4.0;
    for (int i = 0; i < WATCH_PHASES; i++)
        if (plan->deadlines[i] > 0 && plan->deadlines[i] < shortest)
            shortest = plan->deadlines[i];
    if (plan->silence > 0 && plan->silence < shortest)
        shortest = plan->silence;
    if (plan->stop > 0 && plan->stop < shortest)
        shortest = plan->stop;
    const double interval = shortest / 4 < 0.05 ? 0.05 : shortest / 4;
    return ranks > RANKS_PER_SECOND ? interval * ranks / RANKS_PER_SECOND
                                    : interval; // one file server for all
}

// Ends this process with `code`, after `line` if no other rank has spoken: the launcher then ends the other
// ranks, and where it does not, they find this one silent.
_Noreturn static void pronounce(watch *w, status code, const char *line) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/verdict", w->folder);
    if (open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644) >= 0 || errno != EEXIST)
        dprintf(STDERR_FILENO, "musicrl: %s\n", line); // not stdio, which a hung rank may have locked
    else
        sleep(2); // for that rank's line to come out before the launcher ends everything
    _exit(code);
}

// " for an all-reduce with rank 3 on node2", or "" if the rank does not wait.
static void describe_wait(const watch *w, const heartbeat *beat, char *text, size_t size) {
    text[0] = '\0';
    if (beat->wait[0] == '\0')
        return;
    const int used = snprintf(text, size, ", waiting for %s", beat->wait);
    if (beat->waits_for >= 0 && used > 0 && (size_t)used < size)
        snprintf(text + used, size - (size_t)used, " with rank %d on %s", beat->waits_for,
                 world_host_of(w->world, beat->waits_for));
}

static void describe(const watch *w, const heartbeat *beat, char *text, size_t size) {
    char wait[192];
    describe_wait(w, beat, wait, sizeof wait);
    snprintf(text, size, "rank %d on %s (%s), in phase %s of step %lld%s", beat->rank, beat->host,
             beat->roles, beat->phase, (long long)beat->step + 1, wait);
}

static void report_silent(watch *w, const heartbeat *silent, double seconds) {
    char who[512], own[512], line[1400];
    describe(w, silent, who, sizeof who);
    describe(w, &w->own, own, sizeof own);
    snprintf(line, sizeof line,
             "%s, has given no sign of life for %.0f s: it is stopped, gone or cut off; noticed by %s; the "
             "run ends, "
             "start it again to continue from its newest checkpoint",
             who, seconds, own);
    pronounce(w, STATUS_FAILED, line);
}

static void report_overdue(watch *w, const char *setting, double deadline) {
    char own[512], line[1400];
    describe(w, &w->own, own, sizeof own);
    snprintf(line, sizeof line,
             "%s, has been there for %.0f s, deadlines.%s is %g s%s; the run ends, start it again to "
             "continue from "
             "its newest checkpoint, or raise the deadline",
             own, w->own.seconds, setting, deadline,
             w->own.wait[0] != '\0' ? ", and every other rank waits as well" : "");
    pronounce(w, STATUS_FAILED, line);
}

// What this rank does, into w->own.
static void observe_self(watch *w) {
    const unsigned long long entries = atomic_load(&w->entries);
    const int phase = atomic_load(&w->phase);
    world_wait wait;
    world_look_at_wait(w->world, &wait);
    if (entries != w->seen_entries || wait.count != w->seen_waits)
        w->own.moves++;
    w->phase_beats = entries == w->seen_entries ? w->phase_beats + 1 : 0;
    w->seen_entries = entries;
    w->seen_waits = wait.count;
    w->own.beat++;
    w->own.step = atomic_load(&w->step);
    w->own.seconds = (double)w->phase_beats * w->interval;
    w->own.overdue = w->plan.deadlines[phase] > 0 ? w->own.seconds - w->plan.deadlines[phase] : -1.0;
    w->own.waits_for = wait.what != NULL ? wait.peer : -1;
    snprintf(w->own.phase, sizeof w->own.phase, "%s", phase_names[phase]);
    snprintf(w->own.wait, sizeof w->own.wait, "%s", wait.what != NULL ? wait.what : "");
    w->writes = heartbeat_write(w->folder, &w->own) == STATUS_OK;
}

// The rank after this one; each is looked at by one other, so that some living rank finds the first silent
// one.
static void look_at_successor(watch *w) {
    const int ranks = world_size(w->world), next = (world_rank(w->world) + 1) % ranks;
    heartbeat seen;
    if (ranks == 1 || w->plan.silence <= 0)
        return;
    const bool there = heartbeat_read(w->folder, next, &seen);
    if (there && seen.beat != w->successor_beat) {
        w->successor_beat = seen.beat;
        w->quiet_beats = 0;
        return;
    }
    // A folder that cannot be written to silences everybody: the next save will say why.
    w->quiet_beats = w->writes ? w->quiet_beats + 1 : 0;
    const double seconds = (double)w->quiet_beats * w->interval;
    if (there && w->quiet_beats >= LOOKS_STILL && seconds > w->plan.silence)
        report_silent(w, &seen, seconds);
}

// Whether somebody is alive and at work, so that waiting for longer is reasonable; what the other ranks'
// records say is kept for the next look. *silent: a rank without a new heartbeat for LOOKS_STILL looks, or
// -1.
static bool somebody_works(watch *w, int *silent) {
    bool works = false;
    *silent = -1;
    for (int rank = 0; rank < world_size(w->world); rank++) {
        heartbeat seen;
        if (rank == w->own.rank || !heartbeat_read(w->folder, rank, &seen))
            continue;
        const bool lives = seen.beat != w->others[rank].beat;
        works = works || (lives && (seen.wait[0] == '\0' || seen.moves != w->others[rank].moves));
        w->quiet_looks[rank] = lives ? 0 : w->quiet_looks[rank] + 1;
        if (w->quiet_looks[rank] >= LOOKS_STILL)
            *silent = rank;
        w->others[rank] = seen;
    }
    return works;
}

static void check_deadline(watch *w) {
    const int phase = atomic_load(&w->phase);
    const char *setting = phase_names[phase == WATCH_END ? WATCH_SYNC : phase];
    if (w->plan.deadlines[phase] <= 0 || w->own.overdue <= 0) {
        w->looks_still = 0;
        return;
    }
    if (w->own.wait[0] != '\0') {
        int silent;
        w->looks_still = somebody_works(w, &silent) ? 0 : w->looks_still + 1;
        if (w->looks_still < LOOKS_STILL)
            return;
        if (silent >= 0)
            report_silent(w, &w->others[silent], w->quiet_looks[silent] * w->interval);
    }
    report_overdue(w, setting, w->plan.deadlines[phase]);
}

static void check_stop(watch *w) {
    const int phase = atomic_load(&w->phase);
    if (w->plan.stop <= 0 || !w->plan.stop_requested())
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    if (w->stop_since == 0)
        w->stop_since = seconds;
    if (seconds - w->stop_since <= w->plan.stop || phase == WATCH_SAVE || phase == WATCH_END)
        return;
    char own[512], line[1024];
    describe(w, &w->own, own, sizeof own);
    snprintf(line, sizeof line,
             "%s, has not finished its step within %g s of the request to stop (deadlines.stop); the step is "
             "abandoned, "
             "run again to continue from the newest checkpoint",
             own, w->plan.stop);
    pronounce(w, STATUS_STOPPED, line);
}

static bool sleep_until(watch *w, struct timespec *next) {
    const long long nanoseconds = (long long)next->tv_nsec + (long long)(w->interval * 1e9);
    next->tv_sec += nanoseconds / 1000000000;
    next->tv_nsec = nanoseconds % 1000000000;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec >
        next->tv_sec + 1) // after a suspension, or on a crowded machine: no beats are made up for
        *next = now;
    pthread_mutex_lock(&w->lock);
    while (!w->ends && pthread_cond_timedwait(&w->wake, &w->lock, next) != ETIMEDOUT)
        ;
    const bool ends = w->ends;
    pthread_mutex_unlock(&w->lock);
    return !ends;
}

static void *watch_over(void *context) {
    watch *w = context;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    do {
        observe_self(w);
        check_stop(w);
        check_deadline(w);
        look_at_successor(w);
    } while (sleep_until(w, &next));
    return NULL;
}

static status start_thread(watch *w) {
    pthread_condattr_t attributes;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    const int code = pthread_create(&w->thread, NULL, watch_over, w);
    if (code != 0)
        return FAIL("cannot start a thread: %s; raise the limit of processes ('ulimit -u')", strerror(code));
    pthread_setname_np(w->thread, "watch");
    return STATUS_OK;
}

status watch_start(watch **out, world *world, int first, const watch_plan *plan) {
    *out = NULL;
    watch *w = NULL;
    status result = memory_allocate((void **)&w, sizeof *w, "watch");
    if (result == STATUS_OK)
        result =
            memory_allocate((void **)&w->others, sizeof *w->others * (size_t)world_size(world), "heartbeats");
    if (result == STATUS_OK)
        result = memory_allocate((void **)&w->quiet_looks, sizeof *w->quiet_looks * (size_t)world_size(world),
                                 "heartbeats");
    if (result == STATUS_OK) {
        w->world = world;
        w->plan = *plan;
        w->interval = watch_interval(plan, world_size(world));
        w->own = (heartbeat){.rank = world_rank(world), .step = -1, .waits_for = -1};
        snprintf(w->own.host, sizeof w->own.host, "%s", world_host(world));
        snprintf(w->own.roles, sizeof w->own.roles, "%s", plan->roles);
        snprintf(w->folder, sizeof w->folder, "%s/heartbeats", plan->folder);
        atomic_store(&w->phase, WATCH_SYNC);
        if (world_rank(world) == first) {
            heartbeat_remove(w->folder, -1);
            if (mkdir(w->folder, 0777) != 0 && errno != EEXIST)
                result = FAIL("cannot create %s: %s; make the folder writable or choose another one",
                              w->folder, strerror(errno));
        }
    }
    result = world_agree(world, result);
    if (result == STATUS_OK) {
        result = start_thread(w);
        const bool started = result == STATUS_OK;
        result = world_agree(world, result);
        if (result != STATUS_OK && started) {
            watch_stop(w);
            return result;
        }
    }
    if (result != STATUS_OK) {
        if (w != NULL) {
            memory_free(w->others);
            memory_free(w->quiet_looks);
        }
        memory_free(w);
        return result;
    }
    w->deadline_before = world_deadline(world);
    world_set_deadline(world, 0.0); // how long to wait is decided here from now on
    *out = w;
    return STATUS_OK;
}

void watch_enter(watch *w, watch_phase phase, int64_t step) {
    if (w == NULL)
        return;
    atomic_store(&w->phase, (int)phase);
    atomic_store(&w->step, (long long)step);
    atomic_fetch_add(&w->entries, 1);
}

void watch_stop(watch *w) {
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->ends = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    if (w->deadline_before > 0.0)
        world_set_deadline(w->world, w->deadline_before);
    heartbeat_remove(w->folder, w->own.rank);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    memory_free(w->others);
    memory_free(w->quiet_looks);
    memory_free(w);
}
