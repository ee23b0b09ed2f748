// A whole step of an RL run on the ranks of a world, each with its share of the batch: sampling, a learned
// reward, gradients, their sum over the ranks, the updates. Part by part, as launch/scaling.h wants it.
#include "launch/bench_parts.h"

#include "comm/batch.h"
#include "comm/group.h"
#include "kernels/memory.h"
#include "launch/scaling.h"
#include "launch/stage.h"
#include "launch/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCORED_AT_ONCE = 32, SMALL = 16, CAPTION_BYTES_USUAL = 64 };

enum { PART_ROLLOUT, PART_REWARD, PART_LEARN, PART_SHARE, PART_UPDATE, PART_STEP, PARTS };
static const char *const part_names[PARTS] = {"step/rollout", "step/reward", "step/learn",
                                              "step/share",   "step/update", "step"};

typedef struct step_bench {
    run_config config; // of this rank's share
    bench own;         // with that configuration
    group *ranks;
    device_group *devices;
    policy *policy;
    policy_sampler *sampler;
    bench_reward reward;
    bench_learner learner;
    double *rows; // [numbers of the batch's statistics]
    size_t row_numbers;
    double seconds[PARTS]; // of the best step; the longest of any rank
} step_bench;

static void destroy(step_bench *s) {
    device_group_destroy(s->devices); // before the buffers that it may still use
    policy_sampler_destroy(s->sampler);
    policy_destroy(s->policy);
    bench_destroy_reward(&s->reward);
    bench_destroy_learner(&s->learner);
    group_destroy(s->ranks);
    memory_free(s->rows);
}

static status create(step_bench *s, const bench *b, world *world, int batch, int slots) {
    const int ranks = world_size(world);
    int list[4096];
    char note[DEVICE_GROUP_NOTE];
    if (ranks > 4096 || batch % ranks != 0 || slots % ranks != 0 || (batch / ranks) % (slots / ranks) != 0)
        return FAIL_USAGE("train.batch=%d and train.gradient_slots=%d cannot be shared out over %d ranks",
                          batch, slots, ranks);
    s->config = *b->config;
    s->config.train.batch = batch / ranks;
    s->config.train.gradient_slots = slots / ranks;
    s->own = *b;
    s->own.config = &s->config;
    for (int i = 0; i < ranks; i++)
        list[i] = i;
    const int own = s->config.train.batch;
    TRY(group_create(&s->ranks, world, list, ranks));
    TRY(device_group_create(&s->devices, b->device, s->ranks, note));
    TRY(bench_create_policy(&s->own, WEIGHT_F32, &s->policy));
    TRY(policy_sampler_create(&s->sampler, s->policy, own, s->config.train.frames));
    TRY(bench_create_reward(&s->reward, &s->own, (size_t)own, own < SCORED_AT_ONCE ? own : SCORED_AT_ONCE,
                            false, WEIGHT_F32));
    TRY(bench_create_learner(&s->own, &s->learner));
    TRY(gradient_sum_among(s->learner.value_gradients, s->devices, 0, SIZE_MAX));
    TRY(gradient_sum_among(s->learner.policy_gradients, s->devices, 0, SIZE_MAX));
    s->row_numbers = (size_t)batch * train_row_bytes(b->config) / sizeof(double);
    return memory_allocate((void **)&s->rows, sizeof(double) * (s->row_numbers + 1),
                           "statistics of the batch");
}

static status sample(step_bench *s, uint32_t step) {
    const bench_batch *batch = &s->learner.batch;
    const rollout_request request = {.batch = s->config.train.batch,
                                     .frames = s->config.train.frames,
                                     .prefix = batch->prefix,
                                     .samples = batch->samples,
                                     .step = step,
                                     .terms = {.temperature = (float)s->config.train.temperature}};
    return policy_sample(s->policy, s->sampler, &request, batch->tokens, batch->log_probabilities);
}

static status score(step_bench *s) {
    const bench_reward *r = &s->reward;
    return reward_score(r->model, r->pass, r->clips, r->prefix, s->learner.batch.tokens,
                        s->config.train.frames, NULL, r->scores, NULL);
}

