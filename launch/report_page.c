#include "kernels/memory.h"
#include "launch/progress.h"
#include "launch/report.h"
#include "launch/report_parts.h"
#include "launch/report_svg.h"
#include "launch/run_config.h"

#include "data/publish.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINES_MAX = 32, SMOOTHED_FROM = 12 };

// Colours by meaning, the same in every chart.
enum { COLOR_RL = 0, COLOR_KL = 1, COLOR_HELD_OUT = 2, COLOR_OTHER = 4 };

// Mean of `series` over a window around each step, cut off at the ends.
static status smooth(const report_series *series, size_t window, double **out) {
    TRY(memory_allocate((void **)out, (series->count + 1) * sizeof(double), "moving average"));
    for (size_t i = 0; i < series->count; i++) {
        const size_t first = i > window / 2 ? i - window / 2 : 0;
        const size_t end = i + window / 2 + 1 < series->count ? i + window / 2 + 1 : series->count;
        double sum = 0;
        for (size_t j = first; j < end; j++)
            sum += series->value[j];
        (*out)[i] = sum / (double)(end - first);
    }
    return STATUS_OK;
}

static report_line line_of(const report_series *series, const char *label, int color, report_stroke stroke) {
    return (report_line){label, color, stroke, series->step, series->value, series->count};
}

// One metric against step: raw values, and a moving average where there are enough of them.
static status put_metric(report_text *out, const report_metrics *m, const char *name, const char *title,
                         const char *unit, int color) {
    const report_series *series = report_metrics_find(m, name);
    if (series->count < SMOOTHED_FROM) {
        const report_line line = line_of(series, NULL, color, REPORT_STROKE_LINE);
        report_svg_chart(out, &(report_chart){title, "step", unit, &line, 1});
        return STATUS_OK;
    }
    const size_t window = series->count / 12 * 2 + 1;
    double *mean;
    TRY(smooth(series, window, &mean));
    char label[64];
    snprintf(label, sizeof label, "mean of %zu steps", window);
    const report_line lines[] = {
        line_of(series, "each step", color, REPORT_STROKE_FAINT),
        {label, color, REPORT_STROKE_PLAIN, series->step, mean, series->count},
    };
    report_svg_chart(out, &(report_chart){title, "step", unit, lines, 2});
    memory_free(mean);
    return STATUS_OK;
}

// The value of `series` at `step`, or the last one before it; `before` if there is none.
static double value_at(const report_series *series, double step, double before) {
    double value = before;
    for (size_t i = 0; i < series->count && series->step[i] <= step; i++)
        value = series->value[i];
    return value;
}

static status put_reward_against_kl(report_text *out, const report_metrics *m) {
    const report_series *reward = report_metrics_find(m, "reward"), *kl = report_metrics_find(m, "kl_ref");
    const report_series *held_out = report_metrics_find(m, "eval/reward");
    if (kl->count == 0)
        return STATUS_OK;
    double *kl_of_reward, *kl_of_held_out = NULL;
    TRY(memory_allocate((void **)&kl_of_reward, (reward->count + 1) * sizeof(double), "report"));
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&kl_of_held_out, (held_out->count + 1) * sizeof(double), "report"),
             done);
    for (size_t i = 0; i < reward->count; i++)
        kl_of_reward[i] = value_at(kl, reward->step[i], 0);
    for (size_t i = 0; i < held_out->count; i++)
        kl_of_held_out[i] = value_at(kl, held_out->step[i], 0); // the base itself is at 0
    const report_line lines[] = {
        {"training batches", COLOR_RL, REPORT_STROKE_POINTS, kl_of_reward, reward->value, reward->count},
        {"held-out captions, in order of steps", COLOR_HELD_OUT, REPORT_STROKE_LINE, kl_of_held_out,
         held_out->value, held_out->count},
    };
    report_svg_chart(out, &(report_chart){"Reward against KL", "KL to the base, nats per sequence",
                                          "mean reward", lines, 2});
done:
    memory_free(kl_of_reward);
    memory_free(kl_of_held_out);
    return result;
}

