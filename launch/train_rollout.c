// The rollout role: captions to prefixes to sampled token frames, sent to whoever scores and learns them.
#include "launch/train_parts.h"

#include "kernels/memory.h"

#include <string.h>

enum { CAPTION_BYTES = 1024, EVALUATION_SEED = 0x6576616c };

status train_rollout_create(train *t) {
    rollout_role *r = &t->rollout;
    const run_config *config = t->config;
    const size_t prefix = (size_t)t->shape.temporal.prefix, frames = (size_t)config->train.frames;
    const size_t levels = (size_t)t->shape.temporal.levels;
    const int member = train_member(t, ROLE_ROLLOUT);
    if (member < 0)
        return STATUS_OK;
    r->active = true;
    r->samples = roles_samples(&t->layout, ROLE_ROLLOUT, member);
    r->packed_version = -1;
    const size_t samples = r->samples.count;
    TRY(clip_order_create(&r->training, t->corpus, false, (uint64_t)config->seed + 1, config->data.tokens));
    TRY(policy_create(&r->policy, t->device, &t->shape, WEIGHT_SAMPLE,
                      config->train.rollout_precision == RUN_PRECISION_BF16 ? WEIGHT_BF16 : WEIGHT_F32));
    TRY(policy_sampler_create(&r->sampler, r->policy, (int)samples, config->train.frames));
    TRY(memory_allocate((void **)&r->prefix, sizeof(uint16_t) * (samples * prefix + 1), "rollout prefixes"));
    TRY(memory_allocate((void **)&r->tokens, sizeof(uint16_t) * samples * frames * levels, "rollout tokens"));
    TRY(memory_allocate((void **)&r->log_probabilities, sizeof(float) * samples * frames * levels,
                        "rollout log-probabilities"));
    TRY(memory_allocate((void **)&r->text, sizeof(float) * samples * (size_t)t->embedding_width,
                        "caption embeddings"));
    TRY(memory_allocate((void **)&r->indices, sizeof(uint32_t) * samples, "sample indices"));
    TRY(memory_allocate((void **)&r->caption_indices, sizeof(uint32_t) * samples, "caption indices"));
    r->captions_capacity = samples * CAPTION_BYTES;
    TRY(memory_allocate((void **)&r->captions, r->captions_capacity, "captions"));
    return memory_allocate((void **)&r->caption_list, sizeof(char *) * samples, "caption list");
}

void train_rollout_destroy(train *t) {
    rollout_role *r = &t->rollout;
    policy_sampler_destroy(r->sampler);
    policy_destroy(r->policy);
    clip_order_destroy(r->training);
    memory_free(r->prefix);
    memory_free(r->tokens);
    memory_free(r->log_probabilities);
    memory_free(r->text);
    memory_free(r->indices);
    memory_free(r->caption_indices);
    memory_free(r->captions);
    memory_free(r->caption_list);
}

status train_rollout_set_weights(train *t, int64_t version, const float *values) {
    rollout_role *r = &t->rollout;
    TRY(device_upload(t->device, policy_values(r->policy), values, sizeof(float) * t->parameters));
    r->packed_version = version;
    return policy_pack(r->policy);
}

status train_rollout_take_weights(train *t, int64_t version) {
    rollout_role *r = &t->rollout;
    if (r->packed_version == version)
        return STATUS_OK;
    if (t->learner.active) {
        policy *own = learner_policy(t->learner.learner);
        parameter_list_copy(t->device, policy_parameters(own), policy_values(own), policy_values(r->policy));
        r->packed_version = version;
    } else if (t->is_worker) {
        TRY(exchange_take_weights(t->exchange, t->device, version, policy_values(r->policy)));
        r->packed_version = version;
    }
    while (r->packed_version < version) {
        TRY(weights_receive(t->channel, (uint64_t)r->packed_version + 1, policy_values(r->policy)));
        r->packed_version++;
    }
    return policy_pack(r->policy);
}

// The corpus clip whose caption sample `sample` of a round gets.
static size_t caption_of(train *t, const sampling_round *round, uint32_t sample) {
    rollout_role *r = &t->rollout;
    const uint64_t batch = (uint64_t)t->config->train.batch, group = (uint64_t)t->config->train.group;
    switch (round->kind) {
    case ROUND_EVALUATE:
        return clip_order_plain(t->held_out,
                                ((uint64_t)round->chunk * batch + sample) % clip_order_captions(t->held_out));
    case ROUND_WHITEN: // from the far end of the sequence, so that training starts with other captions
        return clip_order_at(r->training, (UINT64_C(1) << 40) + (uint64_t)round->chunk * batch + sample);
    default:
        return clip_order_at(r->training, ((uint64_t)round->step * batch + sample) / group);
    }
}

