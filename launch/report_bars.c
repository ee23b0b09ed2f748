#include "launch/report_bars.h"

#include "launch/report_svg.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

// Positions are percentages of the drawing's width, so that nothing but lengths changes with it.
typedef struct scale {
    double first, span; // of the axis, in shown units
    report_ticks ticks;
} scale;

static void widen(double *low, double *high, double value) {
    if (isnan(value))
        return;
    *low = fmin(*low, value);
    *high = fmax(*high, value);
}

// False if there is nothing to show.
static int find_scale(const report_bars *bars, scale *s) {
    double low = DBL_MAX, high = -DBL_MAX;
    for (int i = 0; i < bars->count; i++) {
        const report_bar *row = &bars->rows[i];
        if (isnan(row->value))
            continue;
        const double all[] = {row->start, row->value, row->low, row->high, row->paper};
        for (int v = 0; v < 5; v++)
            widen(&low, &high, all[v] * bars->scale);
    }
    if (low > high)
        return 0;
    for (int l = 0; l < 2; l++)
        widen(&low, &high, bars->levels[l] * bars->scale);
    s->ticks = report_svg_ticks(low, high, 6);
    s->first = s->ticks.first;
    s->span = s->ticks.step * (s->ticks.count - 1);
    return 1;
}

static double place(const report_bars *bars, const scale *s, double value) {
    return 100 * (value * bars->scale - s->first) / s->span;
}

static void put_value(report_text *out, const report_bars *bars, double value) {
    const double shown = value * bars->scale;
    report_text_put(out, "%s%.*f", shown < 0 ? "&minus;" : "", bars->decimals, fabs(shown));
}

static void put_vertical(report_text *out, double at, const char *class) {
    report_text_put(out, "<line class=\"%s\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"0\" y2=\"100%%\"/>", class, at,
                    at);
}

static void put_drawing(report_text *out, const report_bars *bars, const scale *s, const report_bar *row) {
    report_text_put(out, "<svg class=\"bar\" aria-hidden=\"true\">");
    for (int i = 0; i < s->ticks.count; i++)
        put_vertical(out, 100.0 * i / (s->ticks.count - 1), "grid");
    const double start = place(bars, s, row->start), end = place(bars, s, row->value);
    report_text_put(out, "<rect class=\"c%d\" x=\"%.2f%%\" width=\"%.2f%%\" y=\"5\" height=\"16\"/>",
                    row->color, fmin(start, end), fabs(end - start));
    for (int l = 0; l < 2; l++)
        if (!isnan(bars->levels[l]))
            put_vertical(out, place(bars, s, bars->levels[l]), l == 0 ? "first" : "second");
    if (!isnan(row->low) && !isnan(row->high)) {
        const double low = place(bars, s, row->low), high = place(bars, s, row->high);
        report_text_put(out, "<line class=\"whisker\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"13\" y2=\"13\"/>", low,
                        high);
        for (int side = 0; side < 2; side++)
            report_text_put(out, "<line class=\"whisker\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"9\" y2=\"17\"/>",
                            side == 0 ? low : high, side == 0 ? low : high);
    }
    if (!isnan(row->paper))
        report_text_put(out, "<svg x=\"%.2f%%\"><path class=\"paper\" d=\"M0 6L7 13L0 20L-7 13Z\"/></svg>",
                        place(bars, s, row->paper));
    report_text_put(out, "</svg>");
}

static void put_row(report_text *out, const report_bars *bars, const scale *s, const report_bar *row) {
    report_text_put(out, "<div class=\"row\"><span class=\"name\">");
    report_text_put_escaped(out, row->label);
    report_text_put(out, "</span>");
    put_drawing(out, bars, s, row);
    report_text_put(out, "<span class=\"value\"><b>");
    put_value(out, bars, row->value);
    report_text_put(out, "%s</b>", bars->suffix);
    if (!isnan(row->low) && !isnan(row->high)) {
        report_text_put(out, " [");
        put_value(out, bars, row->low);
        report_text_put(out, ", ");
        put_value(out, bars, row->high);
        report_text_put(out, "]");
    }
    if (!isnan(row->paper)) {
        report_text_put(out, ", paper ");
        put_value(out, bars, row->paper);
    }
    report_text_put(out, "</span></div>");
}

