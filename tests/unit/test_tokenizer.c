#include "data/tokenizer.h"
#include "kernels/memory.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

enum { CAPTIONS = 600, CAPTION_SIZE = 160, VOCABULARY = 256 };

static char captions[CAPTIONS][CAPTION_SIZE];
static const char *pointers[CAPTIONS];

static void write_captions(void) {
    static const char *const pace[] = {"slow", "brisk", "moderate", "lively"};
    static const char *const mood[] = {"wistful", "bright", "calm", "dramatic", "Playful"};
    static const char *const lead[] = {"solo cello", "piano",    "flute",
                                       "trumpet",    "clarinet", "café accordion"};
    static const char *const under[] = {"soft piano", "strings", "organ", "guitar", "no accompaniment"};
    for (int i = 0; i < CAPTIONS; i++) {
        snprintf(captions[i], CAPTION_SIZE, "A %s, %s piece for %s over %s%s", pace[i % 4], mood[i % 5],
                 lead[i / 3 % 6], under[i / 7 % 5], i % 2 ? " with drums." : ".");
        pointers[i] = captions[i];
    }
}

static void train(void **model, size_t *count) {
    if (tokenizer_train(pointers, CAPTIONS, VOCABULARY, model, count) != STATUS_OK)
        fail_msg("%s", status_message());
}

static int setup(void **state) {
    write_captions();
    return scratch_setup(state);
}

static void test_round_trip(void **state) {
    (void)state;
    void *model;
    size_t count;
    train(&model, &count);
    tokenizer *tokenizer;
    if (tokenizer_create(&tokenizer, model, count) != STATUS_OK)
        fail_msg("%s", status_message());
    memory_free(model); // it was copied
    uint32_t size = tokenizer_vocabulary_size(tokenizer);
    assert_true(size > 40 && size <= VOCABULARY);
    size_t tokens = 0;
    for (int i = 0; i < CAPTIONS; i++) {
        int32_t ids[CAPTION_SIZE];
        size_t used;
        assert_int_equal(tokenizer_encode(tokenizer, captions[i], ids, CAPTION_SIZE, &used), STATUS_OK);
        assert_true(used > 0 && used < CAPTION_SIZE);
        for (size_t t = 0; t < used; t++)
            assert_true(ids[t] > TOKENIZER_END && ids[t] < (int32_t)size);
        tokens += used;
        char text[CAPTION_SIZE], folded[CAPTION_SIZE];
        assert_int_equal(tokenizer_decode(tokenizer, ids, used, text, sizeof text), STATUS_OK);
        for (size_t c = 0; c < sizeof folded; c++)
            folded[c] = captions[i][c] >= 'A' && captions[i][c] <= 'Z' ? captions[i][c] + 32 : captions[i][c];
        assert_string_equal(text, folded);
        size_t again;
        int32_t first[2];
        assert_int_equal(tokenizer_encode(tokenizer, captions[i], first, 2, &again), STATUS_OK);
        assert_int_equal(again, used);
        assert_memory_equal(first, ids, sizeof first);
    }
    assert_true(tokens < 16 * CAPTIONS); // whole words, although each has few followers

    size_t used;
    int32_t ids[8];
    assert_int_equal(tokenizer_encode(tokenizer, "", ids, 8, &used), STATUS_OK);
    assert_int_equal(used, 0);
    assert_int_equal(tokenizer_encode(tokenizer, "\xe2\x99\xab", ids, 8, &used), STATUS_OK); // a note sign
    assert_int_equal(ids[used - 1], TOKENIZER_UNKNOWN);
    assert_int_equal(tokenizer_encode(tokenizer, "\xff\xfe\x80", ids, 8, &used), STATUS_OK); // not UTF-8
    char text[16];
    assert_int_equal(tokenizer_decode(tokenizer, NULL, 0, text, sizeof text), STATUS_OK);
    assert_string_equal(text, "");
    assert_int_equal(tokenizer_decode(tokenizer, (int32_t[]){(int32_t)size}, 1, text, sizeof text),
                     STATUS_FAILED);
    assert_non_null(strstr(status_message(), "the vocabulary has"));
    assert_int_equal(tokenizer_decode(tokenizer, (int32_t[]){-1}, 1, text, sizeof text), STATUS_FAILED);
    int32_t many[40];
    for (int i = 0; i < 40; i++)
        many[i] = TOKENIZER_UNKNOWN;
    assert_int_equal(tokenizer_decode(tokenizer, many, 40, text, sizeof text), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "16 are there"));
    tokenizer_destroy(tokenizer);
    tokenizer_destroy(NULL);
}

