// The card's memory, errors and products, against a CUDA runtime and a cuBLASLt that run on the host and fail
// on request.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cuda/card.h"
#include "kernels/cuda/product_cublas.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static void must_fail(status result, const char *part) {
    assert_int_equal(result, STATUS_FAILED);
    if (strstr(status_message(), part) == NULL)
        fail_msg("\"%s\" does not tell of \"%s\"", status_message(), part);
}

// The runtime that answers; fails with `code` at the call that is `calls_left` calls away.
static struct {
    int driver, gpus, count_code, major, calls_left, code, live;
    int graphs, recorded, filled;
    bool captures;
    char stream, lane, event; // the first stream that is made, the second one, and an event
    bool made_stream, busy;
    int pins, marks, follows, waits;
    bool host_page_tables;
} fake;

static void reset(void) {
    memset(&fake, 0, sizeof fake);
    fake.driver = 13000;
    fake.gpus = 2;
    fake.major = 9;
    fake.calls_left = -1;
}

static int outcome(void) {
    if (fake.calls_left < 0)
        return 0;
    return fake.calls_left-- == 0 ? fake.code : 0;
}

static int driver_version(int *version) {
    *version = fake.driver;
    return 0;
}
static int runtime_version(int *version) {
    *version = 13000;
    return 0;
}
static int device_count(int *count) {
    if (fake.count_code == 0)
        *count = fake.gpus;
    return fake.count_code;
}
static int set_device(int device) {
    assert_in_range(device, 0, fake.gpus - 1);
    return outcome();
}
static int device_attribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == 75    ? fake.major
             : attribute == 76  ? 5
             : attribute == 100 ? fake.host_page_tables
                                : 132;
    return 0;
}
static int device_name(char *out, int bytes, int device) {
    snprintf(out, (size_t)bytes, "GPU of kind %d", device);
    return 0;
}
static int device_bus(char *out, int bytes, int device) {
    snprintf(out, (size_t)bytes, "0000:%02x:00.0", device);
    return 0;
}
static int memory_info(size_t *free_bytes, size_t *total) {
    *free_bytes = 1234;
    *total = 5678;
    return 0;
}
static int allocate(void **out, size_t bytes) {
    const int code = outcome();
    if (code == 0) {
        *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
        memset(*out, 0xee, bytes);
        fake.live++;
    }
    return code;
}
static int release(void *pointer) {
    free(pointer);
    fake.live--;
    return outcome();
}
static int copy(void *to, const void *from, size_t bytes, int kind, void *stream) {
    const int code = outcome();
    assert_true((kind == 1 || kind == 2) && stream == &fake.stream);
    if (code == 0)
        memcpy(to, from, bytes);
    return code;
}
static int fill(void *to, int byte, size_t bytes, void *stream) {
    const int code = outcome();
    assert_true(stream == &fake.stream);
    if (code == 0 && fake.captures)
        fake.recorded++;
    else if (code == 0)
        memset(to, byte, bytes);
    return code;
}
static int stream_create(void **out) {
    *out = fake.made_stream ? &fake.lane : &fake.stream;
    fake.made_stream = true;
    return outcome();
}
static int stream_destroy(void *stream) {
    assert_true(stream == &fake.stream || stream == &fake.lane);
    return 0;
}
static int stream_wait(void *stream) {
    assert_true(stream == &fake.stream);
    fake.waits++;
    return outcome();
}
static int stream_query(void *stream) {
    assert_true(stream == &fake.lane);
    const int code = outcome();
    return code != 0 ? code : fake.busy ? 600 : 0;
}
static int stream_follow(void *stream, void *event) {
    assert_true(stream == &fake.lane && event == &fake.event && fake.marks == fake.follows + 1);
    fake.follows++;
    return outcome();
}
static int event_create(void **out) {
    *out = &fake.event;
    return outcome();
}
static int event_record(void *event, void *stream) {
    assert_true(event == &fake.event && stream == &fake.stream);
    fake.marks++;
    return outcome();
}
static int event_destroy(void *event) {
    assert_true(event == &fake.event);
    return 0;
}
static int pin(void *host, size_t bytes) {
    assert_true(host != NULL && bytes > 0);
    const int code = outcome();
    fake.pins += code == 0;
    return code;
}
static int unpin(void *host) {
    assert_non_null(host);
    fake.pins--;
    return outcome();
}
// A graph is the number of fills that were recorded in it.
static int capture_begin(void *stream) {
    assert_true(stream == &fake.stream && !fake.captures);
    fake.captures = true;
    fake.recorded = 0;
    return outcome();
}
static int capture_end(void *stream, void **graph) {
    assert_true(stream == &fake.stream && fake.captures);
    fake.captures = false;
    const int code = outcome();
    if (code == 0) {
        *graph = malloc(sizeof(int));
        memcpy(*graph, &fake.recorded, sizeof(int));
        fake.graphs++;
    }
    return code;
}
static int graph_instantiate(void **executable, void *graph) {
    const int code = outcome();
    if (code == 0) {
        *executable = malloc(sizeof(int));
        memcpy(*executable, graph, sizeof(int));
        fake.graphs++;
    }
    return code;
}
static int graph_destroy(void *graph) {
    free(graph);
    fake.graphs--;
    return outcome();
}
static int graph_launch(void *executable, void *stream) {
    assert_true(stream == &fake.stream);
    fake.filled += *(const int *)executable;
    return outcome();
}
static const char *error_text(int code) {
    return code == 719 ? "unspecified launch failure" : "some failure";
}

