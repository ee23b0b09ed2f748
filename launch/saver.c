#include "launch/saver.h"

#include "kernels/memory.h"
#include "launch/stage.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { FILES_MAX = 64, NAME_MAX_BYTES = 64, MESSAGE_BYTES = 2048 };

typedef struct saved_file {
    char name[NAME_MAX_BYTES];
    size_t count;
    saved_tensor *live;  // [count]
    tensor_view *copies; // [count]
    char *names, *bytes; // of the copies
} saved_file;

struct saver {
    char kind[CHECKPOINT_TEXT];
    saved_file files[FILES_MAX];
    int file_count;

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // Guarded by the lock, but for the job and the copies: the thread alone has them while `busy`.
    bool started, busy, begun, ends;
    bool is_shared, is_first; // of several that write together
    status outcome;           // of writes, the first failure
    char message[MESSAGE_BYTES];
    double seconds; // of writes, not told yet

    char folder[PATH_MAX];
    uint64_t step;
    json_t *state;
    saver_hooks hooks;
    checkpoint_writer *writer; // of what is begun and not committed
    bool commits;              // the job: to commit, with the receipts of the others
    char *receipts;            // [others][SAVER_RECEIPTS]
    int others;
    char own_receipts[SAVER_RECEIPTS];
};

static status add_files(saver *s) {
    for (int i = 0; i < s->file_count; i++) {
        const saved_file *f = &s->files[i];
        TRY(checkpoint_add_tensors(s->writer, f->name, f->copies, f->count, NULL, 0));
    }
    return STATUS_OK;
}

// Up to what is common to all: the files are durable in the unpublished checkpoint.
static status write_files(saver *s) {
    if (s->hooks.before != NULL)
        TRY(s->hooks.before(s->hooks.context));
    if (s->is_shared && !s->is_first)
        TRY(checkpoint_join(&s->writer, s->folder, s->step));
    else
        TRY(checkpoint_begin(&s->writer, s->folder, s->step, s->kind));
    pthread_mutex_lock(&s->lock);
    s->begun = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    TRY(add_files(s));
    if (!s->is_shared || s->is_first)
        return STATUS_OK;
    TRY(checkpoint_receipts(s->writer, s->own_receipts, sizeof s->own_receipts));
    checkpoint_leave(s->writer);
    s->writer = NULL;
    return STATUS_OK;
}

static status commit(saver *s) {
    for (int i = 0; i < s->others; i++)
        TRY(checkpoint_admit(s->writer, s->receipts + (size_t)i * SAVER_RECEIPTS));
    const status result = checkpoint_commit(s->writer, s->state);
    s->writer = NULL;
    TRY(result);
    return s->hooks.after != NULL ? s->hooks.after(s->hooks.context) : STATUS_OK;
}

// What is begun and not committed is given up: by the one that began it, as a whole.
static void give_up(saver *s) {
    if (s->is_shared && !s->is_first)
        checkpoint_leave(s->writer);
    else
        checkpoint_abort(s->writer);
    s->writer = NULL;
}

static status do_job(saver *s) {
    status result = s->commits ? STATUS_OK : write_files(s);
    const bool goes_on = s->is_shared && s->is_first && !s->commits; // the state is for the commit
    if (result == STATUS_OK && (s->commits || !s->is_shared))
        result = commit(s);
    if (result != STATUS_OK)
        give_up(s);
    if (!goes_on || result != STATUS_OK) {
        json_decref(s->state);
        s->state = NULL;
    }
    return result;
}

static void *work(void *argument) {
    saver *s = argument;
    memory_leave_uncounted();
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->busy && !s->ends)
            pthread_cond_wait(&s->changed, &s->lock);
        if (!s->busy)
            break;
        pthread_mutex_unlock(&s->lock);
        const double start = stage_seconds();
        const status result = do_job(s);
        pthread_mutex_lock(&s->lock);
        s->seconds += stage_seconds() - start;
        if (result != STATUS_OK && s->outcome == STATUS_OK) {
            s->outcome = result;
            snprintf(s->message, sizeof s->message, "checkpoint of step %llu: %s",
                     (unsigned long long)s->step, status_message());
        }
        s->busy = false;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

status saver_create(saver **out, const char *kind) {
    *out = NULL;
    saver *s;
    TRY(memory_allocate((void **)&s, sizeof *s, "saver"));
    snprintf(s->kind, sizeof s->kind, "%s", kind);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    *out = s;
    return STATUS_OK;
}

void saver_destroy(saver *s) {
    if (s == NULL)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->ends = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    give_up(s);
    json_decref(s->state);
    memory_free(s->receipts);
    for (int i = 0; i < s->file_count; i++) {
        memory_free(s->files[i].live);
        memory_free(s->files[i].copies);
        memory_free(s->files[i].names);
        memory_free(s->files[i].bytes);
    }
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    memory_free(s);
}

static size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

