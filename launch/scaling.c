#include "launch/scaling.h"

#include <math.h>

static double evaluate(const scaling_line *line, double samples) {
    return line->fixed + samples * line->sample;
}

scaling_line scaling_fit(int few, double seconds_few, int many, double seconds_many) {
    const double slope = (seconds_many - seconds_few) / (many - few);
    scaling_line line = {.sample = slope > 0.0 ? slope : 0.0};
    line.fixed = seconds_many - many * line.sample;
    if (line.fixed >= 0.0)
        return line;
    return (scaling_line){.sample = seconds_many / many};
}

double scaling_all_reduce(const scaling_parts *p, int ranks, double bytes) {
    if (ranks == 1)
        return 0.0;
    return 2.0 * log2(ranks) * p->latency + 2.0 * (ranks - 1.0) / ranks * bytes / p->bandwidth;
}

double scaling_broadcast(const scaling_parts *p, int ranks, double bytes) {
    return ranks == 0 ? 0.0 : ceil(log2(ranks + 1.0)) * p->latency + bytes / p->bandwidth;
}

// A learner that holds a part of the optimiser updates that part; what all must pack stays.
static double update_seconds(const scaling_parts *p, const scaling_layout *l) {
    return l->sharded ? p->update / l->learners : p->update;
}

scaling_cost scaling_predict(const scaling_parts *p, const scaling_layout *l) {
    const double batch = l->batch, crowding = l->crowding > 1.0 ? l->crowding : 1.0;
    scaling_cost c = {.rollout = crowding * evaluate(&p->rollout, batch / l->rollouts),
                      .reward = crowding * evaluate(&p->reward, batch / l->rewards),
                      .learn = crowding * evaluate(&p->learn, batch / l->learners),
                      .update = crowding * update_seconds(p, l)};
    c.share = scaling_all_reduce(p, l->learners, p->gradient_bytes) +
              SCALING_ROW_SUMS * scaling_all_reduce(p, l->learners, batch * p->row_bytes);
    c.share_bytes = l->learners == 1 ? 0.0
                                     : 2.0 * (l->learners - 1.0) / l->learners *
                                           (p->gradient_bytes + SCALING_ROW_SUMS * batch * p->row_bytes);
    if (l->colocated) {
        c.step = c.rollout + c.reward + c.learn + c.share + c.update;
        c.rollout_share = c.rollout / c.step;
        return c;
    }
    // A rollout goes to whoever scores and to whoever learns; a member that sends or receives most sets the
    // pace.
    const double fewest = fmin(l->rollouts, fmin(l->rewards, l->learners));
    const double sent = batch * (2.0 * p->rollout_bytes + p->score_bytes);
    c.transfer_bytes = sent + p->weight_bytes * l->rollouts;
    c.transfer = 2.0 * p->latency + sent / fewest / p->bandwidth;
    const double weights = scaling_broadcast(p, l->rollouts, p->weight_bytes);
    const double made = c.rollout + weights, learnt = c.learn + c.share + c.update;
    c.transfer += weights;
    c.step = l->overlapped ? fmax(made, fmax(c.reward, learnt)) + c.transfer - weights
                           : c.rollout + c.reward + learnt + c.transfer;
    c.rollout_share = c.rollout / c.step;
    return c;
}

scaling_layout scaling_colocated(int ranks, int batch) {
    return (scaling_layout){.ranks = ranks,
                            .rollouts = ranks,
                            .rewards = ranks,
                            .learners = ranks,
                            .colocated = true,
                            .batch = batch};
}

static bool divides(int members, int batch) {
    return members >= 1 && batch % members == 0;
}

scaling_layout scaling_recommend(const scaling_parts *p, int ranks, int batch, int gradient_slots,
                                 bool overlapped) {
    scaling_layout best = {.ranks = 0};
    double least = INFINITY;
    const bool power_of_two = (ranks & (ranks - 1)) == 0;
    if (power_of_two && ranks <= gradient_slots && divides(ranks, batch)) {
        best = scaling_colocated(ranks, batch);
        least = scaling_predict(p, &best).step;
    }
    for (int learners = 1; overlapped && learners < ranks && learners <= gradient_slots; learners *= 2)
        for (int rewards = 1; rewards < ranks - learners; rewards++) {
            const scaling_layout split = {.ranks = ranks,
                                          .rollouts = ranks - learners - rewards,
                                          .rewards = rewards,
                                          .learners = learners,
                                          .overlapped = true,
                                          .batch = batch};
            if (!divides(split.rollouts, batch) || !divides(rewards, batch))
                continue;
            const double step = scaling_predict(p, &split).step;
            if (step < least) {
                least = step;
                best = split;
            }
        }
    return best;
}
