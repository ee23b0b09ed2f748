// NCCL, NVIDIA's collectives on device buffers, opened at run time: the program neither links with it nor
// needs its header, and starts without it.
#pragma once

#include "comm/group.h"
#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct nccl_library nccl_library;

// Opens NCCL and looks up what is used of it: the file `path`, or where that is NULL the one that the
// environment variable MUSICRL_NCCL names, or where that is unset or empty libnccl.so.2 as the loader finds
// it. Fails with one line if it is missing, older than 2.14 (the first with communicators that do not block),
// or lacks a function. The caller owns *out. Touches no device.
status nccl_library_open(nccl_library **out, const char *path);
void nccl_library_close(nccl_library *library); // NULL is allowed; after its communicators are destroyed

// As NCCL encodes it: 10000 * major + 100 * minor + patch, 22809 for 2.28.9.
int nccl_library_version(const nccl_library *library);
const char *nccl_library_version_text(const nccl_library *library); // "2.28.9"

// The file that was opened, as the loader names it.
const char *nccl_library_path(const nccl_library *library);

// Whether NCCL can serve a group.
typedef enum nccl_service {
    NCCL_SERVES,
    NCCL_ABSENT, // a member has no NCCL or no device
    NCCL_SHARED, // several members on one device, which NCCL refuses (or hangs at)
} nccl_service;

typedef struct nccl_agreement {
    nccl_service service;
    char line[1024]; // the reason where NCCL does not serve, or what is worth knowing; "" if nothing
} nccl_agreement;

enum { NCCL_DEVICE_SIZE = 64 };

// Whether NCCL can serve `group`; collective over its members, and the same answer with the same text on each
// of them, so that one may say it once. Where it cannot, the caller goes another way; that is no failure.
// `library` is NULL on a member that has none, `missing` then says why (nccl_library_open's message).
// `device` names this member's card, so that members of one host on one card name it alike (the PCI bus id;
// at most NCCL_DEVICE_SIZE - 1 bytes); NULL or "" if it has none. Several members may share a card where each
// has NCCL 2.30 or newer and NCCL_MULTI_RANK_GPU_ENABLE=1. Members with different versions of NCCL are a
// failure, with the same line on each: rank, host and both versions.
status nccl_agree(group *group, const nccl_library *library, const char *missing, const char *device,
                  nccl_agreement *agreement);

typedef struct nccl_communicator nccl_communicator;

// A communicator for `group`, whose members all call it after an agreement on NCCL_SERVES, each with its
// device current in the calling thread. `deadline_seconds` bounds this call and every later wait for NCCL; 0:
// the world's deadline at the time does. Either every member gets a communicator or every member fails, with
// a line of the first member that knows more than that it waited. The library and the group must outlive it.
// The caller owns *out.
//
// In the calls below `stream` is the device's stream, buffers are device buffers, and counts are elements. A
// call returns once NCCL has it, though perhaps not yet in the stream; the buffers are in use until nccl_wait
// says that it is done.
// Any failure aborts the communicator (on this member: the others run into their deadline or NCCL's own
// error); the run must end, by world_abort. One thread at a time.
status nccl_communicator_create(nccl_communicator **out, nccl_library *library, group *group,
                                double deadline_seconds);

// Waits for the other members to do the same, at most the deadline; NULL is allowed.
void nccl_communicator_destroy(nccl_communicator *communicator);

typedef enum nccl_type { NCCL_BYTE, NCCL_FLOAT, NCCL_DOUBLE, NCCL_BFLOAT16 } nccl_type;
size_t nccl_type_bytes(nccl_type type);

// receive [count] = the sum of send [count] over members; `receive` may be `send`.
status nccl_all_reduce(nccl_communicator *communicator, const void *send, void *receive, size_t count,
                       nccl_type type, void *stream);

// buffer [count] of member `root` = the sum of buffer [count] over members; the others' are only read.
status nccl_reduce(nccl_communicator *communicator, void *buffer, size_t count, nccl_type type, int root,
                   void *stream);

// buffer [count], from member `root` to all.
status nccl_broadcast(nccl_communicator *communicator, void *buffer, size_t count, nccl_type type, int root,
                      void *stream);

// Collectives between begin and end are launched together by the end; none of them runs before.
status nccl_bundle_begin(nccl_communicator *communicator);
status nccl_bundle_end(nccl_communicator *communicator);

// Waits until NCCL has put what was started last into its stream, as nothing else may enter that before.
status nccl_settle(nccl_communicator *communicator);

// Asks, without blocking, whether the stream has passed the last collective (an event recorded after it).
typedef status (*nccl_query)(void *context, bool *done);

// The watchdog: waits until `query` says done, and looks at NCCL's own errors meanwhile. After the deadline,
// or on an error of either, the communicator is aborted and the status names rank, host, the collectives
// since the last wait with type and bytes, and the time waited. Returns within the deadline and 5 s for the
// abort.
status nccl_wait(nccl_communicator *communicator, nccl_query query, void *context);
