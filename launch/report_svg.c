#include "launch/report_svg.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

// Units of the view box. A phone shows it at about 3/4, which keeps the labels readable.
enum { WIDTH = 480, HEIGHT = 280, TOP = 30, BOTTOM = 42, RIGHT = 14, DIGIT_WIDTH = 9 };
enum { BINS = 240, MARKED_POINTS_MAX = 40 };

typedef struct axes {
    report_ticks x, y;
    double left;
} axes;

report_ticks report_svg_ticks(double low, double high, int most) {
    if (!(high > low)) { // flat: a range around the value
        const double margin = low == 0 ? 1 : fabs(low) * 0.1;
        low -= margin;
        high += margin;
    }
    report_ticks ticks = {.decimals = 0};
    double power = pow(10, floor(log10((high - low) / (most - 1))));
    static const double multiples[] = {1, 2, 5, 10, 20, 50};
    for (int i = 0; i < 6; i++) {
        ticks.step = multiples[i] * power;
        const double first = floor(low / ticks.step + 1e-9), last = ceil(high / ticks.step - 1e-9);
        ticks.first = first * ticks.step;
        ticks.count = (int)(last - first) + 1;
        if (ticks.count <= most)
            break;
    }
    const double digits = floor(log10(ticks.step) + 1e-9);
    ticks.decimals = digits < 0 ? (int)-digits : 0;
    return ticks;
}

static double last_of(const report_ticks *t) {
    return t->first + t->step * (t->count - 1);
}

static double place_x(const axes *a, double x) {
    return a->left + (x - a->x.first) / (last_of(&a->x) - a->x.first) * (WIDTH - RIGHT - a->left);
}

static double place_y(const axes *a, double y) {
    return HEIGHT - BOTTOM - (y - a->y.first) / (last_of(&a->y) - a->y.first) * (HEIGHT - BOTTOM - TOP);
}

static void put_tick(report_text *out, const report_ticks *t, int i) {
    double value = t->first + t->step * i;
    if (fabs(value) < t->step * 1e-6)
        value = 0; // not "-0.0"
    report_text_put(out, "%s%.*f", value < 0 ? "&minus;" : "", t->decimals, fabs(value));
}

static int tick_width(const report_ticks *t) {
    int widest = 0;
    for (int i = 0; i<t->count; i += t->count> 1 ? t->count - 1 : 1) {
        char label[64];
        const int length = snprintf(label, sizeof label, "%.*f", t->decimals, t->first + t->step * i);
        widest = length > widest ? length : widest;
    }
    return widest * DIGIT_WIDTH;
}

// False if no line has a point.
static int find_axes(const report_chart *chart, axes *a) {
    double low_x = DBL_MAX, high_x = -DBL_MAX, low_y = DBL_MAX, high_y = -DBL_MAX;
    for (int l = 0; l < chart->count; l++) {
        const report_line *line = &chart->lines[l];
        const size_t count = line->stroke == REPORT_STROKE_LEVEL && line->count > 1 ? 1 : line->count;
        for (size_t i = 0; i < count; i++) {
            if (line->stroke != REPORT_STROKE_LEVEL) {
                low_x = fmin(low_x, line->x[i]);
                high_x = fmax(high_x, line->x[i]);
            }
            low_y = fmin(low_y, line->y[i]);
            high_y = fmax(high_y, line->y[i]);
        }
    }
    if (low_x > high_x)
        return 0;
    if (low_y > 0 && low_y < 0.4 * high_y) // close enough to show the origin
        low_y = 0;
    a->x = report_svg_ticks(low_x, high_x, 7);
    a->y = report_svg_ticks(low_y, high_y, 6);
    a->left = fmax(36, tick_width(&a->y) + 12);
    return 1;
}

static void put_grid(report_text *out, const report_chart *chart, const axes *a) {
    report_text_put(out, "<g class=\"grid\">");
    for (int i = 0; i < a->y.count; i++) {
        const double y = place_y(a, a->y.first + a->y.step * i);
        report_text_put(out, "<path d=\"M%.1f %.1fH%d\"%s/>", a->left, y, WIDTH - RIGHT,
                        i == 0 ? " class=\"axis\"" : "");
        report_text_put(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"end\">", a->left - 6, y + 4.5);
        put_tick(out, &a->y, i);
        report_text_put(out, "</text>");
    }
    for (int i = 0; i < a->x.count; i++) {
        const double x = place_x(a, a->x.first + a->x.step * i);
        report_text_put(out,
                        "<path d=\"M%.1f %dv4\" class=\"axis\"/><text x=\"%.1f\" y=\"%d\" class=\"mid\">", x,
                        HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 19);
        put_tick(out, &a->x, i);
        report_text_put(out, "</text>");
    }
    report_text_put(out, "<text x=\"2\" y=\"13\" class=\"label\">");
    report_text_put_escaped(out, chart->y_label);
    report_text_put(out, "</text><text x=\"%d\" y=\"%d\" class=\"label end\">", WIDTH - RIGHT, HEIGHT - 3);
    report_text_put_escaped(out, chart->x_label);
    report_text_put(out, "</text></g>");
}

