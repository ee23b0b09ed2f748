// What the loop of the RL run, its three roles and its workers share. Private to launch/train*.c.
#pragma once

#include "comm/batch.h"
#include "comm/gradient_sum.h"
#include "comm/group.h"
#include "comm/weights.h"
#include "core/codec.h"
#include "core/dpo.h"
#include "core/learner.h"
#include "data/digest.h"
#include "data/ratings.h"
#include "kernels/mirror.h"
#include "launch/conditioner.h"
#include "launch/device_choice.h"
#include "launch/exchange.h"
#include "launch/plan.h"
#include "launch/roles.h"
#include "launch/run_folder.h"
#include "launch/saver.h"
#include "launch/scorer.h"
#include "launch/stage.h"
#include "launch/watch.h"

#include <jansson.h>

enum { REWARDS_MAX = RUN_CONFIG_REWARDS_MAX };

// A rollout rank: its own packed policy, sampler, captions and conditioner.
typedef struct rollout_role {
    bool active;
    sample_range samples;
    policy *policy;
    int64_t packed_version; // version in `policy`, -1 before the first
    policy_sampler *sampler;
    clip_order *training;
    uint16_t *prefix, *tokens;           // [S, prefix], [S, frames, levels]
    float *log_probabilities;            // [S, frames, levels]
    float *text;                         // [S, embedding]
    uint32_t *indices, *caption_indices; // [S]
    char *captions;                      // [S] texts behind each other
    size_t captions_capacity;
    const char **caption_list; // [S]
} rollout_role;

typedef struct reward_role {
    bool active;
    sample_range samples;
    scorer *scorers[REWARDS_MAX]; // [rewards]
    float *scores;                // [S, score width]
    float *text, *music;          // [S, embedding]
    float *column, *spread;       // [S] of one reward: scores, disagreement
    const char **captions;        // [S]
    codec *codec;                 // to listen to some of the samples; NULL: none
    size_t listened;              // at most so many samples of this rank
    uint16_t *full_tokens;        // [listened, frames, codec levels]
    float *audio;                 // [listened, samples]
    char *decoder_scratch;        // [listened, decoder_bytes]
    size_t decoder_bytes;
} reward_role;

// What the reward role sends of a sample: [rewards] scores, [rewards] disagreement of the ensembles, these,
// then the music embedding [embedding].
enum score_column {
    SCORE_ADHERENCE, // text adherence, also where it is no reward of the run
    SCORE_LOOP,      // 1: the tokens are stuck in a loop
    SCORE_LISTENED,  // 1: it was decoded
    SCORE_SILENT,    // 1: it was, and is silent
    SCORE_CLIPPED,
    SCORE_COLUMNS,
};

// What an optimiser belongs to.
typedef enum learner_network { NETWORK_POLICY, NETWORK_VALUE, NETWORKS } learner_network;

// A learner rank: the samples of its gradient slots and everything that learns.
typedef struct learner_role {
    bool active;
    sample_range samples, slots;
    group *group;
    device_group *devices; // of the group
    learner *learner;
    gradient_sum *policy_gradients, *value_gradients; // the latter of a value network, else NULL
    bool sharded;                                     // the optimisers are shared out over the learners
    double *squares[NETWORKS];                        // [units] of gradients, where they are
    mirror values_mirror[NETWORKS];                   // of the parameters, where they are
    gradient_watch watches[NETWORKS];
    uint16_t *prefix, *tokens; // [S, ...] as in rollout_role
    float *log_probabilities;
    float *scores;                                // [S, score width]
    float *returns;                               // [S]
    float *values;                                // [S, frames]
    double *group_advantages;                     // [batch] without a value network, else NULL
    learner_value_statistics *value_statistics;   // [samples of a slot]
    learner_policy_statistics *policy_statistics; // [samples of a slot]
    double *rows; // [batch, row_width] statistics of every sample, shared among learners
    size_t row_width;
    double *histogram;                   // [sum of codebooks] how often the batch has each code of each level
    double perplexity[CODEC_LEVELS_MAX]; // [levels] of the batch's codes
} learner_role;

// What shows in tokens and audio that optimisation went astray, as shares of a set of samples; collapse: the
// largest loss of a level's perplexity against the base's.
enum alarm { ALARM_SILENCE, ALARM_LOOP, ALARM_COLLAPSE, ALARM_CLIPPED, ALARMS };
extern const char *const train_alarm_names[ALARMS];

