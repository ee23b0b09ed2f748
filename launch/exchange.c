#include "launch/exchange.h"

#include "comm/batch.h"
#include "comm/weights.h"
#include "kernels/memory.h"
#include "launch/stage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ORDERS_MAX = 64, FILES_HELD = 2, PATIENCE_SECONDS = 60 };

static const char *const kind_names[ROUND_KINDS] = {"train", "evaluate", "whiten"};

struct exchange {
    world *world;
    const roles *layout;
    exchange_plan plan;
    mailbox *mailboxes[2]; // of training rounds, which may be under way for several steps, and of all others
    // Of a run with workers.
    bool has_workers;
    exchange_folder folder;
    size_t message_bytes;
    char *outgoing, *incoming[FILES_HELD]; // [message_bytes] each
    bool held[FILES_HELD];
    sample_route *routes; // [route_capacity] scratch
    int route_capacity;
    char *weights;             // [WEIGHT_UPDATE_BYTES + 4 parameters]
    int64_t posted, published; // orders so far; newest version whose weights are there, -1 for none
    sampling_round open[ORDERS_MAX];
    char open_names[ORDERS_MAX][EXCHANGE_NAME];
    int open_count;
};

static message_kind kind_from(role from) {
    return from == ROLE_ROLLOUT ? MESSAGE_ROLLOUT_BATCH : MESSAGE_REWARD_BATCH;
}

static mailbox *mailbox_of(const exchange *x, const exchange_link *link) {
    return x->mailboxes[round_trains(link->round) ? 0 : 1];
}

static bool goes_by_file(const exchange *x, const exchange_link *link) {
    return roles_is_outside(x->layout, link->from) || roles_is_outside(x->layout, link->to);
}

// "train-000012-000": of a step, and one of its batches.
static void name_round(const sampling_round *round, char name[EXCHANGE_NAME]) {
    snprintf(name, EXCHANGE_NAME, "%s-%06" PRId64 "-%03" PRId64, kind_names[round->kind], round->step,
             round->chunk);
}

// "train-000012-000.rollout.00000-00007": those samples, as this role made them.
static void name_samples(const sampling_round *round, role from, sample_range samples,
                         char name[EXCHANGE_NAME]) {
    char label[EXCHANGE_NAME];
    name_round(round, label);
    if (snprintf(name, EXCHANGE_NAME, "%s.%s.%05u-%05u", label, roles_name(from), samples.first,
                 samples.first + samples.count - 1) >= EXCHANGE_NAME)
        name[EXCHANGE_NAME - 1] = '\0';
}

// "train-000012-000.rollout.part-0003": who works on it.
static void name_claim(const exchange_part *part, char name[EXCHANGE_NAME]) {
    char label[EXCHANGE_NAME];
    name_round(&part->round, label);
    if (snprintf(name, EXCHANGE_NAME, "%s.%s.part-%04d", label, roles_name(part->role), part->member) >=
        EXCHANGE_NAME)
        name[EXCHANGE_NAME - 1] = '\0';
}

static void name_weights(int64_t version, char name[EXCHANGE_NAME]) {
    snprintf(name, EXCHANGE_NAME, "weights-%06" PRId64, version);
}

static status create_files(exchange *x) {
    x->message_bytes = message_padded(x->plan.messages.message_bytes);
    TRY(memory_allocate((void **)&x->outgoing, x->message_bytes, "message buffers"));
    x->route_capacity = roles_most_members(x->layout);
    TRY(memory_allocate((void **)&x->routes, sizeof *x->routes * (size_t)x->route_capacity, "routes"));
    for (int i = 0; i < FILES_HELD; i++)
        TRY(memory_allocate((void **)&x->incoming[i], x->message_bytes, "message buffers"));
    if (!x->plan.is_first && !x->plan.is_worker)
        return STATUS_OK;
    return memory_allocate((void **)&x->weights, WEIGHT_UPDATE_BYTES + sizeof(float) * x->plan.parameters,
                           "weights for workers");
}

status exchange_create(exchange **out, world *world, const roles *layout, const exchange_plan *plan) {
    *out = NULL;
    exchange *x;
    TRY(memory_allocate((void **)&x, sizeof *x, "exchange"));
    x->world = world;
    x->layout = layout;
    x->plan = *plan;
    x->has_workers = roles_outside(layout) != 0;
    x->published = -1;
    status result = STATUS_OK;
    for (int i = 0; i < 2 && !plan->is_worker && result == STATUS_OK; i++)
        result = mailbox_create(&x->mailboxes[i], world, &plan->messages);
    if (result == STATUS_OK && x->has_workers)
        result = create_files(x);
    if (result == STATUS_OK)
        *out = x;
    else
        exchange_destroy(x);
    return result;
}

