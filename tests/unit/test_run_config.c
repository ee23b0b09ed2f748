// Run files: what is accepted, what is refused and with which words, and that a resolved file is the same
// run.
#include "data/publish.h"
#include "launch/run_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[PATH_MAX / 2];
static char file[PATH_MAX], over[PATH_MAX];

static int make_folder(void **state) {
    (void)state;
    const char *parent = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/run_config_XXXXXX", parent != NULL ? parent : "/tmp");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(file, sizeof file, "%s/probe.yaml", folder);
    snprintf(over, sizeof over, "%s/over.yaml", folder);
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    unlink(file);
    unlink(over);
    return rmdir(folder);
}

static status load_text(run_config *out, const char *text, const char *override) {
    assert_int_equal(publish_file(file, text, strlen(text)), STATUS_OK);
    char *overrides[] = {(char *) override};
    return run_config_load(out, file, overrides, override == NULL ? 0 : 1);
}

static run_config accept(const char *text, const char *override) {
    run_config config;
    if (load_text(&config, text, override) != STATUS_OK)
        fail_msg("refused: %s", status_message());
    return config;
}

// The text must be refused with a message of one line that holds every one of `parts` (ends with NULL).
static void refuse(const char *text, const char *override, const char *const *parts) {
    run_config config;
    const status result = load_text(&config, text, override);
    assert_int_not_equal(result, STATUS_OK);
    assert_null(strchr(status_message(), '\n'));
    for (; *parts != NULL; parts++)
        if (strstr(status_message(), *parts) == NULL)
            fail_msg("'%s' is missing in: %s", *parts, status_message());
}
#define REFUSE(text, override, ...) refuse(text, override, (const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state) {
    (void)state;
    const run_config c = accept("", NULL);
    assert_string_equal(c.name, "probe");
    assert_string_equal(c.folder, "runs/probe");
    assert_string_equal(c.roles, "colocated");
    assert_int_equal(c.seed, 1);
    assert_int_equal(c.model.temporal.width, 128);
    assert_int_equal(c.model.temporal.ffn, 384); // 8 * 128 / 3 = 341
    assert_int_equal(c.model.depth.ffn, 256);    // 8 * 96 / 3 = 256
    assert_true(c.embedding.learning_rate == 5e-4);
    assert_true(c.pretrain.beta2 == 0.99);
    assert_true(c.train.whiten_advantage);
    assert_int_equal(c.train.rollout_precision, RUN_PRECISION_F32);
    assert_int_equal(c.train.rewards.count, 1);
    assert_string_equal(c.train.rewards.entries[0].name, "text_adherence");
    assert_true(c.train.rewards.entries[0].weight == 1.0);
    assert_int_equal(c.samples.iterations, 32);
}

static void test_file_values(void **state) {
    (void)state;
    const run_config c = accept("# a comment\n"
                                "name: 'über \"x\"'\n"
                                "folder: some/where\n"
                                "data:\n"
                                "model:\n"
                                "  temporal: {layers: 3, width: 256, ffn: 100}\n"
                                "train:\n"
                                "  alpha: .25\n"
                                "  whiten_reward: false\n"
                                "  rollout_precision: bf16\n"
                                "  rewards:\n"
                                "    - name: text_adherence\n"
                                "      weight: -2.5\n",
                                NULL);
    assert_string_equal(c.name, "über \"x\"");
    assert_string_equal(c.folder, "some/where");
    assert_int_equal(c.model.temporal.layers, 3);
    assert_int_equal(c.model.temporal.ffn, 100);
    assert_true(c.train.alpha == 0.25);
    assert_false(c.train.whiten_reward);
    assert_int_equal(c.train.rollout_precision, RUN_PRECISION_BF16);
    assert_true(c.train.rewards.entries[0].weight == -2.5);
}

static void test_overrides(void **state) {
    (void)state;
    assert_int_equal(accept("train:\n  steps: 5\n", "train.steps=7").train.steps, 7);
    assert_int_equal(accept("train:\n", "train.steps=7").train.steps, 7);
    assert_int_equal(accept("", "model.depth.layers=2").model.depth.layers, 2);
    assert_string_equal(accept("", "data.base=runs/a=b").data.base, "runs/a=b");
    assert_string_equal(accept("data: {base: x}", "data.base=").data.base, "");
    const run_config c = accept("", "train.rewards=[{name: text_adherence, weight: 3}]");
    assert_true(c.train.rewards.entries[0].weight == 3.0);

    char *both[] = {"seed=2", "seed=3"};
    run_config config;
    assert_int_equal(run_config_load(&config, file, both, 2), STATUS_OK);
    assert_int_equal(config.seed, 3);

    REFUSE("", "train.stesp=7", "command line", "'train.stesp'", "'train.steps'");
    REFUSE("", "train.steps=many", "command line", "train.steps", "'many'", "whole number");
    REFUSE("", "train.steps", "key.sub=value");
    REFUSE("", "=5", "key.sub=value");
    REFUSE("", "train..steps=5", "empty part");
    REFUSE("", "train=5", "command line", "'train' is a group", "'5'");
    REFUSE("seed: 4\n", "seed.x=5", "no settings below");
    REFUSE("", "train.steps={a: 1, a: 2}", "command line", "given twice");
    REFUSE("", "train.steps=[1", "command line", "not valid YAML");
    assert_int_equal(load_text(&config, "", "train.steps=many"), STATUS_USAGE);
    assert_int_equal(load_text(&config, "seed: x\n", NULL), STATUS_FAILED);
}

