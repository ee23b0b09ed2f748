#include "cmd/commands.h"
#include "data/checkpoint.h"
#include "data/publish.h"
#include "kernels/library_version.h"
#include "kernels/memory.h"
#include "launch/run_folder.h"
#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int exists(const char *path) {
    struct stat info;
    return lstat(path, &info) == 0;
}

static void expect_ok(status result) {
    if (result != STATUS_OK)
        fail_msg("%s", status_message());
}

static void expect_message(const char *part) {
    if (strstr(status_message(), part) == NULL || strchr(status_message(), '\n') != NULL)
        fail_msg("'%s' does not contain '%s'", status_message(), part);
}

// A checkpoint of a tensor file, a file of bytes and a state, all dependent on the step.
static status save(const char *folder, uint64_t step) {
    float weights[4] = {1, 2, 3, (float)step};
    tensor_view tensor = tensor_view_make("weights", TENSOR_F32, weights, 2, (int64_t[]){2, 2});
    checkpoint_writer *writer;
    TRY(checkpoint_begin(&writer, folder, step, "policy"));
    status result = checkpoint_add_tensors(writer, "policy.safetensors", &tensor, 1, NULL, 0);
    if (result == STATUS_OK)
        result = checkpoint_add_bytes(writer, "tokenizer.model", "\0model", 6);
    if (result != STATUS_OK) {
        checkpoint_abort(writer);
        return result;
    }
    json_t *state = json_pack("{s:I, s:f, s:[i, i]}", "cursor", (json_int_t)step * 1000, "mean", 1.0 / 3.0,
                              "shape", 4, 2);
    result = checkpoint_commit(writer, state);
    json_decref(state);
    return result;
}

static char heard[4096];
static void listen(void *context, const char *line) {
    (void)context;
    assert_null(strchr(line, '\n'));
    size_t used = strlen(heard);
    snprintf(heard + used, sizeof heard - used, "%s\n", line);
}

static void flip(const char *path, long at) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 4, file);
    fclose(file);
}

static void test_round_trip(void **state) {
    (void)state;
    const char *folder = scratch_path("run/checkpoints");
    expect_ok(save(folder, 100));
    checkpoint *opened;
    expect_ok(checkpoint_open(&opened, scratch_path("run/checkpoints/step-000100/")));
    const checkpoint_summary *summary = checkpoint_describe(opened);
    assert_int_equal(summary->step, 100);
    assert_string_equal(summary->kind, "policy");
    assert_string_equal(summary->build, MUSICRL_VERSION);
    assert_string_equal(summary->instruction_set, kernels_product_isa());
    assert_int_equal(summary->files, 2);
    assert_true(summary->bytes > 22);
    assert_string_equal(checkpoint_path(opened), scratch_path("run/checkpoints/step-000100"));
    const json_t *read = checkpoint_state(opened);
    assert_int_equal(json_integer_value(json_object_get(read, "cursor")), 100000);
    assert_true(json_real_value(json_object_get(read, "mean")) == 1.0 / 3.0);
    safetensors *tensors;
    expect_ok(checkpoint_open_tensors(opened, "policy.safetensors", &tensors));
    float weights[4];
    expect_ok(safetensors_read_f32(tensors, "weights", 2, (int64_t[]){2, 2}, weights));
    assert_true(weights[3] == 100.0f);
    safetensors_close(tensors);
    void *bytes;
    size_t count;
    expect_ok(checkpoint_read_bytes(opened, "tokenizer.model", &bytes, &count));
    assert_int_equal(count, 6);
    assert_memory_equal(bytes, "\0model", 6);
    memory_free(bytes);
    assert_true(checkpoint_has(opened, "tokenizer.model"));
    assert_false(checkpoint_has(opened, "manifest.json"));
    assert_int_equal(checkpoint_read_bytes(opened, "value.safetensors", &bytes, &count), STATUS_FAILED);
    expect_message("has no file 'value.safetensors'");
    assert_int_equal(checkpoint_read_bytes(opened, "../../secret", &bytes, &count), STATUS_FAILED);
    checkpoint_close(opened);

    // The same content gives the same files, manifest included.
    expect_ok(save(scratch_path("again"), 100));
    size_t first_count, second_count;
    char *first = scratch_read(scratch_path("run/checkpoints/step-000100/manifest.json"), &first_count);
    char *second = scratch_read(scratch_path("again/step-000100/manifest.json"), &second_count);
    assert_string_equal(first, second);
    free(first);
    free(second);
}