void exchange_destroy(exchange *x) {
    if (x == NULL)
        return;
    for (int i = 0; i < 2; i++)
        mailbox_destroy(x->mailboxes[i]);
    for (int i = 0; i < FILES_HELD; i++)
        memory_free(x->incoming[i]);
    memory_free(x->outgoing);
    memory_free(x->routes);
    memory_free(x->weights);
    memory_free(x);
}

status exchange_compose(exchange *x, const exchange_link *link, void **buffer, size_t *capacity) {
    if (!goes_by_file(x, link))
        return mailbox_compose(mailbox_of(x, link), buffer, capacity);
    *buffer = x->outgoing;
    *capacity = x->message_bytes;
    return STATUS_OK;
}

// What two members want alike is published once.
status exchange_send(exchange *x, const exchange_link *link, void *buffer, size_t bytes) {
    char name[EXCHANGE_NAME];
    if (!goes_by_file(x, link))
        return mailbox_send(mailbox_of(x, link), buffer, bytes, link->route.rank);
    name_samples(link->round, link->from, link->route.samples, name);
    return exchange_folder_has(&x->folder, name) ? STATUS_OK
                                                 : exchange_folder_publish(&x->folder, name, buffer, bytes);
}

static void say_who_works(const exchange *x, const exchange_link *link, const char *name) {
    const exchange_part part = {*link->round, link->from, link->route.member};
    char holder[EXCHANGE_OWNER];
    int claim = -1;
    if (exchange_part_claim(x, &part, "", &claim, holder) != STATUS_OK)
        return;
    exchange_folder_release(claim);
    fprintf(stderr, "musicrl: waiting for %s/%s for %d s: %s%s\n", x->folder.path, name, PATIENCE_SECONDS,
            claim < 0 ? "worked on by " : "no worker has taken it up", claim < 0 ? holder : "");
}

// A file that is empty, or larger than any message, is as damaged as one with another checksum.
static status open_incoming(const exchange *x, int slot, size_t bytes, message_kind kind) {
    message_view view;
    if (bytes > x->message_bytes)
        return FAIL("a %s has at most %zu bytes, it has %zu: it is damaged", message_kind_name(kind),
                    x->message_bytes, bytes);
    return message_open(&view, x->incoming[slot], bytes, kind);
}

// Looked for ever more rarely: whoever waits must not slow down the file server that the others write to.
static status receive_file(exchange *x, const exchange_link *link, const void **message, size_t *bytes) {
    char name[EXCHANGE_NAME];
    struct timespec pause = {0, 1000000};
    bool there;
    int slot = 0;
    while (slot < FILES_HELD && x->held[slot])
        slot++;
    if (slot == FILES_HELD)
        return FAIL("all %d buffers for files are held while a %s is wanted", FILES_HELD,
                    message_kind_name(kind_from(link->from)));
    name_samples(link->round, link->from, link->route.samples, name);
    world_note_wait(x->world, link->from == ROLE_ROLLOUT ? "a worker's rollouts" : "a worker's scores", -1);
    const double start = stage_seconds();
    bool spoke = false;
    for (;;) {
        TRY(exchange_folder_fetch(&x->folder, name, x->incoming[slot], x->message_bytes, &there, bytes));
        if (there && open_incoming(x, slot, *bytes, kind_from(link->from)) == STATUS_OK)
            break;
        if (!there && x->plan.is_worker)
            return FAIL("%s/%s is not there any more", x->folder.path, name);
        if (there) {
            fprintf(stderr, "musicrl: %s/%s is made again: %s\n", x->folder.path, name, status_message());
            TRY(exchange_folder_discard(&x->folder, name));
        }
        if (!spoke && x->plan.is_first && stage_seconds() - start > PATIENCE_SECONDS) {
            say_who_works(x, link, name);
            spoke = true;
        }
        nanosleep(&pause, NULL);
        pause.tv_nsec = pause.tv_nsec < 50000000 ? pause.tv_nsec * 5 / 4 : pause.tv_nsec;
    }
    world_note_wait(x->world, NULL, -1);
    x->held[slot] = true;
    *message = x->incoming[slot];
    return STATUS_OK;
}

status exchange_receive(exchange *x, const exchange_link *link, const char *phase, const void **message,
                        size_t *bytes) {
    if (goes_by_file(x, link))
        return receive_file(x, link, message, bytes);
    return mailbox_receive(mailbox_of(x, link), link->route.rank, kind_from(link->from), phase, message,
                           bytes);
}

