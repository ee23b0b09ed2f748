// What the simulated listeners hear, and how well.
#include "launch/report_bars.h"
#include "launch/report_parts.h"
#include "launch/report_svg.h"

#include <math.h>
#include <stdio.h>

enum { BARS_MAX = 32, LABEL_MAX = 96 };

static void spaces_for_underscores(char *text) {
    for (char *c = text; *c != '\0'; c++)
        *c = *c == '_' ? ' ' : *c;
}

// Bars from `chance` to `share` of each entry of `list`, those without weight grey. Labels: the name, and in
// words what `label` says of the entry. Returns how many have no weight.
static int put_shares(report_text *out, const json_t *list, const char *title, const char *share,
                      double chance_of_all, void (*label)(const json_t *entry, char *text)) {
    static char labels[BARS_MAX][LABEL_MAX];
    report_bar rows[BARS_MAX];
    int count = 0, unused = 0;
    for (size_t i = 0; i < json_array_size(list) && count < BARS_MAX; i++) {
        const json_t *entry = json_array_get(list, i);
        const int used = !json_is_false(json_object_get(entry, "used"));
        const double chance = report_json_number(entry, "chance");
        if (report_json_text(entry, "name") == NULL)
            continue;
        label(entry, labels[count]);
        spaces_for_underscores(labels[count]);
        rows[count] = (report_bar){
            labels[count], isnan(chance) ? chance_of_all : chance, report_json_number(entry, share), NAN, NAN,
            NAN,           used ? 2 : REPORT_COLOR_NEUTRAL};
        unused += !used;
        count++;
    }
    report_bars_put(out, &(report_bars){.title = title,
                                        .rows = rows,
                                        .count = count,
                                        .scale = 100,
                                        .suffix = " %",
                                        .decimals = 0,
                                        .levels = {NAN, NAN}});
    return unused;
}

static void label_detector(const json_t *entry, char *text) {
    const double classes = report_json_number(entry, "classes");
    if (isnan(classes))
        snprintf(text, LABEL_MAX, "%.60s", report_json_text(entry, "name"));
    else
        snprintf(text, LABEL_MAX, "%.60s, %.0f classes", report_json_text(entry, "name"), classes);
}

static void label_measure(const json_t *entry, char *text) {
    const char *damage = report_json_text(entry, "damage");
    if (damage == NULL)
        snprintf(text, LABEL_MAX, "%.60s", report_json_text(entry, "name"));
    else
        snprintf(text, LABEL_MAX, "%.40s: hears %.40s", report_json_text(entry, "name"), damage);
}

void report_put_listeners(report_text *out, const report_input *in) {
    if (in->listeners == NULL)
        return;
    report_text_put(out,
                    "<h2>Simulated listeners</h2>\n<p>How well they hear audio that the codec decoded, on "
                    "clips that they were not fitted to. Bars begin at chance; what cannot be heard "
                    "reliably is grey and has no weight.</p>\n");
    put_shares(out, json_object_get(in->listeners, "detectors"),
               "What the caption promises: accuracy of the detectors", "accuracy", 0, label_detector);
    put_shares(out, json_object_get(in->listeners, "measures"),
               "Sound and musicality: how often a damaged clip is told from a sound one", "separation", 0.5,
               label_measure);
    static const char *const skip[] = {"simulated", "codec", NULL};
    report_put_numbers(out, in->listeners, skip);
}
