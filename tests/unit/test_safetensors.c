#include "data/digest.h"
#include "data/safetensors.h"
#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>

#include <cmocka.h>

// Writes a file from a header text and `data_bytes` zero bytes, opens it and expects a failure whose one line
// names the file and contains `expected`.
static void expect_refused(const char *header, size_t data_bytes, const char *expected) {
    const char *path = scratch_path("mutant.safetensors");
    size_t length = strlen(header);
    unsigned char *bytes = calloc(1, 8 + length + data_bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(bytes + 8, header, length);
    assert_int_equal(scratch_write(path, bytes, 8 + length + data_bytes), 0);
    free(bytes);
    safetensors *file;
    if (safetensors_open(&file, path) == STATUS_OK)
        fail_msg("opened, wanted '%s': %s", expected, header);
    assert_null(file);
    if (strstr(status_message(), expected) == NULL || strstr(status_message(), path) == NULL ||
        strchr(status_message(), '\n') != NULL)
        fail_msg("'%s' does not contain '%s' and the path", status_message(), expected);
}

static void test_round_trip(void **state) {
    (void)state;
    const char *path = scratch_path("round.safetensors");
    float weights[6] = {1.0f, -2.5f, 3e-38f, 1e38f, -0.0f, 7.0f};
    double moments[2] = {1.0 / 3.0, -1e300};
    int64_t counters[3] = {INT64_MIN, 0, INT64_MAX};
    uint16_t tokens[5] = {0, 1, 1023, 65535, 7};
    uint8_t model[3] = {1, 0, 255};
    float scalar = 42.0f;
    tensor_view tensors[] = {
        tensor_view_make("model", TENSOR_U8, model, 1, (int64_t[]){3}),
        tensor_view_make("layer.0.weight", TENSOR_F32, weights, 2, (int64_t[]){2, 3}),
        tensor_view_make("moments \"quoted\" é", TENSOR_F64, moments, 1, (int64_t[]){2}),
        tensor_view_make("tokens", TENSOR_U16, tokens, 1, (int64_t[]){5}),
        tensor_view_make("counters", TENSOR_I64, counters, 3, (int64_t[]){1, 3, 1}),
        tensor_view_make("scalar", TENSOR_F32, &scalar, 0, NULL),
        tensor_view_make("empty", TENSOR_F32, NULL, 2, (int64_t[]){0, 4}),
    };
    size_t count = sizeof tensors / sizeof tensors[0];
    safetensors_pair metadata[] = {{"format", "pt"}, {"state", "{\"step\": 3}"}};
    assert_int_equal(safetensors_write(path, tensors, count, metadata, 2), STATUS_OK);

    safetensors *file;
    if (safetensors_open(&file, path) != STATUS_OK)
        fail_msg("%s", status_message());
    assert_int_equal(safetensors_count(file), count);
    for (size_t i = 0; i < count; i++) {
        const tensor_view *found;
        assert_int_equal(safetensors_find(file, tensors[i].name, &found), STATUS_OK);
        assert_true(safetensors_has(file, tensors[i].name));
        assert_int_equal(found->type, tensors[i].type);
        assert_int_equal(found->rank, tensors[i].rank);
        for (int d = 0; d < found->rank; d++)
            assert_int_equal(found->shape[d], tensors[i].shape[d]);
        assert_int_equal((uintptr_t)found->data % tensor_type_size(found->type), 0);
        if (tensor_view_bytes(found) > 0)
            assert_memory_equal(found->data, tensors[i].data, tensor_view_bytes(found));
    }
    assert_string_equal(safetensors_at(file, 0)->name, "moments \"quoted\" é"); // wider types first
    assert_string_equal(safetensors_at(file, count - 1)->name, "model");
    assert_string_equal(safetensors_metadata(file, "state"), "{\"step\": 3}");
    assert_null(safetensors_metadata(file, "nothing"));

    float copy[6];
    assert_int_equal(safetensors_read_f32(file, "layer.0.weight", 2, (int64_t[]){2, 3}, copy), STATUS_OK);
    assert_memory_equal(copy, weights, sizeof copy);
    uint16_t token_copy[5];
    assert_int_equal(safetensors_read(file, "tokens", TENSOR_U16, 1, (int64_t[]){5}, token_copy), STATUS_OK);
    assert_memory_equal(token_copy, tokens, sizeof tokens);
    assert_int_equal(safetensors_read_f32(file, "empty", 2, (int64_t[]){0, 4}, NULL), STATUS_OK);

    assert_int_equal(safetensors_read_f32(file, "layer.0.weight", 2, (int64_t[]){3, 2}, copy), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "'layer.0.weight' has shape [2, 3], wanted [3, 2]"));
    assert_int_equal(safetensors_read_f32(file, "layer.0.weight", 1, (int64_t[]){6}, copy), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "wanted [6]"));
    assert_int_equal(safetensors_read_f32(file, "absent", 1, (int64_t[]){6}, copy), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "no tensor 'absent'"));
    assert_int_equal(safetensors_read_f32(file, "tokens", 1, (int64_t[]){5}, copy), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "has type U16"));
    assert_int_equal(safetensors_read(file, "tokens", TENSOR_I32, 1, (int64_t[]){5}, copy), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "has type U16, wanted I32"));
    safetensors_close(file);
}

