// Models side by side, as evaluation.json holds them.
#include "launch/progress.h"
#include "launch/report_bars.h"
#include "launch/report_parts.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS_MAX = 32, DETAIL_MAX = 200 };

static const char simulated_sentence[] =
    "<p class=\"caution\"><b>Simulated listeners.</b> No person heard these clips: a panel of simulated "
    "listeners rated them, who hear the decoded audio through measured features. It is another draw of "
    "listeners than the one that labelled the training data.</p>\n";

static int is_simulated(const json_t *evaluation) {
    const char *judges = report_json_text(evaluation, "judges");
    return judges != NULL && strcmp(judges, "panel") == 0;
}

static void put_tile(report_text *out, const char *name, const char *value, const char *detail) {
    report_text_put(out, "<div class=\"tile\"><span>");
    report_text_put_escaped(out, name);
    report_text_put(out, "</span><b>%s</b><span>%s</span></div>", value, detail);
}

// "95 % interval 76 to 89, paper 83 %"
static void describe_win_rate(char *out, size_t size, const json_t *pair) {
    const double low = report_json_number(pair, "low"), high = report_json_number(pair, "high"),
                 paper = report_json_number(pair, "paper");
    int used = 0;
    if (!isnan(low) && !isnan(high))
        used = snprintf(out, size, "95&#160;%% interval %.0f to %.0f", 100 * low, 100 * high);
    if (!isnan(paper))
        snprintf(out + used, size - (size_t)used, "%spaper %.0f&#160;%%", used > 0 ? "; " : "", 100 * paper);
    else if (used == 0)
        out[0] = '\0';
}

static void put_run_tiles(report_text *out, const report_metrics *m) {
    const report_series *kl = report_metrics_find(m, "kl_ref"), *reward = report_metrics_find(m, "reward"),
                        *diversity = report_metrics_find(m, "eval/diversity");
    char value[64], detail[DETAIL_MAX], took[64];
    if (diversity->count > 1 && diversity->value[0] > 0) {
        snprintf(value, sizeof value, "%.0f %%", 100 * report_series_last(diversity) / diversity->value[0]);
        snprintf(detail, sizeof detail, "%.3f, at the start %.3f", report_series_last(diversity),
                 diversity->value[0]);
        put_tile(out, "Diversity kept", value, detail);
    }
    if (kl->count > 0) {
        snprintf(value, sizeof value, "%.2f", report_series_last(kl));
        put_tile(out, "KL to the reference", value, "nats a sequence, last step");
    }
    if (reward->count > 0) {
        snprintf(value, sizeof value, "%zu", reward->count);
        progress_format_duration(took, sizeof took, report_metrics_seconds(m));
        snprintf(detail, sizeof detail, "in %s", took);
        put_tile(out, "Steps of RL", value, detail);
    }
}

// The comparisons that matter most: against the baseline, and those of the paper.
static int is_main_pair(const json_t *evaluation, const json_t *pair) {
    const char *baseline = report_json_text(evaluation, "baseline"), *b = report_json_text(pair, "b");
    return !isnan(report_json_number(pair, "paper")) ||
           (baseline != NULL && b != NULL && strcmp(b, baseline) == 0);
}

static int put_win_tiles(report_text *out, const json_t *evaluation, int with_paper, int most) {
    const char *baseline = report_json_text(evaluation, "baseline");
    const json_t *pairs = json_object_get(evaluation, "pairs");
    char name[160], value[64], detail[DETAIL_MAX];
    int count = 0;
    for (size_t i = json_array_size(pairs); i-- > 0 && count < most;) { // the last one learnt most
        const json_t *pair = json_array_get(pairs, i);
        const char *a = report_json_text(pair, "a"), *b = report_json_text(pair, "b");
        const double rate = report_json_number(pair, "win_rate");
        if (a == NULL || b == NULL || baseline == NULL || strcmp(b, baseline) != 0 || isnan(rate) ||
            isnan(report_json_number(pair, "paper")) == with_paper)
            continue;
        snprintf(name, sizeof name, "%s wins against %s", report_model_name(a), report_model_name(b));
        snprintf(value, sizeof value, "%.0f %%", 100 * rate);
        describe_win_rate(detail, sizeof detail, pair);
        put_tile(out, name, value, detail);
        count++;
    }
    return count;
}