static run_config lay_over(const char *under, const char *text, const char *override) {
    assert_int_equal(publish_file(over, text, strlen(text)), STATUS_OK);
    assert_int_equal(publish_file(file, under, strlen(under)), STATUS_OK);
    char *words[] = {(char *) override, over}; // overrides win, wherever they stand
    run_config config;
    if (run_config_load(&config, file, override == NULL ? words + 1 : words, override == NULL ? 1 : 2) !=
        STATUS_OK)
        fail_msg("refused: %s", status_message());
    return config;
}

static void test_overlays(void **state) {
    (void)state;
    static const char under[] = "name: a\n"
                                "data: {base: b, codec: c}\n"
                                "train:\n"
                                "  steps: 5\n"
                                "  rewards: [{name: text_adherence, weight: 2}]\n";
    run_config c = lay_over(under, "name: r\ndata:\n  base: d\n", NULL);
    assert_string_equal(c.name, "r");
    assert_string_equal(c.data.base, "d");
    assert_string_equal(c.data.codec, "c");
    assert_int_equal(c.train.steps, 5);
    c = lay_over(under, "train: {rewards: [{name: text_adherence, weight: 3}]}\n", "train.steps=7");
    assert_int_equal(c.train.rewards.count, 1);
    assert_true(c.train.rewards.entries[0].weight == 3.0);
    assert_int_equal(c.train.steps, 7);
    assert_int_equal(lay_over(under, "train:\ndata:\n", NULL).train.steps,
                     5); // nothing said, nothing changed
    assert_int_equal(lay_over("train:\n", "train: {steps: 3}\n", NULL).train.steps, 3);
    assert_string_equal(lay_over("seed: 1\n", "seed: 2\n", NULL).name, "probe");

    REFUSE(under, "no/such.yaml", "no/such.yaml", "No such file");
    static const char *const wrong[][2] = {
        {"seed: 1\ntrain:\n  stepz: 3\n", "over.yaml:3: unknown setting"},
        {"train:\n  steps: x\n", "over.yaml:2: train.steps is 'x'"},
        {"name: x\ntrain: 3\n", "over.yaml:2: 'train' is a group"},
        {"train:\n  rewards: [{name: x}]\n", "over.yaml:2: unknown reward"},
        {"train:\n  group: 5\n", "over.yaml:2: train.group is 5"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(publish_file(over, wrong[i][0], strlen(wrong[i][0])), STATUS_OK);
        REFUSE(under, over, wrong[i][1]);
    }
    REFUSE("train:\n  steps: x\n", over, "probe.yaml:2: train.steps is 'x'");
}

static void test_unknown_keys(void **state) {
    (void)state;
    REFUSE("seed: 1\ntrain:\n  steps: 2\n  learning_rat: 1\n", NULL, "probe.yaml:4:", "'train.learning_rat'",
           "'train.learning_rate'");
    REFUSE("sed: 1\n", NULL, "probe.yaml:1:", "'sed'", "'seed'");
    REFUSE("trian:\n  steps: 2\n", NULL, "probe.yaml:1:", "'trian'", "'train'");
    REFUSE("model:\n  temporal:\n    withd: 2\n", NULL, "probe.yaml:3:", "'model.temporal.width'");
    REFUSE("train:\n  rewards:\n    - name: text_adherance\n", NULL, "probe.yaml:3:", "text_adherance",
           "'text_adherence'");
    REFUSE("train:\n  rewards: [{name: text_adherence, wight: 1}]\n", NULL, "probe.yaml:2:", "'wight'");
}

static void test_wrong_types(void **state) {
    (void)state;
    REFUSE("train:\n  steps: sixty\n", NULL, "probe.yaml:2:", "train.steps", "'sixty'", "whole number");
    REFUSE("train:\n  steps: 1.5\n", NULL, "probe.yaml:2:", "'1.5'", "whole number");
    REFUSE("train:\n  steps: \"60\"\n", NULL, "probe.yaml:2:", "quoted text '60'");
    REFUSE("train:\n  steps: [1]\n", NULL, "probe.yaml:2:", "a sequence");
    REFUSE("train:\n  steps: {a: 1}\n", NULL, "probe.yaml:2:", "a mapping");
    REFUSE("train:\n  steps:\n", NULL, "probe.yaml:2:", "empty");
    REFUSE("train:\n  alpha: nan\n", NULL, "probe.yaml:2:", "train.alpha", "'nan'", "a number");
    REFUSE("train:\n  alpha: 0x1\n", NULL, "probe.yaml:2:", "'0x1'");
    REFUSE("train:\n  alpha: 1e999\n", NULL, "probe.yaml:2:", "'1e999'");
    REFUSE("train:\n  whiten_reward: yes\n", NULL, "probe.yaml:2:", "'yes'", "true or false");
    REFUSE("train:\n  rollout_precision: f16\n", NULL, "probe.yaml:2:", "'f16'", "f32, bf16");
    REFUSE("train: 3\n", NULL, "probe.yaml:1:", "'train' is a group", "'3'");
    REFUSE("train:\n  rewards: text_adherence\n", NULL, "probe.yaml:2:", "a list of {name, weight}");
    REFUSE("train:\n  rewards: []\n", NULL, "probe.yaml:2:", "empty list");
    REFUSE("train:\n  rewards: [{weight: 1}]\n", NULL, "probe.yaml:2:", "no name");
    REFUSE("train:\n  rewards: [{name: text_adherence, weight: big}]\n", NULL, "probe.yaml:2:", "'big'");
    REFUSE("train:\n  rewards: [{name: text_adherence}, {name: text_adherence}]\n", NULL, "listed twice");
}

static void test_ranges(void **state) {
    (void)state;
    REFUSE("train:\n  steps: 0\n", NULL, "probe.yaml:2:", "'0'", "from 1 to 100000000");
    REFUSE("train:\n  alpha: 1.5\n", NULL, "probe.yaml:2:", "'1.5'", "from 0 to 1");
    REFUSE("train:\n  batch: 99999999999999999999\n", NULL, "probe.yaml:2:", "whole number from 1 to");
    REFUSE("seed: -1\n", NULL, "probe.yaml:1:", "'-1'", "from 0 to 9007199254740991");
    assert_int_equal(accept("seed: 9007199254740991\n", NULL).seed, 9007199254740991);
    char text[RUN_CONFIG_NAME_MAX + 32];
    snprintf(text, sizeof text, "name: %0*d\n", RUN_CONFIG_NAME_MAX, 0);
    REFUSE(text, NULL, "probe.yaml:1:", "name is 128 bytes long", "at most 127");
}

static void test_impossible_sizes(void **state) {
    (void)state;
    REFUSE("model:\n  temporal:\n    width: 130\n", NULL, "probe.yaml:3:", "130 / 4", "multiple of 16",
           "model.temporal.width = 192");
    REFUSE("model:\n  depth: {width: 20, heads: 4}\n", NULL, "probe.yaml:2:", "20 / 4", "multiple of 16",
           "model.depth.width = 64");
    REFUSE("embedding:\n  output: 40\n", NULL, "probe.yaml:2:", "40", "use 48");
    REFUSE("train:\n  gradient_slots: 3\n", NULL, "probe.yaml:2:", "power of two");
    REFUSE("train:\n  batch: 12\n  gradient_slots: 8\n", NULL, "probe.yaml:3:", "does not divide",
           "train.batch = 12");
    REFUSE("train:\n  group: 5\n", NULL, "probe.yaml:2:", "does not divide train.batch = 64");
    REFUSE("train: {batch: 1, gradient_slots: 1}\n", NULL, "probe.yaml:1:", "whiten_advantage");
    REFUSE("name: a/b\n", NULL, "probe.yaml:1:", "without '/'");
}

static void test_yaml_surprises(void **state) {
    (void)state;
    REFUSE("seed: 1\ntrain:\n  steps: 2\nseed: 3\n", NULL, "probe.yaml:4:", "'seed' is given twice",
           "first on line 1");
    REFUSE("train:\n  steps: 2\n  steps: 3\n", NULL, "probe.yaml:3:", "'steps' is given twice");
    REFUSE("seed: &a 1\n", NULL, "probe.yaml:1:", "anchors");
    REFUSE("threads: *a\n", NULL, "probe.yaml:1:", "aliases");
    REFUSE("seed: !!int 1\n", NULL, "probe.yaml:1:", "tags");
    REFUSE("train: {<<: {steps: 2}}\n", NULL, "probe.yaml:1:", "merge keys");
    REFUSE("seed: 1\n---\nseed: 2\n", NULL, "probe.yaml:2:", "second document");
    REFUSE("seed: [1\n", NULL, "probe.yaml:", "not valid YAML");
    REFUSE("\tseed: 1\n", NULL, "probe.yaml:1:", "not valid YAML");
    REFUSE("name: \xff\xfe\n", NULL, "probe.yaml", "UTF-8");
    REFUSE("name: \"a\\0b\"\n", NULL, "probe.yaml:1:", "zero byte");
    REFUSE("- seed\n", NULL, "a sequence");
    REFUSE("seed\n", NULL, "a single value");
    REFUSE("{{a: 1}: 2}\n", NULL, "a key must be a plain name");
    char deep[256] = "seed: ";
    memset(deep + 6, '[', 100);
    REFUSE(deep, NULL, "nested too deeply");
    assert_int_equal(accept("# nothing\n", NULL).seed, 1);
    assert_int_equal(accept("---\n", NULL).seed, 1);
}

static void test_missing_file(void **state) {
    (void)state;
    run_config config;
    assert_int_equal(run_config_load(&config, "/nonexistent/run.yaml", NULL, 0), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/run.yaml"));
    assert_non_null(strstr(status_message(), "No such file"));
    assert_int_equal(run_config_load(&config, folder, NULL, 0), STATUS_FAILED);
    assert_non_null(strstr(status_message(), folder));
}

static void test_round_trip(void **state) {
    (void)state;
    const run_config first =
        accept("name: \"a: b # \\\"c\\\" \\\\ \\t\"\n"
               "folder: 'true'\n"
               "data: {tokens: \"~\", codec: '1e5'}\n"
               "model: {temporal: {width: 96, heads: 3}}\n"
               "pretrain: {learning_rate: 0.0012345678901234567, epsilon: 1e-12}\n"
               "train: {alpha: 0.30000000000000004, whiten_advantage: false,\n"
               "  rollout_precision: bf16, rewards: [{name: text_adherence, weight: 0.1}]}\n",
               "seed=123456789012");
    assert_int_equal(run_config_write(&first, file), STATUS_OK);
    run_config second;
    if (run_config_load(&second, file, NULL, 0) != STATUS_OK)
        fail_msg("%s", status_message());
    assert_memory_equal(&first, &second, sizeof first);

    run_config defaults = accept("", NULL);
    assert_int_equal(run_config_write(&defaults, file), STATUS_OK);
    assert_int_equal(run_config_load(&second, file, NULL, 0), STATUS_OK);
    assert_memory_equal(&defaults, &second, sizeof defaults);
}

// The run files that are shipped, at the sizes that others rely on.
static void test_shipped_files(void **state) {
    (void)state;
    char path[PATH_MAX];
    const char *slash = strrchr(__FILE__, '/');
    assert_non_null(slash);
    static const char *const names[] = {"demo", "tiny", "small"};
    run_config configs[3];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%.*s/../../launch/configs/%s.yaml", (int)(slash - __FILE__), __FILE__,
                 names[i]);
        if (run_config_load(&configs[i], path, NULL, 0) != STATUS_OK)
            fail_msg("%s", status_message());
        assert_string_equal(configs[i].name, names[i]);
    }
    assert_int_equal(configs[0].train.gradient_slots, 8);
    assert_int_equal(configs[2].model.temporal.ffn, 1408);
    assert_int_equal(configs[2].model.depth.ffn, 704);
}

