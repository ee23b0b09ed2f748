// Which rank does what, and which samples of a batch are whose. Pure functions of the layout: every rank
// computes the same answers without asking anyone.
#pragma once

#include "kernels/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum role { ROLE_ROLLOUT, ROLE_REWARD, ROLE_LEARNER, ROLE_COUNT } role;

// The members of a role are consecutive ranks of the world, or, where `first_rank` is ROLES_OUTSIDE, parts of
// a batch that no rank carries: workers take them up, whichever is free (launch/train_worker.h).
enum { ROLES_OUTSIDE = -1 };
typedef struct role_members {
    int first_rank, count;
} role_members;

typedef struct roles {
    int ranks;
    uint32_t batch;          // samples a step
    uint32_t gradient_slots; // power of two; slot g holds samples [g, g + 1) * batch / gradient_slots
    role_members members[ROLE_COUNT];
} roles;

// Samples [first, first + count) of a step's batch.
typedef struct sample_range {
    uint32_t first, count;
} sample_range;

// A part of one member's samples that is another member's business: the message between the two.
typedef struct sample_route {
    int member, rank; // the other member and its world rank, ROLES_OUTSIDE if it has none
    sample_range samples;
} sample_route;

// Reads a layout for a world of `ranks` (0: of as many as it wants). `text` is "colocated" (every rank
// carries every role) or consecutive blocks of ranks with their roles, "rollout=4,reward=2,learner=2"; a
// block may carry several roles, "rollout=6,reward+learner=2". ":" instead of "=" leaves a block to workers
// outside the world, and its number says into how many parts they share a batch:
// "rollout:8,reward:2,learner=2". Each role appears once. Refused with one line that says what was asked and
// what is there: counts that do not add up to `ranks`; learners that are no power of two, do not divide
// `gradient_slots` or are no ranks; `gradient_slots` that is no power of two or does not divide `batch`;
// rollouts or rewards that do not divide `batch`.
status roles_parse(roles *out, const char *text, int ranks, uint32_t batch, uint32_t gradient_slots);

const char *roles_name(role role); // "rollout"
// The set of roles in a text like "rollout+reward", as bits 1 << role.
status roles_parse_set(unsigned *out, const char *text);
// Those that workers carry.
bool roles_is_outside(const roles *roles, role role);
unsigned roles_outside(const roles *roles);

// Whether a rank carries a role, and as which member (-1: it does not).
bool roles_carries(const roles *roles, role role, int rank);
int roles_member(const roles *roles, role role, int rank);
int roles_rank(const roles *roles, role role, int member);

// The samples of a member: contiguous, in the order of members, the same number for each.
sample_range roles_samples(const roles *roles, role role, int member);

// The gradient slots of a learner: contiguous, in the order of learners; their samples are roles_samples'.
sample_range roles_slots(const roles *roles, int learner);
// The samples of one gradient slot.
sample_range roles_slot_samples(const roles *roles, uint32_t slot);

// Which members of role `other` have samples in common with member `member` of role `role`, in the order of
// samples. From rollout to reward it says what to send where; from reward to rollout, what to expect from
// whom. Writes routes [capacity]; returns their number, which is at most members[other].count.
int roles_routes(const roles *roles, role role, int member, enum role other, sample_route *routes,
                 int capacity);

// World ranks of a role's members, ranks [members[role].count].
void roles_list(const roles *roles, role role, int *ranks);

// The roles of one rank as "reward+learner", in text [size].
void roles_describe_rank(const roles *roles, int rank, char *text, size_t size);

// The largest number of members that a role has.
int roles_most_members(const roles *roles);

// "ranks 0-3 rollout, ranks 4-5 reward, ranks 6-7 learner", in text [size]; "rank 0 learner, 8 parts rollout
// by workers".
void roles_describe(const roles *roles, char *text, size_t size);
