// The reward role: rollouts to scores, sent to whoever learns from them.
#include "launch/train_parts.h"

#include "kernels/memory.h"

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

status train_reward_round(train *t, const sampling_round *round) {
    reward_role *r = &t->reward;
    const int member = roles_member(&t->layout, ROLE_REWARD, world_rank(t->world));
    double seconds = 0.0;
    int routes = roles_routes(&t->layout, ROLE_REWARD, member, ROLE_ROLLOUT, t->routes, t->layout.ranks);
    for (int i = 0; i < routes; i++) {
        const void *message;
        size_t bytes;
        rollout_batch batch;
        TRY(mailbox_receive(train_mailbox(t, round), t->routes[i].rank, MESSAGE_ROLLOUT_BATCH, "reward",
                            &message, &bytes));
        TRY(rollout_batch_parse(&batch, message, bytes));
        TRY(train_check_batch(t, round, &batch, t->routes[i].samples));
        const double start = stage_seconds();
        TRY(score(t, &batch,
                  r->scores + (size_t)(batch.first_sample - r->samples.first) * (size_t)t->reward_width));
        seconds += stage_seconds() - start;
        mailbox_release(train_mailbox(t, round), message);
    }
    routes = roles_routes(&t->layout, ROLE_REWARD, member, ROLE_LEARNER, t->routes, t->layout.ranks);
    for (int i = 0; i < routes; i++)
        TRY(send_scores(t, round, seconds, t->routes[i].samples, t->routes[i].rank));
    return STATUS_OK;
}
