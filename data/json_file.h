// JSON documents as published files.
#pragma once

#include "kernels/status.h"

#include <jansson.h>

// Publishes `json` indented at `path`; takes the reference over, also on failure. NULL (memory was short, or
// a number was not finite when it was packed) is an error.
status json_file_publish(const char *path, json_t *json);
