#include "cmd/commands.h"
#include "cmd/voice.h"

#include "launch/doctor.h"

#include <argp.h>
#include <stdio.h>

static const char about[] =
    "Says what this machine has, what is missing, and what to type.\v"
    "Each line starts with 'ok', 'note' (works without it, or worth knowing) or 'missing' (needed). The exit "
    "status is 1 if something needed is missing, otherwise 0.";

int cmd_doctor(int argc, char **argv) {
    static const char *const words[] = {
        [DOCTOR_OK] = "ok",
        [DOCTOR_NOTE] = "note",
        [DOCTOR_MISSING] = "missing",
    };
    struct argp parser = {.doc = about};
    argp_parse(&parser, argc, argv, 0, NULL, NULL);
    voice_return();

    doctor_report report;
    doctor_examine(&report);
    for (int i = 0; i < report.count; i++) {
        const doctor_line *line = &report.lines[i];
        printf("%-8s %-14s %s\n", words[line->level], line->topic, line->text);
        if (line->advice[0])
            printf("%-8s %-14s -> %s\n", "", "", line->advice);
    }
    if (report.missing > 0)
        return command_finish(FAIL("%d needed %s missing; the lines above say what to type", report.missing,
                                   report.missing == 1 ? "thing is" : "things are"));
    return command_finish(STATUS_OK);
}
