#include "launch/run_folder.h"

#include "data/publish.h"
#include "kernels/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number) {
    (void)signal_number;
    stop_requested = 1;
}

void run_catch_signals(void) {
    struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

bool run_stop_requested(void) {
    return stop_requested != 0;
}

// The holder's process and host stand in the file, for the one that finds it locked.
status run_lock_folder(const char *folder, int *descriptor) {
    char path[PATH_MAX], holder[320] = "", host[HOST_NAME_MAX + 1] = "";
    snprintf(path, sizeof path, "%s/run.lock", folder);
    const int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0)
        return FAIL("cannot write to %s: %s; make the folder writable or choose another one", path,
                    strerror(errno));
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
        const int reason = errno;
        const ssize_t length = pread(file, holder, sizeof holder - 1, 0);
        close(file);
        if (reason == EWOULDBLOCK)
            return FAIL("%s is being written by %s; wait for it to end or choose another folder", folder,
                        length > 0 ? holder : "another process");
        return FAIL("cannot lock %s: %s; use a file system with locks", path, strerror(reason));
    }
    gethostname(host, sizeof host - 1);
    const int length = snprintf(holder, sizeof holder, "process %d on %s", (int)getpid(), host);
    // A name that cannot be left there (a full disk) makes the lock no weaker.
    if (ftruncate(file, 0) != 0 || pwrite(file, holder, (size_t)length, 0) != length)
        errno = 0;
    *descriptor = file;
    return STATUS_OK;
}

bool run_folder_began(const char *folder) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/run.lock", folder);
    return access(path, F_OK) == 0;
}

void run_speak_once(const world *world, status outcome) {
    if (outcome == STATUS_OK)
        return;
    if (world_rank(world) == 0 && outcome != STATUS_STOPPED)
        fprintf(stderr, "musicrl: %s\n", status_message());
    status_set(outcome, "%s", "");
}

// The checkpoints after the newest sound one.
static status set_damaged_aside(const run_folder *run, const checkpoint *newest) {
    checkpoint_list list;
    TRY(checkpoint_list_folder(&list, run->checkpoints));
    status result = STATUS_OK;
    for (size_t i = 0; i < list.count && newest != NULL && result == STATUS_OK; i++)
        if (list.entries[i].step > checkpoint_describe(newest)->step)
            result = checkpoint_set_aside(list.entries[i].path);
    checkpoint_list_free(&list);
    return result;
}

// The checkpoint that the writing rank opened, on all others too: one that only they cannot read must not
// make them take up another.
static status open_chosen(const run_folder *run, world *world, checkpoint **resume) {
    int step = *resume != NULL ? (int)checkpoint_describe(*resume)->step : -1;
    TRY(world_largest(world, step, &step));
    return step < 0 || run->writes ? STATUS_OK
                                   : checkpoint_open_step(resume, run->checkpoints, (uint64_t)step);
}

status run_folder_open(run_folder *run, world *world, const char *path, int writer, checkpoint **resume) {
    *resume = NULL;
    *run = (run_folder){.writes = world_rank(world) == writer};
    snprintf(run->path, sizeof run->path, "%s", path);
    snprintf(run->checkpoints, sizeof run->checkpoints, "%s/checkpoints", path);
    status result = STATUS_OK;
    if (run->writes) {
        const bool began = run_folder_began(run->path);
        result = publish_make_folder(run->checkpoints);
        if (result == STATUS_OK)
            result = run_lock_folder(run->path, &run->lock);
        if (result == STATUS_OK && began)
            result = publish_sweep(run->path);
        if (result == STATUS_OK)
            result = publish_sweep(run->checkpoints);
    }
    TRY(world_agree(world, result));
    if (run->writes)
        result = checkpoint_find_newest(resume, run->checkpoints, model_listener, NULL);
    TRY(world_agree(world, result));
    result = world_agree(world, open_chosen(run, world, resume));
    if (result == STATUS_OK)
        result = world_agree(world, run->writes ? set_damaged_aside(run, *resume) : STATUS_OK);
    if (result != STATUS_OK) {
        checkpoint_close(*resume);
        *resume = NULL;
    }
    return result;
}