static const cuda_calls calls = {driver_version,
                                 runtime_version,
                                 device_count,
                                 set_device,
                                 device_attribute,
                                 device_name,
                                 device_bus,
                                 memory_info,
                                 allocate,
                                 release,
                                 copy,
                                 fill,
                                 stream_create,
                                 stream_destroy,
                                 stream_wait,
                                 stream_query,
                                 stream_follow,
                                 event_create,
                                 event_record,
                                 event_destroy,
                                 pin,
                                 unpin,
                                 capture_begin,
                                 capture_end,
                                 graph_instantiate,
                                 graph_destroy,
                                 graph_launch,
                                 graph_destroy,
                                 error_text};

static card *open_card(void) {
    card *c;
    reset();
    must(card_open(&c, &calls, 1));
    return c;
}

static void test_no_gpu_to_use(void **state) {
    (void)state;
    card *c;
    reset();
    must_fail(card_open(&c, NULL, 0), "built without CUDA");
    fake.driver = 0;
    must_fail(card_open(&c, &calls, 0), "no NVIDIA driver");
    fake.driver = 12040;
    fake.count_code = 35;
    must_fail(card_open(&c, &calls, 0), "supports CUDA 12.4, this build needs 13.0");
    reset();
    fake.count_code = 100;
    must_fail(card_open(&c, &calls, 0), "no GPU on this machine is visible");
    reset();
    fake.count_code = 3;
    must_fail(card_open(&c, &calls, 0), "cannot be counted");
    reset();
    fake.gpus = 0;
    must_fail(card_open(&c, &calls, 0), "no GPU");
    fake.gpus = 2;
    must_fail(card_open(&c, &calls, 2), "GPU 2 is wanted, there are 2");
    must_fail(card_open(&c, &calls, -1), "GPU -1 is wanted");
    fake.major = 7;
    must_fail(card_open(&c, &calls, 0), "compute capability 7.5, at least 8.0");
    reset();
    fake.calls_left = 0;
    fake.code = 46;
    must_fail(card_open(&c, &calls, 0), "in use by another process");
    assert_null(c);
}

static void test_memory(void **state) {
    (void)state;
    card *c = open_card();
    assert_int_equal(card_number(c), 1);
    assert_int_equal(card_multiprocessors(c), 132);
    assert_string_equal(card_name(c), "GPU of kind 1");
    assert_string_equal(card_bus(c), "0000:01:00.0");
    unsigned char *memory;
    char text[32] = "to the card and back", back[32] = "";
    must(card_allocate(c, (void **)&memory, 100, "test"));
    for (int i = 0; i < 100; i++)
        assert_int_equal(memory[i], 0);
    must(card_upload(c, memory, text, sizeof text));
    must(card_download(c, back, memory, sizeof back));
    assert_string_equal(back, text);
    fake.calls_left = 0;
    fake.code = 2;
    void *more;
    must_fail(card_allocate(c, &more, 999, "key-value cache"),
              "out of memory on GPU 1: key-value cache needs 999 bytes, 1234 of 5678 are free");
    assert_null(more);
    // That was a refusal and no failure of the card.
    must(card_allocate(c, &more, 0, "nothing"));
    card_free(c, more);
    card_free(c, memory);
    card_free(c, NULL);
    must(card_finish(c));
    assert_int_equal(fake.live, 0);
    card_close(c);
}

