#include "launch/stage.h"

#include "comm/cores.h"
#include "launch/device_choice.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

status stage_create_device(device **out, const run_config *config, const char *title) {
    char note[DEVICE_NOTE];
    int threads = config->threads;
    if (threads == 0) {
        core_set cores = cores_of_process(0);
        const int count = cores_count(&cores), quota = cores_quota();
        threads = quota > 0 && quota < count ? quota : count;
        threads = threads < 1 ? 1 : threads;
    }
    TRY(device_choose(out, config, NULL, threads, note));
    if (title != NULL)
        printf("%s: %s\n", title, note);
    return STATUS_OK;
}

status stage_read_tokens(corpus *corpus, size_t clip, int start, int frames, int levels, uint16_t *scratch,
                         uint16_t *out) {
    const shard_format *format = corpus_get_format(corpus);
    if (start < 0 || (uint32_t)(start + frames) > format->frames)
        return FAIL("frames %d to %d are wanted of clips that have %u; shorten the run's frames", start,
                    start + frames, format->frames);
    TRY(corpus_read_tokens(corpus, clip, scratch));
    for (int f = 0; f < frames; f++)
        memcpy(out + (size_t)f * levels, scratch + (size_t)(start + f) * format->levels,
               sizeof(uint16_t) * (size_t)levels);
    return STATUS_OK;
}

double stage_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
