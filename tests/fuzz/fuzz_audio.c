// Audio files of any format that libsndfile knows.
#include "data/audio_file.h"
#include "kernels/memory.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_path("audio");
    fuzz_write(path, data, size);
    float *audio;
    size_t count;
    const status outcome = audio_file_read(path, 16000, &audio, &count);
    fuzz_check(outcome);
    if (outcome != STATUS_OK)
        return 0;
    for (size_t i = 0; i < count; i++)
        FUZZ_REQUIRE(isfinite(audio[i]));
    memory_free(audio);
    return 0;
}
