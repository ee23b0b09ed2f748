#include "cmd/run_command.h"

#include "cmd/commands.h"
#include "comm/world.h"
#include "launch/run_folder.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPTION_HELP_SETTINGS = 256 };

typedef struct arguments {
    char **words;
    int count;
} arguments;

static error_t parse(int key, char *argument, struct argp_state *state) {
    arguments *a = state->input;
    switch (key) {
    case OPTION_HELP_SETTINGS:
        run_config_print_settings(stdout);
        exit(STATUS_OK);
    case ARGP_KEY_ARG:
        a->words[a->count++] = argument;
        return 0;
    case ARGP_KEY_END:
        if (a->count == 0)
            argp_error(state, "a run file is wanted");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// Whether mpirun or srun started this process as one of several.
static bool is_one_of_many(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *text = getenv(names[i]);
        if (text != NULL && atoi(text) > 1)
            return true;
    }
    return false;
}

// A run file that cannot be used fails on every rank, or, where a host lacks it, on some, while the others
// wait for their agreement that all could prepare. This is that agreement: all end, and one speaks.
static status agree_on_failure(status failed) {
    if (!is_one_of_many())
        return failed;
    world *world;
    const world_options options = {.threads = 1, .deadline_seconds = 60.0};
    char message[1024];
    snprintf(message, sizeof message, "%s", status_message());
    TRY(world_create(&world, &options));
    failed = world_agree(world, status_set(failed, "%s", message));
    run_speak_once(world, failed);
    world_destroy(world);
    return failed;
}

int run_command(int argc, char **argv, const char *about, status (*run)(const run_config *config)) {
    static const struct argp_option options[] = {
        {"help-settings", OPTION_HELP_SETTINGS, NULL, 0, "List every setting of a run file", 0},
        {0},
    };
    const struct argp argp = {.options = options,
                              .parser = parse,
                              .args_doc = "RUN.yaml [OVERLAY.yaml...] [key.sub=value...]",
                              .doc = about};
    arguments a = {.words =
                       argv + 1}; // the words are collected in place: there are never more than were read
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
    static run_config config;
    status result = run_config_load(&config, a.words[0], a.words + 1, a.count - 1);
    result = result == STATUS_OK ? run(&config) : agree_on_failure(result);
    return command_finish(result);
}
