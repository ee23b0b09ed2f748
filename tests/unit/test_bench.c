// The benchmark: its ceilings against numbers worked out by hand, every stage on a tiny model, and what a
// peer may do wrong.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/bench.h"
#include "launch/model_setup.h"
#include "tests/unit/scratch.h"

#include <math.h>

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

// One temporal layer of width 32 and one depth layer of width 16, feed-forwards of 64: 4 x 32^2 + 3 x 32 x 64
// = 10240 and 4 x 16^2 + 3 x 16 x 64 = 4096 multiply-adds a row; projection 512, two heads of 48: 768 each.
static const policy_config small = {
    .temporal = {.transformer = {.layers = 1, .width = 32, .heads = 2, .feed_forward = 64},
                 .levels = 2,
                 .codebook = {48, 48},
                 .prefix = 3,
                 .prefix_codebook = 8,
                 .frames = 9},
    .depth = {.layers = 1, .width = 16, .heads = 1, .feed_forward = 64},
};

static void test_rollout_ceiling(void **state) {
    (void)state;
    const double frame = 512 + 2 * 4096 + 2 * 768; // of the depth stage
    bench_roofline machine = {.peak = 1e9, .bandwidth = 1e18, .weight_bytes = 4, .cache_bytes = 4};
    assert_float_equal(bench_rollout_seconds(&small, 5, 9, &machine), 2 * 5 * (10240 + frame) / 1e9, 1e-12);
    // Keys and values: 5 samples, 3 + (9 + 1) / 2 = 8 positions on average, 32 floats each; 1 + 2 positions
    // of 16 floats in the depth stage, whose weights are read once.
    machine = (bench_roofline){.peak = 1e18, .bandwidth = 1e9, .weight_bytes = 2, .cache_bytes = 4};
    const double wide = 2 * 10240 + 4 * 2 * 5 * 8 * 32,
                 deep = 2 * (512 + 4096 + 2 * 768) + 4 * 2 * 5 * 3 * 16;
    assert_float_equal(bench_rollout_seconds(&small, 5, 9, &machine), (wide + deep) / 1e9, 1e-12);
    // Of caches in bf16 half is read.
    machine.cache_bytes = 2;
    assert_float_equal(bench_rollout_seconds(&small, 5, 9, &machine),
                       (wide + deep - 2 * 2 * 5 * (8 * 32 + 3 * 16)) / 1e9, 1e-12);
}

static void test_learner_flop(void **state) {
    (void)state;
    const double temporal = 10240.0 * 12 / 9, policy = temporal + 512 + 2 * 4096 + 2 * 768;
    assert_float_equal(bench_learner_flop(&small, 9), 2 * (4 * policy + 3 * (temporal + 32)), 1e-6);
}

static void test_reward_flop(void **state) {
    (void)state;
    assert_float_equal(bench_reward_flop(&small, 9), 2 * 10240.0 * (3 + 1 + 9), 1e-6);
}

// Parameters of a policy, found without the memory of a large one: every layer adds the same number.
static size_t parameters_of(device *d, policy_config c, int temporal_layers, int depth_layers) {
    policy *p;
    c.temporal.transformer.layers = temporal_layers;
    c.depth.layers = depth_layers;
    must(policy_create(&p, d, &c, WEIGHT_SCORE, WEIGHT_F32));
    const size_t size = policy_parameters(p)->size;
    policy_destroy(p);
    return size;
}

// The number in the head of the file is the program's.
static void test_medium(void **state) {
    (void)state;
    static run_config config;
    must(run_config_load(&config, CONFIGS "/medium.yaml", NULL, 0));
    shard_format format = {.kind = SHARD_TOKENS, .levels = 1 + (uint32_t)config.model.coarse_levels};
    for (uint32_t level = 0; level < format.levels; level++)
        format.codebook_size[level] = 1024;
    policy_config c;
    must(model_policy_config(&c, &config, &format));
    device *d;
    must(device_create(&d, 1));
    const size_t one = parameters_of(d, c, 1, 1), temporal_layer = parameters_of(d, c, 2, 1) - one,
                 depth_layer = parameters_of(d, c, 1, 2) - one;
    device_destroy(d);
    const size_t all = one + (size_t)(c.temporal.transformer.layers - 1) * temporal_layer +
                       (size_t)(c.depth.layers - 1) * depth_layer;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "policy has %zu %03zu %03zu parameters", all / 1000000, all / 1000 % 1000,
             all % 1000);
    size_t count;
    char *text = scratch_read(CONFIGS "/medium.yaml", &count);
    assert_non_null(text);
    if (strstr(text, wanted) == NULL)
        fail_msg("medium.yaml does not say '%s'", wanted);
    free(text);
}

