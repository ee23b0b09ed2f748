#include "launch/train_worker.h"

#include "data/publish.h"
#include "launch/heartbeat.h"
#include "launch/settings_record.h"
#include "launch/train_parts.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS_MAX = 64, HELD_MAX = 64, PAUSE_SHORTEST = 2000000, PAUSE_LONGEST = 200000000 };

// A part that another worker has claimed, and the sign of life that it gave last.
typedef struct held_part {
    exchange_part part;
    uint64_t beat;
    double since; // seconds of the monotonic clock
} held_part;

typedef struct worker {
    train train;
    unsigned carried;
    char owner[EXCHANGE_OWNER]; // "HOST-PROCESS", also the name of its folder in the session
    held_part held[HELD_MAX];
    int held_count;
    uint64_t seen_beat; // of the run's first learner
    double alive_at;    // when that last changed
} worker;

static bool same_part(const exchange_part *a, const exchange_part *b) {
    return a->round.kind == b->round.kind && a->round.step == b->round.step &&
           a->round.chunk == b->round.chunk && a->role == b->role && a->member == b->member;
}

// A worker that is stopped, or cut off from the folder, keeps its claim, but its heart stands still: after
// deadlines.silence its work is done again. Should it wake up, it makes the same.
static bool holder_is_gone(worker *w, const exchange_part *part, const char *holder) {
    char folder[PATH_MAX];
    heartbeat seen = {0};
    const double now = stage_seconds(), silence = w->train.config->deadlines.silence;
    int i = 0;
    if (snprintf(folder, sizeof folder, "%s/%s/heartbeats", exchange_session_path(w->train.exchange),
                 holder) >= (int)sizeof folder)
        return false;
    heartbeat_read(folder, 0, &seen);
    while (i < w->held_count && !same_part(&w->held[i].part, part))
        i++;
    if (i == HELD_MAX) { // not likely to matter any more
        memmove(w->held, w->held + 1, sizeof w->held[0] * (HELD_MAX - 1));
        i = --w->held_count;
    }
    held_part *held = &w->held[i];
    if (i == w->held_count || held->beat != seen.beat) {
        *held = (held_part){*part, seen.beat, now};
        w->held_count += i == w->held_count;
        return false;
    }
    return silence > 0.0 && now - held->since > silence;
}

// Claims some part that can be made now, of the oldest order that has one; *found is false if there is none.
// Scores come before rollouts, as the run waits for them last.
static status find_part(worker *w, exchange_part *part, int *claim, bool *found) {
    train *t = &w->train;
    sampling_round rounds[ROUNDS_MAX];
    int count;
    *found = false;
    TRY(exchange_orders(t->exchange, rounds, ROUNDS_MAX, &count));
    for (int i = 0; i < count; i++)
        for (int role = ROLE_REWARD; role >= ROLE_ROLLOUT; role--)
            for (int member = 0; member < t->layout.members[role].count; member++) {
                char holder[EXCHANGE_OWNER];
                *part = (exchange_part){rounds[i], (enum role)role, member};
                if (!(w->carried & 1u << role) || exchange_part_is_done(t->exchange, part) ||
                    !exchange_part_is_ready(t->exchange, part))
                    continue;
                TRY(exchange_part_claim(t->exchange, part, w->owner, claim, holder));
                // Between the look and the claim another worker may have finished it.
                *found =
                    *claim >= 0 ? !exchange_part_is_done(t->exchange, part) : holder_is_gone(w, part, holder);
                if (*found)
                    return STATUS_OK;
                exchange_folder_release(*claim);
            }
    return STATUS_OK;
}

static status make_part(worker *w, const exchange_part *part) {
    train *t = &w->train;
    t->step = part->round.step;
    t->part[part->role] = part->member;
    if (part->role == ROLE_ROLLOUT) {
        t->rollout.samples = roles_samples(&t->layout, ROLE_ROLLOUT, part->member);
        return train_rollout_round(t, &part->round);
    }
    t->reward.samples = roles_samples(&t->layout, ROLE_REWARD, part->member);
    return train_reward_round(t, &part->round);
}