void report_put_tiles(report_text *out, const report_input *in) {
    char value[64], detail[DETAIL_MAX];
    report_text_put(out, "<div class=\"tiles\">");
    if (put_win_tiles(out, in->evaluation, 1, 3) == 0)
        put_win_tiles(out, in->evaluation, 0, 3);
    const json_t *preference = json_object_get(in->reward, "preference");
    const double accuracy = report_json_number(json_object_get(preference, "accuracy"), "mean");
    const double ceiling = report_json_number(preference, "ceiling");
    if (!isnan(accuracy)) {
        snprintf(value, sizeof value, "%.1f %%", 100 * accuracy);
        if (isnan(ceiling))
            snprintf(detail, sizeof detail, "of held-out pairs; chance is 50&#160;%%");
        else
            snprintf(detail, sizeof detail, "of held-out pairs; chance is 50, the ceiling %.1f&#160;%%",
                     100 * ceiling);
        put_tile(out, "Preference model is right", value, detail);
    }
    if (in->is_single)
        put_run_tiles(out, &in->runs[0]->metrics);
    report_text_put(out, "</div>\n");
}

// The main pairs, or all others. Returns how many there are; writes nothing if `out` is NULL.
static int put_pairs(report_text *out, const json_t *evaluation, int main_ones) {
    const json_t *pairs = json_object_get(evaluation, "pairs");
    static char labels[ROWS_MAX][2 * REPORT_NAME_MAX], details[ROWS_MAX][DETAIL_MAX];
    report_shares shares[ROWS_MAX];
    report_bar rates[ROWS_MAX];
    int count = 0;
    for (size_t i = 0; i < json_array_size(pairs) && count < ROWS_MAX; i++) {
        const json_t *pair = json_array_get(pairs, i);
        const char *a = report_json_text(pair, "a"), *b = report_json_text(pair, "b");
        if (a == NULL || b == NULL || is_main_pair(evaluation, pair) != main_ones)
            continue;
        const double p = report_json_number(pair, "wilcoxon_p");
        if (isnan(p))
            details[count][0] = '\0';
        else if (p < 0.001)
            snprintf(details[count], DETAIL_MAX, "p &lt; 0.001");
        else
            snprintf(details[count], DETAIL_MAX, "p = %.3f%s", p, p < 0.05 ? "" : ", not significant");
        shares[count] = (report_shares){report_model_name(a),
                                        report_model_name(b),
                                        report_json_number(pair, "win"),
                                        report_json_number(pair, "tie"),
                                        report_json_number(pair, "loss"),
                                        details[count]};
        snprintf(labels[count], sizeof labels[count], "%s against %s", report_model_name(a),
                 report_model_name(b));
        rates[count] = (report_bar){labels[count],
                                    0.5,
                                    report_json_number(pair, "win_rate"),
                                    report_json_number(pair, "low"),
                                    report_json_number(pair, "high"),
                                    report_json_number(pair, "paper"),
                                    report_model_color(a)};
        count++;
    }
    if (count == 0 || out == NULL)
        return count;
    report_bars_put_shares(out, "Who is rated higher, % of ratings", shares, count);
    report_bars_put(out, &(report_bars){.title = "Win rate: wins / (wins + losses)",
                                        .interval = "95 % interval, prompts resampled",
                                        .rows = rates,
                                        .count = count,
                                        .scale = 100,
                                        .suffix = " %",
                                        .decimals = 0,
                                        .levels = {0.5, NAN},
                                        .level_labels = {"no difference"}});
    return count;
}

static void put_opinions(report_text *out, const json_t *models) {
    static const char *const paper_names[] = {"base", "r", "u", "ru"};
    static const double paper_scores[] = {3.07, 3.54, 3.54, 3.82};
    report_bar rows[ROWS_MAX];
    int count = 0;
    for (size_t i = 0; i < json_array_size(models) && count < ROWS_MAX; i++) {
        const json_t *model = json_array_get(models, i),
                     *score = json_object_get(model, "mean_opinion_score");
        const char *name = report_json_text(model, "name");
        if (name == NULL)
            continue;
        double paper = NAN;
        for (int k = 0; k < 4; k++)
            if (strcmp(name, paper_names[k]) == 0)
                paper = paper_scores[k];
        rows[count++] = (report_bar){report_model_name(name),           1,
                                     report_json_number(score, "mean"), report_json_number(score, "low"),
                                     report_json_number(score, "high"), paper,
                                     report_model_color(name)};
    }
    report_bars_put(out, &(report_bars){.title = "Mean opinion score, 1 to 5",
                                        .interval = "95 % interval, prompts resampled",
                                        .rows = rows,
                                        .count = count,
                                        .scale = 1,
                                        .suffix = "",
                                        .decimals = 2,
                                        .levels = {NAN, NAN},
                                        .level_labels = {NULL}});
}

static double value_in(const json_t *model, const char *key, const char *part) {
    return part == NULL ? report_json_number(model, key)
                        : report_json_number(json_object_get(model, key), part);
}

