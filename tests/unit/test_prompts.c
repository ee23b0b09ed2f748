// The list of prompts: the built-in one promises what its attributes say in the words of the corpus, and bad
// files are refused by line.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "data/caption_writer.h"
#include "data/composer.h"
#include "launch/prompts.h"
#include "tests/unit/scratch.h"

#include <ctype.h>
#include <jansson.h>

typedef struct words {
    const char *key;
    const char *const *names; // [count]
    int count;
} words;

static const words attributes[] = {
    {"tempo", tempo_class_names, TEMPO_CLASSES},
    {"mode", mode_names, MODES},
    {"lead", lead_names, LEADS},
    {"accompaniment", accompaniment_names, ACCOMPANIMENTS},
    {"drums", drums_names, DRUM_KINDS},
    {"density", density_names, DENSITIES},
    {"dynamics", dynamics_names, DYNAMICS},
    {"register", register_names, REGISTERS},
    {"articulation", articulation_names, ARTICULATIONS},
    {"metre", (const char *const[]){"3/4", "4/4"}, 2},
};
enum { ATTRIBUTES = sizeof attributes / sizeof attributes[0], CLASSES_MAX = 16 };

// Counts the classes that a record names; every key must be known.
static void count_classes(const prompt *p, int found[ATTRIBUTES][CLASSES_MAX]) {
    json_t *record = json_loads(p->attributes, 0, NULL);
    assert_non_null(record);
    assert_true(json_object_size(record) > 1);
    const char *key;
    json_t *value;
    json_object_foreach(record, key, value) {
        if (strcmp(key, "tonic") == 0) {
            assert_true(json_is_integer(value) && json_integer_value(value) >= 0 &&
                        json_integer_value(value) < 12);
            continue;
        }
        int known = 0;
        for (int a = 0; a < ATTRIBUTES; a++)
            for (int c = 0; strcmp(key, attributes[a].key) == 0 && c < attributes[a].count; c++)
                if (strcmp(json_string_value(value), attributes[a].names[c]) == 0) {
                    found[a][c]++;
                    known = 1;
                }
        if (!known)
            fail_msg("prompt %s: %s is no attribute with a class '%s'", p->id, key, json_string_value(value));
    }
    json_decref(record);
}

static void fold(char *out, size_t size, const char *text) {
    size_t i = 0;
    for (; text[i] != '\0' && i + 1 < size; i++)
        out[i] = (char)tolower((unsigned char)text[i]);
    out[i] = '\0';
}

static void test_built_in(void **state) {
    (void)state;
    prompt_list list;
    int found[ATTRIBUTES][CLASSES_MAX] = {{0}};
    if (prompts_read(&list, NULL) != STATUS_OK)
        fail_msg("%s", status_message());
    assert_int_equal(list.count, 101);
    for (size_t i = 0; i < list.count; i++) {
        count_classes(&list.items[i], found);
        assert_int_equal(prompts_find(&list, list.items[i].id), i);
        for (size_t j = 0; j < i; j++) { // different also without regard to case
            char a[512], b[512];
            fold(a, sizeof a, list.items[i].text);
            fold(b, sizeof b, list.items[j].text);
            assert_string_not_equal(a, b);
        }
    }
    for (int a = 0; a < ATTRIBUTES; a++)
        for (int c = 0; c < attributes[a].count; c++)
            if (found[a][c] < 4)
                fail_msg("only %d prompts want %s %s", found[a][c], attributes[a].key,
                         attributes[a].names[c]);
    assert_int_equal(prompts_find(&list, "no such"), -1);
    prompts_free(&list);
}

// The base model was trained on captions of the corpus maker: a prompt must be none of them.
static void test_not_of_the_corpus(void **state) {
    (void)state;
    enum { PIECES = 2000 };
    prompt_list list;
    piece piece = {0};
    static char caption[PIECES][CAPTION_MAX];
    bool said[CAPTION_TOPICS];
    assert_int_equal(prompts_read(&list, NULL), STATUS_OK);
    for (uint32_t i = 0; i < PIECES; i++) {
        assert_int_equal(piece_compose(&piece, 1, i, 2.0), STATUS_OK);
        assert_int_equal(caption_write(&piece.attributes, 1, i, caption[i], said), STATUS_OK);
    }
    for (size_t p = 0; p < list.count; p++) {
        char folded[512];
        fold(folded, sizeof folded, list.items[p].text);
        for (int i = 0; i < PIECES; i++)
            assert_string_not_equal(folded, caption[i]);
    }
    piece_free(&piece);
    prompts_free(&list);
}

static status read_text(const char *text, prompt_list *list) {
    const char *path = scratch_path("prompts.jsonl");
    assert_int_equal(scratch_write(path, text, strlen(text)), 0);
    return prompts_read(list, path);
}

static void test_own_file(void **state) {
    (void)state;
    prompt_list list;
    assert_int_equal(read_text("{\"id\": \"a\", \"prompt\": \"one\"}\n \n{\"id\": \"b\", \"prompt\": "
                               "\"two\", \"attributes\": {\"lead\": \"flute\"}}",
                               &list),
                     STATUS_OK);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.items[0].attributes, "{}");
    assert_string_equal(list.items[1].text, "two");
    assert_string_equal(list.items[1].attributes, "{\"lead\":\"flute\"}");
    prompts_free(&list);
}

static void refuse(const char *text, const char *wanted) {
    prompt_list list;
    assert_int_equal(read_text(text, &list), STATUS_FAILED);
    if (strstr(status_message(), wanted) == NULL)
        fail_msg("'%s' is missing in: %s", wanted, status_message());
    assert_null(strchr(status_message(), '\n'));
    prompts_free(&list);
}

static void test_bad_files(void **state) {
    (void)state;
    prompt_list list;
    refuse("{\"id\": \"a\", \"prompt\": \"one\"}\n{\"id\": \"a\", \"prompt\": \"two\"}\n",
           "prompts.jsonl:2: the id 'a' was given before");
    refuse("{\"id\": \"a\", \"prompt\": \"one\"}\n{\"id\": \"b\", \"prompt\": \"one\"}\n",
           "prompts.jsonl:2: the prompt 'one' was given before");
    refuse("\n{\"id\": \"a\"}\n", "prompts.jsonl:2: no \"prompt\"");
    refuse("{\"id\": 7, \"prompt\": \"one\"}\n", "prompts.jsonl:1: no \"id\"");
    refuse("{\"id\": \"a\", \"prompt\": \" \"}\n", "prompts.jsonl:1: no \"prompt\"");
    refuse("{\"id\": \"a\", \"prompt\": \"x\", \"attributes\": 3}\n", "\"attributes\" is not an object");
    refuse("{\"id\": \"a\", \"prompt\"\n", "prompts.jsonl:1: not valid JSON");
    refuse("[1]\n", "prompts.jsonl:1: not a JSON object");
    refuse("", "holds no prompt");
    assert_int_equal(prompts_read(&list, "/nonexistent/prompts"), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "/nonexistent/prompts"));
    prompts_free(&list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_built_in),
        cmocka_unit_test(test_not_of_the_corpus),
        cmocka_unit_test(test_own_file),
        cmocka_unit_test(test_bad_files),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
