// What a backward pass tells of its progress. The flat buffer of gradients is laid out in the order of the
// forward pass (core/parameters.h), so that gradients become final from its end to its beginning.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

typedef struct gradient_watch {
    // The pass adds nothing more to the gradients from `from` to the end. `from` falls from call to call, and
    // is 0 in the last.
    status (*final)(void *context, size_t from);
    void *context;
} gradient_watch;

// `watch` may be NULL.
static inline status gradient_watch_tell(const gradient_watch *watch, size_t from) {
    return watch == NULL ? STATUS_OK : watch->final(watch->context, from);
}
