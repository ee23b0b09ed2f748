// metrics.jsonl: one JSON object a line, one line a step, {"step": 3, "reward": 0.41, ...}. Numbers read back
// to the same bits; NaN and infinities are written as null.
#pragma once

#include "data/event_file.h"
#include "kernels/status.h"

#include <stdint.h>

typedef struct metrics metrics;

// Opens `path` for appending. Lines of an earlier run with step >= resume_step are removed first, in one
// rename, and so is half a line at the end, of which metrics_note tells; 0 starts afresh. Another line that
// is no JSON object with a whole number "step" is an error that names it. `events` receives the same numbers;
// borrowed, may be NULL.
status metrics_open(metrics **out, const char *path, int64_t resume_step, event_file *events);

// What a person should know of what was found at opening, in one line; "" for nothing.
const char *metrics_note(const metrics *metrics);

// One step: begin, add each number, end, which appends the line. Names need no escaping in JSON, are copied,
// and differ within a step. A failure of begin or add is reported by end. Allocates nothing.
void metrics_begin(metrics *metrics, int64_t step);
void metrics_add(metrics *metrics, const char *name, double value);
status metrics_end(metrics *metrics);

// Makes everything durable so far, the event file too; wanted before a checkpoint of the step is published.
status metrics_sync(metrics *metrics);

// Syncs, closes and frees, also on failure; the event file stays open. NULL is allowed.
status metrics_close(metrics *metrics);
