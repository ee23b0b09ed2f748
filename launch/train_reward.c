// The reward role: rollouts to scores, sent to whoever learns from them.
#include "launch/train_parts.h"

#include "core/sound_check.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/codec_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCORER_BATCH = 32 }; // rollouts that go through a reward model at once

// Whether a sample of a batch is decoded: train.alarm_clips of them, evenly spread.
static bool listens_to(const train *t, uint32_t sample) {
    const uint32_t batch = (uint32_t)t->config->train.batch, wanted = (uint32_t)t->config->train.alarm_clips;
    const uint32_t clips = wanted < batch ? wanted : batch;
    return clips > 0 && sample % (batch / clips) == 0 && sample / (batch / clips) < clips;
}

// The codec and the room for those samples of this rank that are listened to.
static status create_listening(train *t) {
    reward_role *r = &t->reward;
    const run_config *config = t->config;
    // A worker makes every member's samples in turn.
    const int members = t->layout.members[ROLE_REWARD].count,
              first = t->is_worker ? 0 : train_member(t, ROLE_REWARD);
    for (int member = first; member < (t->is_worker ? members : first + 1); member++) {
        const sample_range samples = roles_samples(&t->layout, ROLE_REWARD, member);
        size_t listened = 0;
        for (uint32_t i = 0; i < samples.count; i++)
            listened += listens_to(t, samples.first + i);
        r->listened = listened > r->listened ? listened : r->listened;
    }
    if (r->listened == 0)
        return STATUS_OK;
    TRY(run_config_require_path(config, "data.codec", NULL));
    TRY(codec_load(&r->codec, config->data.codec));
    char identity[DIGEST_HEX];
    TRY(codec_identify(r->codec, identity));
    if (strcmp(identity, t->format.codec) != 0)
        return FAIL(
            "the tokens in %s are of codec %s, data.codec %s is %s; give the codec that encoded them, "
            "or train.alarm_clips=0",
            config->data.tokens, t->format.codec, config->data.codec, identity);
    const codec_description *codec = codec_describe(r->codec);
    const size_t frames = (size_t)config->train.frames;
    r->decoder_bytes = (codec_decode_scratch_bytes(r->codec, frames) + 63) / 64 * 64;
    TRY(memory_allocate((void **)&r->full_tokens, sizeof(uint16_t) * r->listened * frames * codec->levels,
                        "tokens to decode"));
    TRY(memory_allocate((void **)&r->audio, sizeof(float) * r->listened * frames * codec->frame_samples,
                        "decoded rollouts"));
    return memory_allocate((void **)&r->decoder_scratch, r->decoder_bytes * r->listened,
                           "codec decoder scratch");
}

status train_reward_create(train *t) {
    reward_role *r = &t->reward;
    const run_config *config = t->config;
    const int member = train_member(t, ROLE_REWARD);
    if (member < 0)
        return STATUS_OK;
    r->active = true;
    r->samples = roles_samples(&t->layout, ROLE_REWARD, member);
    const size_t samples = r->samples.count;
    TRY(memory_allocate((void **)&r->scores, sizeof(float) * samples * (size_t)t->reward_width, "scores"));
    TRY(memory_allocate((void **)&r->text, sizeof(float) * samples * (size_t)t->embedding_width,
                        "caption embeddings"));
    TRY(memory_allocate((void **)&r->music, sizeof(float) * samples * (size_t)t->embedding_width,
                        "music embeddings"));
    TRY(memory_allocate((void **)&r->column, sizeof(float) * samples, "scores of a reward"));
    TRY(memory_allocate((void **)&r->spread, sizeof(float) * samples, "disagreement of a reward"));
    TRY(memory_allocate((void **)&r->captions, sizeof(char *) * samples, "caption list"));
    for (int j = 0; j < config->train.rewards.count; j++)
        TRY(scorer_create(&r->scorers[j], t->device, config, t->conditioner,
                          config->train.rewards.entries[j].name,
                          (int)(samples < SCORER_BATCH ? samples : SCORER_BATCH), config->train.frames));
    return create_listening(t);
}

