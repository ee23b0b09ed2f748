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

// The last step of which anything was recorded, NAN if there is none.
double report_metrics_last_step(const report_metrics *metrics);

// Seconds of all stages of all steps (seconds/NAME, but for seconds/write, which is spent beside them); 0 if
// none was recorded.
double report_metrics_seconds(const report_metrics *metrics);

// The last value; NaN of an empty series.
double report_series_last(const report_series *series);

// The value at `step`, or the last one before it; `before` if there is none.
double report_series_at(const report_series *series, double step, double before);

double report_series_sum(const report_series *series);      // NaN of an empty series
double report_series_greatest(const report_series *series); // NaN of an empty series

// The window of a moving average that suits the length of a series, in values; odd.
size_t report_series_window(const report_series *series);

// Mean over a window around each value, cut off at the ends; *out [count] is freed with memory_free.
status report_series_smooth(const report_series *series, size_t window, double **out);

// Reads a JSON file whose root must be an object, or an array if `array`. *out is NULL if the file is
// missing. Free with json_decref.
status report_json_read(json_t **out, const char *path, int array);

// A whole file of at most `most` bytes; *out is NULL if it is missing. Free with memory_free.
status report_file_read(unsigned char **out, size_t *count, const char *path, size_t most);

// Number at `key` of a JSON object; NaN if there is none. `object` may be NULL.
double report_json_number(const json_t *object, const char *key);

// Text at `key` of a JSON object; NULL if there is none. `object` may be NULL.
const char *report_json_text(const json_t *object, const char *key);
