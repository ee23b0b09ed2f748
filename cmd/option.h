// Numbers on the command line.
#pragma once

#include <argp.h>

// The value of option --`name` as given in `text`; ends the program with a wrong-usage line if it is no
// number from `least` to `most`.
double option_real(const struct argp_state *state, const char *name, const char *text, double least,
                   double most);

// The same for whole numbers.
long long option_integer(const struct argp_state *state, const char *name, const char *text, long long least,
                         long long most);
