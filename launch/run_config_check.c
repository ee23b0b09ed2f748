#include "launch/run_config_table.h"

#include <stdio.h>
#include <string.h>

typedef struct checker {
    run_config_where where;
    void *context;
} checker;

#define WHERE(key) checker->where(checker->context, key)

static status check_transformer(const checker *checker, const char *section, int32_t width, int32_t heads) {
    char width_key[64], heads_key[64];
    snprintf(width_key, sizeof width_key, "%s.width", section);
    snprintf(heads_key, sizeof heads_key, "%s.heads", section);
    if (width % (16 * heads) != 0)
        return FAIL("%s: %s / %s is %d / %d, a head's width must be a multiple of 16; use %s = %d",
                    WHERE(width_key), width_key, heads_key, width, heads, width_key,
                    (width + 16 * heads - 1) / (16 * heads) * (16 * heads));
    return STATUS_OK;
}

// key: of the slots; section: whose batch they divide.
static status check_slots(const checker *checker, const char *key, int32_t slots, const char *section,
                          int32_t batch) {
    if ((slots & (slots - 1)) != 0)
        return FAIL("%s: %s is %d, wanted is a power of two: the gradient is summed in a balanced tree",
                    WHERE(key), key, slots);
    if (batch % slots != 0)
        return FAIL("%s: %s is %d, which does not divide %s.batch = %d; use a power of two that does",
                    WHERE(key), key, slots, section, batch);
    return STATUS_OK;
}

status run_config_check(const run_config *c, run_config_where where, void *context) {
    const checker local = {where, context};
    const checker *checker = &local;
    if (strchr(c->name, '/') != NULL)
        return FAIL("%s: name is '%s', wanted is a name without '/'; set 'folder' to place the run elsewhere",
                    WHERE("name"), c->name);
    TRY(check_transformer(checker, "model.temporal", c->model.temporal.width, c->model.temporal.heads));
    TRY(check_transformer(checker, "model.depth", c->model.depth.width, c->model.depth.heads));
    TRY(check_transformer(checker, "embedding", c->embedding.width, c->embedding.heads));
    if (c->embedding.output % 16 != 0)
        return FAIL("%s: embedding.output is %d, wanted is a multiple of 16; use %d",
                    WHERE("embedding.output"), c->embedding.output, (c->embedding.output + 15) / 16 * 16);
    if (c->embedding.rhythm_channels % 16 != 0)
        return FAIL("%s: embedding.rhythm_channels is %d, wanted is a multiple of 16; use %d",
                    WHERE("embedding.rhythm_channels"), c->embedding.rhythm_channels,
                    (c->embedding.rhythm_channels + 15) / 16 * 16);
    TRY(check_slots(checker, "pretrain.gradient_slots", c->pretrain.gradient_slots, "pretrain",
                    c->pretrain.batch));
    TRY(check_slots(checker, "train.gradient_slots", c->train.gradient_slots, "train", c->train.batch));
    TRY(check_slots(checker, "reward.gradient_slots", c->reward.gradient_slots, "reward.quality",
                    c->reward.quality.batch));
    TRY(check_slots(checker, "reward.gradient_slots", c->reward.gradient_slots, "reward.preference",
                    c->reward.preference.batch));
    if (c->train.batch % c->train.group != 0)
        return FAIL("%s: train.group is %d, which does not divide train.batch = %d; use a divisor of it",
                    WHERE("train.group"), c->train.group, c->train.batch);
    if (c->train.baseline != RUN_BASELINE_VALUE && c->train.group < 2)
        return FAIL(
            "%s: train.group is 1, but train.baseline: %s compares the rollouts of a caption with each "
            "other; use a group of 2 or more, or train.baseline: value",
            WHERE("train.group"), c->train.baseline == RUN_BASELINE_GROUP ? "group" : "leave_one_out");
    if (c->train.whiten_group && c->train.baseline != RUN_BASELINE_GROUP)
        return FAIL("%s: train.whiten_group is true, but only train.baseline: group divides by a group's "
                    "deviation; set one of the two",
                    WHERE("train.whiten_group"));
    if (c->train.kl_control == RUN_KL_ADAPTIVE && !(c->train.alpha > 0.0 && c->train.alpha < 1.0))
        return FAIL(
            "%s: train.alpha is %g, but train.kl_control: adaptive multiplies it; start between 0 and "
            "1, e.g. at 0.05",
            WHERE("train.alpha"), c->train.alpha);
    if (c->train.whiten_advantage && c->train.batch < 2)
        return FAIL("%s: train.batch is 1, but train.whiten_advantage needs a deviation over the batch; use "
                    "a batch of 2 or more, or train.whiten_advantage: false",
                    WHERE("train.batch"));
    if (c->listeners.label_seed == c->listeners.evaluation_seed)
        return FAIL("%s: listeners.label_seed and listeners.evaluation_seed are both %lld: models would be "
                    "judged by the listeners whose votes they learn from; use two seeds",
                    WHERE("listeners.evaluation_seed"), (long long)c->listeners.label_seed);
    if (c->ratings.scores > c->ratings.raters)
        return FAIL("%s: ratings.scores is %d, but there are ratings.raters = %d listeners and each scores a "
                    "clip once; use at most %d",
                    WHERE("ratings.scores"), c->ratings.scores, c->ratings.raters, c->ratings.raters);
    if (c->ratings.votes > c->ratings.raters)
        return FAIL(
            "%s: ratings.votes is %d, but there are ratings.raters = %d listeners and each votes on a "
            "pair once; use at most %d",
            WHERE("ratings.votes"), c->ratings.votes, c->ratings.raters, c->ratings.raters);
    if (c->train.method == RUN_METHOD_DPO) {
        if (c->dpo.batch % c->train.gradient_slots != 0)
            return FAIL(
                "%s: dpo.batch is %d, which train.gradient_slots = %d does not divide; use a multiple",
                WHERE("dpo.batch"), c->dpo.batch, c->train.gradient_slots);
        if (c->train.lag != 0 || c->train.ppo_epochs != 1)
            return FAIL(
                "%s: train.lag is %d and train.ppo_epochs %d, but train.method: dpo samples nothing to "
                "learn from; use 0 and 1",
                WHERE(c->train.lag != 0 ? "train.lag" : "train.ppo_epochs"), c->train.lag,
                c->train.ppo_epochs);
    }
    bool learns = false;
    for (int i = 0; i < c->train.rewards.count; i++)
        learns = learns || c->train.rewards.entries[i].weight != 0.0;
    if (!learns)
        return FAIL("%s: every weight of train.rewards is 0: nothing would be learnt; set one of them",
                    WHERE("train.rewards"));
    return STATUS_OK;
}
