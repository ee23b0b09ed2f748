#include "kernels/cuda/card.h"

#include "kernels/memory.h"

#include <stdio.h>
#include <string.h>

// Values of the runtime's enumerations.
enum {
    SUCCESS = 0,
    OUT_OF_MEMORY = 2,
    INSUFFICIENT_DRIVER = 35,
    DEVICES_UNAVAILABLE = 46,
    NO_DEVICE = 100,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
    HOST_TO_DEVICE = 1,
    DEVICE_TO_HOST = 2,
    ATTRIBUTE_MULTIPROCESSORS = 16,
    ATTRIBUTE_CAPABILITY_MAJOR = 75,
    ATTRIBUTE_CAPABILITY_MINOR = 76,
    ATTRIBUTE_HOST_PAGE_TABLES = 100,
};
enum { OLDEST_MAJOR = 8 };

typedef struct allocation {
    void *pointer;
    size_t bytes;
} allocation;

struct card {
    const cuda_calls *calls;
    int number, multiprocessors, major, minor, driver, runtime;
    char name[64], bus[32];
    void *stream;
    int failed;              // first outcome that was not success
    const char *failed_what; // what failed then
    char failed_line[512];   // or the whole line, if not empty
    allocation *allocations; // [allocation_count] that are held
    size_t allocation_count, allocation_capacity;
    uint64_t live, peak; // bytes of them; of the plan, while there is one
    bool planning, recording;
    bool reads_late; // from any memory of the host after the call that copies it has returned
    uint64_t unplanned_live, unplanned_peak; // live and peak from before the plan
    uintptr_t next_address;                  // of what is planned
};

#if !MUSICRL_CUDA
const cuda_calls *cuda_calls_of_this_build(void) {
    return NULL;
}
#endif

struct card_lane {
    card *card;
    void *stream, *event;
};

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
    if (c->failed_line[0] != '\0')
        return FAIL("%s", c->failed_line);
    return c->failed == SUCCESS ? STATUS_OK : fail(c, c->failed, c->failed_what);
}

status card_count(const cuda_calls *calls, int *out) {
    int driver = 0, runtime = 0, count = 0;
    *out = 0;
    if (calls == NULL)
        return FAIL("this program was built without CUDA: build it where nvcc is, with MUSICRL_CUDA=ON");
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
    *out = count;
    return STATUS_OK;
}

// What is told of a card, which nothing needs, and how it reads the host's memory.
static void describe(card *c) {
    if (c->calls->driver_version(&c->driver) != SUCCESS || c->calls->runtime_version(&c->runtime) != SUCCESS)
        c->driver = c->runtime = 0;
    if (c->calls->device_name(c->name, sizeof c->name, c->number) != SUCCESS)
        snprintf(c->name, sizeof c->name, "GPU");
    int host_page_tables = 0;
    c->reads_late =
        c->calls->device_attribute(&host_page_tables, ATTRIBUTE_HOST_PAGE_TABLES, c->number) == SUCCESS &&
        host_page_tables != 0;
    if (c->calls->device_bus(c->bus, sizeof c->bus, c->number) != SUCCESS)
        snprintf(c->bus, sizeof c->bus, "GPU %d", c->number);
}

status card_open(card **out, const cuda_calls *calls, int number) {
    int count;
    *out = NULL;
    TRY(card_count(calls, &count));
    if (number < 0 || number >= count)
        return FAIL("GPU %d is wanted, there are %d here, counted from 0", number, count);
    card *c;
    TRY(memory_allocate((void **)&c, sizeof *c, "GPU"));
    *c = (card){.calls = calls, .number = number};
    describe(c);
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
    memory_free(c->allocations);
    memory_free(c);
}

int card_number(const card *c) {
    return c->number;
}

const char *card_name(const card *c) {
    return c->name;
}

const char *card_bus(const card *c) {
    return c->bus;
}

