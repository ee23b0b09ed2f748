// Charts as inline SVG. Colours come from the page's style sheet (classes c0 to c8), so that they follow its
// light or dark theme.
#pragma once

#include "launch/report_text.h"

#include <stddef.h>

enum { REPORT_COLORS = 8, REPORT_COLOR_NEUTRAL = 8 };

typedef enum report_stroke {
    REPORT_STROKE_LINE,   // connected; with marks where there are few points
    REPORT_STROKE_PLAIN,  // connected, never with marks
    REPORT_STROKE_FAINT,  // connected and pale: raw values behind a mean
    REPORT_STROKE_DASHED, // connected by dashes, never with marks
    REPORT_STROKE_POINTS, // marks only
    REPORT_STROKE_RINGS,  // large hollow marks: points that are singled out
    REPORT_STROKE_LEVEL,  // a dashed horizontal at y[0] over the whole width; x is not read
} report_stroke;

typedef struct report_line {
    const char *label; // in the legend, escaped here; NULL: not listed
    int color;         // 0 to REPORT_COLORS - 1, or REPORT_COLOR_NEUTRAL
    report_stroke stroke;
    const double *x, *y; // [count], finite
    size_t count;
} report_line;

typedef struct report_chart {
    const char *title, *x_label, *y_label; // labels with their unit
    const report_line *lines;              // [count]
    int count;
} report_chart;

// A <figure> with title, legend and drawing. A label that several lines share is listed once. Lines without
// points are left out; without any points nothing is written. Long lines are drawn as means of equal bins.
void report_svg_chart(report_text *out, const report_chart *chart);

// The outline of a clip: peaks [count] within [0, 1], one for each equal part of the clip.
void report_svg_waveform(report_text *out, const double *peaks, int count, int color);

// At most `most` (>= 2) round values, equally spaced by 1, 2 or 5 times a power of ten, such that first and
// last enclose [low, high]. Labels need `decimals` digits behind the point.
typedef struct report_ticks {
    double first, step;
    int count, decimals;
} report_ticks;
report_ticks report_svg_ticks(double low, double high, int most);
