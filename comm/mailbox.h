// Messages from rank to rank, in preallocated buffers. A rank may send to itself: the same calls, the same
// way.
//
// Sending returns at once; the buffer is free again when its message has been received. A rank computes
// between its calls, and MPI moves data only inside calls: whoever computes for long after sending calls
// mailbox_progress now and then (between token frames, say), or the receiver waits. Waiting polls with short
// sleeps and does not take the core from the threads it waits for.
#pragma once

#include "comm/message.h"
#include "comm/world.h"

typedef struct mailbox mailbox;

typedef struct mailbox_plan {
    size_t message_bytes; // of the longest message
    // Messages that this rank sends before it waits for anything that depends on their being received, and
    // messages that it holds (received and not released) at one time. Too few of either is an error, not a
    // hang.
    int sends, receives;
} mailbox_plan;

// Bytes of buffers that a plan takes.
size_t mailbox_bytes(const mailbox_plan *plan);

// Collective over all ranks; plans may differ. The caller owns *out. The calls below allocate nothing.
status mailbox_create(mailbox **out, world *world, const mailbox_plan *plan);
void mailbox_destroy(mailbox *mailbox); // collective; NULL is allowed; after mailbox_flush

// A free buffer for building a message in, 64-byte aligned, of *capacity bytes. Waits for earlier sends if
// all are under way. It belongs to the caller until mailbox_send or mailbox_release.
status mailbox_compose(mailbox *mailbox, void **buffer, size_t *capacity);

// Sends the message of `bytes` in a buffer from mailbox_compose to a rank; the buffer belongs to the mailbox
// again, also on failure.
status mailbox_send(mailbox *mailbox, void *buffer, size_t bytes, int rank);

// The next message of a kind from a rank, in the order in which that rank sent them. Fails after the world's
// deadline with "rank R on HOST: waited S s for a KIND from rank P on its host (PHASE)". The buffer is the
// caller's until mailbox_release. The content is not checked here; the parse functions do that.
status mailbox_receive(mailbox *mailbox, int rank, message_kind kind, const char *phase, const void **buffer,
                       size_t *bytes);
void mailbox_release(mailbox *mailbox, const void *buffer);

// Lets MPI work on messages under way; cheap, and returns at once.
status mailbox_progress(mailbox *mailbox);

// Waits until every message sent has been received.
status mailbox_flush(mailbox *mailbox);