// A card that reads the host's memory by its page tables may do so after the call: it is waited for.
static void test_late_reads(void **state) {
    (void)state;
    for (int late = 0; late < 2; late++) {
        card *c;
        void *memory;
        char text[8] = "text";
        reset();
        fake.host_page_tables = late == 1;
        must(card_open(&c, &calls, 1));
        must(card_allocate(c, &memory, sizeof text, "test"));
        const int waits = fake.waits;
        must(card_upload(c, memory, text, sizeof text));
        assert_int_equal(fake.waits - waits, late);
        card_free(c, memory);
        card_close(c);
    }
}

// Live and peak bytes, and what is planned without being taken.
static void test_memory_is_counted(void **state) {
    (void)state;
    card *c = open_card();
    card_memory memory;
    void *first, *second, *planned[2];
    must(card_allocate(c, &first, 1000, "test"));
    must(card_allocate(c, &second, 500, "test"));
    card_free(c, first);
    must(card_read_memory(c, &memory));
    assert_int_equal(memory.live_bytes, 500);
    assert_int_equal(memory.peak_bytes, 1500);
    assert_int_equal(memory.free_bytes, 1234);
    assert_int_equal(memory.total_bytes, 5678);

    const int live = fake.live;
    char back[4] = "old";
    card_plan_begin(c);
    assert_true(card_is_planning(c));
    must(card_allocate(c, &planned[0], (size_t)1 << 40, "more than there is"));
    must(card_allocate(c, &planned[1], 24, "test"));
    assert_true(planned[0] != planned[1] && (uintptr_t)planned[1] % 256 == 0);
    must(card_upload(c, planned[0], back, sizeof back));
    card_zero(c, planned[0], 4);
    must(card_download(c, back, planned[0], sizeof back));
    assert_int_equal(back[0], 0);
    card_free(c, planned[0]);
    card_free(c, planned[1]);
    assert_true(card_plan_end(c) == ((uint64_t)1 << 40) + 24);
    assert_false(card_is_planning(c));
    assert_int_equal(fake.live, live);
    must(card_read_memory(c, &memory));
    assert_int_equal(memory.live_bytes, 500);
    assert_int_equal(memory.peak_bytes, 1500);
    card_free(c, second);
    assert_int_equal(fake.live, 0);
    card_close(c);
}

// Whatever call the card is lost at, one line says so, and every call after it.
// A lane follows the operators, and a failure of any of its calls is kept as theirs are.
static void test_lane(void **state) {
    (void)state;
    card *c = open_card();
    card_lane *lane;
    bool ended;
    must(card_lane_open(&lane, c));
    assert_ptr_equal(card_lane_stream(lane), &fake.lane);
    must(card_lane_follow(lane));
    assert_int_equal(fake.follows, 1);
    fake.busy = true;
    must(card_lane_ended(lane, &ended));
    assert_false(ended);
    fake.busy = false;
    must(card_lane_ended(lane, &ended));
    assert_true(ended);
    card_lane_close(lane);
    card_lane_close(NULL);
    card_close(c);
    for (int at = 0; at < 5; at++) { // two to open, two to follow, one to ask
        c = open_card();
        fake.calls_left = at;
        fake.code = 719;
        status result = card_lane_open(&lane, c);
        assert_int_equal(result, at < 2 ? STATUS_FAILED : STATUS_OK);
        if (result == STATUS_OK)
            result = card_lane_follow(lane);
        if (result == STATUS_OK)
            result = card_lane_ended(lane, &ended);
        must_fail(result, "GPU 1 failed at ");
        must_fail(card_check(c), "unspecified launch failure");
        card_lane_close(lane);
        card_close(c);
    }
}

// Memory that cannot be locked is no failure.
static void test_pinned(void **state) {
    (void)state;
    card *c = open_card();
    char memory[64];
    assert_true(card_pin(c, memory, sizeof memory));
    card_unpin(c, memory);
    assert_int_equal(fake.pins, 0);
    fake.calls_left = 0;
    fake.code = 2;
    assert_false(card_pin(c, memory, sizeof memory));
    must(card_check(c));
    card_plan_begin(c);
    assert_false(card_pin(c, memory, sizeof memory)); // nothing is copied through it
    card_plan_end(c);
    card_close(c);
}