void train_reward_destroy(train *t) {
    reward_role *r = &t->reward;
    for (int j = 0; j < REWARDS_MAX; j++)
        scorer_destroy(r->scorers[j]);
    codec_destroy(r->codec);
    memory_free(r->full_tokens);
    memory_free(r->audio);
    memory_free(r->decoder_scratch);
    memory_free(r->scores);
    memory_free(r->text);
    memory_free(r->music);
    memory_free(r->column);
    memory_free(r->spread);
    memory_free(r->captions);
}

// Samples first .. first + count of a part by one reward, into column and spread.
static status score_part(train *t, const rollout_batch *batch, int reward, uint32_t first, uint32_t count) {
    const reward_role *r = &t->reward;
    const size_t width = (size_t)t->embedding_width;
    return scorer_score(r->scorers[reward], r->text + first * width, r->music + first * width,
                        batch->prefix + (size_t)first * batch->prefix_tokens,
                        batch->tokens + (size_t)first * batch->frames * batch->levels, count,
                        r->column + first, r->spread + first);
}

// A part by one reward. Where the run file asks for it, a score that cannot be had becomes NaN, which the
// learner counts and leaves out; as no score depends on the others, one sample at a time shows which it is.
static status score_reward(train *t, const rollout_batch *batch, int reward) {
    reward_role *r = &t->reward;
    status result = score_part(t, batch, reward, 0, batch->samples);
    if (result == STATUS_OK)
        return STATUS_OK;
    if (t->config->train.bad_scores == RUN_BAD_SCORES_FAIL)
        return status_prefix(result, "step %llu, samples %u to %u: ", (unsigned long long)batch->step,
                             batch->first_sample, batch->first_sample + batch->samples - 1);
    for (uint32_t i = 0; i < batch->samples; i++)
        if (score_part(t, batch, reward, i, 1) != STATUS_OK)
            r->column[i] = r->spread[i] = NAN;
    return STATUS_OK;
}

static status decode(const train *t, const uint16_t *tokens, size_t slot, float *loudest) {
    const reward_role *r = &t->reward;
    const codec_description *codec = codec_describe(r->codec);
    const size_t frames = (size_t)t->config->train.frames, levels = (size_t)t->shape.temporal.levels;
    uint16_t *full = r->full_tokens + slot * frames * codec->levels;
    for (size_t f = 0; f < frames; f++)
        memcpy(full + f * codec->levels, tokens + f * levels, sizeof(uint16_t) * levels);
    return codec_decode_into(r->codec, full, frames, (uint32_t)levels, CODEC_ITERATIONS_MEASURE,
                             r->audio + slot * frames * codec->frame_samples, loudest,
                             r->decoder_scratch + slot * r->decoder_bytes);
}

// Decodes some of a part's samples and notes what one would complain of.
static status listen_to(train *t, const rollout_batch *batch, float *scores) {
    const reward_role *r = &t->reward;
    const size_t clip = (size_t)batch->frames * batch->levels;
    int64_t failed = -1;
#pragma omp parallel for schedule(dynamic) num_threads(world_threads(t->world))
    for (int64_t i = 0; i < (int64_t)batch->samples; i++) {
        const uint32_t sample = batch->first_sample + (uint32_t)i;
        if (!listens_to(t, sample))
            continue;
        size_t slot = 0;
        for (uint32_t before = r->samples.first; before < sample; before++)
            slot += listens_to(t, before);
        const codec_description *codec = codec_describe(r->codec);
        float loudest;
        if (decode(t, batch->tokens + (size_t)i * clip, slot, &loudest) != STATUS_OK) {
#pragma omp critical
            failed = i;
            continue;
        }
        const size_t samples = (size_t)batch->frames * codec->frame_samples;
        const sound_check check =
            sound_check_clip(r->audio + slot * samples, samples, loudest, codec->sample_rate,
                             batch->tokens + (size_t)i * clip, batch->frames, batch->levels);
        float *row = scores + (size_t)i * (size_t)t->reward_width;
        row[train_score_column(t, SCORE_LISTENED)] = 1.0f;
        row[train_score_column(t, SCORE_SILENT)] = (float)check.silent;
        row[train_score_column(t, SCORE_CLIPPED)] = (float)check.clipped;
    }
    return failed < 0 ? STATUS_OK
                      : decode(t, batch->tokens + (size_t)failed * clip, 0, NULL); // for the message
}

