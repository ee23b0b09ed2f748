// Options of the commands that take a run file: RUN.yaml, then run files to lay over it and
// overrides key.sub=value.
#pragma once

#include "kernels/status.h"
#include "launch/run_config.h"

// Parses argv (see cmd/commands.h), loads the run file and calls `run`. `about` is the text of --help.
// Returns the exit status.
int run_command(int argc, char **argv, const char *about, status (*run)(const run_config *config));