static void test_lost(void **state) {
    (void)state;
    for (int at = 0;; at++) {
        card *c = open_card();
        char text[8] = "text";
        void *memory = NULL, *other = NULL;
        fake.calls_left = at;
        fake.code = 719;
        status result = card_allocate(c, &memory, 64, "test");
        if (result == STATUS_OK)
            result = card_upload(c, memory, text, sizeof text);
        if (result == STATUS_OK)
            card_zero(c, memory, 4);
        if (result == STATUS_OK)
            result = card_download(c, text, memory, sizeof text);
        const bool lost = fake.calls_left < 0;
        if (lost) {
            must_fail(result, "GPU 1 failed at ");
            must_fail(card_check(c), "unspecified launch failure (CUDA error 719)");
            must_fail(card_allocate(c, &other, 64, "test"), "GPU 1 failed");
            must_fail(card_upload(c, memory, text, sizeof text), "GPU 1 failed");
            must_fail(card_finish(c), "the last checkpoint is intact");
        }
        card_free(c, memory);
        assert_int_equal(fake.live, 0);
        card_close(c);
        if (!lost) {
            assert_true(at >= 5);
            return;
        }
    }
}

// Work that is recorded and done again; whatever call fails, nothing stays behind.
static void test_recording(void **state) {
    (void)state;
    for (int at = -1; at < 6; at++) {
        card *c = open_card();
        char memory[8];
        void *recording = NULL;
        fake.calls_left = at;
        fake.code = 719;
        status result = card_record_begin(c);
        if (result == STATUS_OK) {
            card_zero(c, memory, sizeof memory);
            card_zero(c, memory, 4);
            result = card_record_end(c, &recording);
        }
        if (result == STATUS_OK) {
            card_replay(c, recording);
            card_replay(c, recording);
        }
        card_forget(c, recording);
        assert_int_equal(card_check(c), at < 0 ? STATUS_OK : STATUS_FAILED);
        assert_int_equal(fake.filled, at < 0 ? 4 : 0);
        assert_int_equal(fake.graphs, 0);
        card_close(c);
    }
    // What a recording cannot hold.
    for (int what = 0; what < 4; what++) {
        card *c = open_card();
        char bytes[4] = {0};
        void *memory, *recording;
        must(card_record_begin(c));
        const status result = what == 0   ? card_upload(c, bytes, bytes, 4)
                              : what == 1 ? card_download(c, bytes, bytes, 4)
                              : what == 2 ? card_finish(c)
                                          : card_allocate(c, &memory, 4, "scratch");
        must_fail(result, "GPU 1 failed at ");
        must_fail(card_record_end(c, &recording), "GPU 1 failed at ");
        assert_null(recording);
        assert_int_equal(fake.graphs, 0);
        card_close(c);
    }
}

static void test_launch_failure_is_kept(void **state) {
    (void)state;
    card *c = open_card();
    card_note(c, 0, "embedding");
    must(card_check(c));
    card_note(c, 719, "attention");
    card_note(c, 700, "what came after");
    must_fail(card_finish(c), "GPU 1 failed at attention: unspecified launch failure (CUDA error 719)");
    card_close(c);
}

static void *library;

static int *counter(const char *name) {
    int *at = dlsym(library, name);
    assert_non_null(at);
    return at;
}

static uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

enum { ROWS = 5, INPUTS = 16, OUTPUTS = 32 };

// Small whole numbers, whose products and sums are exact in every format.
static float entry(int i) {
    return (float)((i * 7 + i / 13) % 5 - 2);
}

static void *fill_matrix(card *c, int count, cublas_type type, int seed) {
    void *matrix;
    must(card_allocate(c, &matrix, sizeof(float) * (size_t)count, "matrix"));
    for (int i = 0; i < count; i++)
        if (type == CUBLAS_TYPE_BF16)
            ((uint16_t *)matrix)[i] = to_bf16(entry(i + seed));
        else
            ((float *)matrix)[i] = entry(i + seed);
    return matrix;
}

static float read_matrix(const void *matrix, cublas_type type, int i) {
    if (type == CUBLAS_TYPE_F32)
        return ((const float *)matrix)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)matrix)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void check_product(card *c, cublas *b, const cublas_shape *s) {
    const bool forward = s->kind == CUBLAS_FORWARD, by_weight = s->kind == CUBLAS_BACKWARD_WEIGHT;
    // left [n, k] or, for the weight's gradient, [k, n]; right [k, m], [m, k] forward.
    const int n = by_weight ? OUTPUTS : ROWS, m = forward ? OUTPUTS : INPUTS,
              k = forward     ? INPUTS
                  : by_weight ? ROWS
                              : OUTPUTS;
    void *left = fill_matrix(c, n * k, s->factors, 3), *right = fill_matrix(c, k * m, s->factors, 11),
         *result = fill_matrix(c, n * m, s->result, 5);
    must(cublas_product(b, s, left, right, result));
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            float wanted = s->accumulate ? entry(i * m + j + 5) : 0.0f;
            for (int d = 0; d < k; d++)
                wanted += entry((by_weight ? d * n + i : i * k + d) + 3) *
                          entry((forward ? j * k + d : d * m + j) + 11);
            assert_true(read_matrix(result, s->result, i * m + j) == wanted);
        }
    card_free(c, left);
    card_free(c, right);
    card_free(c, result);
}

