// What this machine has for the program, what is missing, and what to type.
#pragma once

#include "kernels/status.h"

typedef enum doctor_level {
    DOCTOR_OK,
    DOCTOR_NOTE,    // works without it, or worth knowing
    DOCTOR_MISSING, // needed
} doctor_level;

typedef struct doctor_line {
    doctor_level level;
    char topic[24];   // "processor", "memory", ...
    char text[320];   // what is there
    char advice[200]; // what to do; "" if nothing
} doctor_line;

enum { DOCTOR_LINES = 64 };

typedef struct doctor_report {
    doctor_line lines[DOCTOR_LINES]; // [count]
    int count;
    int missing; // lines of level DOCTOR_MISSING
} doctor_report;

// Looks the machine over and fills `report`. Changes nothing, starts no other program, needs no rights. PATH
// is searched for mpirun and srun; free disk space is that of the current folder.
void doctor_examine(doctor_report *report);