static void test_layout(void **state) {
    (void)state;
    float values[3] = {1, 2, 3};
    tensor_view tensor = tensor_view_make("a", TENSOR_F32, values, 1, (int64_t[]){3});
    const char *first = scratch_path("first.safetensors"), *second = scratch_path("second.safetensors");
    assert_int_equal(safetensors_write(first, &tensor, 1, NULL, 0), STATUS_OK);
    assert_int_equal(safetensors_write(second, &tensor, 1, NULL, 0), STATUS_OK);
    size_t first_count, second_count;
    char *bytes = scratch_read(first, &first_count), *again = scratch_read(second, &second_count);
    assert_int_equal(first_count, second_count);
    assert_memory_equal(bytes, again, first_count);
    static const char start[] = "{\"__metadata__\":{\"musicrl.digest\":\"",
                      rest[] = "\"},\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}";
    const size_t at_digest = 8 + sizeof start - 1, at_rest = at_digest + 32;
    const size_t header = at_rest + sizeof rest - 1 - 8, padded = (header + 7) / 8 * 8;
    assert_int_equal((unsigned char)bytes[0], padded);
    assert_int_equal(first_count, 8 + padded + 12);
    assert_memory_equal(bytes + 8, start, sizeof start - 1);
    assert_memory_equal(bytes + at_rest, rest, sizeof rest - 1);
    for (size_t i = header; i < padded; i++)
        assert_int_equal(bytes[8 + i], ' ');
    char digits[DIGEST_HEX];
    memset(again + at_digest, '0', 32);
    const digest whole = digest_bytes(again, first_count);
    digest_to_hex(&whole, digits);
    assert_memory_equal(bytes + at_digest, digits, 32);
    free(bytes);
    free(again);
}

// No bit of a sealed file can change unnoticed. One in the seal's own key only makes the file unsealed, and
// all else in it is sound.
static void test_every_flipped_bit_is_found(void **state) {
    (void)state;
    const float values[2] = {1, 2};
    const tensor_view tensor = tensor_view_make("a", TENSOR_F32, values, 1, (int64_t[]){2});
    const safetensors_pair metadata = {"ramp", "[0.25, 0.75]"};
    const char *path = scratch_path("sealed.safetensors");
    assert_int_equal(safetensors_write(path, &tensor, 1, &metadata, 1), STATUS_OK);
    size_t count;
    char *bytes = scratch_read(path, &count);
    const size_t key = (size_t)((char *)memmem(bytes, count, "musicrl.digest", 14) - bytes);
    for (size_t bit = 0; bit < 8 * count; bit++) {
        safetensors *file;
        if (bit / 8 >= key && bit / 8 < key + 14)
            continue;
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(scratch_write(path, bytes, count), 0);
        if (safetensors_open(&file, path) == STATUS_OK)
            fail_msg("opened with bit %zu of byte %zu changed: %.*s", bit % 8, bit / 8, (int)count - 16,
                     bytes + 8);
        assert_non_null(strstr(status_message(), path));
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    bytes[count - 1] ^= 1;
    safetensors *file;
    assert_int_equal(scratch_write(path, bytes, count), 0);
    assert_int_equal(safetensors_open(&file, path), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "sealed.safetensors is damaged: its digest is"));
    free(bytes);
}

