// One learner's infinite return must stop the update of all: none of them moves, and all go on with the next
// batch, with the same weights.
#include "check.h"

#include "data/digest.h"
#include "kernels/memory.h"
#include "launch/train_parts.h"

#include <math.h>
#include <string.h>

enum { BATCH = 8, FRAMES = 3, LEVELS = 2, CODEBOOK = 16, BROKEN = 5 };

static const transformer_config tower = {.layers = 1, .width = 32, .heads = 2, .feed_forward = 64};

static void create(train *t, const run_config *config) {
    t->config = config;
    t->alpha = config->train.alpha;
    t->shape = (policy_config){.temporal = {.transformer = tower,
                                            .levels = LEVELS,
                                            .codebook = {CODEBOOK, CODEBOOK},
                                            .prefix = 1,
                                            .prefix_codebook = 4,
                                            .frames = FRAMES},
                               .depth = tower};
    t->reward_width = 1;
    CHECK_OK(roles_parse(&t->layout, "colocated", world_size(t->world), BATCH, BATCH));
    CHECK_OK(device_create(&t->device, 1));
    CHECK_OK(train_learner_create(t));
    int ranks[BATCH];
    roles_list(&t->layout, ROLE_LEARNER, ranks);
    CHECK_OK(group_create(&t->learner.group, t->world, ranks, world_size(t->world)));
    CHECK_OK(device_group_create(&t->learner.devices, t->device, t->learner.group, t->gradient_note));
    CHECK_OK(train_share_out(t));
    policy *policy = learner_policy(t->learner.learner), *reference = learner_reference(t->learner.learner);
    value_network *value = learner_value(t->learner.learner);
    t->parameters = policy_parameters(policy)->size;
    CHECK_OK(weights_create(&t->channel, t->world, t->device, 0, ranks, 0, t->parameters, t->weights_note));
    parameter_list_initialise(policy_parameters(policy), 3, policy_values(policy));
    memcpy(policy_values(reference), policy_values(policy), sizeof(float) * t->parameters);
    CHECK_OK(policy_pack(policy));
    CHECK_OK(policy_pack(reference));
    if (value == NULL)
        return;
    parameter_list_initialise(value_parameters(value), 5, value_values(value));
    CHECK_OK(value_pack(value));
}

static void destroy(train *t) {
    weights_destroy(t->channel);
    train_learner_destroy(t);
    device_destroy(t->device);
}

// The batch of a step, as it would be collected; the return of sample BROKEN is infinite if `broken`.
static void collect(train *t, int step, bool broken) {
    learner_role *l = &t->learner;
    memset(l->rows, 0, sizeof(double) * BATCH * l->row_width);
    for (uint32_t i = 0; i < l->samples.count; i++) {
        const uint32_t sample = l->samples.first + i;
        l->prefix[i] = (uint16_t)(sample % 4);
        for (int token = 0; token < FRAMES * LEVELS; token++) {
            const uint32_t at = i * FRAMES * LEVELS + (uint32_t)token;
            l->tokens[at] = (uint16_t)((sample * 7 + (uint32_t)(token * 5 + step * 3)) % CODEBOOK);
            l->log_probabilities[at] = -logf(CODEBOOK);
        }
        l->returns[i] = broken && sample == BROKEN ? INFINITY : sinf((float)(sample * 3 + (uint32_t)step));
        train_row(t, sample)[STATISTIC_RETURN] = (double)l->returns[i];
    }
    CHECK_OK(train_share_rows(t));
}

static digest digest_of(train *t) {
    return digest_bytes(policy_values(learner_policy(t->learner.learner)), sizeof(float) * t->parameters);
}

static void check_equal_on_all_ranks(train *t) {
    const digest own = digest_of(t);
    digest all[BATCH];
    CHECK_OK(group_all_gather(t->learner.group, &own, sizeof own, all));
    for (int i = 0; i < world_size(t->world); i++)
        CHECK(memcmp(&own, &all[i], sizeof own) == 0);
}

// Returns the digest of the weights that came out.
static digest test_skipped_update(world *world, run_baseline baseline, int epochs, bool shards) {
    static run_config config;
    train t = {.world = world};
    step_result result;
    CHECK_OK(run_config_set_defaults(&config));
    config.train.batch = config.train.gradient_slots = BATCH;
    config.train.group = BATCH / 2;
    config.train.frames = FRAMES;
    config.train.baseline = baseline;
    config.train.ppo_epochs = epochs;
    config.train.kl_control = RUN_KL_ADAPTIVE;
    config.train.shard_optimizer = shards;
    create(&t, &config);
    const digest start = digest_of(&t);
    collect(&t, 0, true);
    CHECK_OK(train_learner_update(&t, 1.0f, &result));
    digest now = digest_of(&t);
    CHECK(result.skipped);
    CHECK(memcmp(&now, &start, sizeof now) == 0);
    CHECK(learner_policy_optimizer(t.learner.learner)->step == 0);
    for (int step = 1; step < 3; step++) {
        t.step = step;
        collect(&t, step, false);
        CHECK_OK(train_learner_update(&t, 1.0f, &result));
        CHECK(!result.skipped && isfinite(result.gradient_norm) && isfinite(result.kl));
        CHECK(learner_policy_optimizer(t.learner.learner)->step == (int64_t)step * epochs);
        check_equal_on_all_ranks(&t);
    }
    now = digest_of(&t);
    CHECK(memcmp(&now, &start, sizeof now) != 0);
    CHECK(t.alpha > 0.0 && t.alpha < 0.05); // the KL is below its target
    CHECK(t.learner.sharded == (shards && world_size(world) > 1));
    destroy(&t);
    return now;
}

// Who holds the moments does not show in the weights.
static void test_both(world *world, run_baseline baseline, int epochs) {
    const digest whole = test_skipped_update(world, baseline, epochs, false),
                 shared = test_skipped_update(world, baseline, epochs, true);
    CHECK(memcmp(&whole, &shared, sizeof whole) == 0);
}

int main(void) {
    world *world;
    const world_options options = {.threads = 1, .deadline_seconds = 60.0};
    CHECK_OK(world_create(&world, &options));
    test_both(world, RUN_BASELINE_VALUE, 1);
    test_both(world, RUN_BASELINE_VALUE, 3);
    test_both(world, RUN_BASELINE_LEAVE_ONE_OUT, 1);
    test_both(world, RUN_BASELINE_GROUP, 2);
    world_destroy(world);
    return 0;
}
