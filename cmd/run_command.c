#include "cmd/run_command.h"

#include "cmd/commands.h"
#include "cmd/option.h"
#include "cmd/voice.h"
#include "comm/launcher.h"
#include "comm/world.h"
#include "kernels/memory.h"
#include "launch/nearest.h"
#include "launch/roles.h"
#include "launch/run_config_table.h"
#include "launch/run_folder.h"
#include "launch/supervise.h"

#include <argp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    OPTION_HELP_SETTINGS = 256,
    OPTION_PRINT,
    OPTION_RANKS,
    OPTION_RESTARTS,
    OPTION_WORKER,
    OPTION_REPLACE,
    RANKS_MAX = 4096,
    RESTARTS_MAX = 1000000
};

typedef struct arguments {
    char **words;
    int count;
    const char *print; // a setting, NULL: run
    int ranks;         // 0: this process is one of those that a launcher started, or the only one
    int max_restarts;
    bool restarts_given;
    bool replaces;  // what is there already
    bool works;     // for another run
    unsigned roles; // in these, 0: in all that it leaves to workers
} arguments;

// What the words are for.
typedef struct command {
    const char *about;
    const struct argp_option *options;
    const char *folder; // the setting that names its folder, where it may run on several ranks
    status (*run)(const run_config *config); // NULL: it makes
    status (*work)(const run_config *config, unsigned roles);
    status (*make)(const run_config *config, bool replace);
} command;