// Where a run has several rewards: each by its name.
static void put_rewards_by_name(report_text *out, const report_metrics *m) {
    report_line lines[REPORT_COLORS];
    int count = 0;
    for (int i = 0; i < m->count && count < REPORT_COLORS; i++)
        if (strncmp(m->series[i]->name, "reward/", 7) == 0) {
            lines[count] = line_of(m->series[i], m->series[i]->name + 7, count, REPORT_STROKE_PLAIN);
            count++;
        }
    if (count > 1)
        report_svg_chart(out, &(report_chart){"Rewards by name", "step", "mean reward", lines, count});
}

static status put_training(report_text *out, const report_input *input) {
    const report_metrics *m = &input->metrics;
    report_text_put(out, "<h2>Reinforcement learning</h2>\n");
    if (report_metrics_find(m, "reward")->count == 0) {
        report_put_missing(out, m->found
                                    ? "No step of reinforcement learning is recorded yet (metrics.jsonl)."
                                    : "There are no metrics of reinforcement learning (metrics.jsonl).");
        return STATUS_OK;
    }
    report_text_put(out, "<div class=\"charts\">\n");
    TRY(put_metric(out, m, "reward", "Reward of the training batches", "mean reward", COLOR_RL));
    put_rewards_by_name(out, m);
    TRY(put_metric(out, m, "kl_ref", "KL to the base model", "nats per sequence", COLOR_KL));
    const report_series *held_out = report_metrics_find(m, "eval/reward");
    const report_line reward_line = line_of(held_out, NULL, COLOR_HELD_OUT, REPORT_STROKE_LINE);
    report_svg_chart(out,
                     &(report_chart){"Reward on held-out captions", "step", "mean reward", &reward_line, 1});
    const report_series *diversity = report_metrics_find(m, "eval/diversity");
    const double floor_level = diversity->count > 0 ? 0.9 * diversity->value[0] : 0;
    const report_line diversity_lines[] = {
        line_of(diversity, "diversity", COLOR_OTHER, REPORT_STROKE_LINE),
        {"90 % of the base's", 7, REPORT_STROKE_LEVEL, NULL, &floor_level, diversity->count > 0},
    };
    report_svg_chart(
        out, &(report_chart){"Diversity on held-out captions", "step", "diversity", diversity_lines, 2});
    TRY(put_reward_against_kl(out, m));
    TRY(put_metric(out, m, "entropy", "Entropy of the policy", "nats per token", COLOR_OTHER));
    report_text_put(out, "</div>\n");
    if (held_out->count == 0)
        report_put_missing(out, "No held-out evaluation is recorded yet (eval/reward in metrics.jsonl).");

    report_text_put(out, "<h2>Health of the learner</h2>\n<div class=\"charts\">\n");
    TRY(put_metric(out, m, "explained_variance", "Explained variance of the value network", "share",
                   COLOR_RL));
    TRY(put_metric(out, m, "grad_norm", "Norm of the policy's gradient, before clipping", "norm", COLOR_KL));
    report_text_put(out, "</div>\n");
    return STATUS_OK;
}

static void put_fact(report_text *out, const char *name, const char *format, double value) {
    if (isnan(value))
        return;
    report_text_put(out, "<div><dt>%s</dt><dd>", name);
    if (format == NULL)
        report_text_put_number(out, value);
    else
        report_text_put(out, format, value);
    report_text_put(out, "</dd></div>");
}

static double sum_of(const report_series *series) {
    double sum = series->count > 0 ? 0 : NAN;
    for (size_t i = 0; i < series->count; i++)
        sum += series->value[i];
    return sum;
}

static double greatest_of(const report_series *series) {
    double greatest = NAN;
    for (size_t i = 0; i < series->count; i++)
        greatest = fmax(greatest, series->value[i]);
    return greatest;
}

// Seconds of all stages of all steps; 0 if none was recorded.
static double total_seconds(const report_metrics *m) {
    double total = 0;
    for (int i = 0; i < m->count; i++)
        if (strncmp(m->series[i]->name, "seconds/", 8) == 0)
            total += sum_of(m->series[i]);
    return total;
}

