#include "comm/mailbox.h"

#include "comm/mpi_call.h"
#include "kernels/memory.h"

#include <limits.h>

typedef enum slot_state { SLOT_FREE, SLOT_CALLER, SLOT_SENDING } slot_state;

struct mailbox {
    world *world;
    MPI_Comm comm;
    MPI_Datatype unit; // 64 bytes: counts stay small however long a message is
    mailbox_plan plan;
    char *buffers;         // [sends + receives][message_bytes]
    slot_state *states;    // [sends + receives]
    MPI_Request *requests; // [sends]
    int *peers;            // [sends]
};

size_t mailbox_bytes(const mailbox_plan *plan) {
    return (size_t)(plan->sends + plan->receives) * message_padded(plan->message_bytes);
}

status mailbox_create(mailbox **out, world *world, const mailbox_plan *plan) {
    *out = NULL;
    if (plan->sends < 1 || plan->receives < 1)
        return FAIL("a mailbox of %d send and %d receive buffers; each must be at least 1", plan->sends,
                    plan->receives);
    if (plan->message_bytes == 0 || plan->message_bytes / MESSAGE_ALIGNMENT >= INT_MAX)
        return FAIL("a mailbox for messages of %zu bytes; 1 to %zu are allowed", plan->message_bytes,
                    (size_t)INT_MAX * MESSAGE_ALIGNMENT);
    mailbox *mailbox;
    TRY(memory_allocate((void **)&mailbox, sizeof *mailbox, "mailbox"));
    mailbox->world = world;
    mailbox->comm = MPI_COMM_NULL;
    mailbox->unit = MPI_DATATYPE_NULL;
    mailbox->plan = *plan;
    mailbox->plan.message_bytes = message_padded(plan->message_bytes);
    size_t sends = (size_t)plan->sends, slots = sends + (size_t)plan->receives;
    status result;
    TRY_GOTO(result, memory_allocate((void **)&mailbox->buffers, mailbox_bytes(plan), "message buffers"),
             cleanup);
    TRY_GOTO(result, memory_allocate((void **)&mailbox->states, slots * sizeof(slot_state), "message states"),
             cleanup);
    TRY_GOTO(result,
             memory_allocate((void **)&mailbox->requests, sends * sizeof(MPI_Request), "message requests"),
             cleanup);
    TRY_GOTO(result, memory_allocate((void **)&mailbox->peers, sends * sizeof(int), "message peers"),
             cleanup);
    for (size_t i = 0; i < sends; i++)
        mailbox->requests[i] = MPI_REQUEST_NULL;
    TRY_GOTO(result, mpi_check(world, MPI_Comm_dup(MPI_COMM_WORLD, &mailbox->comm), "MPI_Comm_dup", -1),
             cleanup);
    MPI_Comm_set_errhandler(mailbox->comm, MPI_ERRORS_RETURN);
    TRY_GOTO(result,
             mpi_check(world, MPI_Type_contiguous(MESSAGE_ALIGNMENT, MPI_BYTE, &mailbox->unit),
                       "MPI_Type_contiguous", -1),
             cleanup);
    TRY_GOTO(result, mpi_check(world, MPI_Type_commit(&mailbox->unit), "MPI_Type_commit", -1), cleanup);
    *out = mailbox;
    mailbox = NULL;
cleanup:
    mailbox_destroy(mailbox);
    return result;
}

void mailbox_destroy(mailbox *mailbox) {
    if (mailbox == NULL)
        return;
    if (mailbox->unit != MPI_DATATYPE_NULL)
        MPI_Type_free(&mailbox->unit);
    if (mailbox->comm != MPI_COMM_NULL)
        MPI_Comm_free(&mailbox->comm);
    memory_free(mailbox->peers);
    memory_free(mailbox->requests);
    memory_free(mailbox->states);
    memory_free(mailbox->buffers);
    memory_free(mailbox);
}

