// Horizontal bars, one row each: text in HTML beside a drawing that keeps its text size at any width.
#pragma once

#include "launch/report_text.h"

typedef struct report_bar {
    const char *label; // escaped here
    double start;      // where the bar begins: the value that means nothing, such as chance
    double value;
    double low, high; // the interval's ends; NaN: none
    double paper;     // what the paper reports; NaN: nothing
    int color;
} report_bar;

typedef struct report_bars {
    const char *title;
    const char *interval; // what the interval is, for the legend
    const report_bar *rows;
    int count;
    double scale;       // values are shown times this
    const char *suffix; // behind a value, such as " %"
    int decimals;
    double levels[2];            // dashed verticals over all rows; NaN: none
    const char *level_labels[2]; // for the legend
} report_bars;

// A <figure>; nothing without rows. Rows whose value is NaN are left out.
void report_bars_put(report_text *out, const report_bars *bars);

// Win, tie and loss as shares of one bar.
typedef struct report_shares {
    const char *left, *right; // who is compared, escaped here
    double win, tie, loss;
    const char *detail; // behind the bar, HTML
} report_shares;

void report_bars_put_shares(report_text *out, const char *title, const report_shares *rows, int count);
