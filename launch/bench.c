#include "launch/bench_parts.h"

#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "kernels/product.h"
#include "launch/device_choice.h"
#include "launch/model_setup.h"
#include "launch/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned stage;
} stage_names[] = {{"products", BENCH_PRODUCTS},
                   {"bandwidth", BENCH_BANDWIDTH},
                   {"rollout", BENCH_ROLLOUT},
                   {"rollout_bf16", BENCH_ROLLOUT_BF16},
                   {"learner", BENCH_LEARNER},
                   {"reward", BENCH_REWARD},
                   {"reward_bf16", BENCH_REWARD_BF16},
                   {"preference", BENCH_PREFERENCE},
                   {"all", BENCH_ALL},
                   {"step", BENCH_STEP}};

status bench_parse_stages(const char *text, unsigned *stages) {
    *stages = 0;
    for (const char *word = text;; word++) {
        const size_t length = strcspn(word, ",");
        unsigned found = 0;
        for (size_t i = 0; i < sizeof stage_names / sizeof stage_names[0]; i++)
            if (strlen(stage_names[i].name) == length && memcmp(word, stage_names[i].name, length) == 0)
                found = stage_names[i].stage;
        if (found == 0)
            return FAIL_USAGE(
                "there is no stage '%.*s'; stages are products, bandwidth, rollout, rollout_bf16, "
                "learner, reward, reward_bf16, preference, all, step",
                (int)length, word);
        *stages |= found;
        word += length;
        if (*word == '\0')
            return STATUS_OK;
    }
}

double bench_rollout_seconds(const policy_config *c, int batch, int frames, const bench_roofline *machine) {
    const transformer_config *wide = &c->temporal.transformer, *deep = &c->depth;
    const int levels = c->temporal.levels;
    const double row = transformer_products_per_row(wide), frame = policy_products_per_frame(c),
                 level_row = transformer_products_per_row(deep);
    // A frame reads the keys and values of every position so far, itself included.
    const double positions = c->temporal.prefix + 0.5 * (frames + 1);
    const double wide_cache = machine->cache_bytes * 2.0 * batch * positions * wide->layers * wide->width;
    const double deep_cache =
        machine->cache_bytes * 2.0 * batch * 0.5 * levels * (levels + 1) * deep->layers * deep->width;
    // The depth stage's weights serve all levels of a frame, but count once: caches may hold them.
    const double deep_weights = frame - row - (levels - 1) * level_row;
    const double wide_products = 2.0 * batch * row / machine->peak,
                 wide_bytes = (machine->weight_bytes * row + wide_cache) / machine->bandwidth;
    const double deep_products = 2.0 * batch * (frame - row) / machine->peak,
                 deep_bytes = (machine->weight_bytes * deep_weights + deep_cache) / machine->bandwidth;
    return fmax(wide_products, wide_bytes) + fmax(deep_products, deep_bytes);
}

double bench_reward_flop(const policy_config *c, int frames) {
    return 2.0 * transformer_products_per_row(&c->temporal.transformer) * (c->temporal.prefix + 1 + frames);
}

double bench_learner_flop(const policy_config *c, int frames) {
    const double row = transformer_products_per_row(&c->temporal.transformer);
    const double temporal = row * (c->temporal.prefix + frames) / frames;
    const double policy = policy_products_per_frame(c) - row + temporal;
    return 2.0 * (3.0 * policy + policy + 3.0 * (temporal + c->temporal.transformer.width));
}

void bench_fill_random(bench *b, float *out, size_t count) {
    const philox_stream stream = b->stream;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < count; i++) {
        philox_stream at = stream;
        at.position += i;
        out[i] = philox_next_uniform(&at) - 0.5f;
    }
    b->stream.position += count;
}

static status create_random(bench *b, float **out, size_t count) {
    mirror values;
    TRY(device_allocate(b->device, (void **)out, sizeof(float) * count, "products"));
    TRY(mirror_create(&values, b->device, *out, sizeof(float) * count, "products"));
    bench_fill_random(b, values.host, count);
    const status result = mirror_store(&values);
    mirror_release(&values);
    return result;
}

// Of the products that the ceiling is measured with: large enough to be limited by the multipliers alone. A
// call on a device with memory of its own must outlast many times what starting it and waiting for it costs.
typedef struct product_size {
    int64_t rows, width;
    int calls; // without a wait in between
} product_size;

static product_size size_of_products(const bench *b) {
    return device_shares_memory(b->device) ? (product_size){512, 2048, 1} : (product_size){8192, 8192, 8};
}