// A run that does not end, but whose ranks are gone, leaves its session open.
static status check_run(worker *w) {
    char folder[PATH_MAX];
    heartbeat seen = {0};
    const run_config *config = w->train.config;
    const double now = stage_seconds();
    snprintf(folder, sizeof folder, "%s/heartbeats", config->folder);
    heartbeat_read(folder, roles_rank(&w->train.layout, ROLE_LEARNER, 0), &seen);
    if (seen.beat != w->seen_beat || w->alive_at == 0.0) {
        w->seen_beat = seen.beat;
        w->alive_at = now;
    }
    if (config->deadlines.start > 0.0 && now - w->alive_at > config->deadlines.start)
        return FAIL("nobody has run %s for %g s (deadlines.start); start the run, then workers",
                    config->folder, config->deadlines.start);
    return STATUS_OK;
}

// Nothing to do: looks ever more rarely.
static void rest(struct timespec *pause) {
    nanosleep(pause, NULL);
    pause->tv_nsec = pause->tv_nsec * 2 < PAUSE_LONGEST ? pause->tv_nsec * 2 : PAUSE_LONGEST;
}

static status is_ordered(const worker *w, const exchange_part *part, bool *ordered) {
    sampling_round rounds[ROUNDS_MAX];
    int count;
    *ordered = false;
    TRY(exchange_orders(w->train.exchange, rounds, ROUNDS_MAX, &count));
    for (int i = 0; i < count; i++) {
        const exchange_part open = {rounds[i], part->role, part->member};
        *ordered = *ordered || same_part(&open, part);
    }
    return STATUS_OK;
}

// `outcome` of the work on a part (NULL: of looking for one), unless there is nothing to be said against it:
// the run takes its files away under the hands of its workers when it ends or starts again (*current is false
// then) and when another worker was faster; and what is damaged is removed and made again.
static status forgive(const worker *w, const exchange_part *part, status outcome, bool *current) {
    char message[1024];
    bool ordered = true;
    if (outcome == STATUS_OK)
        return STATUS_OK;
    snprintf(message, sizeof message, "%s", status_message());
    TRY(exchange_is_current(w->train.exchange, current));
    if (!*current)
        return STATUS_OK;
    if (part != NULL) {
        TRY(is_ordered(w, part, &ordered));
        if (!ordered || exchange_part_is_done(w->train.exchange, part) ||
            !exchange_part_is_ready(w->train.exchange, part))
            return STATUS_OK;
    }
    return status_set(outcome, "%s", message);
}

// Takes up parts until the session is over.
static status serve(worker *w) {
    train *t = &w->train;
    struct timespec pause = {0, PAUSE_SHORTEST};
    bool current = true;
    while (current && !run_stop_requested()) {
        exchange_part part;
        int claim = -1;
        bool found = false;
        watch_enter(t->watch, WATCH_SYNC, t->step);
        TRY(forgive(w, NULL, find_part(w, &part, &claim, &found), &current));
        if (found) {
            const status made = make_part(w, &part);
            exchange_folder_release(claim);
            TRY(forgive(w, &part, made, &current));
            pause.tv_nsec = PAUSE_SHORTEST;
        } else if (current) {
            TRY(exchange_is_current(t->exchange, &current));
            TRY(check_run(w));
            rest(&pause);
        }
    }
    return STATUS_OK;
}

// Settings that results depend on must be the run's; builds and machines should be.
static status check_terms(const worker *w, const json_t *terms) {
    char identity[256];
    const char *theirs = json_string_value(json_object_get(terms, "identity"));
    train_identify(&w->train, identity, sizeof identity);
    if (theirs != NULL && strcmp(theirs, identity) != 0)
        fprintf(
            stderr,
            "musicrl: warning: this worker is '%s', the run '%s': results may differ in their last bits from "
            "a run on equal machines\n",
            identity, theirs);
    return settings_record_compare(json_object_get(terms, "settings"), w->train.settings,
                                   exchange_session_path(w->train.exchange),
                                   "start the worker with the settings of the run");
}

