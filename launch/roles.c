#include "launch/roles.h"

#include "launch/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[ROLE_COUNT] = {"rollout", "reward", "learner"};

enum { MEMBERS_MOST = 1000000 };

static bool power_of_two(uint32_t number) {
    return number != 0 && (number & (number - 1)) == 0;
}

// The role named by the first `length` bytes of `word`.
static status find_role(const char *text, const char *word, size_t length, role *out) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), word);
    for (int i = 0; i < ROLE_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (role)i;
            return STATUS_OK;
        }
    }
    char hint[NEAREST_HINT];
    nearest_hint(hint, "did you mean", name, names, ROLE_COUNT);
    return FAIL_USAGE(
        "roles=%s has no such role as '%s'%s%s write colocated, or rollout=4,reward=2,learner=2", text, name,
        hint, hint[0] != '\0' ? "?" : ";");
}

// One block, "reward+learner=2" or "rollout:8", of `length` bytes, for the ranks from first_rank on; *ranks:
// how many of them it takes.
static status parse_block(roles *out, const char *text, const char *block, size_t length, int first_rank,
                          long *ranks) {
    const size_t words = strcspn(block, "=:,");
    const char *sign = block + words;
    if (words >= length)
        return FAIL_USAGE("roles=%s: '%.*s' lacks a number of ranks; write colocated, or "
                          "rollout=4,reward=2,learner=2",
                          text, (int)length, block);
    char *end;
    const bool outside = *sign == ':';
    const long count = strtol(sign + 1, &end, 10);
    if (end != block + length || sign[1] < '0' || sign[1] > '9' || count < 1 || count > MEMBERS_MOST)
        return FAIL_USAGE("roles=%s: '%.*s' needs a number of %s from 1 on after '%c'", text, (int)length,
                          block, outside ? "parts" : "ranks", *sign);
    for (const char *word = block; word < sign;) {
        const char *plus = memchr(word, '+', (size_t)(sign - word));
        const char *stop = plus != NULL ? plus : sign;
        role found = ROLE_ROLLOUT;
        TRY(find_role(text, word, (size_t)(stop - word), &found));
        if (out->members[found].count != 0)
            return FAIL_USAGE("roles=%s names %s twice; give each role one block", text, names[found]);
        out->members[found] = (role_members){outside ? ROLES_OUTSIDE : first_rank, (int)count};
        word = stop + 1;
    }
    *ranks = outside ? 0 : count;
    return STATUS_OK;
}

static status parse_layout(roles *out, const char *text) {
    if (strcmp(text, "colocated") == 0) {
        out->ranks = out->ranks > 0 ? out->ranks : 1;
        for (int i = 0; i < ROLE_COUNT; i++)
            out->members[i] = (role_members){0, out->ranks};
        return STATUS_OK;
    }
    long wanted = 0;
    for (const char *block = text;;) {
        size_t length = strcspn(block, ",");
        long count = 0;
        TRY(parse_block(out, text, block, length, (int)wanted, &count));
        wanted += count;
        if (wanted > MEMBERS_MOST)
            return FAIL_USAGE("roles=%s wants more than %d ranks", text, MEMBERS_MOST);
        if (block[length] == '\0')
            break;
        block += length + 1;
    }
    for (int i = 0; i < ROLE_COUNT; i++)
        if (out->members[i].count == 0)
            return FAIL_USAGE("roles=%s gives no rank to %s; add %s=1, or %s to another block with '+'", text,
                              names[i], names[i], names[i]);
    if (roles_is_outside(out, ROLE_LEARNER))
        return FAIL_USAGE(
            "roles=%s leaves the learner to workers, but it is the run itself; write learner=%d", text,
            out->members[ROLE_LEARNER].count);
    if (out->ranks == 0)
        out->ranks = (int)wanted;
    if (wanted != out->ranks)
        return FAIL_USAGE("roles=%s wants %ld rank%s, there %s %d; start %ld or change roles", text, wanted,
                          wanted == 1 ? "" : "s", out->ranks == 1 ? "is" : "are", out->ranks, wanted);
    return STATUS_OK;
}

status roles_parse(roles *out, const char *text, int ranks, uint32_t batch, uint32_t gradient_slots) {
    *out = (roles){.ranks = ranks, .batch = batch, .gradient_slots = gradient_slots};
    if (!power_of_two(gradient_slots))
        return FAIL_USAGE("gradient_slots=%u must be a power of two", gradient_slots);
    if (batch == 0 || batch % gradient_slots != 0)
        return FAIL_USAGE(
            "batch=%u is not a multiple of gradient_slots=%u; each slot holds a fixed set of samples", batch,
            gradient_slots);
    TRY(parse_layout(out, text));
    uint32_t learners = (uint32_t)out->members[ROLE_LEARNER].count;
    if (!power_of_two(learners) || gradient_slots % learners != 0)
        return FAIL_USAGE("roles=%s on %d ranks makes %u learners, which must be a power of two and divide "
                          "gradient_slots=%u; use another number of ranks or change roles",
                          text, out->ranks, learners, gradient_slots);
    for (int i = ROLE_ROLLOUT; i <= ROLE_REWARD; i++) {
        uint32_t count = (uint32_t)out->members[i].count;
        if (batch % count != 0)
            return FAIL_USAGE("roles=%s on %d ranks makes %u %s %s, which do not divide batch=%u; change one "
                              "of them",
                              text, out->ranks, count, names[i],
                              roles_is_outside(out, (role)i) ? "parts" : "ranks", batch);
    }
    return STATUS_OK;
}