static void test_products(void **state) {
    (void)state;
    card *c = open_card();
    cublas *b;
    must(cublas_open(&b, c, FAKE_CUBLASLT_PATH));
    assert_string_equal(cublas_version_text(b), "13.0.2");
    library = dlopen(FAKE_CUBLASLT_PATH, RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(library);
    const cublas_type types[] = {CUBLAS_TYPE_F32, CUBLAS_TYPE_BF16};
    int shapes = 0;
    for (int kind = 0; kind < 3; kind++)
        for (int factors = 0; factors < 2; factors++)
            for (int result = 0; result < 2; result++)
                for (int accumulate = 0; accumulate < 2; accumulate++, shapes++)
                    for (int again = 0; again < 2; again++)
                        check_product(c, b,
                                      &(cublas_shape){.kind = (cublas_kind)kind,
                                                      .rows = ROWS,
                                                      .outputs = OUTPUTS,
                                                      .inputs = INPUTS,
                                                      .factors = types[factors],
                                                      .result = types[result],
                                                      .accumulate = accumulate == 1});
    // One algorithm for each shape, chosen once.
    assert_int_equal(*counter("fake_heuristics"), shapes);
    assert_int_equal(*counter("fake_products"), 2 * shapes);
    // One for all numbers of rows, where that is wanted.
    cublas_shape tuned = {
        .kind = CUBLAS_FORWARD, .rows = ROWS, .outputs = OUTPUTS, .inputs = INPUTS, .tuned_rows = 64};
    must(cublas_prepare(b, &tuned));
    uint64_t columns;
    memcpy(&columns, dlsym(library, "fake_heuristic_columns"), sizeof columns);
    assert_int_equal(columns, 64);
    check_product(c, b, &tuned);

    *counter("fake_refuse") = 1;
    tuned.rows = 7;
    must_fail(cublas_prepare(b, &tuned), "no algorithm for a product of 7 rows, 16 inputs, 32 outputs");
    *counter("fake_refuse") = 0;
    must(cublas_prepare(b, &tuned));
    *counter("fake_execution_fails") = 1;
    float x[16] = {0};
    must_fail(cublas_product(b, &tuned, x, x, x), "cublasLtMatmul failed: not supported (15)");
    *counter("fake_execution_fails") = 0;
    card_note(c, 719, "attention");
    must_fail(cublas_product(b, &tuned, x, x, x), "GPU 1 failed at attention");
    dlclose(library);
    cublas_close(b);
    assert_int_equal(fake.live, 0);
    card_close(c);
}

static void test_library_missing(void **state) {
    (void)state;
    card *c = open_card();
    cublas *b;
    must_fail(cublas_open(&b, c, "/nowhere/libcublasLt.so.13"), "set MUSICRL_CUBLASLT to the path");
    must_fail(cublas_open(&b, c, "libm.so.6"), "libm.so.6 lacks cublasLtGetVersion");
    setenv("MUSICRL_CUBLASLT", "/nowhere/else.so", 1);
    must_fail(cublas_open(&b, c, NULL), "/nowhere/else.so");
    unsetenv("MUSICRL_CUBLASLT");
    fake.calls_left = 0;
    fake.code = 2;
    must_fail(cublas_open(&b, c, FAKE_CUBLASLT_PATH), "cuBLASLt's workspace needs 33554432 bytes");
    assert_int_equal(fake.live, 0);
    card_close(c);
}

// With the runtime of this build: a line about this machine, or a card.
static void test_this_machine(void **state) {
    (void)state;
    card *c;
    if (card_open(&c, cuda_calls_of_this_build(), 0) == STATUS_OK)
        card_close(c);
    else
        assert_true(strlen(status_message()) > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gpu_to_use),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_late_reads),
        cmocka_unit_test(test_memory_is_counted),
        cmocka_unit_test(test_recording),
        cmocka_unit_test(test_lane),
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_launch_failure_is_kept),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_library_missing),
        cmocka_unit_test(test_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
