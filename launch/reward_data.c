#include "launch/reward_data.h"

#include "kernels/memory.h"
#include "launch/model_setup.h"
#include "launch/reward_file.h"
#include "launch/settings_record.h"
#include "launch/stage.h"

#include <stdio.h>
#include <string.h>

enum { CACHE_ENTRIES = 8192, CONDITIONER_BATCH = 64, ROWS = 4096, BLOCK = 256 };

reward_side reward_caption_side(const char *caption) {
    if (!caption_is_held_out(caption))
        return REWARD_SIDE_TRAINING;
    return digest_text(caption) / 10 % 2 == 0 ? REWARD_SIDE_SELECTION : REWARD_SIDE_TEST;
}

status reward_plan_make(reward_plan *out, const run_config *config, const char *kind) {
    const bool quality = strcmp(kind, "quality") == 0;
    *out = (reward_plan){.quality = quality,
                         .start = config->reward.start,
                         .features = config->reward.features,
                         .text = !quality && config->reward.text,
                         .fit = config->reward.fit_examples > 0,
                         .crop = config->reward.crop,
                         .members = config->reward.ensemble};
    if (!out->text && out->features == RUN_REWARD_FEATURES_MUSIC_TEXT)
        out->features = RUN_REWARD_FEATURES_MUSIC;
    const char *key = quality ? "data.quality" : "data.preference";
    TRY(run_config_require(config, key));
    snprintf(out->folder, sizeof out->folder, "%s", quality ? config->data.quality : config->data.preference);
    return STATUS_OK;
}

const char *reward_plan_kind(const reward_plan *plan) {
    return plan->quality ? "quality" : "preference";
}

static status make_shape(reward_data *d, const shard_format *format) {
    policy_config policy;
    TRY(model_policy_config(&policy, d->config, format));
    const int limit = d->config->train.frames < d->frames ? d->config->train.frames : d->frames;
    d->shape = (reward_model_config){.temporal = policy.temporal,
                                     .features = (reward_features)d->plan.features,
                                     .embedding = (int)d->embedding};
    d->shape.temporal.frames = d->plan.crop > 0 ? d->plan.crop : limit;
    if (!d->plan.text)
        d->shape.temporal.prefix = 0;
    if (d->shape.temporal.frames > d->frames)
        return FAIL("reward.crop is %d, the rated clips in %s have %d frames; lower the setting",
                    d->shape.temporal.frames, d->config->data.ratings, d->frames);
    return STATUS_OK;
}

static status open_parts(reward_data *d) {
    const run_config *config = d->config;
    TRY(run_config_require(config, "data.ratings"));
    TRY(run_config_require(config, "data.embedding"));
    TRY(ratings_open(&d->ratings, config->data.ratings));
    d->clips = ratings_clips(d->ratings);
    const shard_format *format = corpus_get_format(d->clips);
    d->rows = d->plan.quality ? ratings_score_count(d->ratings) : ratings_pair_count(d->ratings);
    if (d->rows == 0)
        return FAIL("%s holds no %s; collect or import some", config->data.ratings,
                    d->plan.quality ? "scores of clips" : "votes on pairs");
    d->frames = d->plan.listen > 0 ? d->plan.listen : (int)format->frames;
    d->start = ((int)format->frames - d->frames) / 2;
    TRY(conditioner_load(&d->conditioner, d->device, config->data.embedding, CONDITIONER_BATCH));
    TRY(conditioner_check_format(d->conditioner, format));
    TRY(reward_embedding_identity(config->data.embedding, d->embedding_identity));
    d->embedding = (size_t)embedding_get_config(d->conditioner->embedding)->output;
    if (d->plan.listen > 0)
        d->plan.features = RUN_REWARD_FEATURES_NONE;
    TRY(make_shape(d, format));
    d->levels = d->shape.temporal.levels;
    if (d->shape.temporal.prefix > 0 && (d->conditioner->prefix != config->model.prefix ||
                                         d->conditioner->prefix_codebook != config->model.prefix_codebook))
        return FAIL("the embedding in %s has a prefix of %d x %d, the run file wants %d x %d; train it again "
                    "or change model.prefix",
                    config->data.embedding, d->conditioner->prefix, d->conditioner->prefix_codebook,
                    config->model.prefix, config->model.prefix_codebook);
    TRY(memory_allocate((void **)&d->cached, sizeof(uint32_t) * CACHE_ENTRIES, "cached clips"));
    TRY(memory_allocate((void **)&d->text, sizeof(float) * CACHE_ENTRIES * d->embedding, "caption vectors"));
    TRY(memory_allocate((void **)&d->music, sizeof(float) * CACHE_ENTRIES * d->embedding, "music vectors"));
    return memory_allocate((void **)&d->scratch, sizeof(uint16_t) * (size_t)format->frames * format->levels,
                           "clip");
}

