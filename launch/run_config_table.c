#include "launch/run_config_table.h"

#include "data/number_text.h"

#include <string.h>

static const char *const devices[] = {"auto", "cpu", "cuda", NULL};
static const char *const precisions[] = {"f32", "bf16", NULL};
static const char *const reward_names[] = {"text_adherence", "quality", "preference", NULL};
static const char *const methods[] = {"rl", "dpo", NULL};
static const char *const bad_scores[] = {"fail", "skip", NULL};
static const char *const reward_starts[] = {"policy", "scratch", NULL};
static const char *const reward_features[] = {"none", "music", "music_text", NULL};
static const char *const baselines[] = {"value", "leave_one_out", "group", NULL};
static const char *const kl_controls[] = {"fixed", "adaptive", NULL};

#define FIELD(member) (((run_config *)0)->member)
#define TYPE(member)                                                                                         \
    _Generic(FIELD(member),                                                                                  \
        int32_t: SETTING_INTEGER32,                                                                          \
        int64_t: SETTING_INTEGER64,                                                                          \
        double: SETTING_REAL,                                                                                \
        bool: SETTING_BOOLEAN,                                                                               \
        char *: SETTING_TEXT,                                                                                \
        run_device: SETTING_WORD,                                                                            \
        run_precision: SETTING_WORD,                                                                         \
        run_reward_start: SETTING_WORD,                                                                      \
        run_reward_features: SETTING_WORD,                                                                         \
        run_baseline: SETTING_WORD,                                                                          \
        run_kl_control: SETTING_WORD,                                                                        \
        run_method: SETTING_WORD, \
        run_bad_scores: SETTING_WORD, \
        run_config_rewards: SETTING_REWARDS)
#define ROW(member, initial, minimum, maximum, words, help)                                                  \
    {                                                                                                        \
#member, TYPE(member), offsetof(run_config, member), sizeof FIELD(member), initial, minimum,         \
            maximum, words, help                                                                             \
    }
#define NUMBER(member, initial, minimum, maximum, help) ROW(member, initial, minimum, maximum, NULL, help)
#define FLAG(member, initial, help) ROW(member, initial, 0, 1, NULL, help)
#define TEXT(member, initial, help) ROW(member, initial, 0, 0, NULL, help)
#define WORDS(member, initial, words, help) ROW(member, initial, 0, 0, words, help)

// The block of one reward model.
#define TRAINING(member, what, steps_, batch_, slot_clips_, rate)                                            \
    NUMBER(member.steps, steps_, 1, STEPS, "training steps of the " what " model, at most"),                 \
        NUMBER(member.batch, batch_, 1, BATCH, "of it: pairs, or rated clips, a step"),                      \
        NUMBER(member.slot_clips, slot_clips_, 1, BATCH, "clips that go through it at once"),                \
        NUMBER(member.learning_rate, rate, 0, 1, "peak of its cosine schedule"),                             \
        NUMBER(member.warm_up, "5", 0, STEPS, "steps of linear warm-up"),                                    \
        NUMBER(member.evaluate_every, "10", 1, STEPS, "steps between held-out evaluations, which select"),   \
        NUMBER(member.patience, "4", 1, STEPS, "evaluations without a new best that end its training")

enum { STEPS = 100000000, WIDTH = 65536, FRAMES = 65536, BATCH = 65536, SECONDS = 10000000 };