// Scores a part of the samples into scores [S, score width].
static status score(train *t, const rollout_batch *batch, float *scores) {
    reward_role *r = &t->reward;
    const size_t width = (size_t)t->embedding_width;
    const int rewards = t->config->train.rewards.count;
    for (uint32_t i = 0; i < batch->samples; i++)
        r->captions[i] = rollout_batch_caption(batch, i);
    TRY(conditioner_text(t->conditioner, r->captions, batch->samples, r->text));
    TRY(conditioner_music(t->conditioner, batch->tokens, batch->samples, (int)batch->frames,
                          (int)batch->levels, r->music));
    for (int j = 0; j < rewards; j++) {
        TRY(score_reward(t, batch, j));
        for (uint32_t i = 0; i < batch->samples; i++) {
            scores[i * (size_t)t->reward_width + (size_t)j] = r->column[i];
            scores[i * (size_t)t->reward_width + (size_t)(rewards + j)] = r->spread[i];
        }
    }
    for (uint32_t i = 0; i < batch->samples; i++) {
        float *row = scores + i * (size_t)t->reward_width, cosine = 0.0f;
        for (size_t d = 0; d < width; d++)
            cosine += r->text[i * width + d] * r->music[i * width + d];
        memset(row + 2 * rewards, 0, sizeof(float) * SCORE_COLUMNS);
        row[train_score_column(t, SCORE_ADHERENCE)] = cosine;
        row[train_score_column(t, SCORE_LOOP)] =
            (float)sound_check_is_stuck(batch->tokens + (size_t)i * batch->frames * batch->levels,
                                        batch->frames, batch->levels, t->format.frame_rate);
        memcpy(row + train_embedding_column(t), r->music + i * width, sizeof(float) * width);
    }
    return r->codec != NULL ? listen_to(t, batch, scores) : STATUS_OK;
}

static status send_scores(train *t, const exchange_link *link, double seconds) {
    const reward_role *r = &t->reward;
    const sample_range samples = link->route.samples;
    const reward_batch batch = {.step = (uint64_t)link->round->step,
                                .seconds = seconds,
                                .first_sample = samples.first,
                                .samples = samples.count,
                                .reward_count = (uint32_t)t->reward_width,
                                .rewards = r->scores + (size_t)(samples.first - r->samples.first) *
                                                           (size_t)t->reward_width};
    void *buffer;
    size_t capacity, bytes;
    TRY(exchange_compose(t->exchange, link, &buffer, &capacity));
    status result = reward_batch_build(&batch, buffer, capacity, &bytes);
    if (result != STATUS_OK) {
        exchange_release(t->exchange, link, buffer);
        return result;
    }
    return exchange_send(t->exchange, link, buffer, bytes);
}

// Whether the rollouts of this round are kept, under rollouts/ of the run folder.
static bool keeps_rollouts(const train *t, const sampling_round *round) {
    const int every = t->config->train.save_rollouts_every;
    return round_trains(round) && every > 0 && (round->step + 1) % every == 0;
}

// A shard for the samples that this rank scores: tokens, captions, and the scores among the attributes.
static status open_rollouts(const train *t, const sampling_round *round, shard_writer **out) {
    char folder[RUN_CONFIG_PATH_MAX + 16], prefix[64];
    shard_format format = t->format;
    format.frames = (uint32_t)t->config->train.frames;
    format.levels = (uint32_t)t->shape.temporal.levels;
    format.clip_samples = (uint32_t)(format.frames * (double)format.sample_rate / format.frame_rate);
    snprintf(folder, sizeof folder, "%s/rollouts", t->config->folder);
    snprintf(prefix, sizeof prefix, "step-%06lld-part-%04d", (long long)round->step + 1,
             train_member(t, ROLE_REWARD));
    TRY(publish_make_folder(folder));
    return shard_writer_create(out, folder, prefix, &format, t->reward.samples.count, 1);
}