static void put_checks(report_text *out, const report_metrics *m) {
    if (report_metrics_find(m, "reward")->count == 0)
        return;
    const report_series *kl = report_metrics_find(m, "kl_ref");
    report_text_put(out, "<h2>Checks and times</h2>\n<dl>");
    put_fact(out, "KL at the first step", NULL, kl->count > 0 ? kl->value[0] : NAN);
    put_fact(out, "largest gap of log-probs, sampling to scoring", NULL,
             greatest_of(report_metrics_find(m, "logprob_gap_max")));
    put_fact(out, "skipped updates", NULL, greatest_of(report_metrics_find(m, "skipped_updates")));
    put_fact(out, "largest staleness, steps", NULL, greatest_of(report_metrics_find(m, "staleness")));
    const report_series *speed = report_metrics_find(m, "frames_per_s");
    put_fact(out, "rollout frames per second, mean", "%.0f", sum_of(speed) / (double)speed->count);
    put_fact(out, "peak host memory, MiB", "%.0f",
             greatest_of(report_metrics_find(m, "peak_host_bytes")) / 1048576.0);
    const double device = greatest_of(report_metrics_find(m, "peak_device_bytes"));
    put_fact(out, "peak device memory, MiB", "%.0f", device > 0 ? device / 1048576.0 : NAN);
    for (int i = 0; i < m->count; i++) {
        if (strncmp(m->series[i]->name, "seconds/", 8) != 0)
            continue;
        char name[REPORT_METRIC_NAME_MAX + 32];
        snprintf(name, sizeof name, "seconds in all, %s", m->series[i]->name + 8);
        report_text_put(out, "<div><dt>");
        report_put_words(out, name);
        report_text_put(out, "</dt><dd>%.1f</dd></div>", sum_of(m->series[i]));
    }
    report_text_put(out, "</dl>\n");
}

static void put_base(report_text *out, const report_input *input) {
    const report_metrics *m = &input->base_metrics;
    const json_t *unigram = json_object_get(input->base_summary, "unigram_entropy");
    report_text_put(out, "<h2>Base model</h2>\n");
    if (!m->found) {
        report_put_missing(out, "There are no metrics of the base model (base/metrics.jsonl).");
        return;
    }
    static char labels[LINES_MAX][64];
    double entropies[LINES_MAX];
    report_line lines[LINES_MAX];
    int count = 0;
    const char *entropy_label = NULL; // one entry stands for all
    for (int level = 0; count + 3 <= LINES_MAX; level++) {
        char name[REPORT_METRIC_NAME_MAX];
        snprintf(name, sizeof name, "loss/level%d", level);
        const report_series *training = report_metrics_find(m, name);
        snprintf(name, sizeof name, "eval/loss/level%d", level);
        const report_series *held_out = report_metrics_find(m, name);
        if (training->count == 0 && held_out->count == 0)
            break;
        const int color = level % REPORT_COLORS;
        snprintf(labels[count], sizeof labels[count], "level %d%s", level, level == 0 ? ", semantic" : "");
        const char *label = labels[count];
        lines[count++] = line_of(training, held_out->count == 0 ? label : NULL, color, REPORT_STROKE_FAINT);
        lines[count++] = line_of(held_out, label, color, REPORT_STROKE_LINE);
        const json_t *entropy = json_array_get(unigram, (size_t)level);
        if (json_is_number(entropy)) {
            entropies[count] = json_number_value(entropy);
            lines[count] = (report_line){NULL, color, REPORT_STROKE_LEVEL, NULL, &entropies[count], 1};
            count++;
        }
    }
    for (int i = count - 1; i >= 0 && entropy_label == NULL; i--)
        if (lines[i].stroke == REPORT_STROKE_LEVEL)
            entropy_label = lines[i].label = "unigram entropy, colour by level";
    report_text_put(out, "<div class=\"charts\">\n");
    report_svg_chart(out, &(report_chart){"Loss by level: held out (marked) and training (pale)", "step",
                                          "nats per token", lines, count});
    report_text_put(out, "<div>\n");
    report_put_base_losses(out, input);
    report_text_put(out, "</div></div>\n");
}

static void put_tile(report_text *out, const char *name, const char *format, double value,
                     const char *detail) {
    report_text_put(out, "<div class=\"tile\"><span>%s</span><b>", name);
    report_text_put(out, format, value);
    report_text_put(out, "</b><span>%s</span></div>", detail);
}

