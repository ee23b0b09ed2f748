// What is measured beside the steps: the rewards of the base, for whitening, and those of held-out captions.
#include "launch/train_parts.h"

#include <math.h>
#include <stdio.h>

// One batch through the roles that this rank carries.
static status run_round(train *t, const sampling_round *round) {
    TRY(train_order(t, round));
    if (t->rollout.active)
        TRY(train_rollout_round(t, round));
    if (t->reward.active)
        TRY(train_reward_round(t, round));
    return t->learner.active ? train_learner_collect(t, round) : STATUS_OK;
}

static double number_of(const train *t, size_t sample, int column) {
    return t->learner.rows[sample * t->learner.row_width + (size_t)column];
}

static double score_of(const train *t, size_t sample, int column) {
    return number_of(t, sample, STATISTIC_REWARDS + column);
}

// Mean and deviation of each reward on samples of the base.
static status measure_base_rewards(train *t) {
    const int batch = t->config->train.batch, rewards = t->config->train.rewards.count;
    const int chunks = (t->config->train.whiten_samples + batch - 1) / batch;
    double sum[REWARDS_MAX] = {0}, squares[REWARDS_MAX] = {0}, count[REWARDS_MAX] = {0};
    if (!t->config->train.whiten_reward)
        return STATUS_OK;
    for (int chunk = 0; chunk < chunks; chunk++) {
        const sampling_round round = {.kind = ROUND_WHITEN, .chunk = chunk};
        TRY(run_round(t, &round));
        for (size_t i = 0; t->learner.active && i < (size_t)batch; i++)
            for (int j = 0; j < rewards; j++) {
                const double value = score_of(t, i, j);
                if (!isfinite(value))
                    continue;
                sum[j] += value;
                squares[j] += value * value;
                count[j] += 1.0;
            }
    }
    for (int j = 0; j < rewards; j++) {
        const double mean = count[j] > 0.0 ? sum[j] / count[j] : 0.0;
        const double variance = count[j] > 0.0 ? squares[j] / count[j] - mean * mean : 0.0;
        t->reward_mean[j] = mean;
        t->reward_std[j] = variance > 1e-12 ? sqrt(variance) : 1e-6;
    }
    return STATUS_OK;
}

// The mean of a column over the samples where it is a number and, if `where` is not negative, where that
// column is not 0; 0 if there are none.
static double mean_of(const train *t, size_t samples, int column, int where) {
    double sum = 0.0, count = 0.0;
    for (size_t i = 0; i < samples; i++) {
        const double value = number_of(t, i, column);
        if (!isfinite(value) || (where >= 0 && number_of(t, i, where) == 0.0))
            continue;
        sum += value;
        count += 1.0;
    }
    return count > 0.0 ? sum / count : 0.0;
}

double train_collapse(const train *t, const double *perplexity) {
    double largest = 0.0;
    for (int level = 0; level < t->shape.temporal.levels && t->evaluation_count > 0; level++) {
        const double loss = 1.0 - perplexity[level] / t->evaluations[0].perplexity[level];
        largest = loss > largest ? loss : largest;
    }
    return largest;
}

double train_disagreement(const train *t, const double *disagreement) {
    double largest = 0.0;
    for (int j = 0; j < t->config->train.rewards.count && t->evaluation_count > 0; j++) {
        const double base = t->evaluations[0].disagreement[j];
        if (t->config->train.rewards.entries[j].weight != 0.0 && base > 0.0 &&
            disagreement[j] / base > largest)
            largest = disagreement[j] / base;
    }
    return largest;
}

