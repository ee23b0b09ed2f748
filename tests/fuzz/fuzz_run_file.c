// Run files: what is accepted is written and read back to the same settings.
#include "launch/run_config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static run_config config, again;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", fuzz_path("run.yaml"));
    fuzz_write(path, data, size);
    const status outcome = run_config_load(&config, path, NULL, 0);
    fuzz_check(outcome);
    if (outcome != STATUS_OK)
        return 0;
    FUZZ_REQUIRE(run_config_write(&config, fuzz_path("resolved.yaml")) == STATUS_OK);
    if (run_config_load(&again, fuzz_path("resolved.yaml"), NULL, 0) != STATUS_OK) {
        fprintf(stderr, "%s\n", status_message());
        abort();
    }
    FUZZ_REQUIRE(memcmp(&config, &again, sizeof config) == 0);
    return 0;
}