static void put_tiles(report_text *out, const report_input *input) {
    const report_metrics *m = &input->metrics;
    const json_t *base = json_object_get(input->evaluation, "base"),
                 *rl = json_object_get(input->evaluation, "rl");
    const double difference = report_json_number(input->evaluation, "paired_difference");
    const double error = report_json_number(input->evaluation, "standard_error");
    const double before = report_json_number(base, "diversity"), after = report_json_number(rl, "diversity");
    const report_series *kl = report_metrics_find(m, "kl_ref"), *reward = report_metrics_find(m, "reward");
    char detail[160];
    report_text_put(out, "<div class=\"tiles\">");
    if (!isnan(difference) && error > 0) {
        snprintf(detail, sizeof detail, "held out, paired: %.1f standard errors", difference / error);
        put_tile(out, "Gain in reward", "%+.3f", difference, detail);
    }
    if (before > 0 && !isnan(after)) {
        snprintf(detail, sizeof detail, "%.3f, base %.3f", after, before);
        put_tile(out, "Diversity kept", "%.0f %%", 100 * after / before, detail);
    }
    if (kl->count > 0)
        put_tile(out, "KL to the base", "%.2f", report_series_last(kl), "nats per sequence, last step");
    if (reward->count > 0) {
        char took[64];
        progress_format_duration(took, sizeof took, total_seconds(m));
        snprintf(detail, sizeof detail, "in %s", took);
        put_tile(out, "Steps of RL", "%.0f", (double)reward->count, detail);
    }
    report_text_put(out, "</div>\n");
}

static void put_settings(report_text *out, const run_config *c) {
    char text[256];
    report_text_put(out, "<h2>Settings</h2>\n<dl>");
    snprintf(text, sizeof text, "%d &times; %d, %d heads", c->model.temporal.layers, c->model.temporal.width,
             c->model.temporal.heads);
    report_text_put(out, "<div><dt>temporal transformer</dt><dd>%s</dd></div>", text);
    snprintf(text, sizeof text, "%d &times; %d, %d heads", c->model.depth.layers, c->model.depth.width,
             c->model.depth.heads);
    report_text_put(out, "<div><dt>depth transformer</dt><dd>%s</dd></div>", text);
    report_text_put(out, "<div><dt>tokens per frame</dt><dd>1 + %d</dd></div>", c->model.coarse_levels);
    report_text_put(out, "<div><dt>rewards</dt><dd>");
    for (int i = 0; i < c->train.rewards.count; i++) {
        report_text_put(out, "%s", i > 0 ? ", " : "");
        report_put_words(out, c->train.rewards.entries[i].name);
        report_text_put(out, " &times; ");
        report_text_put_number(out, c->train.rewards.entries[i].weight);
    }
    report_text_put(out, "</dd></div>");
    put_fact(out, "seed", "%.0f", (double)c->seed);
    put_fact(out, "batch, rollouts", NULL, c->train.batch);
    put_fact(out, "frames of a rollout", NULL, c->train.frames);
    put_fact(out, "temperature", NULL, c->train.temperature);
    put_fact(out, "alpha, weight of the KL", NULL, c->train.alpha);
    put_fact(out, "learning rate, policy", "%g", c->train.learning_rate);
    put_fact(out, "learning rate, value", "%g", c->train.value_learning_rate);
    put_fact(out, "lag, steps", NULL, c->train.lag);
    report_text_put(out, "<div><dt>advantage divided by its deviation</dt><dd>%s</dd></div>",
                    c->train.whiten_advantage ? "yes" : "no");
    report_text_put(out, "<div><dt>reward whitened on base samples</dt><dd>%s</dd></div>",
                    c->train.whiten_reward ? "yes" : "no");
    report_text_put(out, "<div><dt>roles</dt><dd>");
    report_text_put_escaped(out, c->roles);
    report_text_put(out, "</dd></div></dl>\n");
}