void train_measure_batch(const train *t, size_t count, evaluation *out) {
    const int rewards = t->config->train.rewards.count;
    const int listened = STATISTIC_REWARDS + train_score_column(t, SCORE_LISTENED);
    *out = (evaluation){.step = t->step,
                        .reward = mean_of(t, count, STATISTIC_REWARD, -1),
                        .value = mean_of(t, count, STATISTIC_RETURN, -1),
                        .diversity = train_diversity(t, count),
                        .kl = mean_of(t, count, STATISTIC_KL, -1)};
    for (int j = 0; j < rewards; j++) {
        out->each[j] = mean_of(t, count, STATISTIC_REWARDS + j, -1);
        out->disagreement[j] = mean_of(t, count, STATISTIC_REWARDS + rewards + j, -1);
    }
    double squares = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double difference = number_of(t, i, STATISTIC_REWARD) - out->reward;
        squares += isfinite(difference) ? difference * difference / (double)count : 0.0;
    }
    out->deviation = sqrt(squares);
    out->text_adherence = mean_of(t, count, STATISTIC_REWARDS + train_score_column(t, SCORE_ADHERENCE), -1);
    out->alarms[ALARM_LOOP] = mean_of(t, count, STATISTIC_REWARDS + train_score_column(t, SCORE_LOOP), -1);
    out->alarms[ALARM_SILENCE] =
        mean_of(t, count, STATISTIC_REWARDS + train_score_column(t, SCORE_SILENT), listened);
    out->alarms[ALARM_CLIPPED] =
        mean_of(t, count, STATISTIC_REWARDS + train_score_column(t, SCORE_CLIPPED), listened);
    for (int level = 0; level < t->shape.temporal.levels; level++)
        out->perplexity[level] = t->learner.perplexity[level];
    out->alarms[ALARM_COLLAPSE] = train_collapse(t, out->perplexity);
}

int64_t train_count_bad_scores(const train *t) {
    int64_t bad = 0;
    for (size_t i = 0; i < (size_t)t->config->train.batch; i++)
        for (int j = 0; j < t->config->train.rewards.count; j++)
            bad += !isfinite(score_of(t, i, j));
    return bad;
}

// Adds `part`, the mean of `share` of the samples, to `sum`.
static void add_part(const train *t, evaluation *sum, const evaluation *part, double share) {
    sum->reward += share * part->reward;
    sum->value += share * part->value;
    sum->deviation += share * part->deviation;
    sum->diversity += share * part->diversity;
    sum->text_adherence += share * part->text_adherence;
    sum->kl += share * part->kl;
    for (int j = 0; j < t->config->train.rewards.count; j++) {
        sum->each[j] += share * part->each[j];
        sum->disagreement[j] += share * part->disagreement[j];
    }
    for (int a = 0; a < ALARMS; a++)
        sum->alarms[a] += share * part->alarms[a];
    for (int level = 0; level < t->shape.temporal.levels; level++)
        sum->perplexity[level] += share * part->perplexity[level];
}

status train_evaluate(train *t) {
    const int batch = t->config->train.batch, captions = t->evaluation_captions;
    evaluation total = {.step = t->step, .kept = true};
    for (int first = 0; first < captions; first += batch) {
        const sampling_round round = {
            .kind = ROUND_EVALUATE, .step = t->step, .chunk = first / batch, .version = t->step};
        const int size = captions - first < batch ? captions - first : batch;
        TRY(run_round(t, &round));
        if (!t->learner.active)
            continue;
        if (t->step > 0)
            TRY(train_learner_measure_kl(t));
        evaluation part;
        train_measure_batch(t, (size_t)size, &part);
        add_part(t, &total, &part, (double)size / captions);
    }
    if (t->learner.active)
        t->evaluations[t->evaluation_count++] = total;
    return STATUS_OK;
}

const evaluation *train_evaluation_of_step(const train *t) {
    const evaluation *last = t->evaluation_count > 0 ? &t->evaluations[t->evaluation_count - 1] : NULL;
    return last != NULL && last->step == t->step ? last : NULL;
}

status train_first_evaluation(train *t) {
    TRY(measure_base_rewards(t));
    TRY(train_evaluate(t));
    if (!t->run.writes)
        return STATUS_OK;
    const evaluation *base = &t->evaluations[0];
    printf("train: base on held-out captions: reward %.4f, text adherence %.4f, diversity %.4f\n",
           base->reward, base->text_adherence, base->diversity);
    return train_write_base_metrics(t);
}
