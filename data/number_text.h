// Numbers as text that reads back to the same bits.
#pragma once

enum { NUMBER_TEXT_MAX = 32 };

// The shortest decimal form of a finite `value` that strtod reads back exactly, valid in JSON and YAML
// ("0.0001", "1e-08", "125"), into `out` [NUMBER_TEXT_MAX].
void number_text_format(char *out, double value);
