// Options of the commands that take a run file: RUN.yaml, then run files to lay over it and
// overrides key.sub=value.
#pragma once

#include "kernels/status.h"
#include "launch/run_config.h"

// Parses argv (see cmd/commands.h), loads the run file and calls `run`. `about` is the text of --help.
// Returns the exit status.
int run_command(int argc, char **argv, const char *about, status (*run)(const run_config *config));

// The same for a command that replaces what it made earlier only if told to, with --replace.
int run_command_that_replaces(int argc, char **argv, const char *about,
                              status (*make)(const run_config *config, bool replace));

// The same for a command that may run on several ranks, with --ranks and --max-restarts; `folder` is the
// setting that names the folder with its checkpoints.
int run_command_on_ranks(int argc, char **argv, const char *about, const char *folder,
                         status (*run)(const run_config *config));
// The same, with --worker as well: a process that works for the run of others, in these roles (bits, 0 for
// all that the run leaves to workers).
int run_command_with_workers(int argc, char **argv, const char *about, const char *folder,
                             status (*run)(const run_config *config),
                             status (*work)(const run_config *config, unsigned roles));
