// The folder that `musicrl generate` fills.
#pragma once

#include "kernels/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define GENERATE_SHARDS "tokens"         // prefix of its token shards
#define GENERATE_RECORD "generated.json" // what was made, and from what; written last

// "000-00.wav": clip `clip` of prompt `prompt`, both from 0.
void generate_clip_name(char name[NAME_MAX + 1], size_t prompt, int clip);

// Refuses a folder that holds clips, token shards or a record of an earlier call unless `replace`, and token
// shards without a record, which something else made, even then.
status generate_check_folder(const char *folder, bool replace);
// The same, and removes what may be replaced, the record last.
status generate_clear_folder(const char *folder, bool replace);