// As another writer may lay a file out: header not padded, so the data are unaligned; half precision.
static void test_foreign(void **state) {
    (void)state;
    static const char header[] =
        "{ \"__metadata__\": {\"format\":\"pt\"},\n \"h\":{\"shape\":[7], "
        "\"dtype\":\"F16\",\"data_offsets\":[1,15]},\"b\":{\"data_offsets\":[15,19],"
        "\"dtype\":\"BF16\",\"shape\":[2]},\"flag\":{\"dtype\":\"BOOL\",\"shape\":[],"
        "\"data_offsets\":[0,1]}}";
    const uint16_t half[7] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0xfc00, 0x8000, 0x3555};
    const float wide[7] = {1.0f, -2.0f, 0x1p-24f, 65504.0f, -1.0f / 0.0f, -0.0f, 0x1.554p-2f};
    const uint16_t brain[2] = {0x3f80, 0xc040};
    const float brain_wide[2] = {1.0f, -3.0f};
    char bytes[512] = {0};
    size_t length = sizeof header - 1;
    if (length % 2 == 0) // one space more or less decides the alignment
        length++;
    bytes[0] = (char)(length & 255);
    bytes[1] = (char)(length >> 8);
    memset(bytes + 8, ' ', length);
    memcpy(bytes + 8, header, sizeof header - 1);
    memcpy(bytes + 8 + length + 1, half, sizeof half);
    memcpy(bytes + 8 + length + 15, brain, sizeof brain);
    const char *path = scratch_path("foreign.safetensors");
    assert_int_equal(scratch_write(path, bytes, 8 + length + 19), 0);
    safetensors *file;
    if (safetensors_open(&file, path) != STATUS_OK)
        fail_msg("%s", status_message());
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_int_equal(safetensors_count(file), 3);
    assert_string_equal(safetensors_at(file, 0)->name, "flag");
    float out[7];
    assert_int_equal(safetensors_read_f32(file, "h", 1, (int64_t[]){7}, out), STATUS_OK);
    assert_memory_equal(out, wide, sizeof wide);
    assert_int_equal(safetensors_read_f32(file, "b", 1, (int64_t[]){2}, out), STATUS_OK);
    assert_memory_equal(out, brain_wide, sizeof brain_wide);
    safetensors_close(file);
}

static void test_damaged_headers(void **state) {
    (void)state;
#define ENTRY(name, type, shape, offsets)                                                                    \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]") "}", 4, "bytes 0 to 8 of 4");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]") "}", 12, "end at byte 8 of 12");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[4,12]") "}", 12, "there is a hole");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[2]", "[4,12]") "}", 12,
                   "overlap");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[2]", "[0,8]") "}", 8,
                   "overlap");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("b", "F32", "[1]", "[12,16]") "}", 16,
                   "hole");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]") "," ENTRY("a", "F32", "[2]", "[8,16]") "}", 16,
                   "duplicate");
    expect_refused("{" ENTRY("a", "F32", "[3]", "[0,8]") "}", 8, "shape [3] has 8 bytes");
    expect_refused("{" ENTRY("a", "F32", "[4611686018427387904,4]", "[0,8]") "}", 8, "has 8 bytes");
    expect_refused("{" ENTRY("a", "F32", "[99999999999999999999]", "[0,8]") "}", 8, "damaged header");
    expect_refused("{" ENTRY("a", "F32", "[-2]", "[0,8]") "}", 8, "whole numbers");
    expect_refused("{" ENTRY("a", "F32", "[2.0]", "[0,8]") "}", 8, "whole numbers");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[8,0]") "}", 8, "bytes 8 to 0");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[-8,0]") "}", 8, "bytes -8 to 0");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,\"8\"]") "}", 8, "whole numbers");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8,8]") "}", 8, "data_offsets");
    expect_refused("{" ENTRY("a", "F32", "2", "[0,8]") "}", 8, "needs dtype, shape");
    expect_refused("{" ENTRY("a", "F4", "[2]", "[0,8]") "}", 8, "type 'F4'");
    expect_refused("{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", 8, "rank 9");
    expect_refused("{\"a\":3}", 8, "needs dtype, shape");
    expect_refused("{\"a\":{}}", 8, "needs dtype, shape");
    expect_refused("{\"__metadata__\":{\"a\":1}}", 0, "not a text");
    expect_refused("{\"__metadata__\":[]}", 0, "not an object");
    expect_refused("{}", 8, "end at byte 0 of 8");
    expect_refused("[]", 8, "does not start with '{'");
    expect_refused("", 8, "does not start with '{'");
    expect_refused("{" ENTRY("a", "F32", "[2]", "[0,8]"), 8, "damaged header");
    expect_refused("{" ENTRY("a\xff", "F32", "[2]", "[0,8]") "}", 8, "damaged header");
    expect_refused("{} {}", 0, "damaged header");
#undef ENTRY
    safetensors *file;
    const char *path = scratch_path("short");
    assert_int_equal(scratch_write(path, "\x02\0\0\0\0\0\0\0{", 9), 0);
    assert_int_equal(safetensors_open(&file, path), STATUS_FAILED);
    assert_int_equal(scratch_write(path, "", 0), 0);
    assert_int_equal(safetensors_open(&file, path), STATUS_FAILED);
    assert_int_equal(scratch_write(path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), 0);
    assert_int_equal(safetensors_open(&file, path), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "claims"));
    assert_int_equal(scratch_write(path, "\x09\0\0\0\0\0\0\0{}", 10), 0);
    assert_int_equal(safetensors_open(&file, path), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "truncated"));
    assert_int_equal(safetensors_open(&file, scratch_path("absent")), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "No such file"));
    assert_int_equal(safetensors_open(&file, scratch_folder), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "is a folder, a regular file is wanted"));
    assert_int_equal(mkfifo(scratch_path("pipe"), 0600), 0);
    assert_int_equal(safetensors_open(&file, scratch_path("pipe")), STATUS_FAILED); // and does not hang
}

