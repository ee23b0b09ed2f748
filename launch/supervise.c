#include "launch/supervise.h"

#include "data/checkpoint.h"
#include "launch/heartbeat.h"
#include "launch/run_folder.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    ARGUMENTS_MAX = 512,
    LINE_BYTES = 4096,
    SIGKILL_SECONDS = 2,
    END_SECONDS = 15, // of mpirun's silence after it has told of a rank's end
    LOOK_SECONDS = 3,
    PAUSE_SECONDS = 2,
    LOCK_TRIES = 4
};

static volatile sig_atomic_t requests;  // to stop, so far
static volatile sig_atomic_t impatient; // of them, by SIGINT, SIGTERM or SIGHUP
static volatile sig_atomic_t launcher;  // process of mpirun, 0 while there is none

// The ranks get SIGUSR1, which mpirun hands on; SIGTERM would give them no more time than mpirun's own
// patience. Who asks twice does not want to wait.
static void hand_on(int signal_number) {
    requests++;
    if (signal_number != SIGUSR1)
        impatient++;
    const int strongest = impatient > 2 ? SIGKILL : impatient > 1 ? SIGTERM : SIGUSR1;
    if (launcher > 0)
        kill((pid_t)launcher, signal_number == SIGUSR1 ? SIGUSR1 : strongest);
}

static void catch_signals(void) {
    struct sigaction action = {.sa_handler = hand_on, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL); // the terminal is gone
    sigaction(SIGUSR1, &action, NULL);
}

static status tell_stopped(void) {
    return status_set(STATUS_STOPPED, "stopped on request; run again to continue");
}

static void describe_step(int64_t step, char *text, size_t size) {
    if (step < 0)
        snprintf(text, size, "the beginning");
    else
        snprintf(text, size, "the checkpoint of step %lld", (long long)step);
}

bool restart_rule_allows(restart_rule *rule, int64_t step, char *reason, size_t size) {
    char where[64];
    describe_step(step, where, sizeof where);
    rule->crashes++;
    rule->stuck = step > rule->step ? 1 : rule->stuck + 1;
    rule->step = step;
    if (rule->stuck > SUPERVISE_STUCK_MOST) {
        snprintf(reason, size, "%d restarts in a row got no further than %s; mend the cause and run it again",
                 SUPERVISE_STUCK_MOST, where);
        return false;
    }
    if (rule->crashes > rule->max_restarts) {
        snprintf(reason, size, "%d restart%s allowed (--max-restarts); run it again to continue from %s",
                 rule->max_restarts, rule->max_restarts == 1 ? " is" : "s are", where);
        return false;
    }
    return true;
}

void crash_cause_begin(crash_cause *cause) {
    *cause = (crash_cause){.rank = -1};
}

void crash_cause_read(crash_cause *cause, const char *line) {
    const char *found;
    int rank = -1, code = 0;
    char host[64] = "";
    if (strncmp(line, "musicrl: ", 9) == 0 && strncmp(line, "musicrl: warning", 16) != 0) {
        snprintf(cause->line, sizeof cause->line, "%.*s", (int)strcspn(line + 9, "\n"), line + 9);
        if (cause->rank < 0 && sscanf(cause->line, "rank %d on %63[^ ,:]", &rank, host) == 2) {
            cause->rank = rank;
            snprintf(cause->host, sizeof cause->host, "%s", host);
        }
    } else if ((found = strstr(line, "noticed that process rank ")) != NULL) {
        if (sscanf(found, "noticed that process rank %d with PID %*d on node %63s exited on signal %d", &rank,
                   host, &code) == 3) {
            cause->rank = rank;
            cause->signal = code;
            snprintf(cause->host, sizeof cause->host, "%s", host);
        }
    } else if ((found = strstr(line, "Process name: [[")) != NULL) {
        if (sscanf(found, "Process name: [[%*d,%*d],%d]", &rank) == 1 && cause->rank < 0)
            cause->rank = rank;
    } else if ((found = strstr(line, "Exit code:")) != NULL) {
        if (sscanf(found, "Exit code: %d", &code) == 1)
            cause->code = code;
    }
}

static int64_t newest_step(const char *folder) {
    char path[PATH_MAX];
    checkpoint_list list;
    int64_t newest = -1;
    snprintf(path, sizeof path, "%s/checkpoints", folder);
    if (checkpoint_list_folder(&list, path) != STATUS_OK)
        return -1;
    for (size_t i = 0; i < list.count; i++)
        if ((int64_t)list.entries[i].step > newest)
            newest = (int64_t)list.entries[i].step;
    checkpoint_list_free(&list);
    return newest;
}