// What the floors of selection are shares of.
typedef struct train_floors {
    double diversity, text_adherence;
} train_floors;

// A set of samples, measured.
typedef struct evaluation {
    int64_t step;
    bool kept;                                           // its checkpoint is there, or is about to be
    double reward;                                       // weighted sum of raw rewards
    double value;                                        // weighted sum of whitened rewards: what is learnt
    double each[REWARDS_MAX], disagreement[REWARDS_MAX]; // [rewards]
    double deviation;                                    // of `reward`
    double diversity, text_adherence;
    double kl; // to the base, nats a sequence
    double alarms[ALARMS];
    double perplexity[CODEC_LEVELS_MAX]; // [levels] of a batch
} evaluation;

// Learning from rated pairs instead of rollouts, on learner ranks.
typedef struct dpo_role {
    dpo *dpo; // NULL where the run learns otherwise
    ratings *ratings;
    size_t count;       // of all pairs
    int frames, levels; // of a rated clip
    size_t position;    // of the next pair in the order of this epoch
    int64_t epoch;
    rating_pair *pairs;         // [batch] of this step
    const char **captions;      // [batch]
    float *text;                // [batch, embedding]
    uint16_t *clip;             // [frames, levels] as rated
    uint16_t *prefix, *tokens;  // [2 slot pairs, prefix], [2 slot pairs, frames, policy levels]
    dpo_statistics *statistics; // [slot pairs]
    double *rows;               // [batch, DPO_COLUMNS] of every pair, shared among learners
} dpo_role;
enum dpo_column { DPO_LOSS, DPO_MARGIN, DPO_PREFERRED, DPO_REJECTED, DPO_COLUMNS };

// What the saver's thread needs beside the weights; the thread's own while a write is under way.
typedef struct train_saving {
    metrics *metrics;
    const char *folder;
    checkpoint_keep keep;
    json_t *selection; // of selected.json
    char selection_path[RUN_CONFIG_PATH_MAX + 32];
} train_saving;

typedef struct train {
    const run_config *config;
    world *world;
    device *device;
    char device_note[DEVICE_NOTE];
    char gradient_note[DEVICE_GROUP_NOTE], weights_note[DEVICE_GROUP_NOTE]; // how ranks communicate
    roles layout;
    bool is_worker;       // of a run elsewhere: not one of its ranks
    int part[ROLE_COUNT]; // of a worker: the member whose samples it makes, -1: it does not carry the role
    sample_route *routes; // [members of a role] scratch of the roles
    int route_capacity;
    exchange *exchange;
    weights_channel *channel; // learner 0 -> rollout ranks that do not learn
    policy_config shape;
    shard_format format;
    corpus *corpus;                    // clips whose captions are sampled from, on rollout ranks
    clip_order *held_out;              // of them, those of evaluations, on all ranks
    int evaluation_captions;           // of an evaluation, as far as there are different ones
    conditioner *conditioner;          // on rollout and reward ranks
    int embedding_width, reward_width; // reward_width: numbers a sample that the reward role sends
    size_t parameters;                 // floats of the policy
    float *older; // [lag, parameters] weights of versions step - lag .. step - 1, on the writing rank's host
    rollout_role rollout;
    reward_role reward;
    learner_role learner;
    dpo_role dpo;
    run_folder run;
    watch *watch; // from the first step on
    int64_t step;
    double reward_mean[REWARDS_MAX], reward_std[REWARDS_MAX]; // whitening; 0 and 1 if off
    json_t *settings; // what results depend on beside the base, for checkpoints (launch/settings_record.h)
    double alpha;     // of the next update, on learner ranks
    int64_t skipped_updates, bad_scores;
    train_floors floors_of;  // NAN: of evaluations[0]
    evaluation *evaluations; // [evaluation_capacity] of this run so far, on learner ranks; the base's first
    int evaluation_count, evaluation_capacity;
    plan plan;                  // of this rank's memory
    char reference[DIGEST_HEX]; // of the base's weights, on learner ranks
    saver *saver;               // on the rank, or ranks, that write
    char *receipts;             // [learners][SAVER_RECEIPTS] of parts of a checkpoint
    bool save_has_parts;        // a checkpoint is under way that is not committed
    train_saving saving;
    double save_seconds; // that a checkpoint since the last line of metrics held up the loop
} train;

// This process' place in a role, -1 if it does not carry it.
static inline int train_member(const train *t, role role) {
    return t->is_worker ? t->part[role] : roles_member(&t->layout, role, world_rank(t->world));
}