status reward_data_open(reward_data *out, device *device, const run_config *config, const reward_plan *plan) {
    *out = (reward_data){.config = config, .plan = *plan, .device = device};
    const status result = open_parts(out);
    if (result != STATUS_OK)
        reward_data_close(out);
    return result;
}

void reward_data_close(reward_data *d) {
    conditioner_destroy(d->conditioner);
    ratings_close(d->ratings);
    memory_free(d->cached);
    memory_free(d->text);
    memory_free(d->music);
    memory_free(d->scratch);
    *d = (reward_data){0};
}

static void digest_rows(digest_stream *stream, const rating_pair *pairs, const rating_score *scores,
                        size_t count) {
    for (size_t i = 0; i < count; i++) {
        const uint32_t row[4] = {pairs != NULL ? pairs[i].clip_a : scores[i].clip,
                                 pairs != NULL ? pairs[i].clip_b : 0,
                                 pairs != NULL ? (uint32_t)pairs[i].vote : (uint32_t)scores[i].score,
                                 pairs != NULL ? pairs[i].rater : scores[i].rater};
        digest_stream_update(stream, row, sizeof row);
    }
}

static status rows_digest(const reward_data *d, char out[DIGEST_HEX]) {
    digest_stream *stream;
    TRY(digest_stream_create(&stream));
    rating_pair *pairs = NULL;
    rating_score *scores = NULL;
    status result = d->plan.quality ? memory_allocate((void **)&scores, sizeof *scores * ROWS, "scores")
                                    : memory_allocate((void **)&pairs, sizeof *pairs * ROWS, "pairs");
    for (size_t first = 0; first < d->rows && result == STATUS_OK; first += ROWS) {
        const size_t count = d->rows - first < ROWS ? d->rows - first : ROWS;
        result = d->plan.quality ? ratings_read_scores(d->ratings, first, count, scores)
                                 : ratings_read_pairs(d->ratings, first, count, pairs);
        if (result == STATUS_OK)
            digest_rows(stream, pairs, scores, count);
    }
    const digest found = digest_stream_read(stream);
    digest_to_hex(&found, out);
    digest_stream_destroy(stream);
    memory_free(pairs);
    memory_free(scores);
    return result;
}

status reward_data_load_base(const reward_data *d, policy **out) {
    policy_config shape;
    *out = NULL;
    TRY(run_config_require(d->config, "data.base"));
    TRY(model_policy_config(&shape, d->config, corpus_get_format(d->clips)));
    TRY(policy_create(out, d->device, &shape, WEIGHT_SCORE, WEIGHT_F32));
    const status result = model_load_policy(*out, d->device, d->config->data.base, NULL, NULL);
    if (result != STATUS_OK) {
        policy_destroy(*out);
        *out = NULL;
    }
    return result;
}

static status base_digest(const reward_data *d, char out[DIGEST_HEX]) {
    policy *base;
    TRY(reward_data_load_base(d, &base));
    const status result = model_digest(d->device, policy_parameters(base), policy_values(base), out);
    policy_destroy(base);
    return result;
}

// The settings as the plan changes them. What crop and train.frames come to is recorded as frames.
static status record_settings(const reward_data *d, json_t **out) {
    static const char *const keys[] = {"seed", "model.temporal", "model.coarse_levels", "reward", NULL};
    const char *const except[] = {d->plan.quality ? "reward.preference" : "reward.quality", "reward.crop",
                                  "reward.bootstrap", "reward.test_limit", NULL};
    const settings_scope scope = {keys, except};
    run_config *planned;
    TRY(memory_allocate((void **)&planned, sizeof *planned, "settings of a reward model"));
    *planned = *d->config;
    planned->reward.start = d->plan.start;
    planned->reward.features = d->plan.features;
    planned->reward.text = d->plan.text;
    planned->reward.ensemble = d->plan.members;
    if (!d->plan.fit)
        planned->reward.fit_examples = 0;
    const status result = settings_record_create(out, planned, &scope);
    memory_free(planned);
    return result;
}