static status read_captions(train *t, const sampling_round *round, size_t *used) {
    rollout_role *r = &t->rollout;
    *used = 0;
    for (uint32_t i = 0; i < r->samples.count; i++) {
        const size_t clip = caption_of(t, round, r->samples.first + i);
        shard_clip strings;
        TRY(corpus_read_strings(t->corpus, clip, &strings));
        size_t length = strlen(strings.caption);
        length = length < CAPTION_BYTES - 1 ? length : CAPTION_BYTES - 1;
        while ((strings.caption[length] & 0xc0) == 0x80) // a whole character of UTF-8 or none
            length--;
        r->caption_list[i] = r->captions + *used;
        memcpy(r->captions + *used, strings.caption, length);
        r->captions[*used + length] = '\0';
        *used += length + 1;
        r->caption_indices[i] = (uint32_t)clip;
    }
    return STATUS_OK;
}

static status send_part(exchange *exchange, const exchange_link *link, const rollout_batch *batch) {
    const sample_range samples = link->route.samples;
    const rollout_batch part = rollout_batch_slice(batch, samples.first - batch->first_sample, samples.count);
    void *buffer;
    size_t capacity, bytes;
    TRY(exchange_compose(exchange, link, &buffer, &capacity));
    status result = rollout_batch_build(&part, buffer, capacity, &bytes);
    if (result != STATUS_OK) {
        exchange_release(exchange, link, buffer);
        return result;
    }
    return exchange_send(exchange, link, buffer, bytes);
}

status train_rollout_round(train *t, const sampling_round *round) {
    rollout_role *r = &t->rollout;
    const run_config *config = t->config;
    const size_t samples = r->samples.count;
    const double start = stage_seconds();
    size_t caption_bytes;
    watch_enter(t->watch, WATCH_SYNC, t->step);
    TRY(train_rollout_take_weights(t, round->version));
    watch_enter(t->watch, WATCH_ROLLOUT, t->step);
    TRY(read_captions(t, round, &caption_bytes));
    TRY(conditioner_text(t->conditioner, r->caption_list, samples, r->text));
    for (size_t i = 0; i < samples; i++) {
        conditioner_prefix(t->conditioner, r->text + i * (size_t)t->embedding_width,
                           r->prefix + i * (size_t)t->shape.temporal.prefix);
        r->indices[i] = (uint32_t)((uint64_t)round->chunk * (uint64_t)config->train.batch) +
                        r->samples.first + (uint32_t)i;
    }
    const bool trains = round->kind == ROUND_TRAIN;
    const rollout_request request = {.batch = (int)samples,
                                     .frames = config->train.frames,
                                     .prefix = r->prefix,
                                     .samples = r->indices,
                                     .seed = (uint64_t)config->seed +
                                             (trains ? 0 : EVALUATION_SEED + (uint64_t)round->kind),
                                     .step = trains ? (uint32_t)round->step : 0,
                                     .terms = {.temperature = (float)config->train.temperature}};
    TRY(policy_sample(r->policy, r->sampler, &request, r->tokens, r->log_probabilities));
    const rollout_batch batch = {.step = (uint64_t)round->step,
                                 .weight_version = (uint64_t)round->version,
                                 .seed = request.seed,
                                 .seconds = stage_seconds() - start,
                                 .first_sample = r->samples.first,
                                 .samples = (uint32_t)samples,
                                 .frames = (uint32_t)config->train.frames,
                                 .levels = (uint32_t)t->shape.temporal.levels,
                                 .prefix_tokens = (uint32_t)t->shape.temporal.prefix,
                                 .tokens = r->tokens,
                                 .log_probabilities = r->log_probabilities,
                                 .prefix = t->shape.temporal.prefix > 0 ? r->prefix : NULL,
                                 .caption_indices = r->caption_indices,
                                 .captions = r->captions,
                                 .caption_bytes = caption_bytes};
    const int member = train_member(t, ROLE_ROLLOUT);
    for (int to = ROLE_REWARD; to <= ROLE_LEARNER; to++) {
        const int routes =
            roles_routes(&t->layout, ROLE_ROLLOUT, member, (role)to, t->routes, t->route_capacity);
        for (int i = 0; i < routes; i++) {
            const exchange_link link = {round, ROLE_ROLLOUT, (role)to, t->routes[i]};
            TRY(send_part(t->exchange, &link, &batch));
        }
    }
    return STATUS_OK;
}