static status share(step_bench *s) {
    for (int i = 0; i < SCALING_ROW_SUMS; i++)
        TRY(group_all_reduce_tree_double(s->ranks, s->rows, s->row_numbers));
    TRY(gradient_sum_share(s->learner.value_gradients));
    return gradient_sum_share(s->learner.policy_gradients);
}

static status update(step_bench *s) {
    policy *own = learner_policy(s->learner.learner);
    TRY(bench_learner_update(&s->own, &s->learner));
    parameter_list_copy(s->own.device, policy_parameters(own), policy_values(own), policy_values(s->policy));
    return policy_pack(s->policy);
}

// seconds [PARTS]: of this rank. Ranks wait for each other before the gradients are shared, so that this is
// the time of the transfer alone; what they waited shows in the step.
static status take_step(step_bench *s, uint32_t step, double *seconds) {
    TRY(group_barrier(s->ranks));
    const double start = stage_seconds();
    double at = start;
#define PART(part, work)                                                                                     \
    do {                                                                                                     \
        TRY(work);                                                                                           \
        const double now = stage_seconds();                                                                  \
        seconds[part] = now - at;                                                                            \
        at = now;                                                                                            \
    } while (0)
    PART(PART_ROLLOUT, sample(s, step));
    PART(PART_REWARD, score(s));
    PART(PART_LEARN, bench_learner_pass(&s->own, &s->learner));
    TRY(group_barrier(s->ranks));
    at = stage_seconds();
    PART(PART_SHARE, share(s));
    PART(PART_UPDATE, update(s));
#undef PART
    TRY(group_barrier(s->ranks));
    seconds[PART_STEP] = stage_seconds() - start;
    return STATUS_OK;
}

static status measure(step_bench *s, int repeats) {
    s->seconds[PART_STEP] = INFINITY;
    for (int repeat = -1; repeat < repeats; repeat++) {
        double own[PARTS], all[4096][PARTS], longest[PARTS] = {0};
        TRY(take_step(s, (uint32_t)(repeat + 1), own));
        TRY(group_all_gather(s->ranks, own, sizeof own, all));
        for (int rank = 0; rank < group_size(s->ranks); rank++)
            for (int part = 0; part < PARTS; part++)
                longest[part] = fmax(longest[part], all[rank][part]);
        if (repeat >= 0 && longest[PART_STEP] < s->seconds[PART_STEP])
            memcpy(s->seconds, longest, sizeof longest);
    }
    return STATUS_OK;
}

static void tell(const bench *b, int ranks, const char *name, const char *unit, double value,
                 const char *formula) {
    bench_result r = bench_new_result(b, name, unit, value);
    r.ranks = ranks;
    snprintf(r.formula, sizeof r.formula, "%s", formula);
    b->listener(b->context, name, &r);
}

// What one exchange costs, from sums of a few numbers and of all gradients.
static status measure_exchange(step_bench *s, const bench *b) {
    const int ranks = group_size(s->ranks), repeats = 20 * b->options->repeats;
    float few[SMALL] = {0};
    float *many = gradient_sum_values(s->learner.policy_gradients);
    const size_t count = policy_parameters(s->policy)->size;
    double small = INFINITY, large = INFINITY;
    if (ranks == 1 || !device_shares_memory(b->device))
        return STATUS_OK;
    for (int repeat = 0; repeat < repeats; repeat++) {
        TRY(group_barrier(s->ranks));
        double start = stage_seconds();
        TRY(group_all_reduce_tree(s->ranks, few, SMALL));
        small = fmin(small, stage_seconds() - start);
        TRY(group_barrier(s->ranks));
        start = stage_seconds();
        TRY(group_all_reduce_tree(s->ranks, many, count));
        large = fmin(large, stage_seconds() - start);
    }
    const double bytes = 2.0 * (ranks - 1.0) / ranks * (double)(sizeof(float) * count);
    if (group_index(s->ranks) != 0)
        return STATUS_OK;
    tell(b, ranks, "exchange/latency", "us", small / (2.0 * log2(ranks)) * 1e6,
         "an all-reduce of 16 numbers / (2 log2 ranks)");
    tell(b, ranks, "exchange/bandwidth", "GB/s", bytes / (large - small) / 1e9,
         "2 (ranks - 1) / ranks x bytes of the policy's gradient over its all-reduce, less that of 16 "
         "numbers");
    return STATUS_OK;
}