static status time_products(bench *b, weight *w, const product_size *size, const activation *x, activation *y,
                            double *seconds) {
    const double start = stage_seconds();
    for (int call = 0; call < size->calls; call++)
        TRY(block_product(w, size->rows, x, y));
    TRY(device_finish(b->device));
    *seconds = (stage_seconds() - start) / size->calls;
    return STATUS_OK;
}

static status measure_products(bench *b, weight_precision precision, double *flop_per_second) {
    enum { WARM_UP = 2 };
    const product_size size = size_of_products(b);
    weight *w = NULL;
    const size_t bytes = device_activation_bytes(b->device) * (size_t)(size.rows * size.width);
    float *plain = NULL, *inputs = NULL;
    activation *x = NULL, *y = NULL; // as the blocks of a model multiply them
    status result;
    TRY_GOTO(result, create_random(b, &plain, (size_t)(size.width * size.width)), done);
    TRY_GOTO(result, create_random(b, &inputs, (size_t)(size.rows * size.width)), done);
    TRY_GOTO(result, device_allocate(b->device, (void **)&x, bytes, "products"), done);
    TRY_GOTO(result, device_allocate(b->device, (void **)&y, bytes, "products"), done);
    op_store_activations(b->device, size.rows, size.width, inputs, x);
    TRY_GOTO(result, weight_create(&w, b->device, size.width, size.width, WEIGHT_SCORE, precision), done);
    TRY_GOTO(result, weight_pack(w, plain), done);
    double best = INFINITY;
    for (int i = 0; i < WARM_UP + 8 * b->options->repeats; i++) {
        double seconds;
        TRY_GOTO(result, time_products(b, w, &size, x, y, &seconds), done);
        if (i >= WARM_UP)
            best = fmin(best, seconds);
    }
    *flop_per_second = 2.0 * (double)(size.rows * size.width * size.width) / best;
done:
    weight_destroy(w);
    device_free(b->device, plain);
    device_free(b->device, inputs);
    device_free(b->device, x);
    device_free(b->device, y);
    return result;
}

// Of a device with memory of its own: copying within it, which reads and writes every byte.
static status measure_copy_bandwidth(bench *b) {
    const size_t count = (size_t)1 << 28;
    const int64_t width = (int64_t)count;
    float *buffers = NULL;
    double best = INFINITY;
    status result;
    TRY_GOTO(result,
             device_allocate(b->device, (void **)&buffers, sizeof(float) * 2 * count, "bandwidth buffer"),
             done);
    for (int repeat = 0; repeat < 2 * b->options->repeats + 1; repeat++) {
        const double start = stage_seconds();
        op_copy_rows(b->device, 1, width, buffers, width, buffers + count, width, false);
        TRY_GOTO(result, device_finish(b->device), done);
        best = fmin(best, stage_seconds() - start);
    }
    b->bandwidth = (double)(sizeof(float) * 2 * count) / best;
done:
    device_free(b->device, buffers);
    return result;
}

static status measure_bandwidth(bench *b) {
    if (!device_shares_memory(b->device))
        return measure_copy_bandwidth(b);
    // A virtual machine reports the caches of the whole host; more than 1 GiB is not worth the wait.
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    size_t bytes = (size_t)256 << 20;
    while (cache > 0 && bytes < 4 * (size_t)cache && bytes < (size_t)1 << 30)
        bytes *= 2;
    const size_t count = bytes / sizeof(uint64_t);
    uint64_t *buffer;
    TRY(memory_allocate((void **)&buffer, bytes, "bandwidth buffer"));
#pragma omp parallel for schedule(static) num_threads(device_threads(b->device))
    for (size_t i = 0; i < count; i++)
        buffer[i] = i;
    double best = INFINITY;
    uint64_t sum = 0;
    for (int repeat = 0; repeat < 2 * b->options->repeats + 1; repeat++) {
        const double start = stage_seconds();
        sum = 0;
#pragma omp parallel for schedule(static) num_threads(device_threads(b->device)) reduction(+ : sum)
        for (size_t i = 0; i < count; i++)
            sum += buffer[i];
        best = fmin(best, stage_seconds() - start);
    }
    memory_free(buffer);
    if (sum != (uint64_t)count * (count - 1) / 2)
        return FAIL("reading %zu MiB of memory gave a wrong sum: this machine's memory is faulty",
                    bytes >> 20);
    b->bandwidth = (double)bytes / best;
    return STATUS_OK;
}

bench_result bench_new_result(const bench *b, const char *name, const char *unit, double value) {
    return (bench_result){
        .name = name, .unit = unit, .value = value, .threads = device_threads(b->device), .ranks = 1};
}

