#include "cmd/commands.h"
#include "cmd/run_command.h"
#include "launch/listeners.h"

int cmd_reward_listeners(int argc, char **argv) {
    return run_command(argc, argv,
                       "Fits simulated listeners: detectors of what captions promise, on decoded clips of "
                       "data.tokens, and the scale on which a panel agrees as often as people do, on clips "
                       "of data.base. Writes data.listeners and a report beside it (.json).",
                       listeners_run);
}