static void put_axis(report_text *out, const scale *s, const char *suffix) {
    report_text_put(out, "<div class=\"row axis\"><span></span><svg class=\"bar\" aria-hidden=\"true\">");
    for (int i = 0; i < s->ticks.count; i++) {
        double value = s->first + s->ticks.step * i;
        if (fabs(value) < s->ticks.step * 1e-6)
            value = 0;
        // The outer labels stay within the drawing.
        const char *anchor = i == 0 ? "start" : i == s->ticks.count - 1 ? "end" : "mid";
        report_text_put(out, "<text class=\"%s\" x=\"%.2f%%\" y=\"13\">%s%.*f%s</text>", anchor,
                        100.0 * i / (s->ticks.count - 1), value < 0 ? "&minus;" : "", s->ticks.decimals,
                        fabs(value), suffix);
    }
    report_text_put(out, "</svg><span></span></div>");
}

static void put_legend(report_text *out, const report_bars *bars) {
    static const char entry[] = "<li><svg viewBox=\"0 0 20 10\" aria-hidden=\"true\">%s</svg>";
    static const char *const drawings[] = {"<line class=\"first\" x1=\"0\" x2=\"20\" y1=\"5\" y2=\"5\"/>",
                                           "<line class=\"second\" x1=\"0\" x2=\"20\" y1=\"5\" y2=\"5\"/>"};
    int intervals = 0, papers = 0;
    for (int i = 0; i < bars->count; i++) {
        intervals |= !isnan(bars->rows[i].low) && !isnan(bars->rows[i].high);
        papers |= !isnan(bars->rows[i].paper);
    }
    report_text_put(out, "<ul class=\"legend\">");
    for (int l = 0; l < 2; l++)
        if (!isnan(bars->levels[l])) {
            report_text_put(out, entry, drawings[l]);
            report_text_put_escaped(out, bars->level_labels[l]);
            report_text_put(out, "</li>");
        }
    if (intervals) {
        report_text_put(out, entry, "<path class=\"whisker\" d=\"M1 5H19M1 2V8M19 2V8\"/>");
        report_text_put_escaped(out, bars->interval);
        report_text_put(out, "</li>");
    }
    if (papers) {
        report_text_put(out, entry, "<path class=\"paper\" d=\"M10 0L15 5L10 10L5 5Z\"/>");
        report_text_put(out, "the paper&rsquo;s value</li>");
    }
    report_text_put(out, "</ul>");
}

void report_bars_put(report_text *out, const report_bars *bars) {
    scale s;
    if (!find_scale(bars, &s))
        return;
    report_text_put(out, "<figure class=\"chart\"><figcaption>");
    report_text_put_escaped(out, bars->title);
    report_text_put(out, "</figcaption>");
    put_legend(out, bars);
    report_text_put(out, "<div class=\"rows\">");
    for (int i = 0; i < bars->count; i++)
        if (!isnan(bars->rows[i].value))
            put_row(out, bars, &s, &bars->rows[i]);
    put_axis(out, &s, bars->suffix);
    report_text_put(out, "</div></figure>\n");
}

void report_bars_put_shares(report_text *out, const char *title, const report_shares *rows, int count) {
    static const char *const names[] = {"win", "tie", "loss"};
    report_text_put(out, "<figure class=\"chart\"><figcaption>");
    report_text_put_escaped(out, title);
    report_text_put(out, "</figcaption><ul class=\"legend\">");
    for (int k = 0; k < 3; k++)
        report_text_put(out,
                        "<li><svg viewBox=\"0 0 20 10\" aria-hidden=\"true\"><rect class=\"%s\" width=\"20\" "
                        "height=\"10\"/></svg>%s, %%</li>",
                        names[k], names[k]);
    report_text_put(out, "</ul><div class=\"rows\">");
    for (int i = 0; i < count; i++) {
        const double shares[] = {rows[i].win, rows[i].tie, rows[i].loss};
        report_text_put(out, "<div class=\"row\"><span class=\"name\"><b>");
        report_text_put_escaped(out, rows[i].left);
        report_text_put(out, "</b> against ");
        report_text_put_escaped(out, rows[i].right);
        report_text_put(out,
                        "</span><svg class=\"bar share\" role=\"img\" aria-label=\"win %.0f, tie %.0f, "
                        "loss %.0f percent\">",
                        100 * shares[0], 100 * shares[1], 100 * shares[2]);
        double at = 0;
        for (int k = 0; k < 3; k++) {
            const double width = 100 * shares[k];
            if (!(width > 0))
                continue;
            report_text_put(out, "<rect class=\"%s\" x=\"%.2f%%\" width=\"%.2f%%\" height=\"100%%\"/>",
                            names[k], at, width);
            if (width >= 7)
                report_text_put(out, "<text class=\"mid on-%s\" x=\"%.2f%%\" y=\"19\">%.0f</text>", names[k],
                                at + width / 2, width);
            at += width;
        }
        report_text_put(out, "</svg><span class=\"value\">%s</span></div>", rows[i].detail);
    }
    report_text_put(out, "</div></figure>\n");
}
