#include "cmd/commands.h"

#include <stdio.h>

int cmd_doctor(int argc, char **argv) {
    (void)argc;
    (void)argv;
    printf("musicrl %s\n", MUSICRL_VERSION);
    return STATUS_OK;
}