static void put_notes(report_text *out, const report_input *input, const run_config *c) {
    report_text_put(out, "<h2>Notes</h2>\n<ul>");
    if (c != NULL)
        report_text_put(
            out,
            "<li>The policy writes the semantic level and %d coarse acoustic level%s. The codec's "
            "finer levels are filled in for listening by a simple predictor, the same for both "
            "models; reinforcement learning does not touch it.</li>",
            c->model.coarse_levels, c->model.coarse_levels == 1 ? "" : "s");
    report_text_put(out,
                    "<li>KL is exact over the full vocabulary, summed over the tokens of a sequence and "
                    "averaged over sequences.</li>"
                    "<li>Held-out captions were never trained on, at any stage. Differences are paired: both "
                    "models answer the same captions.</li>");
    size_t index;
    json_t *note;
    json_array_foreach(input->notes, index, note) {
        if (!json_is_string(note))
            continue;
        report_text_put(out, "<li>");
        report_text_put_escaped(out, json_string_value(note));
        report_text_put(out, "</li>");
    }
    report_text_put(out, "</ul>\n");
}

static status read_input(report_input *in, run_config *config, int *has_config) {
    char path[PATH_MAX];
#define IN_FOLDER(name) (snprintf(path, sizeof path, "%s/%s", in->folder, name), path)
    TRY(report_metrics_read(&in->metrics, IN_FOLDER("metrics.jsonl")));
    TRY(report_metrics_read(&in->base_metrics, IN_FOLDER("base/metrics.jsonl")));
    TRY(report_json_read(&in->base_summary, IN_FOLDER("base/summary.json"), 0));
    TRY(report_json_read(&in->evaluation, IN_FOLDER("evaluation.json"), 0));
    TRY(report_json_read(&in->codec, IN_FOLDER("codec.json"), 0));
    TRY(report_json_read(&in->samples, IN_FOLDER("samples/samples.json"), 1));
    TRY(report_json_read(&in->notes, IN_FOLDER("notes.json"), 1));
    *has_config = access(IN_FOLDER("config.yaml"), F_OK) == 0;
    if (*has_config)
        TRY(run_config_load(config, path, NULL, 0));
#undef IN_FOLDER
    return STATUS_OK;
}

static status put_page(report_text *out, const report_input *in, const run_config *config) {
    char name[PATH_MAX];
    if (config != NULL)
        snprintf(name, sizeof name, "%s", config->name);
    else if (realpath(in->folder, name) != NULL)
        memmove(name, strrchr(name, '/') + 1, strlen(strrchr(name, '/')));
    report_put_head(out, name);
    report_text_put(out, "<body><main>\n<h1>");
    report_text_put_escaped(out, name);
    report_text_put(out,
                    "</h1>\n<p class=\"lead\">A music generator, finetuned by reinforcement learning.</p>\n");
    put_tiles(out, in);
    TRY(report_put_clips(out, in));
    report_put_evaluation(out, in);
    TRY(put_training(out, in));
    put_checks(out, &in->metrics);
    put_base(out, in);
    report_put_codec(out, in);
    if (config != NULL)
        put_settings(out, config);
    else
        report_put_missing(out, "The settings of the run are not known (config.yaml).");
    put_notes(out, in, config);
    report_text_put(out, "<footer>Written by musicrl %s.</footer>\n</main></body>\n</html>\n",
                    MUSICRL_VERSION);
    return out->outcome;
}

status report_write(const char *folder, const char *path) {
    report_input in = {.folder = folder};
    report_text page = {0};
    run_config *config = NULL;
    int has_config;
    status result;
    if (access(folder, F_OK) != 0)
        return FAIL("%s: there is no such run folder", folder);
    TRY_GOTO(result, memory_allocate((void **)&config, sizeof *config, "run configuration"), done);
    TRY_GOTO(result, read_input(&in, config, &has_config), done);
    TRY_GOTO(result, put_page(&page, &in, has_config ? config : NULL), done);
    result = publish_file(path, page.bytes, page.used);
done:
    memory_free(config);
    report_text_free(&page);
    report_metrics_free(&in.metrics);
    report_metrics_free(&in.base_metrics);
    json_decref(in.base_summary);
    json_decref(in.evaluation);
    json_decref(in.codec);
    json_decref(in.samples);
    json_decref(in.notes);
    return result;
}
