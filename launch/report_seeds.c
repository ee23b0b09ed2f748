// Evaluations of several seeds beside one another, and taken together.
#include "launch/report_parts.h"

#include <math.h>
#include <string.h>

// Two-sided 95 % points of Student's t for 1 to REPORT_SEEDS_MAX degrees of freedom.
static const double student[REPORT_SEEDS_MAX] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                                                 2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120};

// Mean of values [count], and half the width of its 95 % interval (Student's t); NaN for less than two.
static double mean_and_margin(const double *values, int count, double *margin) {
    double mean = 0, squares = 0;
    for (int i = 0; i < count; i++)
        mean += values[i] / count;
    for (int i = 0; i < count; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    *margin = count < 2 ? NAN : student[count - 2] * sqrt(squares / (count - 1) / count);
    return mean;
}

static const json_t *find_pair(const json_t *evaluation, const char *a, const char *b) {
    const json_t *pairs = json_object_get(evaluation, "pairs");
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        const json_t *pair = json_array_get(pairs, i);
        const char *left = report_json_text(pair, "a"), *right = report_json_text(pair, "b");
        if (left != NULL && right != NULL && strcmp(left, a) == 0 && strcmp(right, b) == 0)
            return pair;
    }
    return NULL;
}

static const json_t *find_model(const json_t *evaluation, const char *name) {
    const json_t *models = json_object_get(evaluation, "models");
    for (size_t i = 0; i < json_array_size(models); i++) {
        const char *found = report_json_text(json_array_get(models, i), "name");
        if (found != NULL && strcmp(found, name) == 0)
            return json_array_get(models, i);
    }
    return NULL;
}

static void put_header(report_text *out, const report_input *in, const char *first, const char *all,
                       int paper) {
    report_text_put(out, "<div class=\"scroll\"><table><thead><tr><th>%s</th><th>%s</th>%s", first, all,
                    paper ? "<th>paper</th>" : "");
    for (int s = 0; s < in->seed_count; s++) {
        report_text_put(out, "<th>seed ");
        report_text_put_escaped(out, in->seeds[s].name + strlen("seed-"));
        report_text_put(out, "</th>");
    }
    report_text_put(out, "</tr></thead><tbody>");
}

static void put_p(report_text *out, double p) {
    if (p < 0.001)
        report_text_put(out, "<small>p&#160;&lt;&#160;0.001</small>");
    else if (!isnan(p))
        report_text_put(out, "<small>p&#160;=&#160;%.3f</small>", p);
}

static void put_pair_row(report_text *out, const report_input *in, const char *a, const char *b,
                         double paper) {
    double rates[REPORT_SEEDS_MAX], margin;
    int count = 0;
    for (int s = 0; s < in->seed_count; s++) {
        const double rate = report_json_number(find_pair(in->seeds[s].evaluation, a, b), "win_rate");
        if (!isnan(rate))
            rates[count++] = rate;
    }
    const double mean = mean_and_margin(rates, count, &margin);
    report_text_put(out, "<tr><td>");
    report_text_put_escaped(out, report_model_name(a));
    report_text_put(out, " against ");
    report_text_put_escaped(out, report_model_name(b));
    const json_t *pooled = find_pair(in->pooled, a, b);
    if (!isnan(report_json_number(pooled, "win_rate"))) {
        report_text_put(out, "</td><td><b>%.1f</b> [%.1f, %.1f]&#160;%%",
                        100 * report_json_number(pooled, "win_rate"), 100 * report_json_number(pooled, "low"),
                        100 * report_json_number(pooled, "high"));
        put_p(out, report_json_number(pooled, "wilcoxon_p"));
        report_text_put(out, "</td>");
    } else if (isnan(margin))
        report_text_put(out, "</td><td>&ndash;</td>");
    else
        report_text_put(out, "</td><td><b>%.0f</b> &plusmn; %.0f&#160;%%</td>", 100 * mean, 100 * margin);
    if (isnan(paper))
        report_text_put(out, "<td>&ndash;</td>");
    else
        report_text_put(out, "<td>%.0f&#160;%%</td>", 100 * paper);
    for (int s = 0; s < in->seed_count; s++) {
        const json_t *pair = find_pair(in->seeds[s].evaluation, a, b);
        const double rate = report_json_number(pair, "win_rate"), p = report_json_number(pair, "wilcoxon_p");
        if (isnan(rate)) {
            report_text_put(out, "<td>&ndash;</td>");
            continue;
        }
        report_text_put(out, "<td>%.0f&#160;%%", 100 * rate);
        put_p(out, p);
        report_text_put(out, "</td>");
    }
    report_text_put(out, "</tr>");
}

