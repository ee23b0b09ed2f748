// Files of people's ratings: JSON lines or CSV, by the first byte. Lines are read twice, once so that a bad
// one is an error, once so that it is counted.
#include "data/ratings_lines.h"
#include "tests/fuzz/fuzz.h"

static status visit(void *context, const rating_line *line, long number) {
    FUZZ_REQUIRE(number > 0);
    size_t *letters = context;
    for (int i = 0; i < RATING_FIELDS; i++)
        *letters += line->value[i] != NULL ? strlen(line->value[i]) : 0;
    return STATUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    const char *path = fuzz_path(data[0] % 2 == 0 ? "ratings.jsonl" : "ratings.csv");
    fuzz_write(path, data + 1, size - 1);
    size_t strict = 0, lenient = 0;
    skipped_lines malformed = {0};
    const status outcome = rating_lines_read(path, visit, &strict, NULL);
    fuzz_check(outcome);
    const status counted = rating_lines_read(path, visit, &lenient, &malformed);
    fuzz_check(counted);
    if (outcome == STATUS_OK)
        FUZZ_REQUIRE(counted == STATUS_OK && malformed.count == 0 && lenient == strict);
    return 0;
}
