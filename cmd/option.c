#include "cmd/option.h"

#include <errno.h>
#include <stdlib.h>

double option_real(const struct argp_state *state, const char *name, const char *text, double least,
                   double most) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most))
        argp_error(state, "--%s %s: wanted a number from %.15g to %.15g", name, text, least, most);
    return value;
}

long long option_integer(const struct argp_state *state, const char *name, const char *text, long long least,
                         long long most) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < least || value > most)
        argp_error(state, "--%s %s: wanted a whole number from %lld to %lld", name, text, least, most);
    return value;
}
