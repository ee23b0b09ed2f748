// safetensors files, and the models that read them: the weights of a codec, of reward models, of listeners.
#include "data/safetensors.h"
#include "kernels/memory.h"
#include "launch/codec_file.h"
#include "launch/listeners.h"
#include "launch/reward_file.h"
#include "tests/fuzz/fuzz.h"

static void read_all(const safetensors *file) {
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const tensor_view *view = safetensors_at(file, i), *found;
        FUZZ_REQUIRE(safetensors_find(file, view->name, &found) == STATUS_OK && found == view);
        const size_t bytes = tensor_view_bytes(view);
        void *copy = malloc(bytes + 1);
        FUZZ_REQUIRE(safetensors_read(file, view->name, view->type, view->rank, view->shape, copy) ==
                     STATUS_OK);
        free(copy);
        float *wide = malloc(sizeof(float) * ((size_t)tensor_view_elements(view) + 1));
        fuzz_check(safetensors_read_f32(file, view->name, view->rank, view->shape, wide));
        free(wide);
    }
    safetensors_metadata(file, "config");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", fuzz_path("reward-0.safetensors"));
    fuzz_write(path, data, size);
    safetensors *file;
    codec *codec;
    listeners *listeners;
    reward_description description;
    json_t *training;
    status outcome = safetensors_open(&file, path);
    fuzz_check(outcome);
    if (outcome != STATUS_OK)
        return 0;
    read_all(file);
    safetensors_close(file);
    outcome = codec_load(&codec, path);
    fuzz_check(outcome);
    if (outcome == STATUS_OK)
        codec_destroy(codec);
    outcome = listeners_load(&listeners, path);
    fuzz_check(outcome);
    if (outcome == STATUS_OK)
        listeners_destroy(listeners);
    fuzz_check(reward_file_describe(&description, fuzz_folder, 0, "quality"));
    outcome = reward_file_training(&training, fuzz_folder, 0);
    fuzz_check(outcome);
    if (outcome == STATUS_OK)
        json_decref(training);
    return 0;
}