// The version that samples step k.
static inline int64_t train_version_of(const train *t, int64_t step) {
    const int64_t version = step - t->config->train.lag;
    return version > 0 ? version : 0;
}

// Numbers of one sample in learner_role.rows.
enum sample_statistic {
    STATISTIC_REWARD, // weighted sum of raw rewards
    STATISTIC_RETURN, // what is learnt from: weighted sum of whitened rewards
    STATISTIC_ERROR,
    STATISTIC_SQUARED_ERROR,
    STATISTIC_KL,
    STATISTIC_KL_K1,
    STATISTIC_ENTROPY,
    STATISTIC_POLICY_LOSS,
    STATISTIC_IMPORTANCE, // of all epochs
    STATISTIC_CLIPPED,    // of all epochs
    STATISTIC_GAP,
    STATISTIC_DIGEST,          // of its tokens and log-probabilities as sampled
    STATISTIC_ROLLOUT_SECONDS, // of the member that made it
    STATISTIC_REWARD_SECONDS,
    STATISTIC_REWARDS, // [score width] follow
};

static inline double *train_row(const train *t, uint32_t sample) {
    return t->learner.rows + (size_t)sample * t->learner.row_width;
}

// Where in a row of scores a column stands, and the music embedding.
static inline int train_score_column(const train *t, enum score_column column) {
    return 2 * t->config->train.rewards.count + (int)column;
}
static inline int train_embedding_column(const train *t) {
    return train_score_column(t, SCORE_COLUMNS);
}

// Tells workers of a round that is sampled with the weights as they are.
status train_order(train *t, const sampling_round *round);

// Refuses a rollout batch that is not the one that is due.
status train_check_batch(const train *t, const sampling_round *round, const rollout_batch *batch,
                         sample_range samples);

// Device, models, data and buffers of every role that this process carries; t->layout is known. Collective.
// speaker, command: who tells of the device's plan, and under which name.
status train_prepare(train *t, int speaker, const char *command);
status train_create_exchange(train *t);
// Build, instruction set and libraries, in text [size].
void train_identify(const train *t, char *text, size_t size);
void train_destroy(train *t);

status train_rollout_create(train *t);
void train_rollout_destroy(train *t);
status train_rollout_round(train *t, const sampling_round *round);
// Weights of a version: this rank's own if it learns, else received, and every version before it.
status train_rollout_take_weights(train *t, int64_t version);
// Gives the rollout policy weights of a checkpoint, values [parameters] on the host.
status train_rollout_set_weights(train *t, int64_t version, const float *values);

status train_reward_create(train *t);
void train_reward_destroy(train *t);
status train_reward_round(train *t, const sampling_round *round);

status train_learner_create(train *t);
void train_learner_destroy(train *t);
// Receives a round's samples and scores and shares their statistics: rows holds those of the whole batch.
status train_learner_collect(train *t, const sampling_round *round);
// Every learner fills the rows of its own samples and leaves the others 0; then all hold all rows: the sum
// with zeros is exact, so that all learners add the same numbers in the same order.
status train_share_rows(train *t);

// KL of every collected sample into its row, without learning from it.
status train_learner_measure_kl(train *t);

// Of the policy that the step began with; what is said of updates is the mean over its epochs.
typedef struct step_result {
    double kl, kl_k1, entropy, policy_loss, value_loss, explained_variance, advantage_mean, advantage_std;
    double gap, importance, clip_fraction, gradient_norm, value_gradient_norm;
    double alpha; // that the step was learnt with
    int groups_without_signal;
    double rollout_digest; // of all samples: a whole number below 2^53
    bool skipped;
} step_result;
// Learns from the collected samples: train.ppo_epochs updates of the policy, and of the value network if
// there is one. rate_factor: of both learning rates.
status train_learner_update(train *t, float rate_factor, step_result *result);

// Lets every learner keep its part of the optimisers, if the run file asks for it, and settles how gradients
// are summed over the learners; l->group and l->devices are there.
status train_share_out(train *t);
void train_release_shards(train *t);
// Who is to be told of the backward pass of the slot that comes next: NULL if its gradient stays here.
const gradient_watch *train_next_watch(train *t, learner_network network);
// Once all slots are added: sums the gradient over the learners (each keeps its part, if the optimisers are
// shared out) and gives its norm, which is not finite if a number in it is not.
status train_measure_gradients(train *t, learner_network network, double *norm);
// One update; the network is packed again. rate: the learning rate.
status train_update_network(train *t, learner_network network, float rate, double norm);