const char *roles_name(role role) {
    return names[role];
}

status roles_parse_set(unsigned *out, const char *text) {
    *out = 0;
    for (const char *word = text;; word++) {
        const size_t length = strcspn(word, "+");
        role found = ROLE_ROLLOUT;
        TRY(find_role(text, word, length, &found));
        *out |= 1u << found;
        word += length;
        if (*word == '\0')
            return STATUS_OK;
    }
}

bool roles_is_outside(const roles *roles, role role) {
    return roles->members[role].first_rank == ROLES_OUTSIDE;
}

unsigned roles_outside(const roles *roles) {
    unsigned set = 0;
    for (int i = 0; i < ROLE_COUNT; i++)
        set |= roles_is_outside(roles, (role)i) ? 1u << i : 0;
    return set;
}

int roles_most_members(const roles *roles) {
    int most = 0;
    for (int i = 0; i < ROLE_COUNT; i++)
        most = roles->members[i].count > most ? roles->members[i].count : most;
    return most;
}

int roles_member(const roles *roles, role role, int rank) {
    if (roles_is_outside(roles, role))
        return -1;
    int member = rank - roles->members[role].first_rank;
    return member >= 0 && member < roles->members[role].count ? member : -1;
}

bool roles_carries(const roles *roles, role role, int rank) {
    return roles_member(roles, role, rank) >= 0;
}

int roles_rank(const roles *roles, role role, int member) {
    return roles_is_outside(roles, role) ? ROLES_OUTSIDE : roles->members[role].first_rank + member;
}

sample_range roles_samples(const roles *roles, role role, int member) {
    uint32_t each = roles->batch / (uint32_t)roles->members[role].count;
    return (sample_range){(uint32_t)member * each, each};
}

sample_range roles_slots(const roles *roles, int learner) {
    uint32_t each = roles->gradient_slots / (uint32_t)roles->members[ROLE_LEARNER].count;
    return (sample_range){(uint32_t)learner * each, each};
}

sample_range roles_slot_samples(const roles *roles, uint32_t slot) {
    uint32_t each = roles->batch / roles->gradient_slots;
    return (sample_range){slot * each, each};
}

int roles_routes(const roles *roles, role role, int member, enum role other, sample_route *routes,
                 int capacity) {
    sample_range mine = roles_samples(roles, role, member);
    uint32_t each = roles->batch / (uint32_t)roles->members[other].count;
    uint32_t end = mine.first + mine.count;
    int count = 0;
    for (uint32_t first = mine.first; first < end && count < capacity; count++) {
        uint32_t partner = first / each, stop = (partner + 1) * each;
        if (stop > end)
            stop = end;
        routes[count] =
            (sample_route){(int)partner, roles_rank(roles, other, (int)partner), {first, stop - first}};
        first = stop;
    }
    return count;
}

void roles_list(const roles *roles, role role, int *ranks) {
    for (int i = 0; i < roles->members[role].count; i++)
        ranks[i] = roles_rank(roles, role, i);
}

void roles_describe_rank(const roles *roles, int rank, char *text, size_t size) {
    text[0] = '\0';
    for (int i = 0; i < ROLE_COUNT; i++) {
        size_t used = strlen(text);
        if (roles_carries(roles, (role)i, rank))
            snprintf(text + used, size - used, "%s%s", used > 0 ? "+" : "", names[i]);
    }
}

void roles_describe(const roles *roles, char *text, size_t size) {
    size_t used = 0;
    if (size > 0)
        text[0] = '\0';
    for (int first = 0; first < roles->ranks && used < size;) {
        char what[64], next[64];
        roles_describe_rank(roles, first, what, sizeof what);
        int last = first;
        for (; last + 1 < roles->ranks; last++) {
            roles_describe_rank(roles, last + 1, next, sizeof next);
            if (strcmp(what, next) != 0)
                break;
        }
        const char *separator = first > 0 ? ", " : "";
        int length =
            last > first
                ? snprintf(text + used, size - used, "%sranks %d-%d %s", separator, first, last, what)
                : snprintf(text + used, size - used, "%srank %d %s", separator, first, what);
        if (length < 0)
            return;
        used += (size_t)length;
        first = last + 1;
    }
    for (int i = 0; i < ROLE_COUNT && used < size; i++) {
        const int count = roles->members[i].count;
        if (!roles_is_outside(roles, (role)i))
            continue;
        const int length = snprintf(text + used, size - used, ", %d part%s %s by workers", count,
                                    count == 1 ? "" : "s", names[i]);
        used += length > 0 ? (size_t)length : size;
    }
}
