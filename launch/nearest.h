// Spelling help for keys, commands and option values.
#pragma once

// The candidate with the smallest Levenshtein distance to `name`, the first of equals; NULL if all of `name`
// would have to change.
const char *nearest_name(const char *name, const char *const *candidates, int count);

// "; LEAD 'CANDIDATE'", or "" where there is none.
enum { NEAREST_HINT = 192 };
const char *nearest_hint(char hint[NEAREST_HINT], const char *lead, const char *name,
                         const char *const *candidates, int count);
