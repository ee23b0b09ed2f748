// How batches go from role to role: as messages between the ranks of one world (comm/mailbox.h), or, where a
// role is left to workers, as files of the same bytes (data/exchange_folder.h). The loops of the roles do not
// see which.
//
// Towards workers the first learner posts each round as an order, with the weights that it is sampled with,
// and removes what belongs to it when every learner has collected it. Workers take up parts of open orders.
#pragma once

#include "comm/mailbox.h"
#include "data/exchange_folder.h"
#include "kernels/device.h"
#include "launch/roles.h"

// What a round of sampling and scoring is for. Rounds of every kind take the same way through the roles.
typedef enum round_kind {
    ROUND_TRAIN,    // training captions of a step
    ROUND_EVALUATE, // held-out captions, the same draws at every evaluation
    ROUND_WHITEN,   // training captions, for mean and deviation of the base's rewards
    ROUND_KINDS,
} round_kind;

typedef struct sampling_round {
    round_kind kind;
    int64_t step;    // updates done when the round starts
    int64_t chunk;   // which batch of captions, for the kinds that take several
    int64_t version; // of the weights it is sampled with
} sampling_round;

static inline bool round_trains(const sampling_round *round) {
    return round->kind == ROUND_TRAIN;
}

// Samples of a round on their way between two members.
typedef struct exchange_link {
    const sampling_round *round;
    role from, to;
    sample_route route; // to, or from, the other member
} exchange_link;

typedef struct exchange exchange;

typedef struct exchange_plan {
    mailbox_plan messages;
    size_t parameters; // floats of the weights
    bool is_worker;    // this process is one: it has no mailboxes, and reads weights
    bool is_first;     // this rank posts orders and publishes weights
    const char *run;   // the run folder
} exchange_plan;

// Collective over the world. `layout` is borrowed. The caller owns *out. The calls below allocate nothing
// themselves, but publishing a file does.
status exchange_create(exchange **out, world *world, const roles *layout, const exchange_plan *plan);
void exchange_destroy(exchange *exchange); // collective but for workers; NULL is allowed

// As mailbox_compose, mailbox_send, mailbox_receive and mailbox_release. A file that is damaged is named,
// removed and waited for anew, as a worker makes it again.
status exchange_compose(exchange *exchange, const exchange_link *link, void **buffer, size_t *capacity);
status exchange_send(exchange *exchange, const exchange_link *link, void *buffer, size_t bytes);
status exchange_receive(exchange *exchange, const exchange_link *link, const char *phase,
                        const void **message, size_t *bytes);
void exchange_release(exchange *exchange, const exchange_link *link, const void *message);
// `outcome`, with whose message it is about before the recorded line.
status exchange_blame(const exchange *exchange, const exchange_link *link, status outcome);
// Waits until every message sent to a rank has been received.
status exchange_flush(exchange *exchange);

// A run with workers. Without any the calls do nothing.

// Opens a session for workers that know the same `terms` (taken over; used on the first learner alone).
// Collective.
status exchange_open(exchange *exchange, json_t *terms);
// Tells workers that the run is over; the first learner alone has something to do.
status exchange_close(exchange *exchange, exchange_state how);
// Posts a round if workers have a part in it; weights [parameters] are those of round->version, on `device`,
// or on the host if that is NULL.
status exchange_order(exchange *exchange, const sampling_round *round, device *device, const float *weights);
// Every learner has collected the round.
status exchange_collected(exchange *exchange, const sampling_round *round);

// A worker's side.

// The session in force becomes the exchange's own.
status exchange_join(exchange *exchange, exchange_state *state, json_t **terms);
// Whether that is still so.
status exchange_is_current(const exchange *exchange, bool *current);
const char *exchange_session_path(const exchange *exchange);
// The open orders, oldest first.
status exchange_orders(const exchange *exchange, sampling_round *rounds, int capacity, int *count);
// Weights of a version into weights [parameters] on `device`.
status exchange_take_weights(exchange *exchange, device *device, int64_t version, float *weights);

// A part of a round: the samples of member `member` of role `role`.
typedef struct exchange_part {
    sampling_round round;
    role role;
    int member;
} exchange_part;
bool exchange_part_is_done(const exchange *exchange, const exchange_part *part);
// Whether what is needed for it is there.
bool exchange_part_is_ready(const exchange *exchange, const exchange_part *part);
// As exchange_folder_claim.
status exchange_part_claim(const exchange *exchange, const exchange_part *part, const char *owner, int *claim,
                           char *holder);