// Signs of life, in the session's own folder, for other workers to see.
static status begin_watch(worker *w) {
    char folder[PATH_MAX], roles[64] = "";
    train *t = &w->train;
    if (snprintf(folder, sizeof folder, "%s/%s", exchange_session_path(t->exchange), w->owner) >=
        (int)sizeof folder)
        return FAIL("path is too long: %.60s...", folder);
    for (int i = 0; i < ROLE_COUNT; i++)
        if (w->carried & 1u << i)
            snprintf(roles + strlen(roles), sizeof roles - strlen(roles), "%s%s", roles[0] != '\0' ? "+" : "",
                     roles_name((role)i));
    TRY(publish_make_folder(folder));
    const watch_plan plan = watch_plan_make(t->config, folder, roles);
    return watch_start(&t->watch, t->world, 0, &plan);
}

static status serve_session(worker *w) {
    train *t = &w->train;
    bool current = true;
    TRY(forgive(w, NULL, begin_watch(w), &current));
    if (!current)
        return STATUS_OK;
    printf("worker %s: works for %s\n", w->owner, exchange_session_path(t->exchange));
    fflush(stdout);
    t->rollout.packed_version = -1;
    w->held_count = 0;
    const status result = serve(w);
    watch_stop(t->watch);
    t->watch = NULL;
    return result;
}

// One session after the other: the run opens a new one whenever it starts. How an earlier run ended says
// nothing of the one that this worker was started for.
static status work(worker *w) {
    train *t = &w->train;
    struct timespec pause = {0, PAUSE_SHORTEST};
    bool served = false;
    while (!run_stop_requested()) {
        exchange_state state;
        json_t *terms = NULL;
        TRY(exchange_join(t->exchange, &state, &terms));
        if (served && state == EXCHANGE_FINISHED)
            return STATUS_OK;
        if (served && state == EXCHANGE_STOPPED)
            break;
        if (state != EXCHANGE_OPEN) {
            TRY(check_run(w));
            rest(&pause);
            continue;
        }
        const status result = check_terms(w, terms);
        json_decref(terms);
        TRY(result);
        TRY(serve_session(w));
        served = true;
    }
    return status_set(STATUS_STOPPED, "stopped on request");
}

static status choose_roles(worker *w, unsigned carried) {
    train *t = &w->train;
    const run_config *config = t->config;
    TRY(roles_parse(&t->layout, config->roles, 0, (uint32_t)config->train.batch,
                    (uint32_t)config->train.gradient_slots));
    const unsigned outside = roles_outside(&t->layout);
    if (outside == 0)
        return FAIL_USAGE(
            "roles=%s leaves nothing to workers; write ':' for '=', as in rollout:8,reward:2,learner=2",
            config->roles);
    w->carried = carried != 0 ? carried : outside;
    for (int i = 0; i < ROLE_COUNT; i++) {
        t->part[i] = w->carried & 1u << i ? 0 : -1;
        if (w->carried & ~outside & 1u << i)
            return FAIL_USAGE("a worker for %s is not wanted: roles=%s gives it to ranks of the run",
                              roles_name((role)i), config->roles);
    }
    return STATUS_OK;
}

static status run(worker *w, unsigned carried) {
    train *t = &w->train;
    char host[HOST_NAME_MAX + 1] = "";
    if (world_size(t->world) > 1)
        return FAIL_USAGE(
            "a worker is one process, here are %d ranks; start several, each by a launcher of its own",
            world_size(t->world));
    gethostname(host, sizeof host - 1);
    snprintf(w->owner, sizeof w->owner, "%s-%d", host, (int)getpid());
    TRY(choose_roles(w, carried));
    TRY(train_prepare(t, 0, "worker"));
    TRY(train_create_exchange(t));
    TRY(plan_check(&t->plan, t->world, 0, "worker"));
    return work(w);
}

status train_worker_run(const run_config *config, unsigned carried) {
    worker w = {.train = {.config = config, .is_worker = true}};
    run_catch_signals();
    const world_options options = {.threads = config->threads};
    TRY(world_create(&w.train.world, &options));
    const status result = run(&w, carried);
    run_speak_once(w.train.world, result);
    train_destroy(&w.train);
    return result;
}
