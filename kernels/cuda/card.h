// One NVIDIA GPU: its memory, its stream, and what can go wrong with them. Every call of the CUDA runtime
// goes through a table, so that failures can be injected and the logic is tested where there is no card.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Of the runtime's functions those that are used, by their published signatures; outcomes are cudaError_t, 0
// is success.
typedef struct cuda_calls {
    int (*driver_version)(int *version); // 0: no driver
    int (*runtime_version)(int *version);
    int (*device_count)(int *count);
    int (*set_device)(int device);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*device_name)(char *out, int bytes, int device); // "NVIDIA H200"
    int (*device_bus)(char *out, int bytes, int device);  // "0000:1b:00.0"
    int (*memory_info)(size_t *free, size_t *total);
    int (*allocate)(void **out, size_t bytes);
    int (*release)(void *pointer);
    int (*copy)(void *to, const void *from, size_t bytes, int kind, void *stream);
    int (*fill)(void *to, int byte, size_t bytes, void *stream);
    int (*stream_create)(void **out);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
    int (*stream_query)(void *stream);               // cudaErrorNotReady while there is work in it
    int (*stream_follow)(void *stream, void *event); // what comes into it later waits for the event
    int (*event_create)(void **out);                 // without a time
    int (*event_record)(void *event, void *stream);
    int (*event_destroy)(void *event);
    int (*pin)(void *host, size_t bytes); // leaves no error behind where memory cannot be locked
    int (*unpin)(void *host);
    // What is issued to the stream between the first two is not done but kept as a graph.
    int (*capture_begin)(void *stream);
    int (*capture_end)(void *stream, void **graph);
    int (*graph_instantiate)(void **executable, void *graph);
    int (*graph_destroy)(void *graph);
    int (*graph_launch)(void *executable, void *stream);
    int (*executable_destroy)(void *executable);
    const char *(*error_text)(int code);
} cuda_calls;

#ifdef __cplusplus
extern "C" {
#endif
// The CUDA runtime's own functions; NULL in a program that was built without CUDA.
const cuda_calls *cuda_calls_of_this_build(void);
#ifdef __cplusplus
}
#endif

// How many GPUs this process sees, at least 1. Fails with one line if this build has no CUDA, and if there is
// no driver, one that is too old, or no GPU.
status card_count(const cuda_calls *calls, int *count);

typedef struct card card;
// Takes GPU `number` of those that this process sees. calls is borrowed. Fails as card_count, and if there is
// no such GPU, or if it is below compute capability 8.0.
status card_open(card **out, const cuda_calls *calls, int number);
void card_close(card *card); // NULL is allowed
int card_number(const card *card);
const char *card_name(const card *card);
const char *card_bus(const card *card); // PCI bus id: the same for every process on this card
void card_cuda_versions(const card *card, int *driver, int *runtime); // 13000: 13.0
int card_multiprocessors(const card *card);
void card_capability(const card *card, int *major, int *minor); // compute capability
void *card_stream(card *card);

// Zeroed. Where memory runs out, the message has the sizes.
status card_allocate(card *card, void **out, size_t bytes, const char *what);
void card_free(card *card, void *pointer); // NULL is allowed

typedef struct card_memory {
    uint64_t live_bytes, peak_bytes;  // that card_allocate gave, now and at most
    uint64_t free_bytes, total_bytes; // of the card, whoever holds the rest
} card_memory;
status card_read_memory(card *card, card_memory *out);

// From here on memory is only counted: addresses are made up, copies do nothing, downloads give zeros.
void card_plan_begin(card *card);
// To be called when all that was allocated since is freed; the most bytes that were held at once.
uint64_t card_plan_end(card *card);
bool card_is_planning(const card *card);

// In the order of the stream. The host's memory may be changed, or read, as soon as the call returns.
status card_upload(card *card, void *to, const void *from, size_t bytes);
status card_download(card *card, void *to, const void *from, size_t bytes);
void card_zero(card *card, void *to, size_t bytes);

// As device_pin and device_unpin. Memory that is pinned may still be read when an upload returns.
bool card_pin(card *card, void *host, size_t bytes);
void card_unpin(card *card, void *host);

// As the device_lane of kernels/device.h: a second stream, and the event by which it follows the first.
typedef struct card_lane card_lane;
status card_lane_open(card_lane **out, card *card);
void card_lane_close(card_lane *lane); // NULL is allowed
void *card_lane_stream(const card_lane *lane);
status card_lane_follow(card_lane *lane);
status card_lane_ended(card_lane *lane, bool *ended);

// What is issued to the stream between these two is not done, but kept: card_replay does all of it. Memory
// cannot be allocated, copied from or to the host, or waited for meanwhile. Nothing is kept after a failure.
// *out: given back with card_forget.
status card_record_begin(card *card);
status card_record_end(card *card, void **out);
void card_replay(card *card, void *recording);
void card_forget(card *card, void *recording); // NULL is allowed

// Takes the outcome of a launch that has no status to return: the first failure is kept, and the next call
// that has one returns it. what: "attention", ...
void card_note(card *card, int code, const char *what);
// The same of a failure that has a line already, the status message.
void card_note_message(card *card);
// Waits for all work; the first failure so far.
status card_finish(card *card);
// The first failure noted so far, without waiting.
status card_check(const card *card);
