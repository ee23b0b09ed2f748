// Who speaks where mpirun or srun started this program several times with the same words.
#pragma once

#include "kernels/status.h"

// Until voice_return, what ranks other than the first say on stderr is dropped: all say the same of a command
// line that is wrong, so one speaks. Those that end meanwhile do so a little later than the first rank, whose
// line a launcher might otherwise cut off. Called once, at the start.
void voice_leave_to_first_rank(void);

// From here on every rank speaks for itself.
void voice_return(void);

// Fails where this process is one of several: `what` ("musicrl generate") would do the same work in each.
status voice_refuse_ranks(const char *what);