static void test_already_there(void **state) {
    (void)state;
    const char *folder = scratch_path("twice");
    expect_ok(save(folder, 7));
    assert_int_equal(save(folder, 7), STATUS_FAILED);
    expect_message("step-000007 is there already");
    assert_false(exists(scratch_path("twice/step-000007.tmp")));
    checkpoint *opened;
    expect_ok(checkpoint_open(&opened, scratch_path("twice/step-000007")));
    checkpoint_close(opened);
    // Set aside, it can be written again; the next one set aside gets another name.
    for (int i = 0; i < 2; i++) {
        expect_ok(checkpoint_set_aside(scratch_path("twice/step-000007")));
        expect_ok(save(folder, 7));
    }
    assert_true(exists(scratch_path("twice/step-000007.damaged")));
    assert_true(exists(scratch_path("twice/step-000007.damaged-2")));
    checkpoint_list list;
    expect_ok(checkpoint_list_folder(&list, folder));
    assert_int_equal(list.count, 1);
    checkpoint_list_free(&list);
}

static void test_bad_adds(void **state) {
    (void)state;
    const char *folder = scratch_path("adds");
    const char *names[] = {"", ".", "..", "a/b", "/etc/x", ".hidden", "x.tmp", "manifest.json", "\xff\xfe"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        checkpoint_writer *writer;
        expect_ok(checkpoint_begin(&writer, folder, 1, "policy"));
        assert_int_equal(checkpoint_add_bytes(writer, names[i], "x", 1), STATUS_FAILED);
        expect_message(scratch_path("adds/step-000001"));
        checkpoint_abort(writer);
    }
    checkpoint_writer *writer;
    expect_ok(checkpoint_begin(&writer, folder, 1, "policy"));
    expect_ok(checkpoint_add_bytes(writer, "a", "x", 1));
    assert_int_equal(checkpoint_add_bytes(writer, "a", "x", 1), STATUS_FAILED);
    expect_message("there already");
    json_t *array = json_array();
    assert_int_equal(checkpoint_commit(writer, array), STATUS_FAILED);
    json_decref(array);
    expect_message("not a JSON object");
    assert_false(exists(scratch_path("adds/step-000001")));
    assert_false(exists(scratch_path("adds/step-000001.tmp")));
    char kind[200];
    memset(kind, 'k', sizeof kind - 1);
    kind[sizeof kind - 1] = '\0';
    assert_int_equal(checkpoint_begin(&writer, folder, 1, kind), STATUS_FAILED);
    checkpoint_abort(NULL);
}

