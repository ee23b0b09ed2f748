// A chart that is put together line by line and owns its points.
#pragma once

#include "launch/report_data.h"
#include "launch/report_svg.h"

enum { REPORT_PLOT_LINES_MAX = 96, REPORT_PLOT_LABEL_MAX = 64 };

// Zero-initialised: an empty plot. The first failure sticks and is told by report_plot_finish.
typedef struct report_plot {
    report_line lines[REPORT_PLOT_LINES_MAX]; // [count], their points are the plot's
    double *points[REPORT_PLOT_LINES_MAX];    // [count]: of lines[i], x [its count] and y [its count]
    char labels[REPORT_PLOT_LINES_MAX][REPORT_PLOT_LABEL_MAX];
    int count;
    status outcome;
} report_plot;

// Adds a line and copies label and points [count]; x is not read for REPORT_STROKE_LEVEL. A line without
// points is not added.
void report_plot_add(report_plot *plot, const char *label, int color, report_stroke stroke, const double *x,
                     const double *y, size_t count);

// The same for a metric against step.
void report_plot_add_series(report_plot *plot, const char *label, int color, report_stroke stroke,
                            const report_series *series);

// As report_plot_add_series, but long series as a moving average over about a twelfth of the run.
void report_plot_add_smooth(report_plot *plot, const char *label, int color, const report_series *series);

// A dashed horizontal at `value`.
void report_plot_add_level(report_plot *plot, const char *label, int color, double value);

// Writes the chart, nothing if it has no points, and frees what the plot holds.
status report_plot_finish(report_text *out, report_plot *plot, const char *title, const char *x_label,
                          const char *y_label);
