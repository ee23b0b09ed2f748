#include "data/number_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void number_text_format(char *out, double value) {
    // "100", not "1e+02"
    if (fabs(value) < 1e15 && value == floor(value)) {
        snprintf(out, NUMBER_TEXT_MAX, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, NUMBER_TEXT_MAX, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            return;
    }
}