void exchange_release(exchange *x, const exchange_link *link, const void *message) {
    for (int i = 0; i < FILES_HELD; i++)
        if (message == x->incoming[i])
            x->held[i] = false;
    if (!goes_by_file(x, link))
        mailbox_release(mailbox_of(x, link), message);
}

status exchange_blame(const exchange *x, const exchange_link *link, status outcome) {
    char name[EXCHANGE_NAME];
    if (outcome == STATUS_OK)
        return STATUS_OK;
    if (!goes_by_file(x, link))
        return status_prefix(outcome, "from rank %d on %s: ", link->route.rank,
                             world_host_of(x->world, link->route.rank));
    name_samples(link->round, link->from, link->route.samples, name);
    return status_prefix(outcome, "%s/%s: ", x->folder.path, name);
}

status exchange_flush(exchange *x) {
    for (int i = 0; i < 2; i++)
        TRY(mailbox_flush(x->mailboxes[i]));
    return STATUS_OK;
}

status exchange_open(exchange *x, json_t *terms) {
    status result = STATUS_OK;
    exchange_state state;
    if (!x->has_workers) {
        json_decref(terms);
        return STATUS_OK;
    }
    if (x->plan.is_first)
        result = exchange_folder_begin(&x->folder, x->plan.run, terms);
    else
        json_decref(terms);
    TRY(world_agree(x->world, result));
    return world_agree(x->world, x->plan.is_first ? STATUS_OK : exchange_join(x, &state, NULL));
}

status exchange_close(exchange *x, exchange_state how) {
    return x->has_workers && x->plan.is_first ? exchange_folder_end(&x->folder, how) : STATUS_OK;
}

// Weights that no open order and no order to come is sampled with.
static status discard_weights(exchange *x, int64_t newest) {
    char names[ORDERS_MAX][EXCHANGE_NAME];
    int count;
    TRY(exchange_folder_list(&x->folder, "weights-", names, ORDERS_MAX, &count));
    for (int i = 0; i < count; i++) {
        char name[EXCHANGE_NAME];
        name_weights(newest, name);
        bool needed = strcmp(names[i], name) == 0;
        for (int k = 0; k < x->open_count && !needed; k++) {
            name_weights(x->open[k].version, name);
            needed = strcmp(names[i], name) == 0;
        }
        if (!needed)
            TRY(exchange_folder_discard(&x->folder, names[i]));
    }
    return STATUS_OK;
}

static status publish_weights(exchange *x, int64_t version, device *device, const float *weights) {
    char name[EXCHANGE_NAME];
    const size_t bytes = sizeof(float) * x->plan.parameters;
    float *copy = (float *)(void *)(x->weights + WEIGHT_UPDATE_BYTES);
    name_weights(version, name);
    if (version == x->published)
        return STATUS_OK;
    if (device != NULL)
        TRY(device_download(device, copy, weights, bytes));
    else
        memcpy(copy, weights, bytes);
    TRY(weights_announce(x->weights, (uint64_t)version, copy, x->plan.parameters));
    TRY(exchange_folder_publish(&x->folder, name, x->weights, WEIGHT_UPDATE_BYTES + bytes));
    x->published = version;
    return discard_weights(x, version);
}

// "order-00000017.train-000012-000.v000012"
static void name_order(const sampling_round *round, int64_t number, char name[EXCHANGE_NAME]) {
    char label[EXCHANGE_NAME];
    name_round(round, label);
    if (snprintf(name, EXCHANGE_NAME, "order-%08" PRId64 ".%s.v%06" PRId64, number, label, round->version) >=
        EXCHANGE_NAME)
        name[EXCHANGE_NAME - 1] = '\0';
}

// Whether a file is exactly what name_order would call some order.
static bool parse_order(const char *name, sampling_round *round) {
    char word[16], canonical[EXCHANGE_NAME];
    int64_t number;
    *round = (sampling_round){0};
    if (sscanf(name, "order-%" SCNd64 ".%15[a-z]-%" SCNd64 "-%" SCNd64 ".v%" SCNd64, &number, word,
               &round->step, &round->chunk, &round->version) != 5)
        return false;
    for (int kind = 0; kind < ROUND_KINDS; kind++) {
        round->kind = (round_kind)kind;
        name_order(round, number, canonical);
        if (strcmp(name, canonical) == 0)
            return true;
    }
    return false;
}