static void test_stages(void **state) {
    (void)state;
    unsigned stages;
    must(bench_parse_stages("rollout,products", &stages));
    assert_int_equal(stages, BENCH_ROLLOUT | BENCH_PRODUCTS);
    must(bench_parse_stages("all", &stages));
    assert_int_equal(stages, BENCH_ALL);
    static const char *const wrong[] = {"", "rollout,", "rollouts", "rollout,,learner"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(bench_parse_stages(wrong[i], &stages), STATUS_USAGE);
}

static void load_tiny(run_config *config) {
    static const char text[] = "threads: 2\n"
                               "model:\n"
                               "  temporal: {layers: 1, width: 32, heads: 2}\n"
                               "  depth: {layers: 1, width: 32, heads: 2}\n"
                               "  coarse_levels: 1\n"
                               "  prefix: 2\n"
                               "  prefix_codebook: 8\n"
                               "pretrain: {frames: 6}\n"
                               "train: {batch: 4, frames: 6, gradient_slots: 2}\n";
    const char *path = scratch_path("tiny.yaml");
    assert_int_equal(scratch_write(path, text, sizeof text - 1), 0);
    must(run_config_load(config, path, NULL, 0));
}

typedef struct collected {
    bench_result results[8];
    int count;
} collected;

static void collect(void *context, const char *what, const bench_result *result) {
    collected *c = context;
    assert_non_null(what);
    if (result != NULL)
        c->results[c->count++] = *result;
}

static void test_every_stage_runs(void **state) {
    (void)state;
    static run_config config;
    load_tiny(&config);
    const bench_options options = {
        .stages = BENCH_ALL & ~(BENCH_ROLLOUT_BF16 | BENCH_REWARD_BF16), .codebook = 32, .repeats = 1};
    collected c = {0};
    must(bench_run(&config, &options, collect, &c));
    assert_int_equal(c.count, 6);
    for (int i = 0; i < c.count; i++) {
        const bench_result *r = &c.results[i];
        assert_true(isfinite(r->value) && r->value > 0);
        assert_true(r->formula[0] != '\0');
        assert_int_equal(r->threads, 2);
        assert_true(r->ceiling > 0 || i < 2);
        assert_true(r->peer[0] == '\0');
    }
}

// Writes a peer that is a shell script; returns its path.
static const char *fake_peer(const char *script) {
    const char *path = scratch_path("peer.sh");
    assert_int_equal(scratch_write(path, script, strlen(script)), 0);
    return path;
}

static status ask_peer(const char *interpreter, const char *script, bench_result *result) {
    static run_config config;
    load_tiny(&config);
    const bench_options options = {
        .codebook = 32, .repeats = 1, .peer_python = interpreter, .peer_script = script};
    return bench_run_peer(&config, &options, 2, "rollout", result);
}

static void test_peer(void **state) {
    (void)state;
    bench_result r = {0};
    must(ask_peer(
        "sh",
        fake_peer(
            "echo noise\n"
            "case $1 in *'\"threads\":2,\"stages\":[\"rollout\"]'*'\"codebooks\":[32,32]'*) ;; *) exit 3;; "
            "esac\n"
            "echo '{\"torch\": \"9.8\", \"rollout\": {\"per_s\": 12.5, \"variant\": \"eager\", "
            "\"setting\": \"plain\"}}'\n"),
        &r));
    assert_string_equal(r.peer, "PyTorch 9.8, eager, plain");
    assert_float_equal(r.peer_value, 12.5, 1e-9);
}

static void test_bad_peers(void **state) {
    (void)state;
    bench_result r = {0};
    assert_int_equal(ask_peer("sh", fake_peer("exit 4\n"), &r), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "failed"));
    assert_int_equal(ask_peer("sh", fake_peer("echo '{\"torch\": \"9.8\"}'\n"), &r), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "no result"));
    assert_int_equal(ask_peer("sh", fake_peer(":\n"), &r), STATUS_FAILED);
    assert_int_equal(ask_peer("/no/such/python", fake_peer(":\n"), &r), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/no/such/python"));
    assert_int_equal(ask_peer("sh", "/no/such/peer.py", &r), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "--peer-script"));
    assert_true(r.peer[0] == '\0');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rollout_ceiling),  cmocka_unit_test(test_learner_flop),
        cmocka_unit_test(test_reward_flop),      cmocka_unit_test(test_stages),
        cmocka_unit_test(test_every_stage_runs), cmocka_unit_test(test_peer),
        cmocka_unit_test(test_bad_peers),        cmocka_unit_test(test_medium),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
