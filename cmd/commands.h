// The subcommands: options in, one call, exit status out. argv[0] is the full name ("musicrl corpus"). Each
// prints its own failure (command_finish) and returns the exit status.
#pragma once

#include "kernels/status.h"

int cmd_corpus(int argc, char **argv);
int cmd_corpus_make(int argc, char **argv);
int cmd_corpus_import(int argc, char **argv);
int cmd_corpus_show(int argc, char **argv);
int cmd_codec(int argc, char **argv);
int cmd_codec_train(int argc, char **argv);
int cmd_codec_encode(int argc, char **argv);
int cmd_codec_decode(int argc, char **argv);
int cmd_embed(int argc, char **argv);
int cmd_pretrain(int argc, char **argv);
int cmd_reward(int argc, char **argv);
int cmd_reward_collect(int argc, char **argv);
int cmd_reward_import(int argc, char **argv);
int cmd_reward_show(int argc, char **argv);
int cmd_reward_listeners(int argc, char **argv);
int cmd_reward_train(int argc, char **argv);
int cmd_reward_eval(int argc, char **argv);
int cmd_reward_ablate(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_evaluate(int argc, char **argv);
int cmd_report(int argc, char **argv);
int cmd_checkpoint(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

// Prints "musicrl: MESSAGE" to stderr if `outcome` is a failure; returns it as exit status.
int command_finish(status outcome);

// Whether mpirun or srun may start several processes of a command; a group leaves that to its commands.
typedef enum command_ranks { RANKS_ONE, RANKS_ANY } command_ranks;

// Dispatches argv[1] to one of a group's second words ("corpus make"); prints the group's help for --help,
// and a wrong-usage line that names the nearest word otherwise.
typedef struct command_entry {
    const char *name;
    int (*run)(int argc, char **argv);
    command_ranks ranks;
    const char *summary; // one line for --help
} command_entry;
int command_dispatch(const char *group, const char *about, const command_entry *entries, int count, int argc,
                     char **argv);
