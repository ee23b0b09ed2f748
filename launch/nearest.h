// Spelling help for keys, commands and option values.
#pragma once

// The candidate with the smallest Levenshtein distance to `name`; the first of equals. count >= 1.
const char *nearest_name(const char *name, const char *const *candidates, int count);
