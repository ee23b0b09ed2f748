#include "cmd/commands.h"
#include "cmd/voice.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const command_entry commands[] = {
    {"corpus", cmd_corpus, RANKS_ANY, "captioned music -> shards"},
    {"codec", cmd_codec, RANKS_ANY, "audio <-> tokens"},
    {"embed", cmd_embed, RANKS_ANY, "joint embedding of captions and music"},
    {"pretrain", cmd_pretrain, RANKS_ANY, "the base model"},
    {"reward", cmd_reward, RANKS_ANY, "ratings of clips, and reward models learned from them"},
    {"train", cmd_train, RANKS_ANY, "the reinforcement learning run; also under mpirun and srun"},
    {"generate", cmd_generate, RANKS_ONE, "caption -> WAV"},
    {"evaluate", cmd_evaluate, RANKS_ONE, "base against finetuned model, side by side"},
    {"report", cmd_report, RANKS_ONE, "one HTML page: curves, tables, clips to hear"},
    {"checkpoint", cmd_checkpoint, RANKS_ANY, "list, verify or prune the checkpoints of a run"},
    {"bench", cmd_bench, RANKS_ANY, "speed of every stage, with its formula"},
    {"doctor", cmd_doctor, RANKS_ANY, "what this machine has, what is missing, what to type"},
};

// The OpenMP runtime reads its environment when it is loaded, so a setting of ours means starting over. A
// thread that waits for work should spin for some microseconds, as operators follow one another that fast,
// and then sleep: with its default of milliseconds, threads that wait take the cores from those that work as
// soon as the machine is shared.
static void limit_spinning(char **argv) {
    if (getenv("OMP_WAIT_POLICY") != NULL || getenv("GOMP_SPINCOUNT") != NULL)
        return;
    char path[PATH_MAX]; // not the link itself: the process would be listed under the link's name
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = '\0';
    setenv("GOMP_SPINCOUNT", "2000", 1);
    execv(path, argv); // if that fails, the default serves
}

int main(int argc, char **argv) {
    limit_spinning(argv);
    voice_leave_to_first_rank();
    argp_err_exit_status = STATUS_USAGE;
    signal(SIGXFSZ, SIG_IGN); // writing past a file-size limit is then an error with a message
    if (argc == 2 && (strcmp(argv[1], "--version") == 0)) {
        printf("musicrl %s\n", MUSICRL_VERSION);
        return STATUS_OK;
    }
    const int outcome = command_dispatch(
        "musicrl", "Finetunes music generators by reinforcement learning from human feedback.", commands,
        sizeof commands / sizeof commands[0], argc, argv);
    // What was printed may be somebody's file.
    if ((fflush(stdout) != 0 || ferror(stdout)) && outcome == STATUS_OK) {
        fprintf(stderr,
                "musicrl: standard output cannot be written: %s; free some space or print elsewhere\n",
                strerror(errno));
        return STATUS_FAILED;
    }
    return outcome;
}