static status keep_rollouts(const train *t, const rollout_batch *batch, const float *scores,
                            shard_writer *shards) {
    for (uint32_t i = 0; i < batch->samples; i++) {
        char id[64], attributes[128 + REWARDS_MAX * 64];
        snprintf(id, sizeof id, "step-%06llu-sample-%05u", (unsigned long long)batch->step + 1,
                 batch->first_sample + i);
        size_t used = (size_t)snprintf(attributes, sizeof attributes,
                                       "{\"step\": %llu, \"sample\": %u, \"weight_version\": %llu",
                                       (unsigned long long)batch->step + 1, batch->first_sample + i,
                                       (unsigned long long)batch->weight_version);
        for (int j = 0; j < t->config->train.rewards.count; j++) {
            const float value = scores[(size_t)i * (size_t)t->reward_width + (size_t)j];
            if (isfinite(value))
                used += (size_t)snprintf(attributes + used, sizeof attributes - used, ", \"%s\": %.9g",
                                         t->config->train.rewards.entries[j].name, (double)value);
        }
        snprintf(attributes + used, sizeof attributes - used, "}");
        const shard_clip clip = {.id = id,
                                 .caption = rollout_batch_caption(batch, i),
                                 .attributes = attributes,
                                 .source = "rollout",
                                 .tokens = batch->tokens + (size_t)i * batch->frames * batch->levels};
        TRY(shard_writer_add(shards, &clip));
    }
    return STATUS_OK;
}

status train_reward_round(train *t, const sampling_round *round) {
    reward_role *r = &t->reward;
    const int member = train_member(t, ROLE_REWARD);
    double seconds = 0.0;
    shard_writer *shards = NULL;
    watch_enter(t->watch, WATCH_REWARD, t->step);
    if (keeps_rollouts(t, round))
        TRY(open_rollouts(t, round, &shards));
    int routes = roles_routes(&t->layout, ROLE_REWARD, member, ROLE_ROLLOUT, t->routes, t->route_capacity);
    status result = STATUS_OK;
    for (int i = 0; i < routes && result == STATUS_OK; i++) {
        const void *message;
        size_t bytes;
        rollout_batch batch;
        const exchange_link link = {round, ROLE_ROLLOUT, ROLE_REWARD, t->routes[i]};
        TRY_GOTO(result, exchange_receive(t->exchange, &link, "reward", &message, &bytes), failed);
        TRY_GOTO(result, exchange_blame(t->exchange, &link, rollout_batch_parse(&batch, message, bytes)),
                 failed);
        TRY_GOTO(result, train_check_batch(t, round, &batch, t->routes[i].samples), failed);
        const double start = stage_seconds();
        float *scores = r->scores + (size_t)(batch.first_sample - r->samples.first) * (size_t)t->reward_width;
        TRY_GOTO(result, score(t, &batch, scores), failed);
        seconds += stage_seconds() - start;
        if (shards != NULL)
            TRY_GOTO(result, keep_rollouts(t, &batch, scores, shards), failed);
        exchange_release(t->exchange, &link, message);
    }
    if (shards != NULL)
        TRY(shard_writer_finish(shards));
    routes = roles_routes(&t->layout, ROLE_REWARD, member, ROLE_LEARNER, t->routes, t->route_capacity);
    for (int i = 0; i < routes; i++) {
        const exchange_link link = {round, ROLE_REWARD, ROLE_LEARNER, t->routes[i]};
        TRY(send_scores(t, &link, seconds));
    }
    return STATUS_OK;
failed:
    shard_writer_abort(shards);
    return result;
}
