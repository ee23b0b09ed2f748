#include "cmd/commands.h"

#include "data/checkpoint.h"
#include "launch/model_setup.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef struct options {
    const char *run;
    checkpoint_keep keep;
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
        options->keep.last = parse_number(argument, 1, "keep", state);
        return 0;
    case 'e':
        options->keep.every = parse_number(argument, 1, "every", state);
        return 0;
    case 'b':
        options->keep.best = (int64_t)parse_number(argument, 0, "best", state);
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

static status print_list(const options *options) {
    char folder[PATH_MAX];
    checkpoint_list list;
    TRY(find_folder(options, folder));
    TRY(checkpoint_list_folder(&list, folder));
    if (list.count == 0)
        printf("no checkpoints in %s yet\n", folder);
    else
        printf("%10s  %-12s %5s  %9s  %-19s  %s\n", "step", "kind", "files", "size", "written", "by");
    for (size_t i = 0; i < list.count; i++) {
        checkpoint_summary summary;
        if (checkpoint_peek(list.entries[i].path, &summary) != STATUS_OK) {
            printf("%10" PRIu64 "  damaged: %s\n", list.entries[i].step, status_message());
            continue;
        }
        char size[32], written[32] = "";
        struct tm local;
        time_t when = (time_t)summary.written;
        format_size(summary.bytes, size);
        if (localtime_r(&when, &local) != NULL)
            strftime(written, sizeof written, "%Y-%m-%d %H:%M:%S", &local);
        printf("%10" PRIu64 "  %-12s %5zu  %9s  %-19s  musicrl %s, %s\n", list.entries[i].step, summary.kind,
               summary.files, size, written, summary.build, summary.instruction_set);
    }
    checkpoint_list_free(&list);
    return STATUS_OK;
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
    (void)context;
    printf("%s\n", line);
}

static status prune(const options *options) {
    char folder[PATH_MAX];
    int64_t selected;
    checkpoint_keep keep = options->keep;
    TRY(find_folder(options, folder));
    TRY(model_selected_step(options->run, &selected));
    keep.selected = selected >= 0 ? &selected : NULL;
    return checkpoint_prune(folder, &keep, print_line, NULL);
}

static int cmd_list(int argc, char **argv) {
    const struct argp parser = {.parser = parse_option,
                                .args_doc = "RUN_DIR",
                                .doc =
                                    "Lists the checkpoints of a run: step, kind, files, size, time, and what "
                                    "wrote them. Only their manifests are checked; see 'verify'."};
    options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return command_finish(print_list(&options));
}

static int cmd_verify(int argc, char **argv) {
    const struct argp parser = {.parser = parse_option,
                                .args_doc = "RUN_DIR",
                                .doc =
                                    "Reads every file of every checkpoint of a run and compares it with its "
                                    "digest. Names what is damaged; the exit status is 1 if anything is."};
    options options = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return command_finish(verify_all(&options));
}

static int cmd_prune(int argc, char **argv) {
    static const struct argp_option choices[] = {
        {"keep", 'k', "K", 0, "Keep the K newest that are whole (3)", 0},
        {"every", 'e', "N", 0, "Also keep every step that is a multiple of N", 0},
        {"best", 'b', "STEP", 0, "Also keep this step", 0},
        {0},
    };
    const struct argp parser = {.options = choices,
                                .parser = parse_option,
                                .args_doc = "RUN_DIR",
                                .doc =
                                    "Removes checkpoints of a run, all but those that the options name and "
                                    "the one that selected.json names. The "
                                    "newest are verified first; a damaged one is reported, left where it is, "
                                    "and not counted."};
    options options = {.keep = {.last = 3, .best = -1}};
    argp_parse(&parser, argc, argv, 0, NULL, &options);
    return command_finish(prune(&options));
}

int cmd_checkpoint(int argc, char **argv) {
    static const command_entry entries[] = {
        {"list", cmd_list, "show the checkpoints of a run"},
        {"verify", cmd_verify, "compare every file with its digest"},
        {"prune", cmd_prune, "remove old checkpoints"},
    };
    return command_dispatch(argv[0], "The checkpoints of a run folder.", entries,
                            sizeof entries / sizeof entries[0], argc, argv);
}
