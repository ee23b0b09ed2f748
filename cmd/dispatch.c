#include "cmd/commands.h"

#include "cmd/voice.h"
#include "launch/nearest.h"

#include <stdio.h>
#include <string.h>

int command_finish(status outcome) {
    if (outcome != STATUS_OK && outcome != STATUS_STOPPED && status_message()[0] != '\0')
        fprintf(stderr, "musicrl: %s\n", status_message());
    return (int)outcome;
}

static void print_help(const char *group, const char *about, const command_entry *entries, int count) {
    printf("Usage: %s COMMAND [OPTION...]\n%s\n\n", group, about);
    for (int i = 0; i < count; i++)
        printf("  %-12s %s\n", entries[i].name, entries[i].summary);
    printf("\n'%s COMMAND --help' describes one of them.\n", group);
}

int command_dispatch(const char *group, const char *about, const command_entry *entries, int count, int argc,
                     char **argv) {
    if (argc < 2) {
        print_help(group, about, entries, count);
        return STATUS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_help(group, about, entries, count);
        return STATUS_OK;
    }
    for (int i = 0; i < count; i++) {
        if (strcmp(argv[1], entries[i].name) == 0) {
            char name[128];
            snprintf(name, sizeof name, "%s %s", group, entries[i].name);
            argv[1] = name;
            if (entries[i].ranks == RANKS_ONE && voice_refuse_ranks(name) != STATUS_OK)
                return command_finish(STATUS_USAGE);
            return entries[i].run(argc - 1, argv + 1);
        }
    }
    const char *names[64];
    for (int i = 0; i < count && i < 64; i++)
        names[i] = entries[i].name;
    char hint[NEAREST_HINT];
    nearest_hint(hint, "did you mean", argv[1], names, count < 64 ? count : 64);
    fprintf(stderr, "%s: unknown command '%s'%s%s '%s --help' lists them all\n", group, argv[1], hint,
            hint[0] != '\0' ? "?" : ";", group);
    return STATUS_USAGE;
}