status reward_data_record(const reward_data *d, json_t **out) {
    char base[DIGEST_HEX], rows[DIGEST_HEX];
    const bool from_base = d->plan.start == RUN_REWARD_START_POLICY;
    *out = NULL;
    if (from_base)
        TRY(base_digest(d, base));
    TRY(rows_digest(d, rows));
    TRY(record_settings(d, out));
    json_object_set_new(*out, "frames of a window", json_sprintf("%d", d->shape.temporal.frames));
    json_object_set_new(*out, "frames of a clip", json_sprintf("%d", d->frames));
    json_object_set_new(*out, "codec of data.ratings", json_string(corpus_get_format(d->clips)->codec));
    json_object_set_new(*out, "weights in data.embedding", json_string(d->embedding_identity));
    if (from_base)
        json_object_set_new(*out, "weights in data.base", json_string(base));
    json_object_set_new(*out, d->plan.quality ? "scores in data.ratings" : "votes in data.ratings",
                        json_string(rows));
    return STATUS_OK;
}

status reward_inputs_create(reward_inputs *out, const reward_data *d, size_t capacity) {
    *out = (reward_inputs){.capacity = capacity};
    const size_t features = (size_t)reward_model_feature_count(&d->shape);
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&out->prefix,
                             sizeof(uint16_t) * (capacity * (size_t)d->shape.temporal.prefix + 1),
                             "prefixes"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&out->tokens,
                             sizeof(uint16_t) * capacity * (size_t)d->frames * (size_t)d->levels,
                             "rated clips"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&out->features, sizeof(float) * (capacity * features + 1),
                             "reward features"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&out->text, sizeof(float) * capacity * d->embedding, "caption vectors"),
             failed);
    TRY_GOTO(result,
             memory_allocate((void **)&out->music, sizeof(float) * capacity * d->embedding, "music vectors"),
             failed);
    return STATUS_OK;
failed:
    reward_inputs_destroy(out);
    return result;
}

void reward_inputs_destroy(reward_inputs *inputs) {
    memory_free(inputs->prefix);
    memory_free(inputs->tokens);
    memory_free(inputs->features);
    memory_free(inputs->text);
    memory_free(inputs->music);
    *inputs = (reward_inputs){0};
}

// Vectors come from the joint embedding's towers, or from a table of fixed size where the clip was met
// before: every clip has one place in it, and which clips it holds changes no number.
status reward_data_load(reward_data *d, const uint32_t *clips, size_t count, reward_inputs *inputs) {
    const size_t width = d->embedding, clip = (size_t)d->frames * (size_t)d->levels,
                 prefix = (size_t)d->shape.temporal.prefix;
    for (size_t i = 0; i < count; i++) {
        TRY(stage_read_tokens(d->clips, clips[i], d->start, d->frames, d->levels, d->scratch,
                              inputs->tokens + i * clip));
        const size_t entry = clips[i] % CACHE_ENTRIES;
        if (d->cached[entry] != clips[i] + 1) {
            shard_clip strings;
            TRY(corpus_read_strings(d->clips, clips[i], &strings));
            d->cached[entry] = 0;
            TRY(conditioner_text(d->conditioner, &strings.caption, 1, d->text + entry * width));
            if (d->plan.listen == 0) // a part of a clip may be too short for the joint embedding
                TRY(conditioner_music(d->conditioner, inputs->tokens + i * clip, 1, d->frames, d->levels,
                                      d->music + entry * width));
            d->cached[entry] = clips[i] + 1;
        }
        memcpy(inputs->text + i * width, d->text + entry * width, sizeof(float) * width);
        memcpy(inputs->music + i * width, d->music + entry * width, sizeof(float) * width);
        if (prefix > 0)
            conditioner_prefix(d->conditioner, inputs->text + i * width, inputs->prefix + i * prefix);
    }
    reward_model_make_features(&d->shape, count, inputs->text, inputs->music, inputs->features);
    return STATUS_OK;
}

status reward_data_side(const reward_data *d, uint32_t clip, reward_side *side) {
    *side = REWARD_SIDE_TRAINING;
    if (!ratings_clip_is_held_out(d->ratings, clip))
        return STATUS_OK;
    shard_clip strings;
    TRY(corpus_read_strings(d->clips, clip, &strings));
    *side = reward_caption_side(strings.caption);
    return STATUS_OK;
}

status reward_data_fold(const reward_data *d, uint32_t clip, int *fold) {
    shard_clip strings;
    TRY(corpus_read_strings(d->clips, clip, &strings));
    *fold = (int)(digest_text(strings.caption) / 10 % REWARD_FOLDS);
    return STATUS_OK;
}

status reward_set_create(reward_set *out, size_t capacity) {
    *out = (reward_set){.capacity = capacity, .slot_count = 8};
    while (out->slot_count < 4 * capacity)
        out->slot_count *= 2;
    status result;
    TRY_GOTO(result,
             memory_allocate((void **)&out->examples, sizeof(reward_example) * capacity, "rated examples"),
             failed);
    TRY_GOTO(result, memory_allocate((void **)&out->clips, sizeof(uint32_t) * 2 * capacity, "rated clips"),
             failed);
    TRY_GOTO(result, memory_allocate((void **)&out->slots, sizeof(uint32_t) * out->slot_count, "rated clips"),
             failed);
    return STATUS_OK;
failed:
    reward_set_destroy(out);
    return result;
}

