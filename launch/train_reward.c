// The reward role: rollouts to scores, sent to whoever learns from them.
#include "launch/train_parts.h"

#include "data/publish.h"
#include "kernels/memory.h"

#include <stdio.h>
#include <string.h>

status train_reward_create(train *t) {
    reward_role *r = &t->reward;
    const int member = roles_member(&t->layout, ROLE_REWARD, world_rank(t->world));
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
    return memory_allocate((void **)&r->captions, sizeof(char *) * samples, "caption list");
}

void train_reward_destroy(train *t) {
    memory_free(t->reward.scores);
    memory_free(t->reward.text);
    memory_free(t->reward.music);
    memory_free(t->reward.captions);
}

// Scores a part of the samples: every reward of the run, then the music embedding, into scores [S, reward
// width].
static status score(train *t, const rollout_batch *batch, float *scores) {
    reward_role *r = &t->reward;
    const size_t width = (size_t)t->embedding_width, rewards = (size_t)t->config->train.rewards.count;
    for (uint32_t i = 0; i < batch->samples; i++)
        r->captions[i] = rollout_batch_caption(batch, i);
    TRY(conditioner_text(t->conditioner, r->captions, batch->samples, r->text));
    TRY(conditioner_music(t->conditioner, batch->tokens, batch->samples, (int)batch->frames,
                          (int)batch->levels, r->music));
    for (uint32_t i = 0; i < batch->samples; i++) {
        float *row = scores + i * (size_t)t->reward_width;
        float cosine = 0.0f;
        for (size_t d = 0; d < width; d++)
            cosine += r->text[i * width + d] * r->music[i * width + d];
        for (size_t j = 0; j < rewards; j++)
            row[j] = cosine; // text_adherence is the one reward that a run file can name
        memcpy(row + rewards, r->music + i * width, sizeof(float) * width);
    }
    return STATUS_OK;
}

static status send_scores(train *t, const sampling_round *round, double seconds, sample_range samples,
                          int rank) {
    const reward_role *r = &t->reward;
    const reward_batch batch = {.step = (uint64_t)round->step,
                                .seconds = seconds,
                                .first_sample = samples.first,
                                .samples = samples.count,
                                .reward_count = (uint32_t)t->reward_width,
                                .rewards = r->scores + (size_t)(samples.first - r->samples.first) *
                                                           (size_t)t->reward_width};
    void *buffer;
    size_t capacity, bytes;
    TRY(mailbox_compose(train_mailbox(t, round), &buffer, &capacity));
    status result = reward_batch_build(&batch, buffer, capacity, &bytes);
    if (result != STATUS_OK) {
        mailbox_release(train_mailbox(t, round), buffer);
        return result;
    }
    return mailbox_send(train_mailbox(t, round), buffer, bytes, rank);
}

// Whether the rollouts of this round are kept, under rollouts/ of the run folder.
static bool keeps_rollouts(const train *t, const sampling_round *round) {
    const int every = t->config->train.save_rollouts_every;
    return round_trains(round) && every > 0 && (round->step + 1) % every == 0;
}

// A shard for the samples that this rank scores: tokens, captions, and the scores among the attributes.
static status open_rollouts(const train *t, const sampling_round *round, shard_writer **out) {
    const int member = roles_member(&t->layout, ROLE_REWARD, world_rank(t->world));
    char folder[RUN_CONFIG_PATH_MAX + 16], prefix[64];
    shard_format format = t->format;
    format.frames = (uint32_t)t->config->train.frames;
    format.levels = (uint32_t)t->shape.temporal.levels;
    format.clip_samples = (uint32_t)(format.frames * (double)format.sample_rate / format.frame_rate);
    snprintf(folder, sizeof folder, "%s/rollouts", t->config->folder);
    snprintf(prefix, sizeof prefix, "step-%06lld-part-%04d", (long long)round->step + 1, member);
    TRY(publish_make_folder(folder));
    return shard_writer_create(out, folder, prefix, &format, t->reward.samples.count, 1);
}

static status keep_rollouts(const train *t, const rollout_batch *batch, const float *scores,
                            shard_writer *shards) {
    for (uint32_t i = 0; i < batch->samples; i++) {
        char id[64], attributes[256];
        snprintf(id, sizeof id, "step-%06llu-sample-%05u", (unsigned long long)batch->step + 1,
                 batch->first_sample + i);
        snprintf(attributes, sizeof attributes,
                 "{\"step\": %llu, \"sample\": %u, \"weight_version\": %llu, \"text_adherence\": %.9g}",
                 (unsigned long long)batch->step + 1, batch->first_sample + i,
                 (unsigned long long)batch->weight_version,
                 (double)scores[(size_t)i * (size_t)t->reward_width]);
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
    const int member = roles_member(&t->layout, ROLE_REWARD, world_rank(t->world));
    double seconds = 0.0;
    shard_writer *shards = NULL;
    if (keeps_rollouts(t, round))
        TRY(open_rollouts(t, round, &shards));
    int routes = roles_routes(&t->layout, ROLE_REWARD, member, ROLE_ROLLOUT, t->routes, t->layout.ranks);
    status result = STATUS_OK;
    for (int i = 0; i < routes && result == STATUS_OK; i++) {
        const void *message;
        size_t bytes;
        rollout_batch batch;
        TRY_GOTO(result,
                 mailbox_receive(train_mailbox(t, round), t->routes[i].rank, MESSAGE_ROLLOUT_BATCH, "reward",
                                 &message, &bytes),
                 failed);
        TRY_GOTO(result, rollout_batch_parse(&batch, message, bytes), failed);
        TRY_GOTO(result, train_check_batch(t, round, &batch, t->routes[i].samples), failed);
        const double start = stage_seconds();
        float *scores = r->scores + (size_t)(batch.first_sample - r->samples.first) * (size_t)t->reward_width;
        TRY_GOTO(result, score(t, &batch, scores), failed);
        seconds += stage_seconds() - start;
        if (shards != NULL)
            TRY_GOTO(result, keep_rollouts(t, &batch, scores, shards), failed);
        mailbox_release(train_mailbox(t, round), message);
    }
    if (shards != NULL)
        TRY(shard_writer_finish(shards));
    routes = roles_routes(&t->layout, ROLE_REWARD, member, ROLE_LEARNER, t->routes, t->layout.ranks);
    for (int i = 0; i < routes; i++)
        TRY(send_scores(t, round, seconds, t->routes[i].samples, t->routes[i].rank));
    return STATUS_OK;
failed:
    shard_writer_abort(shards);
    return result;
}