// The two lines of a part that grows with the samples.
static void tell_line(const bench *b, const char *part, const scaling_line *line) {
    char name[64];
    snprintf(name, sizeof name, "part/%s_fixed", part);
    tell(b, 1, name, "ms", line->fixed * 1e3,
         "of the line through a batch and a quarter of it, at no sample");
    snprintf(name, sizeof name, "part/%s_sample", part);
    tell(b, 1, name, "ms", line->sample * 1e3, "its slope, a sample");
}

// Everything that the model of scaling needs of one rank.
static void tell_parts(const bench *b, const step_bench *whole, const step_bench *quarter) {
    const temporal_config *t = &b->policy.temporal;
    const int batch = whole->config.train.batch, few = quarter->config.train.batch;
    static const char *const names[] = {"rollout", "reward", "learn"};
    for (int part = PART_ROLLOUT; part <= PART_LEARN; part++) {
        const scaling_line line = scaling_fit(few, quarter->seconds[part], batch, whole->seconds[part]);
        tell_line(b, names[part], &line);
    }
    tell(b, 1, "part/update", "ms", fmin(whole->seconds[PART_UPDATE], quarter->seconds[PART_UPDATE]) * 1e3,
         "AdamW of both networks, packing, the sampler's copy");
    const double policy = sizeof(float) * (double)policy_parameters(whole->policy)->size,
                 value =
                     sizeof(float) * (double)value_parameters(learner_value(whole->learner.learner))->size;
    tell(b, 1, "part/gradient", "bytes", policy + value, "of policy and value network");
    tell(b, 1, "part/weights", "bytes", policy, "of the policy");
    tell(b, 1, "part/rollout_message", "bytes",
         (double)rollout_batch_bytes(64, (uint32_t)whole->config.train.frames, (uint32_t)t->levels,
                                     (uint32_t)t->prefix, (size_t)64 * CAPTION_BYTES_USUAL) /
             64,
         "a rollout in a message of 64 with captions of 64 letters");
    const size_t row = train_row_bytes(b->config);
    tell(b, 1, "part/score_message", "bytes",
         (double)reward_batch_bytes(64, (uint32_t)(row / sizeof(double))) / 64, "its scores in one");
    tell(b, 1, "part/row", "bytes", (double)row,
         "its statistics, added up over the learners three times a step");
}

status bench_run_step(bench *b, world *world) {
    const int ranks = world_size(world), batch = b->config->train.batch,
              slots = b->config->train.gradient_slots;
    const bool quarters = ranks == 1 && batch >= 8 && batch % 4 == 0; // slots stay as large as they are
    step_bench whole = {.ranks = NULL}, quarter = {.ranks = NULL};
    status result;
    if (world_rank(world) == 0)
        b->listener(b->context, "step", NULL);
    TRY_GOTO(result, world_agree(world, create(&whole, b, world, batch, slots)), done);
    TRY_GOTO(result, measure(&whole, b->options->repeats), done);
    for (int part = 0; part < PARTS && world_rank(world) == 0; part++)
        tell(b, ranks, part_names[part], "ms", whole.seconds[part] * 1e3,
             part == PART_STEP ? "of the best step, barrier to barrier"
                               : "of that step, the longest of any rank");
    TRY_GOTO(result, measure_exchange(&whole, b), done);
    if (quarters) {
        TRY_GOTO(result, create(&quarter, b, world, batch / 4, slots > 4 ? slots / 4 : 1), done);
        TRY_GOTO(result, measure(&quarter, b->options->repeats), done);
        tell_parts(b, &whole, &quarter);
    }
done:
    destroy(&quarter);
    destroy(&whole);
    return result;
}