// Mean of the points [from, to) of a line.
static void bin(const report_line *line, size_t from, size_t to, double *x, double *y) {
    *x = *y = 0;
    for (size_t i = from; i < to; i++) {
        *x += line->x[i] / (double)(to - from);
        *y += line->y[i] / (double)(to - from);
    }
}

static int is_marks(report_stroke stroke) {
    return stroke == REPORT_STROKE_POINTS || stroke == REPORT_STROKE_RINGS;
}

static const char *stroke_class(report_stroke stroke) {
    switch (stroke) {
    case REPORT_STROKE_FAINT:
        return " faint";
    case REPORT_STROKE_DASHED:
        return " dashed";
    case REPORT_STROKE_LEVEL:
        return " level";
    case REPORT_STROKE_RINGS:
        return " ring";
    default:
        return "";
    }
}

static void put_marks(report_text *out, const report_line *line, const axes *a) {
    for (size_t i = 0; i < line->count; i++) {
        const int ring = line->stroke == REPORT_STROKE_RINGS;
        report_text_put(out, "<circle class=\"c%d%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%d\"><title>", line->color,
                        ring ? " ring" : "", place_x(a, line->x[i]), place_y(a, line->y[i]), ring ? 8 : 3);
        report_text_put_number(out, line->x[i]);
        report_text_put(out, ": ");
        report_text_put_number(out, line->y[i]);
        report_text_put(out, "</title></circle>");
    }
}

static void put_line(report_text *out, const report_line *line, const axes *a) {
    if (line->count == 0)
        return;
    if (line->stroke == REPORT_STROKE_LEVEL) {
        report_text_put(out, "<path class=\"c%d level\" d=\"M%.1f %.1fH%d\"/>", line->color, a->left,
                        place_y(a, line->y[0]), WIDTH - RIGHT);
        return;
    }
    if (!is_marks(line->stroke)) {
        const size_t bins = line->count > 2 * BINS ? BINS : line->count;
        report_text_put(out, "<path class=\"c%d%s\" d=\"", line->color, stroke_class(line->stroke));
        for (size_t i = 0; i < bins; i++) {
            double x, y;
            bin(line, i * line->count / bins, (i + 1) * line->count / bins, &x, &y);
            report_text_put(out, "%s%.1f %.1f", i == 0 ? "M" : "L", place_x(a, x), place_y(a, y));
        }
        report_text_put(out, "\"/>");
    }
    if (is_marks(line->stroke) || (line->stroke == REPORT_STROKE_LINE && line->count <= MARKED_POINTS_MAX))
        put_marks(out, line, a);
}

// Whether the legend names line `l`: it has points and a label that no earlier line has.
static int is_listed(const report_chart *chart, int l) {
    const report_line *line = &chart->lines[l];
    if (line->count == 0 || line->label == NULL)
        return 0;
    for (int i = 0; i < l; i++)
        if (chart->lines[i].count > 0 && chart->lines[i].label != NULL &&
            strcmp(chart->lines[i].label, line->label) == 0)
            return 0;
    return 1;
}

static void put_legend(report_text *out, const report_chart *chart) {
    int entries = 0;
    for (int l = 0; l < chart->count; l++)
        entries += is_listed(chart, l);
    if (entries < 2)
        return;
    report_text_put(out, "<ul class=\"legend\">");
    for (int l = 0; l < chart->count; l++) {
        const report_line *line = &chart->lines[l];
        if (!is_listed(chart, l))
            continue;
        report_text_put(out, "<li><svg viewBox=\"0 0 20 10\" aria-hidden=\"true\">");
        if (is_marks(line->stroke))
            report_text_put(out, "<circle class=\"c%d%s\" cx=\"10\" cy=\"5\" r=\"%d\"/>", line->color,
                            stroke_class(line->stroke), line->stroke == REPORT_STROKE_RINGS ? 4 : 3);
        else
            report_text_put(out, "<path class=\"c%d%s\" d=\"M0 5H20\"/>", line->color,
                            stroke_class(line->stroke));
        report_text_put(out, "</svg>");
        report_text_put_escaped(out, line->label);
        report_text_put(out, "</li>");
    }
    report_text_put(out, "</ul>");
}

void report_svg_chart(report_text *out, const report_chart *chart) {
    axes a;
    if (!find_axes(chart, &a))
        return;
    report_text_put(out, "<figure class=\"chart\"><figcaption>");
    report_text_put_escaped(out, chart->title);
    report_text_put(out, "</figcaption>");
    put_legend(out, chart);
    report_text_put(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    report_text_put_escaped(out, chart->title);
    report_text_put(out, "\">");
    put_grid(out, chart, &a);
    for (int l = 0; l < chart->count; l++)
        put_line(out, &chart->lines[l], &a);
    report_text_put(out, "</svg></figure>\n");
}

void report_svg_waveform(report_text *out, const double *peaks, int count, int color) {
    report_text_put(out,
                    "<svg class=\"wave\" viewBox=\"0 0 %d 40\" preserveAspectRatio=\"none\" "
                    "aria-hidden=\"true\"><path class=\"c%d\" d=\"",
                    count * 3, color);
    for (int i = 0; i < count; i++) {
        const double half = fmax(0.5, 19 * fmin(1, peaks[i]));
        report_text_put(out, "M%d %.1fV%.1f", i * 3 + 1, 20 - half, 20 + half);
    }
    report_text_put(out, "\"/></svg>");
}
