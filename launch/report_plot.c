#include "launch/report_plot.h"

#include "kernels/memory.h"

#include <stdio.h>
#include <string.h>

enum { SMOOTHED_FROM = 12 };

void report_plot_add(report_plot *plot, const char *label, int color, report_stroke stroke, const double *x,
                     const double *y, size_t count) {
    if (count == 0 || plot->count == REPORT_PLOT_LINES_MAX || plot->outcome != STATUS_OK)
        return;
    double *points;
    plot->outcome = memory_allocate((void **)&points, 2 * count * sizeof *points, "points of a chart");
    if (plot->outcome != STATUS_OK)
        return;
    if (x != NULL)
        memcpy(points, x, count * sizeof *points);
    memcpy(points + count, y, count * sizeof *points);
    char *kept = plot->labels[plot->count];
    if (label != NULL)
        snprintf(kept, REPORT_PLOT_LABEL_MAX, "%s", label);
    plot->points[plot->count] = points;
    plot->lines[plot->count++] =
        (report_line){label == NULL ? NULL : kept, color, stroke, points, points + count, count};
}

void report_plot_add_series(report_plot *plot, const char *label, int color, report_stroke stroke,
                            const report_series *series) {
    report_plot_add(plot, label, color, stroke, series->step, series->value, series->count);
}

void report_plot_add_smooth(report_plot *plot, const char *label, int color, const report_series *series) {
    if (series->count < SMOOTHED_FROM) {
        report_plot_add_series(plot, label, color, REPORT_STROKE_LINE, series);
        return;
    }
    double *mean;
    if (plot->outcome == STATUS_OK)
        plot->outcome = report_series_smooth(series, report_series_window(series), &mean);
    if (plot->outcome != STATUS_OK)
        return;
    report_plot_add(plot, label, color, REPORT_STROKE_PLAIN, series->step, mean, series->count);
    memory_free(mean);
}

void report_plot_add_level(report_plot *plot, const char *label, int color, double value) {
    report_plot_add(plot, label, color, REPORT_STROKE_LEVEL, NULL, &value, 1);
}

status report_plot_finish(report_text *out, report_plot *plot, const char *title, const char *x_label,
                          const char *y_label) {
    if (plot->outcome == STATUS_OK)
        report_svg_chart(out, &(report_chart){title, x_label, y_label, plot->lines, plot->count});
    for (int i = 0; i < plot->count; i++)
        memory_free(plot->points[i]);
    const status outcome = plot->outcome;
    *plot = (report_plot){0};
    return outcome;
}
