// One run in detail.
#include "kernels/memory.h"
#include "launch/report_parts.h"
#include "launch/report_svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SMOOTHED_FROM = 12 };

// Colours by meaning, the same in every chart.
enum { COLOR_RL = 0, COLOR_KL = 1, COLOR_HELD_OUT = 2, COLOR_OTHER = 4 };

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
    const size_t window = report_series_window(series);
    double *mean;
    TRY(report_series_smooth(series, window, &mean));
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
        kl_of_reward[i] = report_series_at(kl, reward->step[i], 0);
    for (size_t i = 0; i < held_out->count; i++)
        kl_of_held_out[i] = report_series_at(kl, held_out->step[i], 0); // the base itself is at 0
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

static void put_checks(report_text *out, const report_metrics *m) {
    if (report_metrics_find(m, "reward")->count == 0)
        return;
    const report_series *kl = report_metrics_find(m, "kl_ref");
    report_text_put(out, "<h2>Checks and times</h2>\n<dl>");
    report_put_fact(out, "KL at the first step", NULL, report_series_at(kl, 1.0, NAN));
    report_put_fact(out, "largest gap of log-probs, sampling to scoring", NULL,
                    report_series_greatest(report_metrics_find(m, "logprob_gap_max")));
    report_put_fact(out, "skipped updates", NULL,
                    report_series_greatest(report_metrics_find(m, "skipped_updates")));
    report_put_fact(out, "largest staleness, steps", NULL,
                    report_series_greatest(report_metrics_find(m, "staleness")));
    const report_series *speed = report_metrics_find(m, "frames_per_s");
    report_put_fact(out, "rollout frames per second, mean", "%.0f",
                    report_series_sum(speed) / (double)speed->count);
    report_put_fact(out, "peak host memory, MiB", "%.0f",
                    report_series_greatest(report_metrics_find(m, "peak_host_bytes")) / 1048576.0);
    const double device = report_series_greatest(report_metrics_find(m, "peak_device_bytes"));
    report_put_fact(out, "peak device memory, MiB", "%.0f", device > 0 ? device / 1048576.0 : NAN);
    for (int i = 0; i < m->count; i++) {
        if (strncmp(m->series[i]->name, "seconds/", 8) != 0)
            continue;
        char name[REPORT_METRIC_NAME_MAX + 32];
        snprintf(name, sizeof name, "seconds in all, %s", m->series[i]->name + 8);
        report_text_put(out, "<div><dt>");
        report_put_words(out, name);
        report_text_put(out, "</dt><dd>%.1f</dd></div>", report_series_sum(m->series[i]));
    }
    report_text_put(out, "</dl>\n");
}

status report_put_run(report_text *out, const report_run *run) {
    const report_metrics *m = &run->metrics;
    const bool offline = report_metrics_find(m, "dpo_loss")->count > 0; // direct preference optimisation
    report_text_put(out, "<h2>%s</h2>\n",
                    offline ? "Direct preference optimisation" : "Reinforcement learning");
    if (!offline && report_metrics_find(m, "reward")->count == 0) {
        report_put_missing(out, m->found
                                    ? "No step of reinforcement learning is recorded yet (metrics.jsonl)."
                                    : "There are no metrics of reinforcement learning (metrics.jsonl).");
        return STATUS_OK;
    }
    report_text_put(out, "<div class=\"charts\">\n");
    if (offline) {
        TRY(put_metric(out, m, "dpo_loss", "Loss on pairs", "nats per pair", COLOR_RL));
        TRY(put_metric(out, m, "dpo_accuracy", "Pairs ordered as their raters did", "share", COLOR_RL));
    } else {
        TRY(put_metric(out, m, "reward", "Reward of the training batches", "mean reward", COLOR_RL));
        put_rewards_by_name(out, m);
        TRY(put_metric(out, m, "kl_ref", "KL to the base model", "nats per sequence", COLOR_KL));
    }
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
    if (!offline) {
        TRY(put_reward_against_kl(out, m));
        TRY(put_metric(out, m, "entropy", "Entropy of the policy", "nats per token", COLOR_OTHER));
    }
    report_text_put(out, "</div>\n");
    if (held_out->count == 0)
        report_put_missing(out, "No held-out evaluation is recorded yet (eval/reward in metrics.jsonl).");

    report_text_put(out, "<h2>Health of the learner</h2>\n<div class=\"charts\">\n");
    if (!offline)
        TRY(put_metric(out, m, "explained_variance", "Explained variance of the value network", "share",
                       COLOR_RL));
    TRY(put_metric(out, m, "grad_norm", "Norm of the policy's gradient, before clipping", "norm", COLOR_KL));
    report_text_put(out, "</div>\n");
    put_checks(out, m);
    return STATUS_OK;
}