// From the gradients of all learners to new weights, unless one is not finite: then out->skipped.
status train_learner_apply(train *t, float rate_factor, step_result *out);

// Of the pairs of a step, as the policy stood when it began.
typedef struct dpo_result {
    double loss, accuracy, margin, preferred, rejected;
} dpo_result;
// Lets the policy's shape hold clips as long as the rated ones.
status train_dpo_widen(train *t);
status train_dpo_create(train *t);
void train_dpo_destroy(train *t);
// One update from the next dpo.batch pairs.
status train_dpo_update(train *t, float rate_factor, step_result *result, dpo_result *out);

// Mean pairwise distance 1 - cos of the music embeddings of the first `count` samples of rows.
double train_diversity(const train *t, size_t count);

// Works out t->settings.
status train_record_settings(train *t);
// Everyone starts from the base; the value network takes what it shares with it.
status train_load_base(train *t);
// File of the weights of version step - lag + i, in a checkpoint of `step`.
void train_older_name(int i, char name[64]);
// Registers what a checkpoint holds and reserves the room for its copy (on ranks that write).
status train_create_saver(train *t);
// Starts a checkpoint of t->step on the writing rank, which is written while training goes on. All ranks call
// it and agree that it was started and that the one before is durable.
status train_save(train *t);
// All ranks agree that no write failed so far; that every checkpoint is durable, waiting for it.
status train_save_check(train *t);
status train_save_finish(train *t);
// Takes up weights, optimisers and counters of a checkpoint; refuses one of other settings.
status train_resume(train *t, const checkpoint *from);
// Weights of version t->step - lag + i to whoever needs them.
status train_resume_older(train *t, const checkpoint *from, int i, int64_t version);
// Weights of version t->step to the rollout ranks.
status train_resume_rollout(train *t, const checkpoint *from);

// The training captions' rewards before the first step, for whitening, and the base's evaluation.
status train_first_evaluation(train *t);
// Rewards, diversity, KL and alarms on held-out captions; the draws are the same at every evaluation.
// Appended to t->evaluations on learner ranks.
status train_evaluate(train *t);
// The last evaluation if it is of this step, else NULL.
const evaluation *train_evaluation_of_step(const train *t);

// Room for all evaluations that are to come; takes over those of a checkpoint's state, NULL for none.
status train_selection_begin(train *t, const json_t *state);
// The evaluations as they stand in a checkpoint's state.
json_t *train_evaluations_to_json(const train *t);
json_t *train_floors_to_json(const train *t); // what the floors are shares of
// Index of the selected evaluation by the rule in train_selection.c.
int train_select(const train *t);
// What FOLDER/selected.json says, and its path; the caller owns *out.
void train_describe_selection(const train *t, json_t **out, char path[RUN_CONFIG_PATH_MAX + 32]);
// Writes FOLDER/selected.json (writing rank).
status train_publish_selection(const train *t);
// Whether the rules of train.stop end the run at the last evaluation; `reason` [size] says why.
bool train_ends_early(const train *t, char *reason, size_t size);
// Writes FOLDER/summary.json (writing rank). reason: of an early end, or "".
status train_publish_summary(const train *t, const char *reason);

typedef struct step_times {
    double total, learn, sync;
} step_times;
// The collected batch; to be called before the rows are used for another round. `count` first samples.
void train_measure_batch(const train *t, size_t count, evaluation *out);
int64_t train_count_bad_scores(const train *t); // of the batch: scores that are no numbers
// Codebook collapse and the largest disagreement of a learnt reward, against the base.
double train_collapse(const train *t, const double *perplexity);
double train_disagreement(const train *t, const double *disagreement);
typedef struct batch_times {
    double rollout, reward;
} batch_times;
batch_times train_batch_times(const train *t);
// The base's evaluation, as step 0.
status train_write_base_metrics(train *t);
// What a step was, for its line of metrics.
typedef struct step_record {
    evaluation batch; // of rl
    batch_times made; // of rl
    dpo_result dpo;   // of dpo
    step_result result;
    step_times times;
    float rate_factor;
} step_record;
// Written before the checkpoint of the step, so that no checkpoint is ahead of the metrics; hence the time of
// saving is that of the checkpoint before. held_out: NULL if the step was not evaluated.
status train_write_metrics(train *t, const step_record *step, const evaluation *held_out);
