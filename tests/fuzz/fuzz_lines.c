// Other files of JSON lines: lists of prompts, manifests of audio files, the metrics of a run that is taken
// up again. Which one, by the first byte.
#include "data/manifest.h"
#include "data/metrics.h"
#include "launch/prompts.h"
#include "tests/fuzz/fuzz.h"

static void read_prompts(const char *path) {
    prompt_list prompts;
    const status outcome = prompts_read(&prompts, path);
    fuzz_check(outcome);
    for (size_t i = 0; outcome == STATUS_OK && i < prompts.count; i++)
        FUZZ_REQUIRE(prompts_find(&prompts, prompts.items[i].id) == (long)i);
    prompts_free(&prompts);
}

static void read_manifest(const char *path) {
    manifest *manifest;
    const status outcome = manifest_load(&manifest, path);
    fuzz_check(outcome);
    if (outcome != STATUS_OK)
        return;
    for (size_t i = 0; i < manifest_count(manifest); i++) {
        const manifest_entry *entry = manifest_get(manifest, i);
        FUZZ_REQUIRE(entry->line > 0 && (entry->problem != NULL) == (entry->audio == NULL));
    }
    manifest_destroy(manifest);
}

static void read_metrics(const char *path, int64_t step) {
    metrics *metrics;
    status outcome = metrics_open(&metrics, path, step, NULL);
    fuzz_check(outcome);
    if (outcome != STATUS_OK)
        return;
    metrics_begin(metrics, step);
    metrics_add(metrics, "reward", 0.5);
    FUZZ_REQUIRE(metrics_end(metrics) == STATUS_OK);
    FUZZ_REQUIRE(metrics_close(metrics) == STATUS_OK);
    // What was accepted and added to is accepted again.
    outcome = metrics_open(&metrics, path, step + 1, NULL);
    FUZZ_REQUIRE(outcome == STATUS_OK);
    metrics_close(metrics);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    const char *path = fuzz_path("lines.jsonl");
    fuzz_write(path, data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        read_prompts(path);
        return 0;
    case 1:
        read_manifest(path);
        return 0;
    default:
        read_metrics(path, data[0] / 3);
        return 0;
    }
}
