// The line of metrics that every step writes.
#include "launch/train_parts.h"

#include "kernels/memory.h"

#include <stdio.h>

static double column_maximum(const train *t, int column) {
    double largest = 0.0;
    for (int i = 0; i < t->config->train.batch; i++) {
        const double value = t->learner.rows[(size_t)i * t->learner.row_width + (size_t)column];
        largest = value > largest ? value : largest;
    }
    return largest;
}

batch_times train_batch_times(const train *t) {
    return (batch_times){.rollout = column_maximum(t, STATISTIC_ROLLOUT_SECONDS),
                         .reward = column_maximum(t, STATISTIC_REWARD_SECONDS)};
}

// Every reward, disagreement and alarm of a set of samples, each name behind `prefix`.
static void add_measured(train *t, const char *prefix, const evaluation *measured) {
    metrics *m = t->run.metrics;
    char name[RUN_CONFIG_NAME_MAX + 32];
    const run_config_rewards *rewards = &t->config->train.rewards;
    for (int j = 0; j < rewards->count; j++) {
        snprintf(name, sizeof name, "%sreward/%s", prefix, rewards->entries[j].name);
        metrics_add(m, name, measured->each[j]);
        if (t->evaluations[0].disagreement[j] > 0.0) { // an ensemble
            snprintf(name, sizeof name, "%sreward_disagreement/%s", prefix, rewards->entries[j].name);
            metrics_add(m, name, measured->disagreement[j]);
        }
    }
    snprintf(name, sizeof name, "%stext_adherence", prefix);
    metrics_add(m, name, measured->text_adherence);
    for (int a = 0; a < ALARMS; a++) {
        const bool heard = a == ALARM_SILENCE || a == ALARM_CLIPPED;
        if (heard && t->config->train.alarm_clips == 0)
            continue;
        snprintf(name, sizeof name, "%salarm/%s", prefix, train_alarm_names[a]);
        metrics_add(m, name, measured->alarms[a]);
    }
    const double disagreement = train_disagreement(t, measured->disagreement);
    if (disagreement > 0.0) {
        snprintf(name, sizeof name, "%salarm/disagreement", prefix);
        metrics_add(m, name, disagreement);
    }
}

static void add_evaluation(train *t, const evaluation *held_out) {
    metrics *m = t->run.metrics;
    metrics_add(m, "eval/reward", held_out->reward);
    metrics_add(m, "eval/value", held_out->value);
    metrics_add(m, "eval/diversity", held_out->diversity);
    metrics_add(m, "eval/kl_ref", held_out->kl);
    add_measured(t, "eval/", held_out);
}

status train_write_base_metrics(train *t) {
    if (!t->run.writes)
        return STATUS_OK;
    metrics_begin(t->run.metrics, 0);
    metrics_add(t->run.metrics, "kl_ref", 0.0);
    add_evaluation(t, &t->evaluations[0]);
    return metrics_end(t->run.metrics);
}

static void add_rl(train *t, const step_record *step) {
    metrics *m = t->run.metrics;
    const run_config *config = t->config;
    const step_result *r = &step->result;
    const double tokens = (double)config->train.frames * t->shape.temporal.levels;
    metrics_add(m, "reward", step->batch.reward);
    metrics_add(m, "reward_std", step->batch.deviation);
    add_measured(t, "", &step->batch);
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
    metrics_add(m, "logprob_gap_max", r->gap);
    metrics_add(m, "staleness", (double)(t->step - 1 - train_version_of(t, t->step - 1)));
    metrics_add(m, "rollout_digest", r->rollout_digest);
    metrics_add(m, "diversity", step->batch.diversity);
    metrics_add(m, "frames_per_s", (double)config->train.batch * config->train.frames / step->times.total);
    metrics_add(m, "seconds/rollout", step->made.rollout);
    metrics_add(m, "seconds/reward", step->made.reward);
    metrics_add(m, "bad_scores", (double)t->bad_scores);
}

// Nothing is sampled in a step of dpo, so the KL is that of the evaluations.
static void add_dpo(train *t, const step_record *step, const evaluation *held_out) {
    metrics *m = t->run.metrics;
    metrics_add(m, "dpo_loss", step->dpo.loss);
    metrics_add(m, "dpo_accuracy", step->dpo.accuracy);
    metrics_add(m, "dpo_margin", step->dpo.margin);
    metrics_add(m, "dpo_preferred", step->dpo.preferred);
    metrics_add(m, "dpo_rejected", step->dpo.rejected);
    if (held_out != NULL)
        metrics_add(m, "kl_ref", held_out->kl);
    metrics_add(m, "pairs_per_s", t->config->dpo.batch / step->times.total);
}

status train_write_metrics(train *t, const step_record *step, const evaluation *held_out) {
    if (!t->run.writes)
        return STATUS_OK;
    metrics *m = t->run.metrics;
    device_memory memory;
    TRY(device_read_memory(t->device, &memory));
    metrics_begin(m, t->step);
    if (t->config->train.method == RUN_METHOD_DPO)
        add_dpo(t, step, held_out);
    else
        add_rl(t, step);
    metrics_add(m, "grad_norm", step->result.gradient_norm);
    metrics_add(m, "learning_rate", t->config->train.learning_rate * (double)step->rate_factor);
    metrics_add(m, "seconds/learn", step->times.learn);
    metrics_add(m, "seconds/sync", step->times.sync);
    metrics_add(m, "seconds/save", t->save_seconds);
    t->save_seconds = 0.0; // told
    metrics_add(m, "seconds/write", saver_write_seconds(t->saver));
    metrics_add(m, "peak_host_bytes", (double)memory_resident_peak_bytes());
    metrics_add(m, "peak_device_bytes", (double)memory.peak_bytes);
    metrics_add(m, "planned_bytes", (double)t->plan.bytes);
    if (!device_shares_memory(t->device))
        metrics_add(m, "planned_device_bytes", (double)t->plan.device_bytes);
    metrics_add(m, "resident_before_bytes", (double)t->plan.resident_before);
    metrics_add(m, "allocations", (double)memory_read_counters().allocations);
    metrics_add(m, "skipped_updates", (double)t->skipped_updates);
    if (held_out != NULL)
        add_evaluation(t, held_out);
    return metrics_end(m);
}