static status find_ceilings(bench *b) {
    const unsigned stages = b->options->stages;
    b->listener(b->context, "the ceilings of this machine", NULL);
    TRY(measure_products(b, WEIGHT_F32, &b->peak));
    if (stages & (BENCH_ROLLOUT_BF16 | BENCH_REWARD_BF16))
        TRY(measure_products(b, WEIGHT_BF16, &b->peak_bf16));
    TRY(measure_bandwidth(b));
    if (stages & BENCH_PRODUCTS) {
        bench_result r = bench_new_result(b, "products", "GFLOP/s", b->peak / 1e9);
        const product_size size = size_of_products(b);
        snprintf(r.formula, sizeof r.formula, "2 x %lld x %lld x %lld over the time of one %s product",
                 (long long)size.rows, (long long)size.width, (long long)size.width,
                 device_activation_bytes(b->device) == 2 ? "bf16" : "f32");
        b->listener(b->context, r.name, &r);
    }
    if (stages & BENCH_BANDWIDTH) {
        bench_result r = bench_new_result(b, "bandwidth", "GB/s", b->bandwidth / 1e9);
        snprintf(r.formula, sizeof r.formula,
                 device_shares_memory(b->device)
                     ? "bytes of a buffer of 256 MiB to 1 GiB (4 last-level caches) over the time to sum it"
                     : "bytes of a buffer of 1 GiB, read and written, over the time to copy it");
        b->listener(b->context, r.name, &r);
    }
    return STATUS_OK;
}

status bench_create_policy(bench *b, weight_precision precision, policy **out) {
    TRY(policy_create(out, b->device, &b->policy, WEIGHT_SAMPLE, precision));
    TRY(model_initialise(b->device, policy_parameters(*out), 1, policy_values(*out)));
    return policy_pack(*out);
}

void bench_fill_tokens(bench *b, uint16_t *out, size_t rows, int columns, const int *entries) {
    for (size_t i = 0; i < rows * (size_t)columns; i++)
        out[i] = (uint16_t)philox_next_below(&b->stream, (uint32_t)entries[i % (size_t)columns]);
}

static status run_rollout(bench *b, weight_precision precision) {
    const bool bf16 = precision == WEIGHT_BF16;
    const int batch = b->config->train.batch, frames = b->config->train.frames;
    policy *policy = NULL;
    policy_sampler *sampler = NULL;
    bench_batch h = {0};
    status result;
    b->listener(b->context, bf16 ? "rollout_bf16" : "rollout", NULL);
    TRY_GOTO(result, bench_create_batch(&h, b), done);
    TRY_GOTO(result, bench_create_policy(b, precision, &policy), done);
    TRY_GOTO(result, policy_sampler_create(&sampler, policy, batch, frames), done);
    rollout_request request = {.batch = batch,
                               .frames = frames < 4 ? frames : 4,
                               .prefix = h.prefix,
                               .samples = h.samples,
                               .terms = {.temperature = (float)b->config->train.temperature}};
    TRY_GOTO(result, policy_sample(policy, sampler, &request, h.tokens, h.log_probabilities), done);
    request.frames = frames;
    double best = INFINITY;
    for (int repeat = 0; repeat < b->options->repeats; repeat++) {
        const double start = stage_seconds();
        request.step = (uint32_t)repeat;
        TRY_GOTO(result, policy_sample(policy, sampler, &request, h.tokens, h.log_probabilities), done);
        best = fmin(best, stage_seconds() - start);
    }
    const int stored = (int)device_activation_bytes(b->device);
    // A device that stores activations as bf16 multiplies bf16 whatever the precision.
    const bench_roofline machine = {.peak = bf16 ? b->peak_bf16 : b->peak,
                                    .bandwidth = b->bandwidth,
                                    .weight_bytes = bf16 || stored == 2 ? 2 : 4,
                                    .cache_bytes = stored};
    const double step = bench_rollout_seconds(&b->policy, batch, frames, &machine);
    bench_result r =
        bench_new_result(b, bf16 ? "rollout_bf16" : "rollout", "frames/s", (double)batch * frames / best);
    r.ceiling = batch / step;
    snprintf(r.formula, sizeof r.formula,
             "batch x frames / seconds; ceiling: over temporal and depth stage the longer of products / %.0f "
             "GFLOP/s and (weights + key-value cache) / %.1f GB/s, %.2f ms a frame step of %d samples",
             machine.peak / 1e9, machine.bandwidth / 1e9, step * 1e3, batch);
    if (b->options->peer_python != NULL && !bf16)
        result = bench_run_peer(b->config, b->options, r.threads, "rollout", &r);
    b->listener(b->context, r.name, &r); // our own figure is worth having if the peer failed
done:
    policy_sampler_destroy(sampler);
    policy_destroy(policy);
    memory_free(h.memory);
    return result;
}