static void test_damage(void **state) {
    (void)state;
    const char *folder = scratch_path("damage");
    for (uint64_t step = 1; step <= 7; step++)
        expect_ok(save(folder, step * 10));
    flip(scratch_path("damage/step-000070/policy.safetensors"), -3);
    assert_int_equal(unlink(scratch_path("damage/step-000060/tokenizer.model")), 0);
    assert_int_equal(truncate(scratch_path("damage/step-000050/tokenizer.model"), 5), 0);
    assert_int_equal(truncate(scratch_path("damage/step-000040/manifest.json"), 80), 0);
    assert_int_equal(unlink(scratch_path("damage/step-000030/manifest.json")), 0);
    struct {
        const char *path, *message;
    } cases[] = {
        {"damage/step-000070", "policy.safetensors is damaged: its digest is"},
        {"damage/step-000060", "tokenizer.model is missing"},
        {"damage/step-000050", "tokenizer.model is damaged: it has 5 bytes, the manifest says 6"},
        {"damage/step-000040", "manifest.json is damaged"},
        {"damage/step-000030", "manifest.json is missing"},
        {"damage/step-000099", "cannot open checkpoint"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        checkpoint *opened;
        assert_int_equal(checkpoint_open(&opened, scratch_path(cases[i].path)), STATUS_FAILED);
        assert_null(opened);
        expect_message(cases[i].message);
    }
    heard[0] = '\0';
    checkpoint *newest;
    expect_ok(checkpoint_find_newest(&newest, folder, listen, NULL));
    assert_int_equal(checkpoint_describe(newest)->step, 20);
    checkpoint_close(newest);
    for (int step = 30; step <= 70; step += 10) {
        char name[32];
        snprintf(name, sizeof name, "step-%06d: ", step);
        assert_non_null(strstr(heard, name));
    }
    assert_null(strstr(heard, "step-000020"));
    assert_null(strstr(heard, "step-000010"));

    // What another run made is the newest or nothing.
    assert_int_equal(checkpoint_open_newest(&newest, folder), STATUS_FAILED);
    assert_null(newest);
    expect_message("move it away to use an older one: ");
    expect_message("step-000070/policy.safetensors is damaged");
    for (int step = 30; step <= 70; step += 10) {
        char name[64];
        snprintf(name, sizeof name, "damage/step-%06d", step);
        expect_ok(checkpoint_set_aside(scratch_path(name)));
    }
    expect_ok(checkpoint_open_newest(&newest, folder));
    assert_int_equal(checkpoint_describe(newest)->step, 20);
    checkpoint_close(newest);

    // One checkpoint in another's place is not that step.
    assert_int_equal(rename(scratch_path("damage/step-000020"), scratch_path("damage/step-000080")), 0);
    heard[0] = '\0';
    expect_ok(checkpoint_find_newest(&newest, folder, listen, NULL));
    assert_int_equal(checkpoint_describe(newest)->step, 10);
    checkpoint_close(newest);
    assert_non_null(strstr(heard, "step-000080 holds step 20"));

    assert_int_equal(unlink(scratch_path("damage/step-000010/manifest.json")), 0);
    assert_int_equal(checkpoint_find_newest(&newest, folder, NULL, NULL), STATUS_FAILED);
    assert_null(newest);
    expect_message("none of the 2 checkpoints");
}

// Every byte of a manifest with one bit flipped, for three of its bits: refused, or nothing that it says has
// changed.
static void test_manifest_bits(void **state) {
    (void)state;
    expect_ok(save(scratch_path("bits"), 3));
    const char *folder = scratch_path("bits/step-000003"),
               *path = scratch_path("bits/step-000003/manifest.json");
    size_t count;
    char *text = scratch_read(path, &count);
    json_t *whole = json_loads(text, 0, NULL);
    assert_non_null(whole);
    size_t accepted = 0;
    for (size_t at = 0; at < count; at++) {
        for (int bit = 0; bit < 8; bit += 3) {
            text[at] ^= (char)(1 << bit);
            assert_int_equal(scratch_write(path, text, count), 0);
            checkpoint *opened;
            if (checkpoint_open(&opened, folder) == STATUS_OK) {
                json_t *now = json_loadb(text, count, 0, NULL);
                assert_true(json_equal(now, whole));
                json_decref(now);
                checkpoint_close(opened);
                accepted++;
            }
            text[at] ^= (char)(1 << bit);
        }
    }
    assert_true(accepted < count); // only spacing may pass
    json_decref(whole);
    free(text);
}

static void test_empty_and_stale(void **state) {
    (void)state;
    checkpoint *newest;
    expect_ok(checkpoint_find_newest(&newest, scratch_path("nothing/here"), NULL, NULL));
    assert_null(newest);
    expect_ok(checkpoint_open_newest(&newest, scratch_path("nothing/here")));
    assert_null(newest);
    const char *folder = scratch_path("stale");
    expect_ok(save(folder, 5));
    checkpoint_writer *writer; // killed before its commit
    expect_ok(checkpoint_begin(&writer, folder, 6, "policy"));
    expect_ok(checkpoint_add_bytes(writer, "a", "x", 1));
    assert_true(exists(scratch_path("stale/step-000006.tmp/a")));
    assert_int_equal(mkdir(scratch_path("stale/step-7"), 0755), 0); // not what we would call a step
    expect_ok(checkpoint_find_newest(&newest, folder, NULL, NULL));
    assert_int_equal(checkpoint_describe(newest)->step, 5);
    checkpoint_close(newest);
    expect_ok(publish_sweep(folder));
    assert_false(exists(scratch_path("stale/step-000006.tmp")));
    assert_true(exists(scratch_path("stale/step-000005")));
    assert_int_equal(checkpoint_commit(writer, NULL), STATUS_FAILED);
}

static void test_prune(void **state) {
    (void)state;
    const char *folder = scratch_path("prune");
    for (uint64_t step = 0; step <= 90; step += 10)
        expect_ok(save(folder, step));
    flip(scratch_path("prune/step-000080/policy.safetensors"), -1);
    heard[0] = '\0';
    assert_int_equal(checkpoint_prune(folder, &(checkpoint_keep){.last = 0, .best = -1}, listen, NULL),
                     STATUS_USAGE);
    const int64_t selected = 50;
    checkpoint_keep keep = {.last = 2, .every = 40, .best = 20, .selected = &selected, .first = true};
    keep.only_tell = true;
    expect_ok(checkpoint_prune(folder, &keep, listen, NULL));
    assert_non_null(strstr(heard, "would remove "));
    assert_true(exists(scratch_path("prune/step-000010")));
    keep.only_tell = false;
    heard[0] = '\0';
    expect_ok(checkpoint_prune(folder, &keep, listen, NULL));
    assert_non_null(strstr(heard, "left alone, damaged: "));
    assert_non_null(strstr(heard, "removed "));
    checkpoint_list list;
    expect_ok(checkpoint_list_folder(&list, folder));
    const uint64_t kept[] = {0, 20, 40, 50, 70, 80, 90};
    assert_int_equal(list.count, 7);
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(list.entries[i].step, kept[i]);
    checkpoint_list_free(&list);
    assert_false(exists(scratch_path("prune/step-000010.tmp")));
    expect_ok(
        checkpoint_prune(scratch_path("nothing"), &(checkpoint_keep){.last = 1, .best = -1}, NULL, NULL));
}

static void test_write_errors(void **state) {
    (void)state;
    const char *folder = scratch_path("errors");
    expect_ok(save(folder, 1));
    void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    // Too small for the tensors; then large enough for every file but the manifest.
    const rlim_t limits[] = {64, 200};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(
            setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = limits[i], .rlim_max = old.rlim_max}), 0);
        status result = save(folder, 2);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(result, STATUS_FAILED);
        expect_message(i == 0 ? "policy.safetensors.tmp" : "manifest.json.tmp");
        expect_message("limit on file sizes");
        assert_false(exists(scratch_path("errors/step-000002")));
        assert_false(exists(scratch_path("errors/step-000002.tmp")));
    }
    signal(SIGXFSZ, before);

    assert_int_equal(chmod(folder, 0555), 0);
    assert_int_equal(chmod(scratch_folder, 0755), 0);
    uid_t user = geteuid();
    if (user == 0) // root may write anywhere
        assert_int_equal(seteuid(65534), 0);
    status result = save(folder, 2);
    status pruned = checkpoint_prune(folder, &(checkpoint_keep){.last = 1, .best = -1}, NULL, NULL);
    if (user == 0)
        assert_int_equal(seteuid(user), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(result, STATUS_FAILED);
    expect_message("choose a folder that can be written");
    assert_int_equal(pruned, STATUS_OK); // there was nothing to remove

    checkpoint *newest; // after all this the first one is whole
    expect_ok(checkpoint_find_newest(&newest, folder, listen, NULL));
    assert_int_equal(checkpoint_describe(newest)->step, 1);
    checkpoint_close(newest);
    expect_ok(save(folder, 2));
}

