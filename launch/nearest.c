#include "launch/nearest.h"

#include <stdio.h>
#include <string.h>

enum { LONGEST = 128 };

static int distance(const char *a, const char *b) {
    size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);
    int row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *nearest_name(const char *name, const char *const *candidates, int count) {
    const char *best = NULL;
    int best_distance = (int)strnlen(name, LONGEST);
    for (int i = 0; i < count; i++) {
        int d = distance(name, candidates[i]);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}

const char *nearest_hint(char hint[NEAREST_HINT], const char *lead, const char *name,
                         const char *const *candidates, int count) {
    const char *nearest = nearest_name(name, candidates, count);
    hint[0] = '\0';
    if (nearest != NULL)
        snprintf(hint, NEAREST_HINT, "; %s '%s'", lead, nearest);
    return hint;
}
