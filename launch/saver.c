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
    bool started, busy, ends;
    status outcome; // of writes, the first failure
    char message[MESSAGE_BYTES];
    double seconds;

    char folder[PATH_MAX];
    uint64_t step;
    json_t *state;
    saver_hooks hooks;
};

static status write_files(saver *s) {
    checkpoint_writer *writer;
    if (s->hooks.before != NULL)
        TRY(s->hooks.before(s->hooks.context));
    TRY(checkpoint_begin(&writer, s->folder, s->step, s->kind));
    for (int i = 0; i < s->file_count; i++) {
        const saved_file *f = &s->files[i];
        const status added = checkpoint_add_tensors(writer, f->name, f->copies, f->count, NULL, 0);
        if (added != STATUS_OK) {
            checkpoint_abort(writer);
            return added;
        }
    }
    TRY(checkpoint_commit(writer, s->state));
    return s->hooks.after != NULL ? s->hooks.after(s->hooks.context) : STATUS_OK;
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
        const status result = write_files(s);
        json_decref(s->state);
        s->state = NULL;
        pthread_mutex_lock(&s->lock);
        s->seconds = stage_seconds() - start;
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
    s->started = true;
    return STATUS_OK;
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
    pthread_mutex_lock(&s->lock);
    s->busy = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
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
    pthread_mutex_unlock(&s->lock);
    return seconds;
}
