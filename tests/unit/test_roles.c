// Layouts of roles over ranks: what is accepted, what is refused with which line, and that every sample is
// everywhere exactly once.
#include "launch/roles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { MEMBERS_MAX = 64 };

// Every sample of the batch belongs to exactly one member of each role, and each pair of roles agrees on the
// messages between them.
static void check_layout(const roles *roles) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        uint32_t next = 0;
        for (int member = 0; member < roles->members[role].count; member++) {
            sample_range range = roles_samples(roles, (enum role)role, member);
            assert_int_equal(range.first, next);
            assert_true(range.count > 0);
            next += range.count;
            int rank = roles_rank(roles, (enum role)role, member);
            assert_int_equal(roles_member(roles, (enum role)role, rank), member);
            assert_true(roles_carries(roles, (enum role)role, rank));
        }
        assert_int_equal(next, roles->batch);
    }
    for (int from = 0; from < ROLE_COUNT; from++) {
        for (int to = 0; to < ROLE_COUNT; to++) {
            bool seen[4096] = {false};
            for (int member = 0; member < roles->members[from].count; member++) {
                sample_range mine = roles_samples(roles, (enum role)from, member);
                sample_route routes[MEMBERS_MAX], back[MEMBERS_MAX];
                int count = roles_routes(roles, (enum role)from, member, (enum role)to, routes, MEMBERS_MAX);
                assert_true(count >= 1 && count <= roles->members[to].count);
                for (int i = 0; i < count; i++) {
                    sample_range part = routes[i].samples;
                    sample_range theirs = roles_samples(roles, (enum role)to, routes[i].member);
                    assert_int_equal(routes[i].rank, roles_rank(roles, (enum role)to, routes[i].member));
                    assert_true(part.count > 0);
                    assert_true(part.first >= mine.first &&
                                part.first + part.count <= mine.first + mine.count);
                    assert_true(part.first >= theirs.first &&
                                part.first + part.count <= theirs.first + theirs.count);
                    for (uint32_t sample = part.first; sample < part.first + part.count; sample++) {
                        assert_false(seen[sample]);
                        seen[sample] = true;
                    }
                    int expected = roles_routes(roles, (enum role)to, routes[i].member, (enum role)from, back,
                                                MEMBERS_MAX);
                    bool found = false;
                    for (int j = 0; j < expected; j++)
                        found |= back[j].member == member && back[j].samples.first == part.first &&
                                 back[j].samples.count == part.count;
                    assert_true(found);
                }
            }
            for (uint32_t sample = 0; sample < roles->batch; sample++)
                assert_true(seen[sample]);
        }
    }
    uint32_t slot = 0;
    for (int learner = 0; learner < roles->members[ROLE_LEARNER].count; learner++) {
        sample_range slots = roles_slots(roles, learner),
                     samples = roles_samples(roles, ROLE_LEARNER, learner);
        assert_int_equal(slots.first, slot);
        slot += slots.count;
        assert_int_equal(roles_slot_samples(roles, slots.first).first, samples.first);
        sample_range last = roles_slot_samples(roles, slot - 1);
        assert_int_equal(last.first + last.count, samples.first + samples.count);
    }
    assert_int_equal(slot, roles->gradient_slots);
}

static void test_many_layouts(void **state) {
    (void)state;
    int accepted = 0;
    for (uint32_t slots = 1; slots <= 16; slots *= 2) {
        for (uint32_t each = 1; each <= 6; each++) {
            uint32_t batch = slots * each;
            for (int rollouts = 1; rollouts <= 12; rollouts++) {
                for (int rewards = 1; rewards <= 6; rewards++) {
                    for (int learners = 1; learners <= 16; learners++) {
                        char text[128];
                        snprintf(text, sizeof text, "rollout=%d,reward=%d,learner=%d", rollouts, rewards,
                                 learners);
                        roles roles;
                        bool wanted = batch % (uint32_t)rollouts == 0 && batch % (uint32_t)rewards == 0 &&
                                      (learners & (learners - 1)) == 0 && slots % (uint32_t)learners == 0;
                        status found = roles_parse(&roles, text, rollouts + rewards + learners, batch, slots);
                        assert_int_equal(found, wanted ? STATUS_OK : STATUS_USAGE);
                        if (!wanted)
                            continue;
                        accepted++;
                        check_layout(&roles);
                    }
                }
            }
        }
    }
    assert_true(accepted > 500);
}