const setting run_settings[] = {
    TEXT(name, "", "name of the run; empty: the file's name without .yaml"),
    TEXT(folder, "", "folder of the run; empty: runs/NAME"),
    NUMBER(seed, "1", 0, 9007199254740991.0, "of every random number of the run"),
    NUMBER(threads, "0", 0, 1024, "threads a rank; 0: usable local cores / local ranks"),
    WORDS(device, "auto", devices, "auto: a GPU for each rank where there are GPUs, else the CPU; cpu; cuda"),
    NUMBER(gradient_bucket, "32", 0, 1e6,
           "MiB of gradients that go from GPU to GPU at a time, while the backward pass goes on"),
    FLAG(
        one_order, "false",
        "on a GPU: scoring adds up as sampling does, products in one way for every number of rows, attention "
        "row by row, so that log-probabilities agree to the last bit; slower"),
    WORDS(gpu_precision, "bf16", precisions,
          "of activations, caches and products on a GPU; f32: products as TF32, twice the memory; weights, "
          "their gradients and updates are f32 either way"),
    TEXT(roles, "colocated",
         "colocated, or ranks by role, e.g. rollout=4,reward=2,learner=2; rollout:8 leaves a role to workers "
         "(--worker)"),

    TEXT(data.tokens, "", "folder of the token shards"),
    TEXT(data.codec, "", "codec file"),
    TEXT(data.embedding, "", "folder of the joint text-music embedding"),
    TEXT(data.base, "", "base policy that RL starts from: run folder of a pretraining"),
    TEXT(data.quality, "", "folder of the quality model"),
    TEXT(data.preference, "", "folder of the preference model"),
    TEXT(data.listeners, "", "file of the simulated listeners"),
    TEXT(data.ratings, "", "folder of the ratings: rated clips, votes and scores"),

    NUMBER(model.temporal.layers, "4", 1, 1024, "blocks of the temporal transformer (over frames)"),
    NUMBER(model.temporal.width, "128", 2, WIDTH, "its model width"),
    NUMBER(model.temporal.heads, "4", 1, 1024, "its attention heads"),
    NUMBER(model.temporal.ffn, "0", 0, 4 * WIDTH,
           "its feed-forward width; 0: 8 * width / 3 rounded up to 64"),
    NUMBER(model.depth.layers, "1", 1, 1024, "blocks of the depth transformer (over the tokens of a frame)"),
    NUMBER(model.depth.width, "96", 2, WIDTH, "its model width"),
    NUMBER(model.depth.heads, "3", 1, 1024, "its attention heads"),
    NUMBER(model.depth.ffn, "0", 0, 4 * WIDTH, "its feed-forward width; 0: 8 * width / 3 rounded up to 64"),
    NUMBER(model.coarse_levels, "3", 1, 15,
           "acoustic levels that the policy models, beside the semantic one"),
    NUMBER(model.prefix, "12", 1, 16, "prefix tokens that carry the caption or the music"),
    NUMBER(model.prefix_codebook, "64", 2, 65536, "entries of each prefix codebook"),

    NUMBER(embedding.layers, "2", 1, 1024, "blocks of each tower of the joint embedding"),
    NUMBER(embedding.width, "128", 2, WIDTH, "model width of each tower"),
    NUMBER(embedding.heads, "4", 1, 1024, "attention heads of each tower"),
    NUMBER(embedding.ffn, "0", 0, 4 * WIDTH,
           "feed-forward width of each tower; 0: 8 * width / 3 rounded up to 64"),
    NUMBER(embedding.output, "64", 1, WIDTH, "numbers in an embedding"),
    NUMBER(embedding.frames, "80", 1, FRAMES, "frames of a training crop, and of a reward segment"),
    NUMBER(embedding.rhythm_channels, "16", 16, 4096,
           "learned channels of the music whose autocorrelation in time the embedding hears"),
    NUMBER(embedding.rhythm_lags, "48", 0, FRAMES,
           "frames of the longest lag, or all of a segment but one if that is less; 0: none are heard"),
    FLAG(embedding.variation, "false",
         "the embedding hears how much the numbers of a frame vary over a segment, and from frame to frame"),
    NUMBER(embedding.text_length, "48", 1, 4096, "word pieces that are read of a caption"),
    NUMBER(embedding.vocabulary, "1000", 32, 65536, "word pieces of the tokeniser"),
    NUMBER(embedding.word_dropout, "0.3", 0, 0.95, "share of word pieces dropped in training"),
    NUMBER(embedding.batch, "128", 2, BATCH, "pairs a step; each is contrasted with the others"),
    NUMBER(embedding.steps, "500", 1, STEPS, "training steps"),
    NUMBER(embedding.learning_rate, "5e-4", 0, 1, "peak of the schedule"),
    NUMBER(embedding.warm_up, "50", 0, STEPS, "steps of linear warm-up"),
    NUMBER(embedding.weight_decay, "0.01", 0, 10, "of AdamW"),
    NUMBER(embedding.initial_temperature, "0.07", 1e-3, 10, "of the contrastive loss; learned from there"),

    NUMBER(pretrain.batch, "32", 1, BATCH, "clips a step"),
    NUMBER(pretrain.steps, "600", 1, STEPS, "training steps of the base model"),
    NUMBER(pretrain.frames, "125", 1, FRAMES, "frames of a training crop"),
    NUMBER(pretrain.learning_rate, "2e-3", 0, 1, "peak of the cosine schedule"),
    NUMBER(pretrain.final_learning_rate_ratio, "0.1", 0, 1, "end of the schedule / peak"),
    NUMBER(pretrain.warm_up, "30", 0, STEPS, "steps of linear warm-up"),
    NUMBER(pretrain.weight_decay, "0.01", 0, 10, "of AdamW"),
    NUMBER(pretrain.beta1, "0.9", 0, 0.999999, "of AdamW"),
    NUMBER(pretrain.beta2, "0.99", 0, 0.999999, "of AdamW"),
    NUMBER(pretrain.epsilon, "1e-8", 1e-16, 1, "of AdamW"),
    NUMBER(pretrain.gradient_clip, "1", 0, 1e9, "largest norm of the gradient; 0: no clipping"),
    NUMBER(pretrain.gradient_slots, "4", 1, 4096,
           "fixed parts of the gradient sum; a power of two that divides the batch"),
    NUMBER(pretrain.evaluate_every, "100", 0, STEPS, "steps between held-out losses; 0: only at the end"),
    NUMBER(pretrain.evaluate_clips, "256", 1, 10000000, "held-out clips of an evaluation"),
    NUMBER(pretrain.save_every, "200", 0, STEPS, "steps between checkpoints; 0: only at the end"),

    WORDS(train.method, "rl", methods,
          "rl: reinforcement learning from the rewards; dpo: direct preference optimisation on the pairs of "
          "data.ratings, where the rewards only select a step"),
    NUMBER(train.steps, "160", 1, STEPS, "steps of training"),
    NUMBER(train.batch, "64", 1, BATCH, "rollouts a step"),
    NUMBER(train.group, "1", 1, BATCH, "rollouts of each caption; divides the batch"),
    NUMBER(train.frames, "80", 1, FRAMES, "frames of a rollout"),
    WORDS(train.baseline, "value", baselines,
          "of the advantage: a value network, the mean of the caption's other rollouts (RLOO), or of all of "
          "them (GRPO)"),
    FLAG(train.whiten_group, "false",
         "divide a group's advantages by the group's own deviation; baseline group alone"),
    NUMBER(train.temperature, "0.99", 0.01, 100, "of sampling"),
    NUMBER(train.alpha, "0.05", 0, 1, "weight of the KL to the base; the policy term has 1 - alpha"),
    WORDS(train.kl_control, "fixed", kl_controls,
          "adaptive: alpha is where it starts, and follows the KL of the rollouts to kl_target"),
    NUMBER(train.kl_target, "20", 1e-3, 1e6, "of adaptive control, nats a sequence"),
    NUMBER(train.kl_gain, "0.1", 1e-3, 1, "of adaptive control: at most 0.2 times this a step"),
    NUMBER(train.entropy_bonus, "0", 0, 1, "weight of the entropy of a sequence, in nats"),
    NUMBER(train.ppo_epochs, "1", 1, 64, "updates from each batch of rollouts; more than 1: clipped as PPO"),
    NUMBER(train.clip, "0.2", 1e-3, 10,
           "PPO: largest distance from 1 of a token's ratio, for ppo_epochs > 1"),
    NUMBER(train.learning_rate, "1e-4", 0, 1, "of the policy"),
    NUMBER(train.value_learning_rate, "1e-3", 0, 1, "of the value network"),
    NUMBER(train.warm_up, "5", 0, STEPS, "steps of linear warm-up"),
    NUMBER(train.beta1, "0.9", 0, 0.999999, "of AdamW"),
    NUMBER(train.beta2, "0.99", 0, 0.999999, "of AdamW"),
    NUMBER(train.epsilon, "1e-8", 1e-16, 1, "of AdamW"),
    NUMBER(train.weight_decay, "0", 0, 10, "of AdamW"),
    NUMBER(train.gradient_clip, "1", 0, 1e9, "largest norm of the gradient; 0: no clipping"),
    NUMBER(train.gradient_slots, "8", 1, 4096,
           "fixed parts of the gradient sum; a power of two that divides the batch"),
    FLAG(train.shard_optimizer, "false",
         "learners hold, update and save a part of the optimisers each, instead of all of it"),
    FLAG(train.whiten_advantage, "true", "divide the advantage by its deviation over the batch"),
    NUMBER(train.advantage_std_floor, "1e-3", 1e-12, 1e6, "smallest deviation to divide by"),
    FLAG(train.whiten_reward, "true",
         "shift and scale each reward by its mean and deviation on the base model"),
    NUMBER(train.whiten_samples, "256", 2, 1000000, "samples of the base model for that"),
    NUMBER(train.lag, "0", 0, 16, "step k is sampled with the weights of step k - lag; 0: synchronous"),
    NUMBER(train.importance_cap, "2", 1, 1e6, "truncation of the importance weights"),
    NUMBER(train.evaluate_every, "20", 0, STEPS,
           "steps between held-out evaluations; 0: only first and last"),
    NUMBER(train.evaluate_captions, "256", 2, 10000000, "held-out captions of an evaluation"),
    NUMBER(train.save_every, "20", 0, STEPS, "steps between checkpoints; 0: only at the end"),
    NUMBER(train.keep, "3", 1, 1000000,
           "newest checkpoints kept, beside the base's and that of the selected step"),
    NUMBER(train.keep_every, "0", 0, STEPS, "and every one whose step is a multiple of this; 0: none"),
    WORDS(train.rollout_precision, "f32", precisions, "of the weights while sampling"),
    WORDS(train.reward_precision, "f32", precisions, "of the weights of learned rewards while scoring"),
    NUMBER(train.save_rollouts_every, "0", 0, STEPS, "steps between saved rollout batches; 0: never"),
    WORDS(train.rewards, "[{name: text_adherence, weight: 1}]", reward_names,
          "what is maximised: the weighted sum; a reward of weight 0 is scored and logged only"),
    WORDS(train.bad_scores, "fail", bad_scores,
          "a score that is not a number ends the run, or is counted and left out of the sum"),
    NUMBER(train.alarm_clips, "2", 0, BATCH,
           "rollouts of a batch that are decoded to listen for silence and clipping; 0: none"),
    NUMBER(train.select.diversity, "0.9", 0, 10,
           "the selected step keeps this share of the base's diversity on held-out captions"),
    NUMBER(train.select.text_adherence, "0.8", 0, 10, "and this share of its text adherence"),
    NUMBER(train.stop.kl, "0", 0, 1e9,
           "end the run when KL to the base, nats a sequence, exceeds this at an evaluation; 0: never"),
    NUMBER(train.stop.diversity, "0", 0, STEPS,
           "or after so many evaluations in a row below the floor of diversity; 0: never"),
    NUMBER(train.stop.alarms, "0", 0, 1,
           "or when a music alarm's share exceeds the base's by more than this; 0: never"),
    NUMBER(train.stop.disagreement, "0", 0, 1e9,
           "or when an ensemble disagrees more than so many times as on the base; 0: never"),

    NUMBER(dpo.batch, "32", 1, BATCH, "pairs a step; train.gradient_slots divides it"),
    NUMBER(dpo.beta, "0.1", 1e-6, 1e6, "weight of the log-ratios to the base: the larger, the nearer to it"),

    NUMBER(deadlines.start, "600", 0, SECONDS,
           "seconds that ranks wait for each other before the first step of a run; 0: for ever"),
    NUMBER(deadlines.rollout, "1800", 0, SECONDS,
           "seconds that a rank may spend sampling one batch before the run counts as hung; 0: for ever"),
    NUMBER(deadlines.reward, "1800", 0, SECONDS, "the same for scoring one"),
    NUMBER(deadlines.learn, "1800", 0, SECONDS, "for collecting one and learning from it"),
    NUMBER(deadlines.sync, "600", 0, SECONDS, "for agreeing with the other ranks and passing weights on"),
    NUMBER(deadlines.save, "1800", 0, SECONDS, "for a checkpoint"),
    NUMBER(deadlines.silence, "60", 0, SECONDS,
           "seconds without a sign of life after which a rank counts as gone; 0: for ever"),
    NUMBER(deadlines.stop, "120", 0, SECONDS,
           "seconds from a request to stop until the step in flight is abandoned; 0: it is always finished"),

    WORDS(reward.start, "policy", reward_starts,
          "weights that a reward model starts from: data.base, or none"),
    WORDS(
        reward.features, "music_text", reward_features,
        "what the head of a reward model reads of the joint embedding; music_text: music, and music x text"),
    FLAG(reward.text, "true", "the preference model reads the caption"),
    NUMBER(reward.crop, "0", 0, FRAMES,
           "frames that a reward model reads at once; 0: those of a rollout, or of a rated clip if fewer"),
    NUMBER(reward.ensemble, "1", 1, 64, "reward models trained side by side; the score is their mean"),
    NUMBER(reward.fit_examples, "8000", 0, 100000000,
           "pairs or clips that the head is fitted on in closed form before training; 0: it starts at zero"),
    NUMBER(reward.fit_ridge, "0.01", 1e-9, 1e9, "penalty of that fit, a share of the features' variance"),
    TRAINING(reward.quality, "quality", "120", "32", "16", "1e-4"),
    TRAINING(reward.preference, "preference", "160", "112", "16", "1e-4"),
    NUMBER(reward.weight_decay, "0.01", 0, 10, "of AdamW"),
    NUMBER(reward.beta1, "0.9", 0, 0.999999, "of AdamW"),
    NUMBER(reward.beta2, "0.99", 0, 0.999999, "of AdamW"),
    NUMBER(reward.epsilon, "1e-8", 1e-16, 1, "of AdamW"),
    NUMBER(reward.gradient_clip, "1", 0, 1e9, "largest norm of the gradient; 0: no clipping"),
    NUMBER(reward.gradient_slots, "4", 1, 4096,
           "fixed parts of the gradient sum; a power of two that divides both batches"),
    NUMBER(reward.evaluate_limit, "8000", 1, 100000000,
           "held-out pairs, and clips, by which a step is selected, at most"),
    NUMBER(reward.test_limit, "40000", 1, 100000000,
           "other held-out pairs, and clips, on which a finished model is measured, at most"),
    NUMBER(reward.bootstrap, "2000", 10, 10000000, "resamples of captions behind an interval"),

    NUMBER(listeners.training_clips, "3000", 64, 10000000,
           "decoded clips that the simulated listeners' detectors are fitted on"),
    NUMBER(listeners.held_out_clips, "600", 32, 10000000, "clips of held-out captions to measure them on"),
    NUMBER(listeners.damaged_clips, "64", 8, 1000000,
           "sound clips that are damaged in every way, to learn what bad is"),
    NUMBER(listeners.captions, "96", 4, 1000000, "captions whose clips by the base model set the scale"),
    NUMBER(listeners.clips_per_caption, "8", 2, 64, "clips of each"),
    NUMBER(listeners.least_kappa, "0.3", 0, 1,
           "Cohen's kappa of a detector below which its attribute gets no weight"),
    NUMBER(listeners.agreement, "0.6", 0.5, 1,
           "share of pairs of clips on which two listeners agree; sets the scale of utilities"),
    NUMBER(listeners.label_seed, "1", 0, 9007199254740991.0, "of the panel that labels training data"),
    NUMBER(listeners.evaluation_seed, "2", 0, 9007199254740991.0, "of the panel that judges models"),

    NUMBER(ratings.captions, "540", 1, 10000000,
           "training captions whose clips by the base model are compared in pairs"),
    NUMBER(ratings.held_out_captions, "60", 0, 10000000, "held-out captions of which the same is done"),
    NUMBER(ratings.clips, "8", 2, 64, "clips of each; n clips give n (n - 1) / 2 pairs"),
    NUMBER(ratings.raters, "64", 2, 65536, "listeners in the panel that votes"),
    NUMBER(ratings.votes, "1", 1, 1024, "listeners who vote on each pair; at most ratings.raters"),
    NUMBER(ratings.corpus_clips, "400", 0, 10000000, "clips of the corpus that are scored for their quality"),
    NUMBER(ratings.degraded_clips, "400", 0, 10000000,
           "clips of the corpus that are scored after their sound was damaged"),
    NUMBER(ratings.generated_clips, "400", 0, 10000000, "clips of the base model that are scored"),
    NUMBER(ratings.scores, "3", 1, 1024, "listeners who score each clip; at most ratings.raters"),
    NUMBER(ratings.second_votes, "2000", 0, 100000000,
           "pairs that a second listener votes on, to measure how often two agree; not stored"),

    NUMBER(samples.count, "8", 0, 1024, "held-out captions to make clips of for listening"),
    NUMBER(samples.iterations, "32", 1, 10000, "phase reconstruction of these clips"),
};
const int run_setting_count = sizeof run_settings / sizeof run_settings[0];
_Static_assert(sizeof run_settings / sizeof run_settings[0] <= RUN_SETTINGS_MAX, "room for every setting");

