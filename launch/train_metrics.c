// The line of metrics that every step writes.
#include "launch/train_parts.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>

static double column_maximum(const train *t, int column) {
    double largest = 0.0;
    for (int i = 0; i < t->config->train.batch; i++) {
        const double value = t->learner.rows[(size_t)i * t->learner.row_width + (size_t)column];
        largest = value > largest ? value : largest;
    }
    return largest;
}

batch_rewards train_summarise_batch(const train *t) {
    const int batch = t->config->train.batch;
    batch_rewards out = {.diversity = train_diversity(t, (size_t)batch),
                         .rollout_seconds = column_maximum(t, STATISTIC_ROLLOUT_SECONDS),
                         .reward_seconds = column_maximum(t, STATISTIC_REWARD_SECONDS)};
    double squares = 0.0;
    for (int i = 0; i < batch; i++) {
        const double *row = t->learner.rows + (size_t)i * t->learner.row_width;
        out.mean += row[STATISTIC_REWARD] / batch;
        for (int j = 0; j < t->config->train.rewards.count; j++)
            out.each[j] += row[STATISTIC_REWARDS + j] / batch;
    }
    for (int i = 0; i < batch; i++) {
        const double difference =
            t->learner.rows[(size_t)i * t->learner.row_width + STATISTIC_REWARD] - out.mean;
        squares += difference * difference / batch;
    }
    out.deviation = sqrt(squares);
    return out;
}

status train_write_metrics(train *t, const batch_rewards *rewards, const step_result *r, float rate_factor,
                           const step_times *times, const evaluation *held_out) {
    if (!t->run.writes)
        return STATUS_OK;
    metrics *m = t->run.metrics;
    const run_config *config = t->config;
    char name[RUN_CONFIG_NAME_MAX + 16];
    const double tokens = (double)config->train.frames * t->shape.temporal.levels;
    metrics_begin(m, t->step);
    metrics_add(m, "reward", rewards->mean);
    for (int j = 0; j < config->train.rewards.count; j++) {
        snprintf(name, sizeof name, "reward/%s", config->train.rewards.entries[j].name);
        metrics_add(m, name, rewards->each[j]);
    }
    metrics_add(m, "reward_std", rewards->deviation);
    metrics_add(m, "kl_ref", r->kl);
    metrics_add(m, "kl_ref_token", r->kl / tokens);
    metrics_add(m, "kl_k1", r->kl_k1);
    metrics_add(m, "entropy", r->entropy / tokens);
    metrics_add(m, "advantage_mean", r->advantage_mean);
    metrics_add(m, "advantage_std", r->advantage_std);
    metrics_add(m, "alpha", r->alpha);
    if (config->train.baseline == RUN_BASELINE_VALUE) {
        metrics_add(m, "value_loss", r->value_loss);
        metrics_add(m, "explained_variance", r->explained_variance);
        metrics_add(m, "value_grad_norm", r->value_gradient_norm);
    } else {
        metrics_add(m, "groups_without_signal", r->groups_without_signal);
    }
    metrics_add(m, "policy_loss", r->policy_loss);
    metrics_add(m, "importance", r->importance);
    if (config->train.ppo_epochs > 1)
        metrics_add(m, "clip_fraction", r->clip_fraction);
    metrics_add(m, "grad_norm", r->gradient_norm);
    metrics_add(m, "learning_rate", config->train.learning_rate * (double)rate_factor);
    metrics_add(m, "logprob_gap_max", r->gap);
    metrics_add(m, "staleness", (double)(t->step - 1 - train_version_of(t, t->step - 1)));
    metrics_add(m, "rollout_digest", r->rollout_digest);
    metrics_add(m, "diversity", rewards->diversity);
    metrics_add(m, "frames_per_s", (double)config->train.batch * config->train.frames / times->total);
    metrics_add(m, "seconds/rollout", rewards->rollout_seconds);
    metrics_add(m, "seconds/reward", rewards->reward_seconds);
    metrics_add(m, "seconds/learn", times->learn);
    metrics_add(m, "seconds/sync", times->sync);
    metrics_add(m, "seconds/save", t->save_seconds);
    metrics_add(m, "peak_host_bytes", (double)memory_resident_peak_bytes());
    metrics_add(m, "peak_device_bytes", (double)memory_read_counters().peak_bytes);
    metrics_add(m, "planned_bytes", (double)t->plan.bytes);
    metrics_add(m, "resident_before_bytes", (double)t->plan.resident_before);
    metrics_add(m, "allocations", (double)memory_read_counters().allocations);
    metrics_add(m, "skipped_updates", (double)t->skipped_updates);
    if (held_out->done) {
        metrics_add(m, "eval/reward", held_out->reward);
        metrics_add(m, "eval/diversity", held_out->diversity);
    }
    return metrics_end(m);
}