static void test_colocated(void **state) {
    (void)state;
    char text[256];
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        roles roles;
        assert_int_equal(roles_parse(&roles, "colocated", ranks, 32, 8), STATUS_OK);
        check_layout(&roles);
        for (int rank = 0; rank < ranks; rank++) {
            sample_route route;
            assert_int_equal(roles_routes(&roles, ROLE_ROLLOUT, rank, ROLE_LEARNER, &route, 1), 1);
            assert_int_equal(route.rank, rank);
        }
        roles_describe(&roles, text, sizeof text);
        assert_string_equal(text, ranks == 1   ? "rank 0 rollout+reward+learner"
                                  : ranks == 2 ? "ranks 0-1 rollout+reward+learner"
                                  : ranks == 4 ? "ranks 0-3 rollout+reward+learner"
                                               : "ranks 0-7 rollout+reward+learner");
    }
}

static void test_split_and_overlapping(void **state) {
    (void)state;
    char text[256];
    roles roles;
    assert_int_equal(roles_parse(&roles, "rollout=4,reward=2,learner=2", 8, 16, 8), STATUS_OK);
    roles_describe(&roles, text, sizeof text);
    assert_string_equal(text, "ranks 0-3 rollout, ranks 4-5 reward, ranks 6-7 learner");
    int ranks[2];
    roles_list(&roles, ROLE_LEARNER, ranks);
    assert_true(ranks[0] == 6 && ranks[1] == 7);
    assert_int_equal(roles_member(&roles, ROLE_REWARD, 3), -1);

    assert_int_equal(roles_parse(&roles, "reward+learner=2,rollout=3", 5, 24, 8), STATUS_OK);
    check_layout(&roles);
    roles_describe(&roles, text, sizeof text);
    assert_string_equal(text, "ranks 0-1 reward+learner, ranks 2-4 rollout");
    // Rollout member 1 has samples 8-15, the learners share at 12.
    sample_route routes[4];
    assert_int_equal(roles_routes(&roles, ROLE_ROLLOUT, 1, ROLE_LEARNER, routes, 4), 2);
    assert_true(routes[0].rank == 0 && routes[0].samples.first == 8 && routes[0].samples.count == 4);
    assert_true(routes[1].rank == 1 && routes[1].samples.first == 12 && routes[1].samples.count == 4);
    char small[8];
    roles_describe(&roles, small, sizeof small);
    assert_true(strlen(small) == 7);
}