status saver_add_tensors(saver *s, const char *name, const saved_tensor *tensors, size_t count) {
    if (s->file_count == FILES_MAX || strlen(name) >= NAME_MAX_BYTES)
        return FAIL("a checkpoint cannot take '%.80s' as its file %d: at most %d, of %d letters", name,
                    s->file_count + 1, FILES_MAX, NAME_MAX_BYTES - 1);
    saved_file *f = &s->files[s->file_count++];
    snprintf(f->name, sizeof f->name, "%s", name);
    f->count = count;
    size_t bytes = 0, letters = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += aligned(tensor_view_bytes(&tensors[i].view));
        letters += strlen(tensors[i].view.name) + 1;
    }
    TRY(memory_allocate((void **)&f->live, sizeof *f->live * (count + 1), "saved views"));
    TRY(memory_allocate((void **)&f->copies, sizeof *f->copies * (count + 1), "saved views"));
    TRY(memory_allocate((void **)&f->names, letters + 1, "saved views"));
    TRY(memory_allocate((void **)&f->bytes, bytes + 1, "checkpoint copy"));
    char *next_name = f->names, *next_bytes = f->bytes;
    for (size_t i = 0; i < count; i++) {
        const tensor_view *view = &tensors[i].view;
        const size_t length = strlen(view->name) + 1;
        f->live[i] = tensors[i];
        f->copies[i] = *view;
        memcpy(next_name, view->name, length);
        f->live[i].view.name = f->copies[i].name = next_name;
        f->copies[i].data = next_bytes;
        next_name += length;
        next_bytes += aligned(tensor_view_bytes(view));
    }
    return STATUS_OK;
}

// A signal is for the thread that runs the loop. The lock is not held.
static status start_thread(saver *s) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&s->thread, NULL, work, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return FAIL("cannot start the thread that writes checkpoints: %s", strerror(error));
    pthread_setname_np(s->thread, "saver");
    s->started = true;
    return STATUS_OK;
}

static void begin_job(saver *s) {
    pthread_mutex_lock(&s->lock);
    s->busy = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static status copy_file(const saved_file *f) {
    for (size_t i = 0; i < f->count; i++) {
        const saved_tensor *from = &f->live[i];
        void *to = (void *)f->copies[i].data; // within f->bytes
        const size_t bytes = tensor_view_bytes(&from->view);
        if (from->device != NULL)
            TRY(device_download(from->device, to, from->view.data, bytes));
        else
            memcpy(to, from->view.data, bytes);
    }
    return STATUS_OK;
}

status saver_start(saver *s, const char *folder, uint64_t step, json_t *state, const saver_hooks *hooks) {
    status result = saver_wait(s);
    if (result == STATUS_OK && !s->started)
        result = start_thread(s);
    if (result == STATUS_OK && snprintf(s->folder, sizeof s->folder, "%s", folder) >= (int)sizeof s->folder)
        result = FAIL("path is too long: %.60s...", folder);
    for (int i = 0; i < s->file_count && result == STATUS_OK; i++)
        result = copy_file(&s->files[i]);
    if (result != STATUS_OK) {
        json_decref(state);
        return result;
    }
    s->step = step;
    s->state = state;
    s->hooks = hooks != NULL ? *hooks : (saver_hooks){0};
    s->commits = s->begun = false;
    begin_job(s);
    if (!s->is_shared || !s->is_first)
        return STATUS_OK;
    pthread_mutex_lock(&s->lock);
    while (s->busy && !s->begun)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
    return saver_check(s);
}

status saver_share(saver *s, bool first, int others) {
    s->is_shared = true;
    s->is_first = first;
    s->others = first ? others : 0;
    return memory_allocate((void **)&s->receipts, (size_t)others * SAVER_RECEIPTS + 1, "receipts");
}

bool saver_is_written(saver *s) {
    pthread_mutex_lock(&s->lock);
    const bool busy = s->busy;
    pthread_mutex_unlock(&s->lock);
    return !busy;
}

status saver_receipts(saver *s, char *text) {
    const status result = saver_wait(s);
    snprintf(text, SAVER_RECEIPTS, "%s", s->own_receipts);
    return result;
}

status saver_commit(saver *s, const char *receipts) {
    TRY(saver_wait(s));
    memcpy(s->receipts, receipts, (size_t)s->others * SAVER_RECEIPTS);
    s->commits = true;
    begin_job(s);
    return STATUS_OK;
}

static status take_outcome(saver *s, bool waits) {
    pthread_mutex_lock(&s->lock);
    while (waits && s->busy)
        pthread_cond_wait(&s->changed, &s->lock);
    const status result = s->outcome;
    if (result != STATUS_OK)
        status_set(result, "%s", s->message);
    s->outcome = STATUS_OK;
    pthread_mutex_unlock(&s->lock);
    return result;
}

status saver_check(saver *s) {
    return take_outcome(s, false);
}

status saver_wait(saver *s) {
    return take_outcome(s, true);
}

double saver_write_seconds(saver *s) {
    pthread_mutex_lock(&s->lock);
    const double seconds = s->seconds;
    s->seconds = 0.0;
    pthread_mutex_unlock(&s->lock);
    return seconds;
}
