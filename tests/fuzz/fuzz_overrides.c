// The words of a command line behind its run file, and the texts in settings that are read further.
#include "launch/roles.h"
#include "launch/run_config.h"
#include "tests/fuzz/fuzz.h"

enum { WORDS_MAX = 32 };

// Lines are words.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static run_config config;
    char *text = malloc(size + 1), *words[WORDS_MAX], *rest = text;
    memcpy(text, data, size);
    text[size] = '\0';
    int count = 0;
    for (char *word; count < WORDS_MAX && (word = strsep(&rest, "\n")) != NULL;) {
        // What ends like a run file is opened as one; no other file than these is of interest.
        const size_t length = strlen(word);
        if (length < 5 || (strcmp(word + length - 5, ".yaml") != 0 && strcmp(word + length - 4, ".yml") != 0))
            words[count++] = word;
    }
    fuzz_write(fuzz_path("run.yaml"), "name: fuzz\n", 11);
    const status outcome = run_config_load(&config, fuzz_path("run.yaml"), words, count);
    fuzz_check(outcome);
    if (outcome == STATUS_OK) {
        roles layout;
        for (int ranks = 1; ranks <= 8; ranks *= 2)
            fuzz_check(roles_parse(&layout, config.roles, ranks, (uint32_t)config.train.batch,
                                   (uint32_t)config.train.gradient_slots));
    }
    free(text);
    return 0;
}
