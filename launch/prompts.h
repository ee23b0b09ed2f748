// The prompts of a side-by-side evaluation: a JSON-lines file, one prompt a line,
//     {"id": "001", "prompt": "A slow lullaby ...", "attributes": {"tempo": "slow", ...}}
// attributes holds what the prompt promises, in the words of data/composer.h; what it does not promise is
// left out. A list of 101 is built in (launch/prompts/evaluation.jsonl).
#pragma once

#include "kernels/status.h"

#include <stddef.h>

typedef struct prompt {
    char *id;         // unique
    char *text;       // unique
    char *attributes; // a JSON object, "{}" where the line has none
} prompt;

typedef struct prompt_list {
    prompt *items; // [count]
    size_t count;
} prompt_list;

enum { PROMPTS_MAX = 100000 };

// Reads `path`, or the built-in list if it is NULL. Errors name file and line. `out` is to be freed with
// prompts_free, also after a failure.
status prompts_read(prompt_list *out, const char *path);
void prompts_free(prompt_list *prompts);

// The index of the prompt with this id, or -1.
long prompts_find(const prompt_list *prompts, const char *id);
