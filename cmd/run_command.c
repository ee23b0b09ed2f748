#include "cmd/run_command.h"

#include "cmd/commands.h"

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
    if (result == STATUS_OK)
        result = run(&config);
    return command_finish(result);
}