static void test_require(void **state) {
    (void)state;
    const run_config c = accept("data: {codec: x}\n", NULL);
    assert_int_equal(run_config_require(&c, "data.codec"), STATUS_OK);
    assert_int_equal(run_config_require(&c, "data.tokens"), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "data.tokens is not set"));
    assert_int_equal(run_config_require_path(&c, "data.tokens", NULL), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "data.tokens is not set"));
    assert_int_equal(run_config_require_path(&c, "data.codec", NULL), STATUS_FAILED);
    assert_non_null(
        strstr(status_message(), "data.codec is 'x', and nothing is there; set it to the codec file"));
    assert_int_equal(run_config_require_path(&c, "data.codec", "runs/r/config.yaml"), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "runs/r/config.yaml: data.codec is 'x'"));
    assert_non_null(strstr(status_message(), "relative to the folder in which the run was started"));
    const run_config root = accept("data: {codec: /}\n", NULL);
    assert_int_equal(run_config_require_path(&root, "data.codec", "runs/r/config.yaml"), STATUS_OK);
}

static void test_listing(void **state) {
    (void)state;
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    assert_non_null(stream);
    run_config_print_settings(stream);
    fclose(stream);
    assert_non_null(strstr(text, "train.whiten_advantage"));
    assert_non_null(strstr(text, "default 160; a whole number from 1 to"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),         cmocka_unit_test(test_file_values),
        cmocka_unit_test(test_overrides),        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_wrong_types),      cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_impossible_sizes), cmocka_unit_test(test_yaml_surprises),
        cmocka_unit_test(test_missing_file),     cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_shipped_files),    cmocka_unit_test(test_require),
        cmocka_unit_test(test_listing),          cmocka_unit_test(test_overlays),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
