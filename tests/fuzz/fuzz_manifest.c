// Manifests of checkpoints. A digest in them would stop every mutation, so it is made right again where the
// text is JSON at all; the files of the checkpoint are real.
#include "data/checkpoint.h"
#include "data/digest.h"
#include "kernels/memory.h"
#include "tests/fuzz/fuzz.h"

static void make_files(char *folder, size_t size) {
    static const float weights[4] = {1, 2, 3, 4};
    snprintf(folder, size, "%s", fuzz_path("step-000001"));
    mkdir(folder, 0755);
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/policy.safetensors", folder);
    const int64_t shape[] = {2, 2};
    const tensor_view view = tensor_view_make("weights", TENSOR_F32, weights, 2, shape);
    FUZZ_REQUIRE(safetensors_write(path, &view, 1, NULL, 0) == STATUS_OK);
}

static void write_manifest(const char *path, const uint8_t *data, size_t size) {
    json_error_t error;
    json_t *manifest = json_loadb((const char *)data, size, 0, &error);
    if (!json_is_object(manifest)) {
        fuzz_write(path, data, size);
        json_decref(manifest);
        return;
    }
    char hex[DIGEST_HEX];
    json_object_del(manifest, "digest");
    char *text = json_dumps(manifest, JSON_COMPACT | JSON_SORT_KEYS);
    const digest found = digest_bytes(text, strlen(text));
    free(text);
    digest_to_hex(&found, hex);
    json_object_set_new(manifest, "digest", json_string(hex));
    text = json_dumps(manifest, 0);
    fuzz_write(path, text, strlen(text));
    free(text);
    json_decref(manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char folder[PATH_MAX];
    char path[PATH_MAX + 32];
    if (folder[0] == '\0')
        make_files(folder, sizeof folder);
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    write_manifest(path, data, size);
    checkpoint_summary summary;
    checkpoint *opened;
    fuzz_check(checkpoint_peek(folder, &summary));
    const status outcome = checkpoint_open(&opened, folder);
    fuzz_check(outcome);
    if (outcome == STATUS_OK) {
        FUZZ_REQUIRE(json_is_object(checkpoint_state(opened)));
        void *bytes;
        size_t count;
        const status read = checkpoint_read_bytes(opened, "policy.safetensors", &bytes, &count);
        FUZZ_REQUIRE((read == STATUS_OK) == (checkpoint_has(opened, "policy.safetensors") != 0));
        memory_free(bytes);
        checkpoint_close(opened);
    }
    return 0;
}