status run_folder_start(run_folder *run, const run_config *config, int64_t step) {
    if (!run->writes)
        return STATUS_OK;
    char path[RUN_CONFIG_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/config.yaml", run->path);
    TRY(run_config_write(config, path));
    TRY(event_file_open(&run->events, run->path, step));
    snprintf(path, sizeof path, "%s/metrics.jsonl", run->path);
    TRY(metrics_open(&run->metrics, path, step, run->events));
    if (metrics_note(run->metrics)[0] != '\0')
        model_listener(NULL, metrics_note(run->metrics));
    return STATUS_OK;
}

void run_folder_close(run_folder *run) {
    if (run->metrics != NULL)
        metrics_close(run->metrics);
    event_file_close(run->events);
    if (run->lock > 0)
        close(run->lock);
    run->lock = 0;
    run->metrics = NULL;
    run->events = NULL;
}

static status sync_metrics(void *context) {
    const run_folder *run = context;
    return metrics_sync(run->metrics);
}

static status prune(void *context) {
    const run_folder *run = context;
    const checkpoint_keep keep = {.last = RUN_STAGE_KEEPS, .every = 0, .best = -1};
    return checkpoint_prune(run->checkpoints, &keep, NULL, NULL);
}

status run_folder_save(run_folder *run, saver *saver, int64_t step, json_t *state) {
    const saver_hooks hooks = {.before = sync_metrics, .after = prune, .context = run};
    if (state == NULL)
        return FAIL("the checkpoint of step %lld cannot be described: one of its numbers is not finite",
                    (long long)step);
    return saver_start(saver, run->checkpoints, (uint64_t)step, state, &hooks);
}

void run_optimizer_name(const char *name, int part, int parts, char text[RUN_OPTIMIZER_NAME]) {
    if (parts == 1)
        snprintf(text, RUN_OPTIMIZER_NAME, "%s.safetensors", name);
    else
        snprintf(text, RUN_OPTIMIZER_NAME, "%s-part-%04d-of-%04d.safetensors", name, part, parts);
}

int run_optimizer_views(const optimizer *o, const float *moments, tensor_view views[RUN_OPTIMIZER_TENSORS]) {
    const int64_t shape[] = {2, (int64_t)o->count}, one[] = {1};
    views[0] = tensor_view_make("moments", TENSOR_F32, moments, 2, shape);
    views[1] = tensor_view_make("step", TENSOR_I64, &o->step, 1, one);
    views[2] = tensor_view_make("first", TENSOR_U64, &o->first, 1, one);
    return o->count == o->list->size ? 2 : 3;
}

static status mirror_moments(mirror *out, const optimizer *o) {
    return mirror_create(out, o->device, o->moments, sizeof(float) * 2 * o->count,
                         "optimiser moments on the host");
}

status run_add_optimizer(saver *saver, const char *name, const optimizer *o, int part, int parts) {
    tensor_view views[RUN_OPTIMIZER_TENSORS];
    saved_tensor tensors[RUN_OPTIMIZER_TENSORS];
    char file[RUN_OPTIMIZER_NAME];
    const int count = run_optimizer_views(o, o->moments, views);
    for (int i = 0; i < count; i++)
        tensors[i] = (saved_tensor){views[i], i == 0 ? o->device : NULL};
    run_optimizer_name(name, part, parts, file);
    return saver_add_tensors(saver, file, tensors, (size_t)count);
}

// What a file and the optimiser have in common of the moments goes into moments [2, o->count] on the host;
// *found counts it.
static status read_part(const checkpoint *checkpoint, const char *name, optimizer *o, float *moments,
                        size_t *found) {
    const int64_t one[] = {1};
    const tensor_view *view;
    safetensors *file;
    uint64_t first = 0;
    TRY(checkpoint_open_tensors(checkpoint, name, &file));
    status result;
    TRY_GOTO(result, safetensors_find(file, "moments", &view), done);
    TRY_GOTO(result, safetensors_read(file, "step", TENSOR_I64, 1, one, &o->step), done);
    if (safetensors_has(file, "first"))
        TRY_GOTO(result, safetensors_read(file, "first", TENSOR_U64, 1, one, &first), done);
    const size_t count = view->rank == 2 ? (size_t)view->shape[1] : 0, size = o->list->size;
    if (view->type != TENSOR_F32 || view->rank != 2 || view->shape[0] != 2 || first > size ||
        count > size - first) {
        result = FAIL("%s/%s: its moments are not [2, %zu] of F32, or a part of them",
                      checkpoint_path(checkpoint), name, size);
        goto done;
    }
    const size_t end = (size_t)first + count, own_end = o->first + o->count,
                 from = first > o->first ? (size_t)first : o->first, to = end < own_end ? end : own_end;
    for (size_t row = 0; row < 2 && from < to; row++)
        memcpy(moments + row * o->count + (from - o->first),
               (const char *)view->data + sizeof(float) * (row * count + (from - (size_t)first)),
               sizeof(float) * (to - from));
    *found += from < to ? to - from : 0;
done:
    safetensors_close(file);
    return result;
}

static status read_parts(const checkpoint *checkpoint, const char *name, optimizer *o, float *moments) {
    char file[RUN_OPTIMIZER_NAME];
    int parts = 1;
    size_t found = 0;
    for (run_optimizer_name(name, 0, parts, file);
         parts < RUN_OPTIMIZER_PARTS && !checkpoint_has(checkpoint, file);)
        run_optimizer_name(name, 0, parts *= 2, file);
    if (!checkpoint_has(checkpoint, file))
        run_optimizer_name(name, 0, parts = 1, file); // for the message
    for (int part = 0; part < parts; part++) {
        run_optimizer_name(name, part, parts, file);
        TRY(read_part(checkpoint, file, o, moments, &found));
    }
    if (found != o->count)
        return FAIL("%s: its %d parts of %s hold %zu of the %zu moments that are wanted",
                    checkpoint_path(checkpoint), parts, name, found, o->count);
    return STATUS_OK;
}

status run_load_optimizer(const checkpoint *checkpoint, const char *name, optimizer *o) {
    mirror moments;
    TRY(mirror_moments(&moments, o));
    status result = read_parts(checkpoint, name, o, moments.host);
    if (result == STATUS_OK)
        result = mirror_store(&moments);
    mirror_release(&moments);
    return result;
}