static void test_deterministic(void **state) {
    (void)state;
    void *first, *second, *other;
    size_t first_count, second_count, other_count;
    train(&first, &first_count);
    // Another training in between leaves no trace.
    assert_int_equal(tokenizer_train(pointers + 100, 200, 120, &other, &other_count), STATUS_OK);
    memory_free(other);
    train(&second, &second_count);
    assert_int_equal(first_count, second_count);
    assert_memory_equal(first, second, first_count);
    memory_free(first);
    memory_free(second);
}

static void test_bad_training(void **state) {
    (void)state;
    void *model;
    size_t count;
    const char *blank[] = {"", "  \n"};
    assert_int_equal(tokenizer_train(pointers, 0, VOCABULARY, &model, &count), STATUS_FAILED);
    assert_null(model);
    assert_non_null(strstr(status_message(), "none of the 0 captions"));
    assert_int_equal(tokenizer_train(blank, 2, VOCABULARY, &model, &count), STATUS_FAILED);
    const uint32_t sizes[] = {0, 1, 4, 10};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(tokenizer_train(pointers, CAPTIONS, sizes[i], &model, &count), STATUS_FAILED);
        assert_null(model);
        assert_null(strchr(status_message(), '\n'));
        char wanted[40];
        snprintf(wanted, sizeof wanted, "a vocabulary of %u on 600 captions", sizes[i]);
        assert_non_null(strstr(status_message(), wanted));
    }
    const char *single[] = {"piano"};
    if (tokenizer_train(single, 1, VOCABULARY, &model, &count) == STATUS_OK)
        memory_free(model);
}

// Truncated and mutated models are refused or load; neither crashes.
static void test_damaged_models(void **state) {
    (void)state;
    void *model;
    size_t count;
    train(&model, &count);
    tokenizer *tokenizer;
    assert_int_equal(tokenizer_create(&tokenizer, "", 0), STATUS_FAILED);
    assert_null(tokenizer);
    assert_int_equal(tokenizer_create(&tokenizer, "not a model", 11), STATUS_FAILED);
    assert_null(strchr(status_message(), '\n'));
    size_t refused = 0;
    for (size_t length = 1; length < count; length += count / 50 + 1) {
        if (tokenizer_create(&tokenizer, model, length) == STATUS_OK)
            tokenizer_destroy(tokenizer);
        else
            refused++;
    }
    assert_true(refused > 40);
    memory_free(model);
}

static void test_silent(void **state) {
    (void)state;
    int kept[2] = {dup(1), dup(2)};
    int file = open(scratch_path("chatter"), O_WRONLY | O_CREAT, 0600);
    fflush(stdout);
    dup2(file, 1);
    dup2(file, 2);
    void *model = NULL;
    size_t count;
    tokenizer *tokenizer;
    status trained = tokenizer_train(pointers, CAPTIONS, VOCABULARY, &model, &count);
    status refused = tokenizer_create(&tokenizer, "not a model", 11);
    fflush(NULL);
    dup2(kept[0], 1);
    dup2(kept[1], 2);
    close(kept[0]);
    close(kept[1]);
    close(file);
    assert_int_equal(trained, STATUS_OK);
    assert_int_equal(refused, STATUS_FAILED);
    memory_free(model);
    size_t length = 1;
    char *text = scratch_read(scratch_path("chatter"), &length);
    assert_string_equal(text, "");
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silent),         cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_deterministic),  cmocka_unit_test(test_bad_training),
        cmocka_unit_test(test_damaged_models),
    };
    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