// Every single byte of a header set to every other value: opened or refused, never a crash; what opens stays
// within the file.
static void test_mutants(void **state) {
    (void)state;
    float values[6] = {1, 2, 3, 4, 5, 6};
    tensor_view tensors[] = {tensor_view_make("a", TENSOR_F32, values, 2, (int64_t[]){2, 2}),
                             tensor_view_make("b", TENSOR_F32, values + 4, 1, (int64_t[]){2})};
    const char *path = scratch_path("whole.safetensors"), *mutant = scratch_path("mutant");
    assert_int_equal(safetensors_write(path, tensors, 2, NULL, 0), STATUS_OK);
    size_t count;
    char *bytes = scratch_read(path, &count);
    size_t opened = 0, refused = 0;
    for (size_t at = 0; at < count - sizeof values; at++) {
        for (int change = 1; change < 256; change += at < 8 ? 1 : 17) {
            bytes[at] ^= (char)change;
            assert_int_equal(scratch_write(mutant, bytes, count), 0);
            bytes[at] ^= (char)change;
            safetensors *file;
            if (safetensors_open(&file, mutant) != STATUS_OK) {
                refused++;
                continue;
            }
            opened++;
            float sum = 0;
            for (size_t i = 0; i < safetensors_count(file); i++) {
                const unsigned char *data = safetensors_at(file, i)->data;
                for (size_t b = 0; b < tensor_view_bytes(safetensors_at(file, i)); b++)
                    sum += data[b];
            }
            assert_true(sum > 0);
            safetensors_close(file);
        }
    }
    assert_true(refused > 4 * opened);
    for (size_t length = 0; length < count; length++) {
        safetensors *file;
        assert_int_equal(scratch_write(mutant, bytes, length), 0);
        assert_int_equal(safetensors_open(&file, mutant), STATUS_FAILED);
    }
    free(bytes);
}

static void test_bad_writes(void **state) {
    (void)state;
    float value = 1;
    const char *path = scratch_path("kept.safetensors");
    tensor_view good = tensor_view_make("a", TENSOR_F32, &value, 0, NULL);
    assert_int_equal(safetensors_write(path, &good, 1, NULL, 0), STATUS_OK);
    struct {
        tensor_view tensors[2];
        const char *expected;
    } cases[] = {
        {{good, good}, "two tensors are called 'a'"},
        {{good, tensor_view_make("", TENSOR_F32, &value, 0, NULL)}, "no name"},
        {{good, tensor_view_make("__metadata__", TENSOR_F32, &value, 0, NULL)}, "reserved"},
        {{good, tensor_view_make("b\xff", TENSOR_F32, &value, 0, NULL)}, "not UTF-8"},
        {{good, tensor_view_make("b", TENSOR_TYPES, &value, 0, NULL)}, "unknown type"},
        {{good, tensor_view_make("b", TENSOR_F32, &value, 1, (int64_t[]){-1})}, "shape [-1]"},
        {{good, tensor_view_make("b", TENSOR_F32, &value, 2, (int64_t[]){INT64_MAX, 2})}, "impossible shape"},
        {{good, tensor_view_make("b", TENSOR_F32, &value, 9, (int64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1})},
         "rank 9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(safetensors_write(path, cases[i].tensors, 2, NULL, 0), STATUS_FAILED);
        if (strstr(status_message(), cases[i].expected) == NULL)
            fail_msg("'%s' does not contain '%s'", status_message(), cases[i].expected);
        safetensors *file; // what was published is untouched, and nothing is left beside it
        assert_int_equal(safetensors_open(&file, path), STATUS_OK);
        assert_int_equal(safetensors_count(file), 1);
        safetensors_close(file);
        size_t count;
        assert_null(scratch_read(scratch_path("kept.safetensors.tmp"), &count));
    }
    safetensors_pair bad = {"key", "\xff"};
    assert_int_equal(safetensors_write(path, &good, 1, &bad, 1), STATUS_FAILED);
    assert_int_equal(safetensors_write(scratch_path("absent/file"), &good, 1, NULL, 0), STATUS_FAILED);
    assert_int_equal(safetensors_write(scratch_path("none.safetensors"), NULL, 0, NULL, 0), STATUS_OK);
    safetensors *file;
    assert_int_equal(safetensors_open(&file, scratch_path("none.safetensors")), STATUS_OK);
    const tensor_view *view;
    assert_int_equal(safetensors_find(file, "a", &view), STATUS_FAILED);
    assert_non_null(strstr(status_message(), "it is empty"));
    safetensors_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_every_flipped_bit_is_found),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_damaged_headers),
        cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_bad_writes),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