// Rows are measures, columns are models: few models fit on a phone.
static void put_models(report_text *out, const json_t *models) {
    static const struct {
        const char *key, *part, *words;
    } rows[] = {
        {"mean_opinion_score", "mean", "mean opinion score"},
        {"wins", NULL, "wins over all pairs"},
        {"text_adherence", NULL, "text adherence"},
        {"text_adherence_gain", "mean", "&ensp;gain over the base, paired"},
        {"text_adherence_gain", "standard_error", "&ensp;its standard error"},
        {"quality", NULL, "quality reward"},
        {"quality_gain", "mean", "&ensp;gain over the base, paired"},
        {"quality_gain", "standard_error", "&ensp;its standard error"},
        {"preference", NULL, "preference reward"},
        {"preference_gain", "mean", "&ensp;gain over the base, paired"},
        {"preference_gain", "standard_error", "&ensp;its standard error"},
        {"kl", NULL, "KL to the base, nats a sequence"},
        {"diversity", NULL, "diversity"},
        {"diversity_ratio", NULL, "&ensp;of the base&rsquo;s"},
        {"clipped_clips", NULL, "clips with clipped audio"},
        {"silent_clips", NULL, "silent clips"},
        {"stuck_clips", NULL, "clips stuck in a loop"},
    };
    const size_t count = json_array_size(models);
    report_text_put(out, "<div class=\"scroll\"><table class=\"models\"><thead><tr><th></th>");
    for (size_t m = 0; m < count; m++) {
        const char *name = report_json_text(json_array_get(models, m), "name");
        const double step = report_json_number(json_array_get(models, m), "step");
        report_text_put(out, "<th>");
        report_text_put_escaped(out, name == NULL ? "?" : report_model_name(name));
        if (step >= 0)
            report_text_put(out, "<small>step %.0f</small>", step);
        report_text_put(out, "</th>");
    }
    report_text_put(out, "</tr></thead><tbody>");
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        int known = 0;
        for (size_t m = 0; m < count; m++)
            known |= !isnan(value_in(json_array_get(models, m), rows[r].key, rows[r].part));
        if (!known)
            continue;
        report_text_put(out, "<tr><td>%s</td>", rows[r].words);
        for (size_t m = 0; m < count; m++)
            report_put_cell(out, value_in(json_array_get(models, m), rows[r].key, rows[r].part));
        report_text_put(out, "</tr>");
    }
    report_text_put(out, "</tbody></table></div>\n");
}

void report_put_sides(report_text *out, const report_input *in) {
    report_text_put(out, "<h2>Side by side</h2>\n");
    const json_t *models = json_object_get(in->evaluation, "models");
    if (json_array_size(models) == 0) {
        report_put_missing(out, "There is no side-by-side evaluation yet (evaluation.json).");
        return;
    }
    const double prompts = report_json_number(in->evaluation, "prompts"),
                 raters = report_json_number(in->evaluation, "raters"),
                 captions = report_json_number(in->evaluation, "held_out_captions");
    const int simulated = is_simulated(in->evaluation);
    if (report_json_text(in->evaluation, "judges") == NULL)
        report_put_missing(out,
                           "Nobody rated the clips: there were neither listeners nor a file of ratings.");
    else if (!isnan(prompts) && !isnan(raters))
        report_text_put(out,
                        "<p>%.0f prompts, %.0f %s for each comparison, who rate both clips from 1 to "
                        "5. Significance is Wilcoxon&rsquo;s signed-rank test over the prompts.</p>\n",
                        prompts, raters, simulated ? "simulated listeners" : "listeners");
    if (simulated)
        report_text_put(out, "%s", simulated_sentence);
    put_pairs(out, in->evaluation, 1);
    report_text_put(out, "<div class=\"sides\">");
    put_opinions(out, models);
    report_text_put(out, "<div>");
    put_models(out, models);
    int bound = 0;
    for (size_t m = 0; m < json_array_size(models); m++)
        bound |= json_is_true(json_object_get(json_array_get(models, m), "kl_is_bound"));
    if (bound)
        report_text_put(out,
                        "<p class=\"note\">The KL of the best of n draws is its upper bound, ln n &minus; "
                        "(n &minus; 1)/n.</p>");
    if (captions > 0)
        report_text_put(out, "<p class=\"note\">Rewards, KL and diversity: %.0f held-out captions.</p>",
                        captions);
    report_text_put(out, "</div></div>\n");
    const int others = put_pairs(NULL, in->evaluation, 0);
    if (others > 0) {
        report_text_put(out, "<details><summary>%d more comparison%s</summary>\n", others,
                        others == 1 ? "" : "s");
        put_pairs(out, in->evaluation, 0);
        report_text_put(out, "</details>\n");
    }
}