static error_t parse(int key, char *argument, struct argp_state *state) {
    arguments *a = state->input;
    switch (key) {
    case OPTION_HELP_SETTINGS:
        run_config_print_settings(stdout);
        exit(STATUS_OK);
    case OPTION_PRINT:
        a->print = argument;
        return 0;
    case OPTION_RANKS:
        a->ranks = (int)option_integer(state, "ranks", argument, 1, RANKS_MAX);
        return 0;
    case OPTION_RESTARTS:
        a->restarts_given = true;
        a->max_restarts = (int)option_integer(state, "max-restarts", argument, 0, RESTARTS_MAX);
        return 0;
    case OPTION_WORKER:
        a->works = true;
        if (argument != NULL && roles_parse_set(&a->roles, argument) != STATUS_OK)
            argp_error(state, "--worker: %s", status_message());
        return 0;
    case OPTION_REPLACE:
        a->replaces = true;
        return 0;
    case ARGP_KEY_ARG:
        a->words[a->count++] = argument;
        return 0;
    case ARGP_KEY_END:
        if (a->count == 0)
            argp_error(state, "a run file is wanted");
        if (a->restarts_given && a->ranks == 0)
            argp_error(state,
                       "--max-restarts needs --ranks: only ranks that it started can be started again");
        if (a->works && a->ranks > 0)
            argp_error(state, "--worker is one process: start several instead of --ranks");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

// A run file that cannot be used fails on every rank, or, where a host lacks it, on some, while the others
// wait for their agreement that all could prepare. This is that agreement: all end, and one speaks.
static status agree_on_failure(status failed) {
    if (launcher_find_place().ranks == 1)
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

static status print_setting(const run_config *config, const char *key) {
    const char *keys[RUN_SETTINGS_MAX];
    char value[2 * RUN_CONFIG_PATH_MAX], hint[NEAREST_HINT];
    const setting *found = run_setting_find(key);
    for (int i = 0; i < run_setting_count; i++)
        keys[i] = run_settings[i].key;
    if (found == NULL)
        return FAIL_USAGE("--print %s: there is no such setting%s (--help-settings lists all)", key,
                          nearest_hint(hint, "the nearest is", key, keys, run_setting_count));
    if (found->type == SETTING_TEXT) { // as it is, for a shell to use
        puts(run_setting_text(config, found));
        return STATUS_OK;
    }
    TRY(run_setting_format(config, found, value, sizeof value));
    puts(value);
    return STATUS_OK;
}

// The same command without --ranks, on several ranks. `name` is "musicrl train".
static status run_on_ranks(const run_config *config, const char *folder, const char *name,
                           const arguments *a) {
    char program[PATH_MAX], **words;
    TRY(run_config_require(config, folder));
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0)
        return FAIL(
            "cannot find this program's file in /proc/self/exe; start it with mpirun instead of --ranks");
    program[length] = '\0';
    TRY(memory_allocate((void **)&words, sizeof *words * ((size_t)a->count + 2), "words of the command"));
    words[0] = program;
    words[1] = strrchr(name, ' ') + 1;
    memcpy(words + 2, a->words, sizeof *words * (size_t)a->count);
    const setting *place = run_setting_find(folder);
    const supervision plan = {.ranks = a->ranks,
                              .max_restarts = a->max_restarts,
                              .folder = run_setting_text(config, place),
                              .words = words,
                              .count = a->count + 2};
    status result = supervise(&plan);
    memory_free(words);
    return result;
}

static int run_with_options(int argc, char **argv, const command *command) {
    const struct argp argp = {.options = command->options,
                              .parser = parse,
                              .args_doc = "RUN.yaml [OVERLAY.yaml...] [key.sub=value...]",
                              .doc = command->about};
    // The words are collected in place: there are never more than were read.
    arguments a = {.words = argv + 1, .max_restarts = 3};
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &a);
    voice_return();
    static run_config config;
    status result = run_config_load(&config, a.words[0], a.words + 1, a.count - 1);
    if (result != STATUS_OK)
        return command_finish(a.print != NULL || a.ranks > 0 ? result : agree_on_failure(result));
    if (a.print != NULL)
        return command_finish(print_setting(&config, a.print));
    if (a.works)
        return command_finish(command->work(&config, a.roles));
    if (command->make != NULL)
        return command_finish(command->make(&config, a.replaces));
    return command_finish(a.ranks > 0 ? run_on_ranks(&config, command->folder, argv[0], &a)
                                      : command->run(&config));
}

#define HELP_SETTINGS                                                                                        \
    { "help-settings", OPTION_HELP_SETTINGS, NULL, 0, "List every setting of a run file", 0 }
#define PRINT                                                                                                \
    { "print", OPTION_PRINT, "KEY", 0, "Print the value of a setting as resolved, for scripts, and end", 0 }

#define RANKS                                                                                                \
    {                                                                                                        \
        "ranks", OPTION_RANKS, "N", 0,                                                                       \
            "Start mpirun with N ranks on this machine, and again, from the newest checkpoint, if one of "   \
            "them dies",                                                                                     \
            0                                                                                                \
    }
#define RESTARTS                                                                                             \
    {                                                                                                        \
        "max-restarts", OPTION_RESTARTS, "R", 0,                                                             \
            "With --ranks: start again at most R times, 3 by default; never if three restarts in a row got " \
            "no further",                                                                                    \
            0                                                                                                \
    }

int run_command(int argc, char **argv, const char *about, status (*run)(const run_config *config)) {
    static const struct argp_option options[] = {HELP_SETTINGS, PRINT, {0}};
    const command command = {about, options, NULL, run, NULL, NULL};
    return run_with_options(argc, argv, &command);
}

int run_command_that_replaces(int argc, char **argv, const char *about,
                              status (*make)(const run_config *config, bool replace)) {
    static const struct argp_option options[] = {
        HELP_SETTINGS,
        PRINT,
        {"replace", OPTION_REPLACE, NULL, 0, "Replace what an earlier run made", 0},
        {0}};
    const command command = {about, options, NULL, NULL, NULL, make};
    return run_with_options(argc, argv, &command);
}

int run_command_on_ranks(int argc, char **argv, const char *about, const char *folder,
                         status (*run)(const run_config *config)) {
    static const struct argp_option options[] = {HELP_SETTINGS, PRINT, RANKS, RESTARTS, {0}};
    const command command = {about, options, folder, run, NULL, NULL};
    return run_with_options(argc, argv, &command);
}

int run_command_with_workers(int argc, char **argv, const char *about, const char *folder,
                             status (*run)(const run_config *config),
                             status (*work)(const run_config *config, unsigned roles)) {
    static const struct argp_option options[] = {
        HELP_SETTINGS,
        PRINT,
        RANKS,
        RESTARTS,
        {"worker", OPTION_WORKER, "ROLES", OPTION_ARG_OPTIONAL,
         "Be no rank of the run, but make rollouts and scores for it: all that the setting 'roles' leaves to "
         "workers "
         "(rollout:8 instead of rollout=8), or only those of ROLES (rollout, reward, rollout+reward)",
         0},
        {0}};
    const command command = {about, options, folder, run, work, NULL};
    return run_with_options(argc, argv, &command);
}