// What a rank of a run with one learner does between two rollouts.
static status learn(bench *b, bench_learner *l) {
    TRY(bench_learner_pass(b, l));
    return bench_learner_update(b, l);
}

static status run_learner(bench *b) {
    const int batch = b->config->train.batch, frames = b->config->train.frames;
    bench_learner l = {0};
    status result;
    b->listener(b->context, "learner", NULL);
    TRY_GOTO(result, bench_create_learner(b, &l), done);
    TRY_GOTO(result, learn(b, &l), done);
    double best = INFINITY;
    const uint64_t allocations = memory_read_counters().allocations;
    for (int repeat = 0; repeat < b->options->repeats; repeat++) {
        const double start = stage_seconds();
        TRY_GOTO(result, learn(b, &l), done);
        best = fmin(best, stage_seconds() - start);
    }
    if (memory_read_counters().allocations != allocations) {
        result = FAIL("the learner step allocated memory %llu times; it must not",
                      (unsigned long long)(memory_read_counters().allocations - allocations));
        goto done;
    }
    const double flop = bench_learner_flop(&b->policy, frames);
    bench_result r = bench_new_result(b, "learner", "frames/s", (double)batch * frames / best);
    r.ceiling = b->peak / flop;
    snprintf(
        r.formula, sizeof r.formula,
        "batch x frames / seconds of a step; ceiling: %.0f GFLOP/s / %.4f GFLOP of matrix products a frame "
        "(policy and value forward and backward, reference forward); %.0f GFLOP/s reached",
        b->peak / 1e9, flop / 1e9, r.value * flop / 1e9);
    if (b->options->peer_python != NULL)
        result = bench_run_peer(b->config, b->options, r.threads, "learner", &r);
    b->listener(b->context, r.name, &r); // our own figure is worth having if the peer failed
done:
    bench_destroy_learner(&l);
    return result;
}

static void tell_device(const bench *b) {
    char where[160];
    snprintf(where, sizeof where, "on %s (%s), %s", device_name(b->device), device_instruction_set(b->device),
             device_library(b->device));
    b->listener(b->context, where, NULL);
}

static status run_stages(bench *b) {
    const unsigned stages = b->options->stages;
    status result;
    TRY(stage_create_device(&b->device, b->config, NULL));
    tell_device(b);
    TRY_GOTO(result, find_ceilings(b), done);
    if (stages & BENCH_ROLLOUT)
        TRY_GOTO(result, run_rollout(b, WEIGHT_F32), done);
    if (stages & BENCH_ROLLOUT_BF16)
        TRY_GOTO(result, run_rollout(b, WEIGHT_BF16), done);
    if (stages & BENCH_LEARNER)
        TRY_GOTO(result, run_learner(b), done);
    if (stages & BENCH_REWARD)
        TRY_GOTO(result, bench_run_reward(b, WEIGHT_F32), done);
    if (stages & BENCH_REWARD_BF16)
        TRY_GOTO(result, bench_run_reward(b, WEIGHT_BF16), done);
    if (stages & BENCH_PREFERENCE)
        TRY_GOTO(result, bench_run_preference(b), done);
done:
    device_destroy(b->device);
    return result;
}

// On whatever ranks there are: one, unless mpirun or srun started this.
static status run_on_ranks(bench *b) {
    world *world;
    const world_options options = {.threads = b->config->threads, .deadline_seconds = 600.0};
    TRY(world_create(&world, &options));
    char note[DEVICE_NOTE];
    status result = device_choose(&b->device, b->config, world, world_threads(world), note);
    if (result == STATUS_OK && world_rank(world) == 0)
        tell_device(b);
    if (result == STATUS_OK)
        result = bench_run_step(b, world);
    if (result != STATUS_OK && world_size(world) > 1)
        world_abort(world, status_message()); // the other ranks may be waiting for this one
    device_destroy(b->device);
    world_destroy(world);
    return result;
}

status bench_run(const run_config *config, const bench_options *options, bench_listener listener,
                 void *context) {
    bench b = {.config = config,
               .options = options,
               .listener = listener,
               .context = context,
               .stream = {.key = 1, .purpose = 0x62656e63u}};
    shard_format format = {.kind = SHARD_TOKENS, .levels = 1 + (uint32_t)config->model.coarse_levels};
    for (uint32_t level = 0; level < format.levels; level++)
        format.codebook_size[level] = (uint32_t)options->codebook;
    TRY(model_policy_config(&b.policy, config, &format));
    if (options->stages & BENCH_ALL)
        TRY(run_stages(&b));
    return options->stages & BENCH_STEP ? run_on_ranks(&b) : STATUS_OK;
}