static char *slot_buffer(const mailbox *mailbox, int slot) {
    return mailbox->buffers + (size_t)slot * mailbox->plan.message_bytes;
}

// The slot of a buffer that the caller holds, -1 if it holds no such one.
static int find_slot(const mailbox *mailbox, const void *buffer, int first, int end) {
    for (int slot = first; slot < end; slot++)
        if (slot_buffer(mailbox, slot) == buffer && mailbox->states[slot] == SLOT_CALLER)
            return slot;
    return -1;
}

static int find_free(const mailbox *mailbox, int first, int end) {
    for (int slot = first; slot < end; slot++)
        if (mailbox->states[slot] == SLOT_FREE)
            return slot;
    return -1;
}

status mailbox_progress(mailbox *mailbox) {
    for (int slot = 0; slot < mailbox->plan.sends; slot++) {
        if (mailbox->states[slot] != SLOT_SENDING)
            continue;
        int done = 0;
        TRY(mpi_check(mailbox->world, MPI_Test(&mailbox->requests[slot], &done, MPI_STATUS_IGNORE),
                      "MPI_Test", mailbox->peers[slot]));
        if (done)
            mailbox->states[slot] = SLOT_FREE;
    }
    return STATUS_OK;
}

static status fail_unsent(const mailbox *mailbox, const char *what) {
    for (int slot = 0; slot < mailbox->plan.sends; slot++) {
        if (mailbox->states[slot] == SLOT_SENDING) {
            size_t bytes = mailbox->plan.message_bytes;
            return FAIL("rank %d on %s: waited %g s for rank %d on %s to receive a %s (%s, %d send buffers)",
                        world_rank(mailbox->world), world_host(mailbox->world),
                        world_deadline(mailbox->world), mailbox->peers[slot],
                        world_host_of(mailbox->world, mailbox->peers[slot]),
                        message_kind_name(message_peek_kind(slot_buffer(mailbox, slot), bytes)), what,
                        mailbox->plan.sends);
        }
    }
    return FAIL(
        "rank %d on %s: all %d send buffers are being composed; send or release one, or plan for more",
        world_rank(mailbox->world), world_host(mailbox->world), mailbox->plan.sends);
}

static int count_sending(const mailbox *mailbox) {
    int count = 0;
    for (int slot = 0; slot < mailbox->plan.sends; slot++)
        count += mailbox->states[slot] == SLOT_SENDING;
    return count;
}

status mailbox_compose(mailbox *mailbox, void **buffer, size_t *capacity) {
    wait_state wait =
        wait_begin(mailbox->world, world_deadline(mailbox->world), "a message to be received", -1);
    for (;;) {
        int slot = find_free(mailbox, 0, mailbox->plan.sends);
        if (slot >= 0) {
            wait_end(&wait);
            mailbox->states[slot] = SLOT_CALLER;
            *buffer = slot_buffer(mailbox, slot);
            *capacity = mailbox->plan.message_bytes;
            return STATUS_OK;
        }
        if (count_sending(mailbox) == 0 || !wait_pause(&wait))
            return fail_unsent(mailbox, "no send buffer is free");
        TRY(mailbox_progress(mailbox));
    }
}

status mailbox_send(mailbox *mailbox, void *buffer, size_t bytes, int rank) {
    int slot = find_slot(mailbox, buffer, 0, mailbox->plan.sends);
    const world *world = mailbox->world;
    if (slot < 0)
        return FAIL("rank %d on %s: a message is sent from a buffer that mailbox_compose did not give",
                    world_rank(world), world_host(world));
    mailbox->states[slot] = SLOT_FREE;
    message_kind kind = message_peek_kind(buffer, bytes);
    if (bytes > mailbox->plan.message_bytes || bytes % MESSAGE_ALIGNMENT != 0 || kind == 0)
        return FAIL("rank %d on %s: %zu bytes in a buffer of %zu are no built message", world_rank(world),
                    world_host(world), bytes, mailbox->plan.message_bytes);
    if (rank < 0 || rank >= world_size(world))
        return FAIL("rank %d on %s: a %s for rank %d; there are ranks 0 to %d", world_rank(world),
                    world_host(world), message_kind_name(kind), rank, world_size(world) - 1);
    TRY(mpi_check(world,
                  MPI_Isend(buffer, (int)(bytes / MESSAGE_ALIGNMENT), mailbox->unit, rank, (int)kind,
                            mailbox->comm, &mailbox->requests[slot]),
                  "MPI_Isend", rank));
    mailbox->states[slot] = SLOT_SENDING;
    mailbox->peers[slot] = rank;
    return STATUS_OK;
}