void reward_set_destroy(reward_set *set) {
    memory_free(set->examples);
    memory_free(set->clips);
    memory_free(set->slots);
    *set = (reward_set){0};
}

void reward_set_clear(reward_set *set) {
    set->count = set->clip_count = 0;
    memset(set->slots, 0, sizeof(uint32_t) * set->slot_count);
}

// The clip's index in the list, where it is appended if it is new.
static int place(reward_set *set, uint32_t clip) {
    size_t slot = (size_t)(clip * UINT32_C(2654435761)) & (set->slot_count - 1);
    while (set->slots[slot] != 0) {
        if (set->clips[set->slots[slot] - 1] == clip)
            return (int)set->slots[slot] - 1;
        slot = (slot + 1) & (set->slot_count - 1);
    }
    set->clips[set->clip_count] = clip;
    set->slots[slot] = (uint32_t)++set->clip_count;
    return (int)set->clip_count - 1;
}

static status is_wanted(const reward_data *d, uint32_t clip, reward_side side, int member, bool *wanted) {
    reward_side found;
    TRY(reward_data_side(d, clip, &found));
    *wanted = found == side;
    if (*wanted && member >= 0 && side == REWARD_SIDE_TRAINING) {
        int fold;
        TRY(reward_data_fold(d, clip, &fold));
        *wanted = fold != member % REWARD_FOLDS;
    }
    return STATUS_OK;
}

// What a row says; `b` is `a` for a score.
typedef struct rated_row {
    uint32_t a, b;
    preference_vote vote;
    float target;
} rated_row;

// rows [count] from `first` on, at most BLOCK.
static status read_rows(reward_data *d, size_t first, size_t count, rated_row *rows) {
    if (d->plan.quality) {
        rating_score scores[BLOCK];
        TRY(ratings_read_scores(d->ratings, first, count, scores));
        for (size_t i = 0; i < count; i++)
            rows[i] = (rated_row){
                .a = scores[i].clip, .b = scores[i].clip, .target = ((float)scores[i].score - 1.0f) / 4.0f};
    } else {
        rating_pair pairs[BLOCK];
        TRY(ratings_read_pairs(d->ratings, first, count, pairs));
        for (size_t i = 0; i < count; i++)
            rows[i] = (rated_row){
                .a = pairs[i].clip_a, .b = pairs[i].clip_b, .vote = (preference_vote)pairs[i].vote};
    }
    return STATUS_OK;
}

static void append(reward_set *set, const rated_row *row) {
    reward_example *example = &set->examples[set->count++];
    *example = (reward_example){.vote = row->vote, .target = row->target};
    example->a = place(set, row->a);
    example->b = row->b == row->a ? example->a : place(set, row->b);
}

status reward_set_add_rows(reward_set *set, reward_data *d, size_t first, size_t count, reward_side side,
                           int member) {
    for (size_t i = 0; i < count && set->count < set->capacity; i++) {
        rated_row row;
        bool wanted;
        TRY(read_rows(d, first + i, 1, &row));
        TRY(is_wanted(d, row.a, side, member, &wanted));
        if (wanted)
            append(set, &row);
    }
    return STATUS_OK;
}

// Counts the rows of a side; with a set, also takes as many of these `total` rows as it has room for, evenly
// spread.
static status go_through(reward_data *d, reward_side side, reward_set *set, size_t total, size_t *found) {
    rated_row rows[BLOCK];
    *found = 0;
    for (size_t first = 0; first < d->rows; first += BLOCK) {
        const size_t count = d->rows - first < BLOCK ? d->rows - first : BLOCK;
        TRY(read_rows(d, first, count, rows));
        for (size_t i = 0; i < count; i++) {
            bool wanted;
            TRY(is_wanted(d, rows[i].a, side, -1, &wanted));
            if (!wanted)
                continue;
            const size_t at = (*found)++;
            if (set != NULL && (total <= set->capacity || (at + 1) * set->capacity / total > set->count))
                append(set, &rows[i]);
        }
    }
    return STATUS_OK;
}

status reward_set_fill(reward_set *set, reward_data *d, reward_side side) {
    size_t total, found;
    reward_set_clear(set);
    TRY(go_through(d, side, NULL, 0, &total));
    return go_through(d, side, set, total, &found);
}
