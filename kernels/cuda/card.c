#include "kernels/cuda/card.h"

#include "kernels/memory.h"

#include <stdbool.h>

// Values of the runtime's enumerations.
enum {
    SUCCESS = 0,
    OUT_OF_MEMORY = 2,
    INSUFFICIENT_DRIVER = 35,
    DEVICES_UNAVAILABLE = 46,
    NO_DEVICE = 100,
    HOST_TO_DEVICE = 1,
    DEVICE_TO_HOST = 2,
    ATTRIBUTE_MULTIPROCESSORS = 16,
    ATTRIBUTE_CAPABILITY_MAJOR = 75,
    ATTRIBUTE_CAPABILITY_MINOR = 76,
};
enum { OLDEST_MAJOR = 8 };

struct card {
    const cuda_calls *calls;
    int number, multiprocessors, major, minor;
    void *stream;
    int failed;              // first outcome that was not success
    const char *failed_what; // what failed then
};

#if !MUSICRL_CUDA
const cuda_calls *cuda_calls_of_this_build(void) {
    return NULL;
}
#endif

static status fail(const card *c, int code, const char *what) {
    const char *text = c->calls->error_text(code);
    if (code == DEVICES_UNAVAILABLE)
        return FAIL(
            "GPU %d is in use by another process that wants it alone (%s): free it, or choose another "
            "with CUDA_VISIBLE_DEVICES",
            c->number, text);
    // Nothing works on a GPU after one of these but a new process.
    return FAIL(
        "GPU %d failed at %s: %s (CUDA error %d); nvidia-smi and the kernel's log tell more, the last "
        "checkpoint is intact: start the run again",
        c->number, what, text, code);
}

static status must(card *c, int code, const char *what) {
    if (code != SUCCESS && c->failed == SUCCESS) {
        c->failed = code;
        c->failed_what = what;
    }
    return c->failed == SUCCESS ? STATUS_OK : fail(c, c->failed, c->failed_what);
}

static status find_gpu(const cuda_calls *calls, int number) {
    int driver = 0, runtime = 0, count = 0;
    if (calls->driver_version(&driver) != SUCCESS || driver == 0)
        return FAIL("no NVIDIA driver on this machine: install one, or run on the CPU");
    calls->runtime_version(&runtime);
    const int code = calls->device_count(&count);
    if (code == INSUFFICIENT_DRIVER)
        return FAIL("the NVIDIA driver supports CUDA %d.%d, this build needs %d.%d: install a newer driver",
                    driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (code != SUCCESS && code != NO_DEVICE)
        return FAIL("the GPUs of this machine cannot be counted: %s (CUDA error %d)", calls->error_text(code),
                    code);
    if (count == 0 || code == NO_DEVICE)
        return FAIL("no GPU on this machine is visible: look at nvidia-smi and CUDA_VISIBLE_DEVICES");
    if (number < 0 || number >= count)
        return FAIL("GPU %d is wanted, there are %d here, counted from 0", number, count);
    return STATUS_OK;
}

status card_open(card **out, const cuda_calls *calls, int number) {
    *out = NULL;
    if (calls == NULL)
        return FAIL("this program was built without CUDA: build it where nvcc is, with MUSICRL_CUDA=ON");
    TRY(find_gpu(calls, number));
    card *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "GPU"));
    *c = (card){.calls = calls, .number = number};
    status result;
    TRY_GOTO(result, must(c, calls->device_attribute(&c->major, ATTRIBUTE_CAPABILITY_MAJOR, number), "start"),
             failed);
    TRY_GOTO(result, must(c, calls->device_attribute(&c->minor, ATTRIBUTE_CAPABILITY_MINOR, number), "start"),
             failed);
    if (c->major < OLDEST_MAJOR) {
        result = FAIL("GPU %d has compute capability %d.%d, at least %d.0 is wanted (Ampere or newer)",
                      number, c->major, c->minor, OLDEST_MAJOR);
        goto failed;
    }
    TRY_GOTO(
        result,
        must(c, calls->device_attribute(&c->multiprocessors, ATTRIBUTE_MULTIPROCESSORS, number), "start"),
        failed);
    TRY_GOTO(result, must(c, calls->set_device(number), "start"), failed);
    TRY_GOTO(result, must(c, calls->stream_create(&c->stream), "start"), failed);
    *out = c;
    return STATUS_OK;
failed:
    card_close(c);
    return result;
}

void card_close(card *c) {
    if (c == NULL)
        return;
    if (c->stream != NULL)
        c->calls->stream_destroy(c->stream);
    memory_free(c);
}

int card_number(const card *c) {
    return c->number;
}

int card_multiprocessors(const card *c) {
    return c->multiprocessors;
}

void card_capability(const card *c, int *major, int *minor) {
    *major = c->major;
    *minor = c->minor;
}

void *card_stream(card *c) {
    return c->stream;
}

status card_allocate(card *c, void **out, size_t bytes, const char *what) {
    *out = NULL;
    TRY(card_check(c));
    const int code = c->calls->allocate(out, bytes > 0 ? bytes : 1);
    if (code == OUT_OF_MEMORY) {
        size_t free = 0, total = 0;
        *out = NULL;
        if (c->calls->memory_info(&free, &total) != SUCCESS)
            return FAIL("out of memory on GPU %d: %s needs %zu bytes; use a smaller batch or model",
                        c->number, what, bytes);
        return FAIL(
            "out of memory on GPU %d: %s needs %zu bytes, %zu of %zu are free; use a smaller batch or "
            "model, or more GPUs",
            c->number, what, bytes, free, total);
    }
    TRY(must(c, code, what));
    card_zero(c, *out, bytes);
    if (c->failed == SUCCESS)
        return STATUS_OK;
    c->calls->release(*out);
    *out = NULL;
    return card_check(c);
}

void card_free(card *c, void *pointer) {
    if (pointer != NULL)
        card_note(c, c->calls->release(pointer), "freeing memory");
}

status card_upload(card *c, void *to, const void *from, size_t bytes) {
    TRY(card_check(c));
    // Memory that is not pinned has been read when the call returns.
    return must(c, c->calls->copy(to, from, bytes, HOST_TO_DEVICE, c->stream), "copying to the GPU");
}

status card_download(card *c, void *to, const void *from, size_t bytes) {
    TRY(card_check(c));
    TRY(must(c, c->calls->copy(to, from, bytes, DEVICE_TO_HOST, c->stream), "copying from the GPU"));
    return card_finish(c);
}

void card_zero(card *c, void *to, size_t bytes) {
    card_note(c, c->calls->fill(to, 0, bytes, c->stream), "clearing memory");
}

void card_note(card *c, int code, const char *what) {
    if (code == SUCCESS || c->failed != SUCCESS)
        return;
    c->failed = code;
    c->failed_what = what;
}

status card_finish(card *c) {
    return must(c, c->calls->stream_wait(c->stream), "its work");
}

status card_check(const card *c) {
    return c->failed == SUCCESS ? STATUS_OK : fail(c, c->failed, c->failed_what);
}