// Copies what mpirun and the ranks say on stderr, looking for the cause. Open MPI 4 can hang at its own end,
// after a rank was killed while it started: then it is ended. A request to stop that came before the ranks
// were there is lost: it is made again as long as they are.
static void relay(int source, pid_t mpirun, crash_cause *cause) {
    char line[LINE_BYTES];
    size_t used = 0;
    int quiet = 0; // looks in a row at which nothing was said
    for (;;) {
        char bytes[LINE_BYTES];
        struct pollfd readable = {.fd = source, .events = POLLIN};
        const bool told = cause->signal != 0 || cause->code != 0;
        const int ready = poll(&readable, 1, LOOK_SECONDS * 1000);
        if (ready < 0 && errno == EINTR)
            continue;
        quiet = ready == 0 ? quiet + 1 : 0;
        if (ready == 0 && !(told && quiet * LOOK_SECONDS >= END_SECONDS)) {
            if (requests > 0)
                kill(mpirun, SIGUSR1);
            continue;
        }
        if (ready == 0) {
            fprintf(stderr, "musicrl: mpirun has not ended %d s after a rank did; it is ended\n",
                    END_SECONDS);
            kill(mpirun, SIGKILL);
            return;
        }
        const ssize_t count = read(source, bytes, sizeof bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return;
        for (ssize_t done = 0; done < count;) {
            const ssize_t written = write(STDERR_FILENO, bytes + done, (size_t)(count - done));
            if (written < 0 && errno != EINTR)
                break; // nobody listens any more; the run goes on
            done += written > 0 ? written : 0;
        }
        for (ssize_t i = 0; i < count; i++) {
            if (used < sizeof line - 1)
                line[used++] = bytes[i];
            if (bytes[i] == '\n') {
                line[used] = '\0';
                crash_cause_read(cause, line);
                used = 0;
            }
        }
    }
}

// mpirun's own options. Ranks share what cores there are, whatever their number; threads follow from that.
static int compose(const supervision *plan, char *arguments[ARGUMENTS_MAX], char ranks[16],
                   char patience[16]) {
    int count = 0;
    snprintf(ranks, 16, "%d", plan->ranks);
    snprintf(patience, 16, "%d", SIGKILL_SECONDS);
    arguments[count++] = "mpirun";
    arguments[count++] = "--bind-to";
    arguments[count++] = "none";
    arguments[count++] = "--oversubscribe";
    if (geteuid() == 0)
        arguments[count++] = "--allow-run-as-root";
    arguments[count++] = "--mca";
    arguments[count++] = "odls_base_sigkill_timeout"; // of the others, after a rank has died
    arguments[count++] = patience;
    arguments[count++] = "-n";
    arguments[count++] = ranks;
    for (int i = 0; i < plan->count && count < ARGUMENTS_MAX - 1; i++)
        arguments[count++] = plan->words[i];
    arguments[count] = NULL;
    return count;
}

// One run of the command; *outcome is its exit status, 128 + signal if mpirun itself was ended by one.
static status start_once(const supervision *plan, crash_cause *cause, int *outcome) {
    static const int handed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
    char *arguments[ARGUMENTS_MAX], ranks[16], patience[16];
    int ends[2];
    sigset_t held, before;
    if (plan->count > ARGUMENTS_MAX - 16)
        return FAIL_USAGE("%d words on the command line, at most %d are possible", plan->count,
                          ARGUMENTS_MAX - 16);
    compose(plan, arguments, ranks, patience);
    crash_cause_begin(cause);
    if (pipe(ends) != 0)
        return FAIL("cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    // A request that came between looking for one and noting to whom it is handed on would be lost, and so
    // would one that the child took with this process' handler.
    sigemptyset(&held);
    for (size_t i = 0; i < sizeof handed_on / sizeof handed_on[0]; i++)
        sigaddset(&held, handed_on[i]);
    sigprocmask(SIG_BLOCK, &held, &before);
    const pid_t parent = getpid(), child = requests > 0 ? -1 : fork();
    if (child < 0) {
        const status result =
            requests > 0 ? tell_stopped() : FAIL("cannot start mpirun: %s", strerror(errno));
        sigprocmask(SIG_SETMASK, &before, NULL);
        close(ends[0]);
        close(ends[1]);
        return result;
    }
    if (child == 0) {
        // Out of the terminal's reach: its Ctrl-C comes here alone, and is handed on as a request.
        setpgid(0, 0);
        for (size_t i = 0; i < sizeof handed_on / sizeof handed_on[0]; i++)
            signal(handed_on[i], SIG_DFL); // a request before mpirun begins ends it
        sigprocmask(SIG_SETMASK, &before, NULL);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            _exit(1);
        if (freopen("/dev/null", "r", stdin) == NULL)
            _exit(1);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        setenv("GOMP_SPINCOUNT", "2000", 0); // or every rank sets it and starts a second time (cmd/main.c)
        execvp("mpirun", arguments);
        dprintf(STDERR_FILENO, "musicrl: cannot start mpirun: %s; put Open MPI's mpirun in PATH\n",
                strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    launcher = child;
    sigprocmask(SIG_SETMASK, &before, NULL);
    relay(ends[0], child, cause);
    close(ends[0]);
    int state = 0;
    while (waitpid(child, &state, 0) < 0 && errno == EINTR)
        ;
    launcher = 0;
    *outcome = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return STATUS_OK;
}

// "rank 2 on host (rollout+reward+learner) was ended by signal 9 (Killed) in learn of step 7"
static void describe_crash(const char *folder, const crash_cause *cause, int outcome, char *text,
                           size_t size) {
    heartbeat last;
    char end[128], where[256] = "";
    if (cause->signal != 0)
        snprintf(end, sizeof end, "was ended by signal %d (%s)", cause->signal, strsignal(cause->signal));
    else
        snprintf(end, sizeof end, "exited with status %d", cause->code != 0 ? cause->code : outcome);
    if (cause->signal == 0 && cause->line[0] != '\0') {
        snprintf(text, size, "%s", cause->line);
    } else if (cause->rank < 0) {
        snprintf(text, size, "mpirun ended with status %d and does not say which rank began it", outcome);
    } else {
        if (heartbeat_read(folder, cause->rank, &last))
            snprintf(where, sizeof where, " (%s) in phase %s of step %lld", last.roles, last.phase,
                     (long long)last.step + 1);
        snprintf(text, size, "rank %d on %s%s %s", cause->rank,
                 cause->host[0] != '\0' ? cause->host : "this host", where, end);
    }
}

static void pause_between(void) {
    const struct timespec pause = {PAUSE_SECONDS, 0};
    if (requests == 0)
        nanosleep(&pause, NULL); // a request ends it early
}

// Forgets what an earlier run's ranks said, provided that it is over.
static status clear_heartbeats(const char *folder, const char *heartbeats, bool again) {
    struct stat info;
    int lock;
    if (stat(folder, &info) != 0)
        return STATUS_OK;
    // Ranks that mpirun left behind end within some seconds.
    status result = STATUS_FAILED;
    for (int tries = 0; result != STATUS_OK && tries < (again ? LOCK_TRIES : 1); tries++) {
        if (tries > 0)
            pause_between();
        if (requests > 0)
            return tell_stopped();
        result = run_lock_folder(folder, &lock);
    }
    TRY(result);
    heartbeat_remove(heartbeats, -1);
    close(lock);
    return STATUS_OK;
}

// What shows that a run got anywhere, whatever became of it: its metrics, whose file grows, or is replaced,
// or is gone.
static struct stat look_at_metrics(const char *folder) {
    char path[PATH_MAX];
    struct stat info;
    snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
    return stat(path, &info) == 0 ? info : (struct stat){0};
}

static bool metrics_changed_since(const char *folder, const struct stat *before) {
    const struct stat now = look_at_metrics(folder);
    return now.st_size + before->st_size > 0 &&
           (now.st_ino != before->st_ino || now.st_size != before->st_size);
}

status supervise(const supervision *plan) {
    char heartbeats[PATH_MAX];
    snprintf(heartbeats, sizeof heartbeats, "%s/heartbeats", plan->folder);
    catch_signals();
    restart_rule rule = {.max_restarts = plan->max_restarts, .step = newest_step(plan->folder)};
    for (;;) {
        crash_cause cause;
        int outcome = 0;
        char what[1024], reason[256];
        TRY(clear_heartbeats(plan->folder, heartbeats, rule.crashes > 0));
        const struct stat metrics = look_at_metrics(plan->folder);
        TRY(start_once(plan, &cause, &outcome));
        if (outcome == STATUS_OK)
            return STATUS_OK;
        const int64_t step = newest_step(plan->folder);
        describe_crash(heartbeats, &cause, outcome, what, sizeof what);
        if (outcome != STATUS_STOPPED && requests > 0)
            fprintf(stderr, "musicrl: ended before it could write a checkpoint of its last steps: %s\n",
                    what);
        if (outcome == STATUS_STOPPED || requests > 0)
            return tell_stopped();
        if (outcome == STATUS_USAGE)
            return status_set(STATUS_USAGE, "%s", "");
        // What fails by itself before it is anywhere would do so again; what is killed while it loads would
        // not.
        if (!metrics_changed_since(plan->folder, &metrics) && rule.crashes == 0 && cause.signal == 0)
            return FAIL("the run failed before its first step: %s", what);
        if (!restart_rule_allows(&rule, step, reason, sizeof reason))
            return FAIL("%s; %s", what, reason);
        char from[64];
        describe_step(step, from, sizeof from);
        // Its own message is on the screen already.
        fprintf(stderr, "musicrl: %s; restart %d of at most %d, from %s\n",
                cause.signal == 0 && cause.line[0] != '\0' ? "ended by what is said above" : what,
                rule.crashes, rule.max_restarts, from);
        pause_between();
    }
}