status mailbox_receive(mailbox *mailbox, int rank, message_kind kind, const char *phase, const void **buffer,
                       size_t *bytes) {
    const world *world = mailbox->world;
    int slots = mailbox->plan.sends + mailbox->plan.receives;
    int slot = find_free(mailbox, mailbox->plan.sends, slots);
    if (slot < 0)
        return FAIL("rank %d on %s: all %d receive buffers are held while a %s from rank %d is wanted (%s); "
                    "release one, or plan for more",
                    world_rank(world), world_host(world), mailbox->plan.receives, message_kind_name(kind),
                    rank, phase);
    // Probing first leaves nothing posted when the deadline passes, and shows the length before a buffer is
    // used.
    wait_state wait = wait_begin(world, world_deadline(world), message_kind_name(kind), rank);
    MPI_Message message;
    MPI_Status found;
    for (;;) {
        int there = 0;
        TRY(mpi_check(world, MPI_Improbe(rank, (int)kind, mailbox->comm, &there, &message, &found),
                      "MPI_Improbe", rank));
        if (there)
            break;
        if (!wait_pause(&wait))
            return FAIL(
                "rank %d on %s: waited %g s for a %s from rank %d on %s (%s); look at that rank's output, "
                "or raise the deadline",
                world_rank(world), world_host(world), world_deadline(world), message_kind_name(kind), rank,
                world_host_of(world, rank), phase);
    }
    wait_end(&wait);
    int units = 0;
    TRY(mpi_check(world, MPI_Get_count(&found, mailbox->unit, &units), "MPI_Get_count", rank));
    size_t length = (size_t)(units > 0 ? units : 0) * MESSAGE_ALIGNMENT;
    if (units < 1 || length > mailbox->plan.message_bytes)
        return FAIL(
            "rank %d on %s: a %s of %zu bytes from rank %d on %s (%s); the buffers are planned for %zu",
            world_rank(world), world_host(world), message_kind_name(kind), length, rank,
            world_host_of(world, rank), phase, mailbox->plan.message_bytes);
    MPI_Request request;
    TRY(mpi_check(world, MPI_Imrecv(slot_buffer(mailbox, slot), units, mailbox->unit, &message, &request),
                  "MPI_Imrecv", rank));
    TRY(mpi_wait_all(world, &request, 1, phase, rank));
    mailbox->states[slot] = SLOT_CALLER;
    *buffer = slot_buffer(mailbox, slot);
    *bytes = length;
    return STATUS_OK;
}

void mailbox_release(mailbox *mailbox, const void *buffer) {
    int slot = find_slot(mailbox, buffer, 0, mailbox->plan.sends + mailbox->plan.receives);
    if (slot >= 0)
        mailbox->states[slot] = SLOT_FREE;
}

status mailbox_flush(mailbox *mailbox) {
    wait_state wait =
        wait_begin(mailbox->world, world_deadline(mailbox->world), "messages to be received", -1);
    for (;;) {
        TRY(mailbox_progress(mailbox));
        if (count_sending(mailbox) == 0) {
            wait_end(&wait);
            return STATUS_OK;
        }
        if (!wait_pause(&wait))
            return fail_unsent(mailbox, "flush");
    }
}