status exchange_order(exchange *x, const sampling_round *round, device *device, const float *weights) {
    if (!x->has_workers || !x->plan.is_first)
        return STATUS_OK;
    if (x->open_count == ORDERS_MAX)
        return FAIL("%d rounds are ordered and not collected, no more are possible", ORDERS_MAX);
    if (roles_is_outside(x->layout, ROLE_ROLLOUT))
        TRY(publish_weights(x, round->version, device, weights));
    char *name = x->open_names[x->open_count];
    name_order(round, x->posted++, name);
    x->open[x->open_count++] = *round;
    return exchange_folder_publish(&x->folder, name, "", 0);
}

// The order goes first, so that nobody starts anew on what has just been removed.
status exchange_collected(exchange *x, const sampling_round *round) {
    char label[EXCHANGE_NAME];
    name_round(round, label);
    for (int i = 0; i < x->open_count; i++) {
        const sampling_round *open = &x->open[i];
        if (open->kind != round->kind || open->step != round->step || open->chunk != round->chunk)
            continue;
        TRY(exchange_folder_discard(&x->folder, x->open_names[i]));
        x->open_count--;
        memmove(&x->open[i], &x->open[i + 1], sizeof x->open[0] * (size_t)(x->open_count - i));
        memmove(x->open_names[i], x->open_names[i + 1],
                sizeof x->open_names[0] * (size_t)(x->open_count - i));
        return exchange_folder_discard(&x->folder, label);
    }
    return STATUS_OK;
}

status exchange_join(exchange *x, exchange_state *state, json_t **terms) {
    return exchange_folder_look(&x->folder, x->plan.run, state, terms);
}

status exchange_is_current(const exchange *x, bool *current) {
    exchange_folder now;
    exchange_state state;
    *current = false;
    TRY(exchange_folder_look(&now, x->plan.run, &state, NULL));
    *current = state == EXCHANGE_OPEN && strcmp(now.session, x->folder.session) == 0;
    return STATUS_OK;
}

const char *exchange_session_path(const exchange *x) {
    return x->folder.path;
}

status exchange_orders(const exchange *x, sampling_round *rounds, int capacity, int *count) {
    char names[ORDERS_MAX][EXCHANGE_NAME];
    int found;
    *count = 0;
    TRY(exchange_folder_list(&x->folder, "order-", names, ORDERS_MAX, &found));
    for (int i = 0; i < found && *count < capacity; i++)
        *count += parse_order(names[i], &rounds[*count]);
    return STATUS_OK;
}

status exchange_take_weights(exchange *x, device *device, int64_t version, float *weights) {
    char name[EXCHANGE_NAME];
    bool there;
    size_t bytes;
    const float *copy = (const float *)(const void *)(x->weights + WEIGHT_UPDATE_BYTES);
    const size_t wanted = WEIGHT_UPDATE_BYTES + sizeof(float) * x->plan.parameters;
    name_weights(version, name);
    TRY(exchange_folder_fetch(&x->folder, name, x->weights, wanted, &there, &bytes));
    if (bytes != wanted)
        return FAIL("%s/%s has %zu bytes, %zu are wanted", x->folder.path, name, bytes, wanted);
    const status result = weights_verify(x->weights, (uint64_t)version, copy, x->plan.parameters);
    if (result != STATUS_OK)
        return status_prefix(result, "%s/%s: ", x->folder.path, name);
    return device_upload(device, weights, copy, wanted - WEIGHT_UPDATE_BYTES);
}

// Whether every file is there that goes between one member and those of another role.
static bool has_files(const exchange *x, const exchange_part *part, role other, role from) {
    char name[EXCHANGE_NAME];
    const int count = roles_routes(x->layout, part->role, part->member, other, x->routes, x->route_capacity);
    for (int i = 0; i < count; i++) {
        name_samples(&part->round, from, x->routes[i].samples, name);
        if (!exchange_folder_has(&x->folder, name))
            return false;
    }
    return true;
}

bool exchange_part_is_done(const exchange *x, const exchange_part *part) {
    for (int other = part->role + 1; other < ROLE_COUNT; other++)
        if (!has_files(x, part, (role)other, part->role))
            return false;
    return true;
}

bool exchange_part_is_ready(const exchange *x, const exchange_part *part) {
    return part->role == ROLE_ROLLOUT || has_files(x, part, ROLE_ROLLOUT, ROLE_ROLLOUT);
}

status exchange_part_claim(const exchange *x, const exchange_part *part, const char *owner, int *claim,
                           char *holder) {
    char name[EXCHANGE_NAME];
    name_claim(part, name);
    return exchange_folder_claim(&x->folder, name, owner, claim, holder);
}
