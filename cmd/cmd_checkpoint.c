#include "cmd/commands.h"

#include "data/checkpoint.h"
#include "launch/model_setup.h"
#include "launch/run_folder.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OPTION_DRY_RUN = 256, OPTION_QUICK };

typedef struct options {
    const char *run;
    bool quick;     // list
    bool only_tell; // prune
    size_t last;    // 0: as the run itself
    int64_t every;  // -1: as the run itself
    int64_t best;   // -1: none
} options;

static uint64_t parse_number(const char *text, uint64_t least, const char *option, struct argp_state *state) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < least || value > INT64_MAX)
        argp_error(state, "--%s needs a whole number of at least %" PRIu64 ", not '%s'", option, least, text);
    return value;
}

static error_t parse_option(int key, char *argument, struct argp_state *state) {
    options *options = state->input;
    switch (key) {
    case 'k':
        options->last = parse_number(argument, 1, "keep", state);
        return 0;
    case 'e':
        options->every = (int64_t)parse_number(argument, 0, "every", state);
        return 0;
    case 'b':
        options->best = (int64_t)parse_number(argument, 0, "best", state);
        return 0;
    case OPTION_DRY_RUN:
        options->only_tell = true;
        return 0;
    case OPTION_QUICK:
        options->quick = true;
        return 0;
    case ARGP_KEY_ARG:
        if (options->run != NULL)
            argp_error(state, "one RUN_DIR is wanted, '%s' is too many", argument);
        options->run = argument;
        return 0;
    case ARGP_KEY_END:
        if (options->run == NULL)
            argp_error(state, "RUN_DIR is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// RUN_DIR/checkpoints, which must be there.
static status find_folder(const options *options, char folder[PATH_MAX]) {
    struct stat info;
    if (stat(options->run, &info) != 0)
        return FAIL("cannot look at run folder %s: %s", options->run, strerror(errno));
    if (snprintf(folder, PATH_MAX, "%s/checkpoints", options->run) >= PATH_MAX)
        return FAIL("path is too long: %.60s...", options->run);
    if (stat(folder, &info) != 0)
        return FAIL("%s has no checkpoints: cannot look at %s: %s; is it a run folder?", options->run, folder,
                    strerror(errno));
    return STATUS_OK;
}

static void format_size(uint64_t bytes, char out[32]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 999.5 && unit < 4; unit++)
        value /= 1000.0;
    snprintf(out, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

// "40 s", "12 min", "3 h", "9 days": one unit is enough to know a checkpoint by.
static void format_age(int64_t seconds, char out[32]) {
    static const struct {
        int64_t seconds;
        const char *name;
    } units[] = {{86400, "days"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    if (seconds < 0) {
        snprintf(out, 32, "from ahead"); // the clock was set back, or another host's is ahead
        return;
    }
    size_t unit = 0;
    while (unit < 3 && seconds < 2 * units[unit].seconds)
        unit++;
    snprintf(out, 32, "%" PRId64 " %s", seconds / units[unit].seconds, units[unit].name);
}

static void print_entry(const checkpoint_entry *entry, bool quick) {
    checkpoint_summary summary;
    if (checkpoint_peek(entry->path, &summary) != STATUS_OK) {
        printf("%10" PRIu64 "  damaged: %s\n", entry->step, status_message());
        return;
    }
    char size[32], age[32];
    format_size(summary.bytes, size);
    format_age((int64_t)time(NULL) - summary.written, age);
    const status outcome = quick ? STATUS_OK : checkpoint_verify(entry);
    printf("%10" PRIu64 "  %10s  %9s  %-12s  %-7s  %s\n", entry->step, age, size, summary.kind,
           quick                  ? "?"
           : outcome == STATUS_OK ? "whole"
                                  : "damaged",
           outcome == STATUS_OK ? summary.holds : status_message());
}

static status print_list(const options *options) {
    char folder[PATH_MAX];
    checkpoint_list list;
    checkpoint_summary newest;
    TRY(find_folder(options, folder));
    TRY(checkpoint_list_folder(&list, folder));
    if (list.count == 0)
        printf("no checkpoints in %s yet\n", folder);
    else
        printf("%10s  %10s  %9s  %-12s  %-7s  %s\n", "step", "age", "size", "kind", "state", "holds");
    for (size_t i = 0; i < list.count; i++) {
        print_entry(&list.entries[i], options->quick);
        fflush(stdout);
    }
    if (list.count > 0 && checkpoint_peek(list.entries[list.count - 1].path, &newest) == STATUS_OK)
        printf("the newest was written by musicrl %s, %s\n", newest.build, newest.instruction_set);
    checkpoint_list_free(&list);
    return STATUS_OK;
}

// The first was told already.
static void print_further(void *context, const char *line) {
    size_t *told = context;
    if ((*told)++ > 0)
        printf("    and: %s\n", line);
}

static status verify_all(const options *options) {
    char folder[PATH_MAX];
    checkpoint_list list;
    TRY(find_folder(options, folder));
    TRY(checkpoint_list_folder(&list, folder));
    size_t damaged = 0, count = list.count;
    for (size_t i = 0; i < count; i++) {
        if (checkpoint_verify(&list.entries[i]) == STATUS_OK) {
            printf("step %" PRIu64 ": whole\n", list.entries[i].step);
        } else {
            printf("step %" PRIu64 ": damaged: %s\n", list.entries[i].step, status_message());
            size_t told = 0;
            checkpoint_tell_damage(&list.entries[i], print_further, &told);
            damaged++;
        }
        fflush(stdout);
    }
    checkpoint_list_free(&list);
    if (count == 0)
        return FAIL("there is nothing to verify in %s", folder);
    if (damaged > 0)
        return FAIL("%zu of %zu checkpoints in %s are damaged; a run resumes from the newest whole one",
                    damaged, count, folder);
    return STATUS_OK;
}

static void print_line(void *context, const char *line) {
    size_t *lines = context;
    (*lines)++;
    printf("%s\n", line);
}

// The rule that the run itself keeps its checkpoints by; what options say goes before it.
static status find_rule(const options *options, const char *folder, checkpoint_keep *keep) {
    static run_config config;
    char path[PATH_MAX];
    struct stat info;
    checkpoint_list list;
    checkpoint_summary newest = {.kind = ""};
    TRY(checkpoint_list_folder(&list, folder));
    for (size_t i = list.count; i-- > 0 && newest.kind[0] == '\0';)
        if (checkpoint_peek(list.entries[i].path, &newest) != STATUS_OK)
            newest.kind[0] = '\0';
    checkpoint_list_free(&list);
    *keep =
        (checkpoint_keep){.last = RUN_STAGE_KEEPS, .best = options->best, .only_tell = options->only_tell};
    snprintf(path, sizeof path, "%s/config.yaml", options->run);
    if (strcmp(newest.kind, "rl") == 0) {
        TRY(stat(path, &info) == 0 ? run_config_load(&config, path, NULL, 0)
                                   : run_config_set_defaults(&config));
        keep->last = (size_t)config.train.keep;
        keep->every = (uint64_t)config.train.keep_every;
        keep->first = true;
    }
    if (options->last > 0)
        keep->last = options->last;
    if (options->every >= 0)
        keep->every = (uint64_t)options->every;
    return STATUS_OK;
}

static status prune(const options *options) {
    char folder[PATH_MAX];
    int64_t selected;
    checkpoint_keep keep;
    int lock = 0;
    TRY(find_folder(options, folder));
    TRY(find_rule(options, folder, &keep));
    TRY(model_selected_step(options->run, &selected));
    keep.selected = selected >= 0 ? &selected : NULL;
    if (!options->only_tell) // a run removes its own
        TRY(run_lock_folder(options->run, &lock));
    size_t lines = 0;
    const status result = checkpoint_prune(folder, &keep, print_line, &lines);
    if (result == STATUS_OK && lines == 0)
        printf("nothing to remove in %s\n", folder);
    if (lock > 0)
        close(lock);
    return result;
}

static int cmd_list(int argc, char **argv) {
    static const struct argp_option choices[] = {
        {"quick", OPTION_QUICK, NULL, 0, "Check manifests only, not the files", 0},
        {0},
    };
    const struct argp parser = {
        .options = choices,
        .parser = parse_option,
        .args_doc = "RUN_DIR",
        .doc = "Lists the checkpoints of a run: step, age, size, kind, whether every file is as its digest "
               "says, and what they hold, or else what is damaged."};
    options options = {.every = -1, .best = -1};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return command_finish(print_list(&options));
}

static int cmd_verify(int argc, char **argv) {
    const struct argp parser = {.parser = parse_option,
                                .args_doc = "RUN_DIR",
                                .doc =
                                    "Reads every file of every checkpoint of a run and compares it with its "
                                    "digest. Names what is damaged; the exit status is 1 if anything is."};
    options options = {.every = -1, .best = -1};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return command_finish(verify_all(&options));
}

static int cmd_prune(int argc, char **argv) {
    static const struct argp_option choices[] = {
        {"keep", 'k', "K", 0, "Keep the K newest that are whole (train.keep of the run)", 0},
        {"every", 'e', "N", 0,
         "Also keep every step that is a multiple of N; 0: none (train.keep_every of the run)", 0},
        {"best", 'b', "STEP", 0, "Also keep this step", 0},
        {"dry-run", OPTION_DRY_RUN, NULL, 0, "Remove nothing, say what would be", 0},
        {0},
    };
    const struct argp parser = {
        .options = choices,
        .parser = parse_option,
        .args_doc = "RUN_DIR",
        .doc =
            "Removes checkpoints of a run by the rule that the run itself keeps them by, or by the options: "
            "all but the newest, those of every N steps, step 0 of an RL run and the one that selected.json "
            "names. The newest are verified first; a damaged one is reported, left where it is, and not "
            "counted. Refused while a run writes to the folder."};
    options options = {.every = -1, .best = -1};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return command_finish(prune(&options));
}

int cmd_checkpoint(int argc, char **argv) {
    static const command_entry entries[] = {
        {"list", cmd_list, RANKS_ONE, "show the checkpoints of a run"},
        {"verify", cmd_verify, RANKS_ONE, "compare every file with its digest"},
        {"prune", cmd_prune, RANKS_ONE, "remove old checkpoints"},
    };
    return command_dispatch(argv[0], "The checkpoints of a run folder.", entries,
                            sizeof entries / sizeof entries[0], argc, argv);
}
