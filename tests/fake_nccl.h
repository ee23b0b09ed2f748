// A stand-in for NCCL that works on host memory among the processes of one machine, through a shared memory
// object that the unique id names, and records the calls. Like a communicator that does not block, it is "in
// progress" for a while after most calls, and after the first collective until all ranks have started theirs;
// what was called is in the stream no sooner than a poll says that it is at rest.
//
// Environment variables of the calling process, looked at in each call, make it misbehave. NAME is unique_id,
// init, all_reduce, reduce, broadcast, finalize or abort.
//   FAKE_NCCL_VERSION=N    the version that it claims (23007)
//   FAKE_NCCL_REFUSE=NAME  the call returns an error
//   FAKE_NCCL_BREAK=NAME   the call succeeds, and an error comes from behind later
//   FAKE_NCCL_HANG=NAME    what the call starts never ends; ncclCommAbort itself never returns
//   FAKE_NCCL_HANG_AFTER=N so many collectives of that name are done first (0)
//   FAKE_NCCL_STALL=NAME   the call of a collective stays in progress for ever
#pragma once

#include <stdatomic.h>
#include <stdint.h>

// What takes the place of a stream: work put into it and done, in collectives.
typedef struct fake_stream {
    _Atomic uint64_t launched, completed;
} fake_stream;

// The calls so far, a line each ("all_reduce 1024 7 0": count, type, operation or root where there is one).
// Exported for dlsym; the text is cut at 16 KiB.
typedef const char *(*fake_nccl_calls_function)(void);
