#include "cmd/voice.h"

#include "comm/launcher.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int kept = -1; // stderr, while this rank is silent

static void let_first_rank_end(void) {
    if (kept >= 0)
        sleep(1);
}

void voice_leave_to_first_rank(void) {
    if (launcher_find_place().rank == 0)
        return;
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (nowhere >= 0 && kept >= 0 && atexit(let_first_rank_end) == 0)
        dup2(nowhere, STDERR_FILENO);
    if (nowhere >= 0)
        close(nowhere);
}

void voice_return(void) {
    if (kept < 0)
        return;
    dup2(kept, STDERR_FILENO);
    close(kept);
    kept = -1;
}

status voice_refuse_ranks(const char *what) {
    const int ranks = launcher_find_place().ranks;
    if (ranks == 1)
        return STATUS_OK;
    return FAIL_USAGE(
        "'%s' is one process, here mpirun or srun started %d; start it without them, or with -n 1", what,
        ranks);
}
