// One NVIDIA GPU: its memory, its stream, and what can go wrong with them. Every call of the CUDA runtime
// goes through a table, so that failures can be injected and the logic is tested where there is no card.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

// Of the runtime's functions those that are used, by their published signatures; outcomes are cudaError_t, 0
// is success.
typedef struct cuda_calls {
    int (*driver_version)(int *version); // 0: no driver
    int (*runtime_version)(int *version);
    int (*device_count)(int *count);
    int (*set_device)(int device);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*memory_info)(size_t *free, size_t *total);
    int (*allocate)(void **out, size_t bytes);
    int (*release)(void *pointer);
    int (*copy)(void *to, const void *from, size_t bytes, int kind, void *stream);
    int (*fill)(void *to, int byte, size_t bytes, void *stream);
    int (*stream_create)(void **out);
    int (*stream_destroy)(void *stream);
    int (*stream_wait)(void *stream);
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

typedef struct card card;
// Takes GPU `number` of the machine. calls is borrowed. Fails with one line if this build has no CUDA, and if
// there is no driver, one that is too old, no such GPU, or one below compute capability 8.0.
status card_open(card **out, const cuda_calls *calls, int number);
void card_close(card *card); // NULL is allowed
int card_number(const card *card);
int card_multiprocessors(const card *card);
void card_capability(const card *card, int *major, int *minor); // compute capability
void *card_stream(card *card);

// Zeroed. Where memory runs out, the message has the sizes.
status card_allocate(card *card, void **out, size_t bytes, const char *what);
void card_free(card *card, void *pointer); // NULL is allowed

// In the order of the stream. The host's memory may be changed, or read, as soon as the call returns.
status card_upload(card *card, void *to, const void *from, size_t bytes);
status card_download(card *card, void *to, const void *from, size_t bytes);
void card_zero(card *card, void *to, size_t bytes);

// Takes the outcome of a launch that has no status to return: the first failure is kept, and the next call
// that has one returns it. what: "attention", ...
void card_note(card *card, int code, const char *what);
// Waits for all work; the first failure so far.
status card_finish(card *card);
// The first failure noted so far, without waiting.
status card_check(const card *card);
