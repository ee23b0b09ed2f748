// The small files in which one process tells another where it stands: which session workers serve, which step
// was selected, what a rank does. Which one, by the first byte.
#include "data/exchange_folder.h"
#include "launch/heartbeat.h"
#include "launch/model_setup.h"
#include "tests/fuzz/fuzz.h"

static void read_session(const char *run) {
    exchange_folder folder;
    exchange_state state;
    json_t *terms;
    const status outcome = exchange_folder_look(&folder, run, &state, &terms);
    fuzz_check(outcome);
    if (outcome != STATUS_OK)
        return;
    FUZZ_REQUIRE(state != EXCHANGE_ABSENT && strchr(folder.session, '/') == NULL);
    FUZZ_REQUIRE(strncmp(folder.path, folder.root, strlen(folder.root)) == 0);
    FUZZ_REQUIRE(terms == NULL || state == EXCHANGE_OPEN);
    json_decref(terms);
}

static void read_selected(const char *run) {
    int64_t step;
    const status outcome = model_selected_step(run, &step);
    fuzz_check(outcome);
    FUZZ_REQUIRE((outcome == STATUS_OK) == (step >= 0));
}

static void read_heartbeat(const char *run) {
    heartbeat beat, again;
    char text[HEARTBEAT_BYTES];
    if (!heartbeat_read(run, 0, &beat))
        return;
    heartbeat_format(&beat, text);
    if (!(beat.seconds < 1e9 && beat.seconds > -1e9 && beat.overdue < 1e9 && beat.overdue > -1e9))
        return; // too many digits for a record
    FUZZ_REQUIRE(heartbeat_parse(text, &again));
    FUZZ_REQUIRE(again.beat == beat.beat && again.rank == beat.rank && again.step == beat.step);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"exchange/session.json", "selected.json", "rank-000000"};
    static char run[PATH_MAX];
    if (size == 0)
        return 0;
    if (run[0] == '\0') {
        snprintf(run, sizeof run, "%s", fuzz_path(""));
        run[strlen(run) - 1] = '\0';
        mkdir(fuzz_path("exchange"), 0777);
    }
    fuzz_write(fuzz_path(names[data[0] % 3]), data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        read_session(run);
        return 0;
    case 1:
        read_selected(run);
        return 0;
    default:
        read_heartbeat(run);
        return 0;
    }
}