const setting *run_setting_find(const char *key) {
    for (int i = 0; i < run_setting_count; i++)
        if (strcmp(run_settings[i].key, key) == 0)
            return &run_settings[i];
    return NULL;
}

static const void *field(const run_config *config, const setting *s) {
    return (const char *)config + s->offset;
}

int64_t run_setting_integer(const run_config *config, const setting *s) {
    unsigned word;
    switch (s->type) {
    case SETTING_INTEGER64:
        return *(const int64_t *)field(config, s);
    case SETTING_BOOLEAN:
        return *(const bool *)field(config, s);
    case SETTING_WORD:
        memcpy(&word, field(config, s), sizeof word);
        return word;
    default:
        return *(const int32_t *)field(config, s);
    }
}

double run_setting_real(const run_config *config, const setting *s) {
    return *(const double *)field(config, s);
}

const char *run_setting_text(const run_config *config, const setting *s) {
    return field(config, s);
}

const char *run_setting_wanted(const setting *s, char *buffer, size_t capacity) {
    char low[NUMBER_TEXT_MAX], high[NUMBER_TEXT_MAX];
    switch (s->type) {
    case SETTING_INTEGER32:
    case SETTING_INTEGER64:
        snprintf(buffer, capacity, "a whole number from %.0f to %.0f", s->minimum, s->maximum);
        break;
    case SETTING_REAL:
        number_text_format(low, s->minimum);
        number_text_format(high, s->maximum);
        snprintf(buffer, capacity, "a number from %s to %s", low, high);
        break;
    case SETTING_BOOLEAN:
        snprintf(buffer, capacity, "true or false");
        break;
    case SETTING_TEXT:
        snprintf(buffer, capacity, "text");
        break;
    case SETTING_REWARDS:
        snprintf(buffer, capacity, "a list of {name, weight}");
        break;
    case SETTING_WORD: {
        size_t used = (size_t)snprintf(buffer, capacity, "one of");
        for (int i = 0; s->words[i] != NULL && used < capacity; i++)
            used += (size_t)snprintf(buffer + used, capacity - used, "%s %s", i > 0 ? "," : "", s->words[i]);
        break;
    }
    }
    return buffer;
}
