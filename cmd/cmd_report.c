#include "cmd/commands.h"

#include "launch/report.h"

#include <argp.h>
#include <limits.h>
#include <stdio.h>

typedef struct options {
    const char *folder, *output;
} options;

static const struct argp_option option_table[] = {
    {"output", 'o', "FILE", 0, "where to write the page (default: RUN_DIR/report.html)", 0},
    {0},
};

static error_t parse(int key, char *argument, struct argp_state *state) {
    options *o = state->input;
    switch (key) {
    case 'o':
        o->output = argument;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 0)
            argp_error(state, "one RUN_DIR is wanted, '%s' is too many", argument);
        o->folder = argument;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a RUN_DIR is wanted");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_report(int argc, char **argv) {
    static const struct argp parser = {
        .options = option_table,
        .parser = parse,
        .args_doc = "RUN_DIR",
        .doc = "Writes one self-contained HTML page about a run, or about a folder of runs and what was "
               "measured of them: side-by-side bars, curves, tables and clips to hear. What the folder does "
               "not hold is left out.",
    };
    options o = {0};
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    char path[PATH_MAX];
    if (o.output == NULL) {
        if (snprintf(path, sizeof path, "%s/report.html", o.folder) >= (int)sizeof path)
            return command_finish(FAIL("path is too long: %.60s...", o.folder));
        o.output = path;
    }
    status result = report_write(o.folder, o.output);
    if (result == STATUS_OK)
        printf("%s\n", o.output);
    return command_finish(result);
}