void card_cuda_versions(const card *c, int *driver, int *runtime) {
    *driver = c->driver;
    *runtime = c->runtime;
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

// Room for one more.
static status grow_list(card *c) {
    if (c->allocation_count < c->allocation_capacity)
        return STATUS_OK;
    const size_t capacity = c->allocation_capacity == 0 ? 64 : 2 * c->allocation_capacity;
    allocation *larger;
    TRY(memory_allocate((void **)&larger, sizeof *larger * capacity, "list of GPU memory"));
    if (c->allocation_count > 0)
        memcpy(larger, c->allocations, sizeof *larger * c->allocation_count);
    memory_free(c->allocations);
    c->allocations = larger;
    c->allocation_capacity = capacity;
    return STATUS_OK;
}

static void note_allocation(card *c, void *pointer, size_t bytes) {
    c->allocations[c->allocation_count++] = (allocation){pointer, bytes};
    c->live += bytes;
    c->peak = c->live > c->peak ? c->live : c->peak;
}

static void forget_allocation(card *c, const void *pointer) {
    size_t i = c->allocation_count;
    while (i > 0 && c->allocations[i - 1].pointer != pointer)
        i--;
    if (i == 0)
        return;
    c->live -= c->allocations[i - 1].bytes;
    c->allocations[i - 1] = c->allocations[--c->allocation_count];
}

static status out_of_memory(const card *c, size_t bytes, const char *what) {
    size_t free = 0, total = 0;
    if (c->calls->memory_info(&free, &total) != SUCCESS)
        return FAIL("out of memory on GPU %d: %s needs %zu bytes; use a smaller batch or model", c->number,
                    what, bytes);
    return FAIL("out of memory on GPU %d: %s needs %zu bytes, %zu of %zu are free; use a smaller batch or "
                "model, or more GPUs",
                c->number, what, bytes, free, total);
}

// Of a call that a recording cannot hold.
static status refuse_while_recording(card *c, const char *what) {
    return c->recording ? must(c, CAPTURE_UNSUPPORTED, what) : card_check(c);
}

status card_allocate(card *c, void **out, size_t bytes, const char *what) {
    *out = NULL;
    TRY(refuse_while_recording(c, what));
    TRY(grow_list(c));
    if (c->planning) {
        *out = (void *)c->next_address;
        c->next_address += (bytes + 256) / 256 * 256;
        note_allocation(c, *out, bytes);
        return STATUS_OK;
    }
    const int code = c->calls->allocate(out, bytes > 0 ? bytes : 1);
    if (code == OUT_OF_MEMORY) {
        *out = NULL;
        return out_of_memory(c, bytes, what);
    }
    TRY(must(c, code, what));
    card_zero(c, *out, bytes);
    if (c->failed == SUCCESS) {
        note_allocation(c, *out, bytes);
        return STATUS_OK;
    }
    c->calls->release(*out);
    *out = NULL;
    return card_check(c);
}

void card_free(card *c, void *pointer) {
    if (pointer == NULL)
        return;
    forget_allocation(c, pointer);
    if (!c->planning)
        card_note(c, c->calls->release(pointer), "freeing memory");
}

status card_read_memory(card *c, card_memory *out) {
    size_t free = 0, total = 0;
    *out = (card_memory){.live_bytes = c->live, .peak_bytes = c->peak};
    TRY(card_check(c));
    TRY(must(c, c->calls->memory_info(&free, &total), "asking for its memory"));
    out->free_bytes = free;
    out->total_bytes = total;
    return STATUS_OK;
}

void card_plan_begin(card *c) {
    c->planning = true;
    c->unplanned_live = c->live;
    c->unplanned_peak = c->peak;
    c->live = c->peak = 0;
    // Where no system has memory; aligned as the runtime's.
    c->next_address = (uintptr_t)1 << 62;
}

uint64_t card_plan_end(card *c) {
    const uint64_t planned = c->peak;
    c->planning = false;
    c->live = c->unplanned_live;
    c->peak = c->unplanned_peak;
    return planned;
}

bool card_is_planning(const card *c) {
    return c->planning;
}

status card_upload(card *c, void *to, const void *from, size_t bytes) {
    TRY(refuse_while_recording(c, "copying to the GPU"));
    if (c->planning)
        return STATUS_OK;
    TRY(must(c, c->calls->copy(to, from, bytes, HOST_TO_DEVICE, c->stream), "copying to the GPU"));
    // Memory that is not pinned has been read when the call returns, unless the card uses the host's page
    // tables.
    return c->reads_late ? card_finish(c) : STATUS_OK;
}

status card_download(card *c, void *to, const void *from, size_t bytes) {
    TRY(refuse_while_recording(c, "copying from the GPU"));
    if (c->planning) {
        memset(to, 0, bytes);
        return STATUS_OK;
    }
    TRY(must(c, c->calls->copy(to, from, bytes, DEVICE_TO_HOST, c->stream), "copying from the GPU"));
    return card_finish(c);
}

void card_zero(card *c, void *to, size_t bytes) {
    if (!c->planning)
        card_note(c, c->calls->fill(to, 0, bytes, c->stream), "clearing memory");
}

bool card_pin(card *c, void *host, size_t bytes) {
    return !c->planning && c->calls->pin(host, bytes) == SUCCESS;
}

void card_unpin(card *c, void *host) {
    card_note(c, c->calls->unpin(host), "giving up pinned memory");
}

status card_lane_open(card_lane **out, card *c) {
    *out = NULL;
    card_lane *lane;
    TRY(memory_allocate((void **)&lane, sizeof *lane, "stream for transfers"));
    lane->card = c;
    card_note(c, c->calls->stream_create(&lane->stream), "making a stream");
    card_note(c, c->calls->event_create(&lane->event), "making an event");
    const status result = card_check(c);
    if (result != STATUS_OK)
        card_lane_close(lane);
    else
        *out = lane;
    return result;
}

void card_lane_close(card_lane *lane) {
    if (lane == NULL)
        return;
    const cuda_calls *calls = lane->card->calls;
    if (lane->event != NULL)
        calls->event_destroy(lane->event);
    if (lane->stream != NULL)
        calls->stream_destroy(lane->stream);
    memory_free(lane);
}

void *card_lane_stream(const card_lane *lane) {
    return lane->stream;
}

status card_lane_follow(card_lane *lane) {
    card *c = lane->card;
    card_note(c, c->calls->event_record(lane->event, c->stream), "marking its work");
    card_note(c, c->calls->stream_follow(lane->stream, lane->event), "following its work");
    return card_check(c);
}

status card_lane_ended(card_lane *lane, bool *ended) {
    card *c = lane->card;
    const int code = c->calls->stream_query(lane->stream);
    *ended = code != NOT_READY;
    if (*ended)
        card_note(c, code, "a transfer between GPUs");
    return card_check(c);
}

void card_note(card *c, int code, const char *what) {
    if (code == SUCCESS || c->failed != SUCCESS)
        return;
    c->failed = code;
    c->failed_what = what;
}

void card_note_message(card *c) {
    enum { OUT_OF_MEMORY = 2 };
    if (c->failed != SUCCESS)
        return;
    c->failed = OUT_OF_MEMORY;
    snprintf(c->failed_line, sizeof c->failed_line, "%s", status_message());
}

status card_record_begin(card *c) {
    TRY(card_check(c));
    TRY(must(c, c->calls->capture_begin(c->stream), "recording work"));
    c->recording = true;
    return STATUS_OK;
}

status card_record_end(card *c, void **out) {
    void *graph = NULL;
    *out = NULL;
    c->recording = false;
    // Ended also after a failure, or the stream would stay as it is.
    card_note(c, c->calls->capture_end(c->stream, &graph), "recording work");
    if (c->failed == SUCCESS)
        card_note(c, c->calls->graph_instantiate(out, graph), "recording work");
    if (graph != NULL)
        card_note(c, c->calls->graph_destroy(graph), "recording work");
    if (c->failed == SUCCESS)
        return STATUS_OK;
    card_forget(c, *out);
    *out = NULL;
    return card_check(c);
}

void card_replay(card *c, void *recording) {
    if (c->failed == SUCCESS)
        card_note(c, c->calls->graph_launch(recording, c->stream), "recorded work");
}

void card_forget(card *c, void *recording) {
    if (recording != NULL)
        card_note(c, c->calls->executable_destroy(recording), "giving up recorded work");
}

status card_finish(card *c) {
    TRY(refuse_while_recording(c, "waiting for its work"));
    return must(c, c->calls->stream_wait(c->stream), "its work");
}

status card_check(const card *c) {
    if (c->failed_line[0] != '\0')
        return FAIL("%s", c->failed_line);
    return c->failed == SUCCESS ? STATUS_OK : fail(c, c->failed, c->failed_what);
}
