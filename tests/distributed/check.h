// For programs under mpirun: a failed check on one rank must end all of them, not leave them waiting.
#pragma once

#include "comm/world.h"

#include <stdio.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            char check_line_[2500];                                                                          \
            snprintf(check_line_, sizeof check_line_, "%s:%d: %s is false; last message: %s", __FILE__,      \
                     __LINE__, #condition, status_message());                                                \
            world_abort(NULL, check_line_);                                                                  \
        }                                                                                                    \
    } while (0)
#define CHECK_OK(call) CHECK((call) == STATUS_OK)
