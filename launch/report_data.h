// What a report is made from: metrics by name, and JSON files of a run folder.
#pragma once

#include "kernels/status.h"

#include <jansson.h>
#include <stddef.h>

enum { REPORT_SERIES_MAX = 512, REPORT_METRIC_NAME_MAX = 64 };

// The finite values of one metric, in the order of the file.
typedef struct report_series {
    char name[REPORT_METRIC_NAME_MAX];
    double *step, *value; // [count]
    size_t count, capacity;
} report_series;

typedef struct report_metrics {
    report_series *series[REPORT_SERIES_MAX]; // [count]
    int count;
    int found; // the file exists
} report_metrics;

// Reads metrics.jsonl; a missing file leaves `found` 0. Half a line at the end is left out: the run may still
// be writing. Anything else that is no object with a number "step" is an error that names file and line.
status report_metrics_read(report_metrics *out, const char *path);
void report_metrics_free(report_metrics *metrics);

// Never NULL: an empty series if there is none of that name.
const report_series *report_metrics_find(const report_metrics *metrics, const char *name);

// The last value; NaN of an empty series.
double report_series_last(const report_series *series);

// Reads a JSON file whose root must be an object, or an array if `array`. *out is NULL if the file is
// missing. Free with json_decref.
status report_json_read(json_t **out, const char *path, int array);

// A whole file of at most `most` bytes; *out is NULL if it is missing. Free with memory_free.
status report_file_read(unsigned char **out, size_t *count, const char *path, size_t most);