static void test_workers(void **state) {
    (void)state;
    char text[256];
    roles roles;
    sample_route routes[8];
    assert_int_equal(roles_parse(&roles, "rollout:8,reward+learner=2", 2, 16, 8), STATUS_OK);
    assert_int_equal(roles.ranks, 2);
    assert_true(roles_is_outside(&roles, ROLE_ROLLOUT) && !roles_is_outside(&roles, ROLE_REWARD));
    assert_int_equal(roles_outside(&roles), 1u << ROLE_ROLLOUT);
    assert_int_equal(roles_most_members(&roles), 8);
    for (int rank = 0; rank < 2; rank++) {
        assert_int_equal(roles_member(&roles, ROLE_ROLLOUT, rank), -1);
        assert_int_equal(roles_member(&roles, ROLE_LEARNER, rank), rank);
    }
    // The samples are shared out as among ranks.
    assert_true(roles_samples(&roles, ROLE_ROLLOUT, 3).first == 6 &&
                roles_samples(&roles, ROLE_ROLLOUT, 3).count == 2);
    assert_int_equal(roles_routes(&roles, ROLE_LEARNER, 1, ROLE_ROLLOUT, routes, 8), 4);
    assert_true(routes[0].member == 4 && routes[0].rank == ROLES_OUTSIDE && routes[0].samples.first == 8);
    roles_describe(&roles, text, sizeof text);
    assert_string_equal(text, "ranks 0-1 reward+learner, 8 parts rollout by workers");

    assert_int_equal(roles_parse(&roles, "rollout+reward:1,learner=1", 0, 16, 8), STATUS_OK);
    assert_int_equal(roles.ranks, 1);
    roles_describe(&roles, text, sizeof text);
    assert_string_equal(text, "rank 0 learner, 1 part rollout by workers, 1 part reward by workers");

    unsigned set;
    assert_int_equal(roles_parse_set(&set, "reward+rollout"), STATUS_OK);
    assert_int_equal(set, 1u << ROLE_ROLLOUT | 1u << ROLE_REWARD);
    assert_int_equal(roles_parse_set(&set, "reward+"), STATUS_USAGE);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int ranks;
        uint32_t batch, slots;
        const char *line;
    } cases[] = {
        {"rollout=4,reward=2,learner=2", 4, 16, 8,
         "roles=rollout=4,reward=2,learner=2 wants 8 ranks, there are 4; start 8 or change roles"},
        {"rollout=1,reward=1,learner=1", 1, 16, 8, "wants 3 ranks, there is 1; start 3 or change roles"},
        {"colocated", 3, 24, 8, "roles=colocated on 3 ranks makes 3 learners, which must be a power of two"},
        {"colocated", 16, 16, 8,
         "makes 16 learners, which must be a power of two and divide gradient_slots=8"},
        {"rollout=3,reward=2,learner=2", 7, 16, 8, "makes 3 rollout ranks, which do not divide batch=16"},
        {"rollout=2,reward=3,learner=2", 7, 16, 8, "makes 3 reward ranks, which do not divide batch=16"},
        {"rollout=2,learner=2", 4, 16, 8, "gives no rank to reward"},
        {"rollout=2,reward=1,rollout=1,learner=1", 5, 16, 8, "names rollout twice"},
        {"rolout=2,reward=1,learner=1", 4, 16, 8, "no such role as 'rolout'; did you mean 'rollout'"},
        {"rollout=2,reward,learner=1", 4, 16, 8, "'reward' lacks a number of ranks"},
        {"rollout=2,reward=0,learner=1", 4, 16, 8, "'reward=0' needs a number of ranks from 1 on"},
        {"rollout=2,reward=-1,learner=1", 4, 16, 8, "'reward=-1' needs a number"},
        {"rollout=2,reward=1x,learner=1", 4, 16, 8, "'reward=1x' needs a number"},
        {"rollout=2,reward= 1,learner=1", 4, 16, 8, "'reward= 1' needs a number"},
        {"rollout=2,reward=,learner=1", 4, 16, 8, "'reward=' needs a number"},
        {"=4", 4, 16, 8, "gives no rank to rollout"},
        {"", 4, 16, 8, "lacks a number of ranks"},
        {"rollout=2,reward=1,learner=1,", 4, 16, 8, "lacks a number of ranks"},
        {"rollout=99999999999999999999,reward=1,learner=1", 4, 16, 8, "needs a number of ranks"},
        {"rollout:3,reward:2,learner=2", 2, 16, 8, "makes 3 rollout parts, which do not divide batch=16"},
        {"rollout:4,reward:2,learner=2", 4, 16, 8, "wants 2 ranks, there are 4"},
        {"rollout:4,reward:0,learner=2", 2, 16, 8, "'reward:0' needs a number of parts from 1 on after ':'"},
        {"rollout=1,reward=1,learner:2", 2, 16, 8, "leaves the learner to workers, but it is the run itself"},
        {"rollout:4=2,reward=1,learner=2", 3, 16, 8, "'rollout:4=2' needs a number of parts"},
        {"colocated", 1, 12, 8, "batch=12 is not a multiple of gradient_slots=8"},
        {"colocated", 1, 0, 8, "batch=0 is not a multiple"},
        {"colocated", 1, 12, 6, "gradient_slots=6 must be a power of two"},
        {"colocated", 1, 12, 0, "gradient_slots=0 must be a power of two"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        roles roles;
        assert_int_equal(roles_parse(&roles, cases[i].text, cases[i].ranks, cases[i].batch, cases[i].slots),
                         STATUS_USAGE);
        if (strstr(status_message(), cases[i].line) == NULL)
            fail_msg("'%s' lacks '%s'", status_message(), cases[i].line);
        assert_null(strchr(status_message(), '\n'));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_layouts),
        cmocka_unit_test(test_colocated),
        cmocka_unit_test(test_split_and_overlapping),
        cmocka_unit_test(test_workers),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
