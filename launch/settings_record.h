// What a run's results depend on, kept in its checkpoints, so that a run is not taken up with other settings
// than it began with.
#pragma once

#include "kernels/status.h"
#include "launch/run_config.h"

#include <jansson.h>

// Which settings count: keys or sections ("seed", "model"), but not these keys. Both lists end with NULL.
typedef struct settings_scope {
    const char *const *keys, *const *except;
} settings_scope;

// The settings of `scope` as a JSON object, key -> value as it is written in a run file, in the order of the
// table. The caller owns it and may add what is no setting under a name of its own, also as text ("codec of
// data.tokens"); it goes into a checkpoint's state as "settings".
status settings_record_create(json_t **out, const run_config *config, const settings_scope *scope);

// Fails if `recorded`, of the checkpoint at `path`, says otherwise than `wanted`, with one line that names
// the first difference, both values, and `mend` ("choose another 'folder'"). A setting that the record lacks,
// as it was made before there was one, counts as the default.
status settings_record_compare(const json_t *recorded, const json_t *wanted, const char *path,
                               const char *mend);
