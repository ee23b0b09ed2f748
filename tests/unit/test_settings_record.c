// What a checkpoint says of the settings it was made with, and how a difference is named.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "launch/settings_record.h"

#include <string.h>

static const char *const keys[] = {"seed", "train", NULL};
static const char *const except[] = {"train.steps", "train.keep", NULL};
static const settings_scope scope = {keys, except};

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static json_t *record_of(const run_config *config) {
    json_t *record;
    must(settings_record_create(&record, config, &scope));
    return record;
}

static void test_scope(void **state) {
    (void)state;
    static run_config config;
    must(run_config_set_defaults(&config));
    json_t *record = record_of(&config);
    assert_string_equal(json_string_value(json_object_get(record, "seed")), "1");
    assert_string_equal(json_string_value(json_object_get(record, "train.alpha")), "0.05");
    assert_string_equal(json_string_value(json_object_get(record, "train.whiten_reward")), "true");
    assert_string_equal(json_string_value(json_object_get(record, "train.baseline")), "value");
    assert_string_equal(json_string_value(json_object_get(record, "train.rewards")),
                        "[{name: text_adherence, weight: 1}]");
    const char *const absent[] = {"train.steps", "train.keep", "name", "pretrain.batch", "threads"};
    for (int i = 0; i < 5; i++)
        assert_null(json_object_get(record, absent[i]));
    json_decref(record);
}

static void expect(const json_t *recorded, const json_t *wanted, const char *message) {
    assert_int_equal(settings_record_compare(recorded, wanted, "run/step-4", "go elsewhere"), STATUS_FAILED);
    assert_string_equal(status_message(), message);
}

static void test_compare(void **state) {
    (void)state;
    static run_config config;
    must(run_config_set_defaults(&config));
    json_t *then = record_of(&config);
    config.train.steps++; // does not count
    json_t *now = record_of(&config);
    must(settings_record_compare(then, now, "run/step-4", "go elsewhere"));
    json_decref(now);
    config.train.beta2 = 0.95;
    config.train.clip = 0.3; // earlier in the table
    now = record_of(&config);
    expect(then, now,
           "run/step-4 was made with train.clip: 0.2, wanted is 0.3; restore that or go elsewhere");
    // A record from before there was a setting: made with what is the default now.
    json_object_del(then, "train.clip");
    expect(then, now,
           "run/step-4 was made with train.clip: 0.2, wanted is 0.3; restore that or go elsewhere");
    config.train.clip = 0.2;
    config.train.beta2 = 0.99;
    json_decref(now);
    now = record_of(&config);
    must(settings_record_compare(then, now, "run/step-4", "go elsewhere"));
    // What is no setting has no default.
    json_object_set_new(now, "codec of data.tokens", json_string("abc"));
    expect(then, now, "run/step-4 does not say its codec of data.tokens, wanted is abc; go elsewhere");
    json_object_set_new(then, "codec of data.tokens", json_string("abd"));
    expect(then, now,
           "run/step-4 was made with codec of data.tokens abd, wanted is abc; restore that or go elsewhere");
    expect(NULL, now, "run/step-4 does not say which settings it was made with; go elsewhere");
    json_decref(then);
    json_decref(now);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scope), cmocka_unit_test(test_compare)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