// Runs "musicrl checkpoint WORD..." and returns its exit status; `text` receives what it printed.
static int run_command(const char *const *words, int count, char **text) {
    char name[] = "musicrl checkpoint";
    char *arguments[10] = {name};
    for (int i = 0; i < count; i++)
        arguments[i + 1] = strdup(words[i]);
    char *made[10];
    memcpy(made, arguments, sizeof made);
    fflush(NULL);
    int kept[2] = {dup(1), dup(2)};
    int file = open(scratch_path("printed"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(file, 1);
    dup2(file, 2);
    int result = cmd_checkpoint(count + 1, arguments);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        dup2(kept[i], i + 1);
        close(kept[i]);
    }
    close(file);
    for (int i = 0; i < count; i++)
        free(made[i + 1]);
    size_t length;
    *text = scratch_read(scratch_path("printed"), &length);
    return result;
}

static void test_command(void **state) {
    (void)state;
    const char *run = scratch_path("command");
    for (uint64_t step = 1; step <= 5; step++)
        expect_ok(save(scratch_path("command/checkpoints"), step * 100));
    const struct {
        const char *words[8];
        int count, result;
        const char *expected[3];
    } cases[] = {
        {{"verify", run}, 2, 0, {"step 100: whole", "step 500: whole"}},
        {{"list", run},
         2,
         0,
         {"step         age", " s  ", "  policy        whole    policy, tokenizer.model\n"}},
        {{"list", "--quick", run}, 3, 0, {"  policy        ?        policy, tokenizer.model\n"}},
        {{"list", scratch_path("absent")}, 2, 1, {"cannot look at run folder"}},
        {{"verify", scratch_folder}, 2, 1, {"has no checkpoints", "is it a run folder?"}},
        {{"prune", "--dry-run", "--keep", "1", "--every=200", "--best=100", run},
         7,
         0,
         {"would remove ", "checkpoints/step-000300"}},
        {{"prune", "--dry-run", run}, 3, 0, {"checkpoints/step-000300"}}, // the newest two are kept
        {{"prune", "--keep", "1", "--every=200", "--best=100", run},
         6,
         0,
         {"removed ", "checkpoints/step-000300"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text;
        int result = run_command(cases[i].words, cases[i].count, &text);
        for (int e = 0; e < 3 && cases[i].expected[e] != NULL; e++) {
            if (result != cases[i].result || strstr(text, cases[i].expected[e]) == NULL)
                fail_msg("case %zu: status %d, '%s' is not in: %s", i, result, cases[i].expected[e], text);
        }
        free(text);
    }
    char *nothing;
    assert_int_equal(run_command((const char *[]){"prune", "--keep=9", run}, 3, &nothing), 0);
    assert_non_null(strstr(nothing, "nothing to remove in "));
    free(nothing);
    int lock;
    expect_ok(run_lock_folder(run, &lock));
    char *refusal;
    assert_int_equal(run_command((const char *[]){"prune", run}, 2, &refusal), 1);
    assert_non_null(strstr(refusal, "is being written by process"));
    free(refusal);
    close(lock);
    assert_true(exists(scratch_path("command/checkpoints/step-000100")));
    assert_false(exists(scratch_path("command/checkpoints/step-000300")));
    flip(scratch_path("command/checkpoints/step-000400/policy.safetensors"), -2);
    assert_int_equal(unlink(scratch_path("command/checkpoints/step-000200/manifest.json")), 0);
    flip(scratch_path("command/checkpoints/step-000400/tokenizer.model"), 1);
    char *text;
    assert_int_equal(run_command((const char *[]){"verify", run}, 2, &text), 1);
    assert_non_null(strstr(text, "    and: "));
    assert_non_null(strstr(text, "step-000400/tokenizer.model is damaged"));
    assert_non_null(strstr(text, "step 100: whole"));
    assert_non_null(strstr(text, "step 200: damaged: "));
    assert_non_null(strstr(text, "step-000400/policy.safetensors is damaged"));
    assert_non_null(strstr(text, "2 of 4 checkpoints"));
    free(text);
    assert_int_equal(run_command((const char *[]){"list", run}, 2, &text), 0);
    assert_non_null(strstr(text, "       200  damaged: "));
    assert_non_null(strstr(text, "  policy        damaged  "));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_already_there),
        cmocka_unit_test(test_bad_adds),      cmocka_unit_test(test_damage),
        cmocka_unit_test(test_manifest_bits), cmocka_unit_test(test_empty_and_stale),
        cmocka_unit_test(test_prune),         cmocka_unit_test(test_write_errors),
        cmocka_unit_test(test_command),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
