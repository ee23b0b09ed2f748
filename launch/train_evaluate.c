// What is measured beside the steps: the rewards of the base, for whitening, and those of held-out captions.
#include "launch/train_parts.h"

#include <math.h>
#include <stdio.h>

// One batch through the roles that this rank carries.
static status run_round(train *t, const sampling_round *round) {
    if (t->rollout.active)
        TRY(train_rollout_round(t, round));
    if (t->reward.active)
        TRY(train_reward_round(t, round));
    return t->learner.active ? train_learner_collect(t, round) : STATUS_OK;
}

// Mean and deviation of each reward on samples of the base.
static status measure_base_rewards(train *t) {
    const int batch = t->config->train.batch, rewards = t->config->train.rewards.count;
    const int chunks = (t->config->train.whiten_samples + batch - 1) / batch;
    double sum[REWARDS_MAX] = {0}, squares[REWARDS_MAX] = {0};
    if (!t->config->train.whiten_reward)
        return STATUS_OK;
    for (int chunk = 0; chunk < chunks; chunk++) {
        const sampling_round round = {.kind = ROUND_WHITEN, .chunk = chunk};
        TRY(run_round(t, &round));
        for (int i = 0; t->learner.active && i < batch; i++)
            for (int j = 0; j < rewards; j++) {
                const double value =
                    t->learner.rows[(size_t)i * t->learner.row_width + (size_t)(STATISTIC_REWARDS + j)];
                sum[j] += value;
                squares[j] += value * value;
            }
    }
    const double count = (double)chunks * batch;
    for (int j = 0; j < rewards; j++) {
        const double mean = sum[j] / count, variance = squares[j] / count - mean * mean;
        t->reward_mean[j] = mean;
        t->reward_std[j] = variance > 1e-12 ? sqrt(variance) : 1e-6;
    }
    return STATUS_OK;
}

status train_evaluate(train *t, evaluation *out) {
    const int batch = t->config->train.batch, captions = t->config->train.evaluate_captions;
    double sum = 0.0, diversity = 0.0;
    int chunks = 0;
    for (int first = 0; first < captions; first += batch, chunks++) {
        const sampling_round round = {
            .kind = ROUND_EVALUATE, .step = t->step, .chunk = first / batch, .version = t->step};
        const int size = captions - first < batch ? captions - first : batch;
        TRY(run_round(t, &round));
        if (!t->learner.active)
            continue;
        for (int i = 0; i < size; i++)
            sum += t->learner.rows[(size_t)i * t->learner.row_width + STATISTIC_REWARD];
        diversity += train_diversity(t, (size_t)size) * size;
    }
    *out = (evaluation){.done = true, .reward = sum / captions, .diversity = diversity / captions};
    return STATUS_OK;
}

status train_first_evaluation(train *t) {
    evaluation held_out;
    TRY(measure_base_rewards(t));
    TRY(train_evaluate(t, &held_out));
    if (!t->run.writes)
        return STATUS_OK;
    printf("train: base on held-out captions: reward %.4f, diversity %.4f\n", held_out.reward,
           held_out.diversity);
    metrics_begin(t->run.metrics, 0);
    metrics_add(t->run.metrics, "kl_ref", 0.0);
    metrics_add(t->run.metrics, "eval/reward", held_out.reward);
    metrics_add(t->run.metrics, "eval/diversity", held_out.diversity);
    return metrics_end(t->run.metrics);
}
