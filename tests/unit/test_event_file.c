// Event files: framing and checksums by an independent reading, and, where it is installed, TensorBoard's
// own.
#include "data/crc32c.h"
#include "data/event.pb-c.h"
#include "data/event_file.h"
#include "data/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/scratch.h"

#include <math.h>
#include <sys/wait.h>

static uint64_t little_endian(const uint8_t *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

// The definition, bit by bit.
static uint32_t slow_masked_crc(const uint8_t *bytes, size_t count) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void test_crc(void **state) {
    (void)state;
    // RFC 3720, appendix B.4
    uint8_t bytes[32] = {0};
    assert_int_equal(crc32c(bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, 32);
    assert_int_equal(crc32c(bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(crc32c(bytes, 32), 0x46dd794eu);
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c("", 0), 0);
    assert_int_equal(crc32c_masked(bytes, 32), slow_masked_crc(bytes, 32));
}

// Takes the record at *at apart; checks both checksums.
static Musicrl__Event__Event *next_record(const uint8_t *bytes, size_t count, size_t *at) {
    assert_true(*at + 16 <= count);
    const uint8_t *record = bytes + *at;
    const size_t length = little_endian(record, 8);
    assert_true(length <= count - *at - 16);
    assert_int_equal(little_endian(record + 8, 4), slow_masked_crc(record, 8));
    assert_int_equal(little_endian(record + 12 + length, 4), slow_masked_crc(record + 12, length));
    *at += 16 + length;
    Musicrl__Event__Event *event = musicrl__event__event__unpack(NULL, length, record + 12);
    assert_non_null(event);
    return event;
}

static void write_file(event_file **out, int64_t resume_step) {
    assert_int_equal(event_file_open(out, scratch_folder, resume_step), STATUS_OK);
    const char *const tags[] = {"reward", "kl_ref", "nothing"};
    for (int64_t step = 0; step < 3; step++) {
        const double values[] = {0.25 * (double)step, 1e-3, NAN};
        assert_int_equal(event_file_add(*out, step + resume_step, tags, values, 3), STATUS_OK);
    }
    assert_int_equal(event_file_sync(*out), STATUS_OK);
}

static void test_framing(void **state) {
    (void)state;
    event_file *events;
    write_file(&events, 0);
    size_t count, at = 0;
    uint8_t *bytes = (uint8_t *)scratch_read(event_file_path(events), &count);
    assert_non_null(bytes);
    Musicrl__Event__Event *event = next_record(bytes, count, &at);
    assert_string_equal(event->file_version, "brain.Event:2");
    assert_true(event->wall_time > 1.5e9);
    musicrl__event__event__free_unpacked(event, NULL);
    for (int64_t step = 0; step < 3; step++) {
        event = next_record(bytes, count, &at);
        assert_int_equal(event->step, step);
        assert_int_equal(event->what_case, MUSICRL__EVENT__EVENT__WHAT_SUMMARY);
        assert_int_equal(event->summary->n_value, 3);
        for (int i = 0; i < 3; i++) // also a value of 0 is there
            assert_int_equal(event->summary->value[i]->value_case, MUSICRL__EVENT__VALUE__VALUE_SIMPLE_VALUE);
        assert_string_equal(event->summary->value[0]->tag, "reward");
        assert_true(event->summary->value[0]->simple_value == 0.25f * (float)step);
        assert_true(event->summary->value[1]->simple_value == 1e-3f);
        assert_true(isnan(event->summary->value[2]->simple_value));
        musicrl__event__event__free_unpacked(event, NULL);
    }
    assert_int_equal(at, count);
    free(bytes);
    remove(event_file_path(events));
    assert_int_equal(event_file_close(events), STATUS_OK);
}

static void test_resume_says_start(void **state) {
    (void)state;
    event_file *events;
    write_file(&events, 5);
    size_t count, at = 0;
    uint8_t *bytes = (uint8_t *)scratch_read(event_file_path(events), &count);
    musicrl__event__event__free_unpacked(next_record(bytes, count, &at), NULL);
    Musicrl__Event__Event *event = next_record(bytes, count, &at);
    assert_int_equal(event->what_case, MUSICRL__EVENT__EVENT__WHAT_SESSION_LOG);
    assert_int_equal(event->session_log->status, MUSICRL__EVENT__SESSION_LOG__STATUS__START);
    assert_int_equal(event->step, 5);
    musicrl__event__event__free_unpacked(event, NULL);
    free(bytes);
    remove(event_file_path(events));
    assert_int_equal(event_file_close(events), STATUS_OK);
}

static void test_metrics_feed(void **state) {
    (void)state;
    event_file *events;
    metrics *m;
    assert_int_equal(event_file_open(&events, scratch_folder, 0), STATUS_OK);
    assert_int_equal(metrics_open(&m, scratch_path("metrics.jsonl"), 0, events), STATUS_OK);
    metrics_begin(m, 4);
    metrics_add(m, "entropy", 2.5);
    assert_int_equal(metrics_end(m), STATUS_OK);
    assert_int_equal(metrics_close(m), STATUS_OK);
    size_t count, at = 0;
    uint8_t *bytes = (uint8_t *)scratch_read(event_file_path(events), &count);
    musicrl__event__event__free_unpacked(next_record(bytes, count, &at), NULL);
    Musicrl__Event__Event *event = next_record(bytes, count, &at);
    assert_int_equal(event->step, 4);
    assert_string_equal(event->summary->value[0]->tag, "entropy");
    assert_true(event->summary->value[0]->simple_value == 2.5f);
    musicrl__event__event__free_unpacked(event, NULL);
    assert_int_equal(at, count);
    free(bytes);
    remove(event_file_path(events));
    assert_int_equal(event_file_close(events), STATUS_OK);
}

static void test_missing_folder(void **state) {
    (void)state;
    event_file *events;
    assert_int_equal(event_file_open(&events, "/nonexistent", 0), STATUS_FAILED);
    assert_null(events);
    assert_non_null(strstr(status_message(), "/nonexistent"));
}

static void test_tensorboard_reads_it(void **state) {
    (void)state;
    event_file *events;
    write_file(&events, 0);
    const char *slash = strrchr(__FILE__, '/');
    const char *python = getenv("MUSICRL_PYTHON");
    char command[3 * PATH_MAX];
    snprintf(command, sizeof command, "%s '%.*s/read_events.py' '%s'",
             python != NULL ? python : "/usr/bin/python3", (int)(slash - __FILE__), __FILE__,
             event_file_path(events));
    FILE *reader = popen(command, "r");
    assert_non_null(reader);
    char text[4096];
    const size_t length = fread(text, 1, sizeof text - 1, reader);
    text[length] = '\0';
    const int code = pclose(reader);
    remove(event_file_path(events));
    assert_int_equal(event_file_close(events), STATUS_OK);
    if (WIFEXITED(code) && (WEXITSTATUS(code) == 77 || WEXITSTATUS(code) == 127)) {
        print_message("skipped: %s", length > 0 ? text : "there is no Python\n");
        skip();
    }
    assert_int_equal(code, 0);
    assert_string_equal(text, "0 reward 0\n0 kl_ref 0.001\n0 nothing nan\n"
                              "1 reward 0.25\n1 kl_ref 0.001\n1 nothing nan\n"
                              "2 reward 0.5\n2 kl_ref 0.001\n2 nothing nan\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_resume_says_start),
        cmocka_unit_test(test_metrics_feed),
        cmocka_unit_test(test_missing_folder),
        cmocka_unit_test(test_tensorboard_reads_it),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