static void put_model_row(report_text *out, const report_input *in, const char *name) {
    double scores[REPORT_SEEDS_MAX], margin;
    int count = 0;
    for (int s = 0; s < in->seed_count; s++) {
        const json_t *model = find_model(in->seeds[s].evaluation, name);
        const double score = report_json_number(json_object_get(model, "mean_opinion_score"), "mean");
        if (!isnan(score))
            scores[count++] = score;
    }
    const double mean = mean_and_margin(scores, count, &margin);
    report_text_put(out, "<tr><td>");
    report_text_put_escaped(out, report_model_name(name));
    if (isnan(margin))
        report_text_put(out, "</td><td>&ndash;</td>");
    else
        report_text_put(out, "</td><td><b>%.2f</b> &plusmn; %.2f</td>", mean, margin);
    for (int s = 0; s < in->seed_count; s++) {
        const json_t *model = find_model(in->seeds[s].evaluation, name);
        const double score = report_json_number(json_object_get(model, "mean_opinion_score"), "mean");
        const double kept = report_json_number(model, "diversity_ratio");
        if (isnan(score)) {
            report_text_put(out, "<td>&ndash;</td>");
            continue;
        }
        report_text_put(out, "<td>%.2f", score);
        if (!isnan(kept))
            report_text_put(out, "<small>diversity %.0f&#160;%%</small>", 100 * kept);
        report_text_put(out, "</td>");
    }
    report_text_put(out, "</tr>");
}

void report_put_seeds(report_text *out, const report_input *in) {
    if (in->seed_count < 2)
        return;
    report_text_put(
        out,
        "<h2>Over %d seeds</h2>\n<p>Each seed trained its own models and reward models, and "
        "was rated by a panel of its own. %s Diversity is that of the base of the same "
        "seed.</p>\n",
        in->seed_count,
        in->pooled != NULL
            ? "All seeds: the ratings of one prompt under every seed are one unit of Wilcoxon&rsquo;s "
              "test and of the 95&#160;% interval. Opinion scores stand as the mean over seeds with "
              "Student&rsquo;s interval, which is wide for few."
            : "The mean over seeds stands with its 95&#160;% interval (Student&rsquo;s t), which is "
              "wide for few seeds.");
    static const char mean_header[] = "mean &plusmn; 95&#160;%";
    put_header(out, in, "win rate", in->pooled != NULL ? "all seeds [95&#160;%]" : mean_header, 1);
    const json_t *first = in->seeds[0].evaluation, *pairs = json_object_get(first, "pairs"),
                 *models = json_object_get(first, "models");
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        const json_t *pair = json_array_get(pairs, i);
        const char *a = report_json_text(pair, "a"), *b = report_json_text(pair, "b");
        const char *baseline = report_json_text(first, "baseline");
        const int against_base = a != NULL && b != NULL && baseline != NULL && strcmp(b, baseline) == 0;
        if (against_base || (a != NULL && b != NULL && !isnan(report_json_number(pair, "paper"))))
            put_pair_row(out, in, a, b, report_json_number(pair, "paper"));
    }
    report_text_put(out, "</tbody></table></div>\n");
    put_header(out, in, "mean opinion score", mean_header, 0);
    for (size_t i = 0; i < json_array_size(models); i++) {
        const char *name = report_json_text(json_array_get(models, i), "name");
        if (name != NULL)
            put_model_row(out, in, name);
    }
    report_text_put(out, "</tbody></table></div>\n");
}
