#include "launch/pretrain.h"

#include "comm/gradient_sum.h"
#include "data/digest.h"
#include "data/json_file.h"
#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "kernels/philox.h"
#include "launch/conditioner.h"
#include "launch/device_choice.h"
#include "launch/plan.h"
#include "launch/progress.h"
#include "launch/run_folder.h"
#include "launch/settings_record.h"
#include "launch/stage.h"
#include "launch/watch.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PURPOSE_CROP = 0x43524f50, CONDITIONER_BATCH = 64 };

typedef struct pretrain {
    const run_config *config;
    world *world;
    group *group;
    device_group *devices;
    device *device;
    corpus *corpus;
    clip_order *training, *held_out;
    uint16_t *prefixes; // [clips of the corpus, prefix] of the music
    policy_config shape;
    policy *policy;
    policy_pass *pass;
    optimizer *optimizer;
    gradient_sum *gradients;
    int slot_batch, frames, levels;
    int first_slot, slots;                           // of this rank
    float *losses, *host_losses;                     // [batch of a slot * frames] on the device and the host
    uint16_t *batch_prefix, *batch_tokens, *scratch; // of one slot; one clip
    double *sums;                                    // [rows of statistics, levels]; see share_sums
    size_t sums_rows;
    double unigram[LEVELS_MAX];
    run_folder run;
    saver *saver; // on the rank that writes
    watch *watch;
    int64_t step;
    double save_seconds; // that a checkpoint since the last line of metrics held up the loop
    int64_t skipped_updates;
    plan plan; // of this rank's memory
} pretrain;

// Rows that other ranks filled arrive as sums with zeros, which is exact, so that every rank can add all rows
// in one order.
static status share_sums(pretrain *p, size_t rows, double *totals) {
    TRY(group_all_reduce_tree_double(p->group, p->sums, rows * (size_t)p->levels));
    for (int level = 0; level < p->levels; level++) {
        totals[level] = 0.0;
        for (size_t row = 0; row < rows; row++)
            totals[level] += p->sums[row * (size_t)p->levels + (size_t)level];
    }
    return STATUS_OK;
}

// Prefix tokens of every clip from its own music; each rank works out a contiguous share.
static status make_prefixes(pretrain *p) {
    const shard_format *format = corpus_get_format(p->corpus);
    const size_t clips = corpus_clip_count(p->corpus), ranks = (size_t)group_size(p->group);
    const size_t share = (clips + ranks - 1) / ranks, prefix = (size_t)p->config->model.prefix;
    const size_t first = share * (size_t)group_index(p->group);
    TRY(memory_allocate((void **)&p->prefixes, sizeof(uint16_t) * (share * ranks * prefix + 1), "prefixes"));
    if (prefix == 0)
        return STATUS_OK;
    conditioner *c = NULL;
    uint16_t *tokens = NULL, *own = NULL;
    float *vectors = NULL;
    const size_t levels = (size_t)p->levels, frames = format->frames;
    status result;
    TRY_GOTO(result, conditioner_load(&c, p->device, p->config->data.embedding, CONDITIONER_BATCH), done);
    TRY_GOTO(result, conditioner_check_format(c, format), done);
    if (c->prefix != p->config->model.prefix || c->prefix_codebook != p->config->model.prefix_codebook) {
        result =
            FAIL("the embedding in %s has a prefix of %d x %d, the run file wants %d x %d; train it again or "
                 "change model.prefix",
                 p->config->data.embedding, c->prefix, c->prefix_codebook, p->config->model.prefix,
                 p->config->model.prefix_codebook);
        goto done;
    }
    if (embedding_get_config(c->embedding)->music.positions > p->config->train.frames) {
        result =
            FAIL("train.frames is %d, but the joint embedding in %s hears segments of %d frames, by which "
                 "samples are measured at the end; raise it or train an embedding with fewer "
                 "embedding.frames",
                 p->config->train.frames, p->config->data.embedding,
                 embedding_get_config(c->embedding)->music.positions);
        goto done;
    }
    const size_t output = (size_t)embedding_get_config(c->embedding)->output;
    TRY_GOTO(result, memory_allocate((void **)&own, sizeof(uint16_t) * share * prefix, "prefixes"), done);
    TRY_GOTO(result,
             memory_allocate((void **)&tokens, sizeof(uint16_t) * CONDITIONER_BATCH * frames * levels,
                             "token clips"),
             done);
    TRY_GOTO(result,
             memory_allocate((void **)&vectors, sizeof(float) * CONDITIONER_BATCH * output, "embeddings"),
             done);
    const size_t last = first + share < clips ? first + share : clips;
    for (size_t at = first; at < last; at += CONDITIONER_BATCH) {
        const size_t size = last - at < CONDITIONER_BATCH ? last - at : CONDITIONER_BATCH;
        for (size_t i = 0; i < size; i++)
            TRY_GOTO(result,
                     stage_read_tokens(p->corpus, at + i, 0, (int)frames, p->levels, p->scratch,
                                       tokens + i * frames * levels),
                     done);
        TRY_GOTO(result, conditioner_music(c, tokens, size, (int)frames, p->levels, vectors), done);
        for (size_t i = 0; i < size; i++)
            conditioner_prefix(c, vectors + i * output, own + (at + i - first) * prefix);
    }
    TRY_GOTO(result, group_all_gather(p->group, own, sizeof(uint16_t) * share * prefix, p->prefixes), done);
done:
    conditioner_destroy(c);
    memory_free(tokens);
    memory_free(own);
    memory_free(vectors);
    return result;
}

// Entropy of each level's token frequencies over the training side: what a model without context can reach.
static status measure_unigram(pretrain *p) {
    const shard_format *format = corpus_get_format(p->corpus);
    uint64_t *counts;
    TRY(memory_allocate((void **)&counts, sizeof *counts * 65536 * (size_t)p->levels, "token counts"));
    status result = STATUS_OK;
    uint64_t total = 0;
    for (size_t i = 0; i < clip_order_count(p->training) && result == STATUS_OK; i++) {
        result = corpus_read_tokens(p->corpus, clip_order_plain(p->training, i), p->scratch);
        for (uint32_t frame = 0; frame < format->frames; frame++)
            for (int level = 0; level < p->levels; level++)
                counts[(size_t)level * 65536 + p->scratch[frame * format->levels + (uint32_t)level]]++;
        total += format->frames;
    }
    for (int level = 0; level < p->levels; level++) {
        p->unigram[level] = 0.0;
        for (size_t code = 0; code < 65536; code++) {
            const double share = (double)counts[(size_t)level * 65536 + code] / (double)total;
            if (share > 0.0)
                p->unigram[level] -= share * log(share);
        }
    }
    memory_free(counts);
    return result;
}

static status load_sample(pretrain *p, size_t clip, int start, int row) {
    memcpy(p->batch_prefix + (size_t)row * (size_t)p->shape.temporal.prefix,
           p->prefixes + clip * (size_t)p->shape.temporal.prefix,
           sizeof(uint16_t) * (size_t)p->shape.temporal.prefix);
    return stage_read_tokens(p->corpus, clip, start, p->frames, p->levels, p->scratch,
                             p->batch_tokens + (size_t)row * (size_t)p->frames * (size_t)p->levels);
}

// Cross-entropies of the loaded rows by level, summed over frames into sums [levels]; the gradient, times
// `weight`, goes to the logits.
static status score_rows(pretrain *p, int rows, float weight, double *sums) {
    TRY(policy_forward(p->policy, p->pass, rows, p->batch_prefix, p->batch_tokens));
    const int64_t frames = (int64_t)rows * p->frames;
    for (int level = 0; level < p->levels; level++) {
        op_cross_entropy(p->device, frames, p->shape.temporal.codebook[level],
                         policy_pass_logits(p->pass, level), policy_pass_actions(p->pass, level), weight,
                         p->losses);
        TRY(device_download(p->device, p->host_losses, p->losses, sizeof(float) * (size_t)frames));
        sums[level] = 0.0;
        for (int64_t i = 0; i < frames; i++)
            sums[level] += (double)p->host_losses[i];
    }
    return STATUS_OK;
}

static status tell_sum(void *context, size_t from) {
    return gradient_sum_final(context, from);
}

static status train_step(pretrain *p, double *loss, double *gradient_norm, bool *skipped, float rate) {
    const run_config *config = p->config;
    const parameter_list *list = policy_parameters(p->policy);
    float *gradients = gradient_sum_values(p->gradients);
    const gradient_watch watch = {tell_sum, p->gradients};
    const uint32_t slack = corpus_get_format(p->corpus)->frames - (uint32_t)p->frames + 1;
    const int batch = config->pretrain.batch;
    memset(p->sums, 0, sizeof(double) * (size_t)config->pretrain.gradient_slots * (size_t)p->levels);
    for (int slot = p->first_slot; slot < p->first_slot + p->slots; slot++) {
        for (int row = 0; row < p->slot_batch; row++) {
            const uint64_t position =
                (uint64_t)p->step * (uint64_t)batch + (uint64_t)(slot * p->slot_batch + row);
            philox_stream crop = {
                .key = (uint64_t)config->seed, .purpose = PURPOSE_CROP, .position = position};
            TRY(load_sample(p, clip_order_at(p->training, position), (int)philox_next_below(&crop, slack),
                            row));
        }
        op_zero(p->device, sizeof(float) * list->size, gradients);
        TRY(score_rows(p, p->slot_batch, 1.0f / (float)(batch * p->frames * p->levels),
                       p->sums + (size_t)slot * (size_t)p->levels));
        TRY(policy_backward(p->policy, p->pass, p->slot_batch, gradients,
                            gradient_sum_goes_out(p->gradients) ? &watch : NULL));
        gradient_sum_add(p->gradients);
    }
    TRY(gradient_sum_share(p->gradients));
    TRY(share_sums(p, (size_t)config->pretrain.gradient_slots, loss));
    for (int level = 0; level < p->levels; level++)
        loss[level] /= (double)batch * (double)p->frames;
    const optimizer_result update = optimizer_update(p->optimizer, rate, gradients, policy_values(p->policy));
    *gradient_norm = update.gradient_norm;
    *skipped = update.skipped;
    return policy_pack(p->policy);
}

// Held-out cross-entropy by level, nats a token.
static status evaluate(pretrain *p, double *loss) {
    const size_t available = clip_order_count(p->held_out),
                 wanted = (size_t)p->config->pretrain.evaluate_clips;
    const size_t clips = available < wanted ? available : wanted;
    const size_t chunks = (clips + (size_t)p->slot_batch - 1) / (size_t)p->slot_batch;
    memset(p->sums, 0, sizeof(double) * chunks * (size_t)p->levels);
    for (size_t chunk = (size_t)group_index(p->group); chunk < chunks;
         chunk += (size_t)group_size(p->group)) {
        const size_t first = chunk * (size_t)p->slot_batch;
        const int rows = clips - first < (size_t)p->slot_batch ? (int)(clips - first) : p->slot_batch;
        for (int row = 0; row < rows; row++)
            TRY(load_sample(p, clip_order_plain(p->held_out, first + (size_t)row), 0, row));
        TRY(score_rows(p, rows, 0.0f, p->sums + chunk * (size_t)p->levels));
    }
    TRY(share_sums(p, chunks, loss));
    for (int level = 0; level < p->levels; level++)
        loss[level] /= (double)clips * (double)p->frames;
    return STATUS_OK;
}

// What the weights depend on: settings, tokens and embedding.
static status record_settings(const pretrain *p, json_t **out) {
    static const char *const keys[] = {"seed", "model", "pretrain", NULL};
    static const char *const except[] = {"pretrain.steps", "pretrain.save_every", "pretrain.evaluate_every",
                                         NULL};
    const settings_scope scope = {keys, except};
    TRY(settings_record_create(out, p->config, &scope));
    json_object_set_new(*out, "codec of data.tokens", json_string(corpus_get_format(p->corpus)->codec));
    const digest prefixes = digest_bytes(p->prefixes, sizeof(uint16_t) * corpus_clip_count(p->corpus) *
                                                          (size_t)p->config->model.prefix);
    char text[DIGEST_HEX];
    digest_to_hex(&prefixes, text);
    json_object_set_new(*out, "prefixes that data.embedding gives the clips of data.tokens",
                        json_string(text));
    return STATUS_OK;
}

static status create_saver(pretrain *p) {
    if (world_rank(p->world) != 0)
        return STATUS_OK;
    TRY(saver_create(&p->saver, "base"));
    TRY(model_add_to_saver(p->saver, "policy.safetensors", policy_parameters(p->policy), p->device,
                           policy_values(p->policy)));
    return run_add_optimizer(p->saver, "optimizer", p->optimizer, 0, 1);
}

static status start_save(pretrain *p) {
    json_t *settings;
    TRY(record_settings(p, &settings));
    return run_folder_save(&p->run, p->saver, p->step,
                           json_pack("{s:I,s:I,s:o}", "step", (json_int_t)p->step, "skipped_updates",
                                     (json_int_t)p->skipped_updates, "settings", settings));
}

static status resume_from(pretrain *p, const checkpoint *from) {
    safetensors *file;
    json_t *settings;
    TRY(record_settings(p, &settings));
    status result = settings_record_compare(json_object_get(checkpoint_state(from), "settings"), settings,
                                            checkpoint_path(from), "choose another 'data.base'");
    json_decref(settings);
    TRY(result);
    TRY(checkpoint_open_tensors(from, "policy.safetensors", &file));
    result = model_read_values(file, policy_parameters(p->policy), p->device, policy_values(p->policy));
    safetensors_close(file);
    TRY(result);
    TRY(run_load_optimizer(from, "optimizer", p->optimizer));
    p->step = (int64_t)checkpoint_describe(from)->step;
    p->skipped_updates = json_integer_value(json_object_get(checkpoint_state(from), "skipped_updates"));
    return STATUS_OK;
}

static status prepare(pretrain *p) {
    const run_config *config = p->config;
    TRY(run_config_require(config, "data.tokens"));
    TRY(run_config_require(config, "data.embedding"));
    TRY(conditioner_check_folder(config->data.embedding));
    TRY(run_config_require(config, "data.base"));
    const int slots = config->pretrain.gradient_slots, ranks = world_size(p->world);
    if (ranks > slots || slots % ranks != 0 || (ranks & (ranks - 1)) != 0)
        return FAIL_USAGE(
            "%d ranks cannot share pretrain.gradient_slots = %d; use a power of two of ranks that divides "
            "it",
            ranks, slots);
    p->slots = slots / ranks;
    p->first_slot = p->slots * world_rank(p->world);
    p->slot_batch = config->pretrain.batch / slots;
    p->frames = config->pretrain.frames;
    TRY(corpus_open(&p->corpus, config->data.tokens, SHARD_TOKENS));
    const shard_format *format = corpus_get_format(p->corpus);
    if (format->frames < (uint32_t)p->frames)
        return FAIL("pretrain.frames is %d, the clips of %s have %u; lower the setting", p->frames,
                    config->data.tokens, format->frames);
    TRY(model_policy_config(&p->shape, config, format));
    p->levels = p->shape.temporal.levels;
    const int64_t rows = (int64_t)p->slot_batch * p->frames * p->levels;
    if (rows > INT32_MAX)
        return FAIL("a gradient slot of pretrain.batch / pretrain.gradient_slots = %d clips of %d frames has "
                    "%lld tokens, at most %d are possible; use more slots or fewer frames",
                    p->slot_batch, p->frames, (long long)rows, INT32_MAX);
    TRY(clip_order_create(&p->training, p->corpus, false, (uint64_t)config->seed, config->data.tokens));
    TRY(clip_order_create(&p->held_out, p->corpus, true, (uint64_t)config->seed, config->data.tokens));
    const size_t batch = (size_t)p->slot_batch;
    const size_t chunks = ((size_t)config->pretrain.evaluate_clips + batch - 1) / batch;
    p->sums_rows = chunks > (size_t)slots ? chunks : (size_t)slots;
    return STATUS_OK;
}

// The model and all that it works in.
static status create_parts(void *context) {
    pretrain *p = context;
    const run_config *config = p->config;
    const shard_format *format = corpus_get_format(p->corpus);
    TRY(policy_create(&p->policy, p->device, &p->shape, WEIGHT_LEARN, WEIGHT_F32));
    const parameter_list *list = policy_parameters(p->policy);
    TRY(policy_pass_create(&p->pass, p->policy, p->slot_batch, p->frames, true));
    const optimizer_config adamw = {.beta1 = (float)config->pretrain.beta1,
                                    .beta2 = (float)config->pretrain.beta2,
                                    .epsilon = (float)config->pretrain.epsilon,
                                    .weight_decay = (float)config->pretrain.weight_decay,
                                    .gradient_clip = (float)config->pretrain.gradient_clip};
    TRY(optimizer_create(&p->optimizer, p->device, list, &adamw));
    TRY(gradient_sum_create(&p->gradients, p->device, list->size, (uint32_t)p->slots));
    const size_t batch = (size_t)p->slot_batch, frames = (size_t)p->frames, levels = (size_t)p->levels;
    TRY(device_allocate(p->device, (void **)&p->losses, sizeof(float) * batch * frames, "losses"));
    TRY(memory_allocate((void **)&p->host_losses, sizeof(float) * batch * frames, "losses"));
    TRY(memory_allocate((void **)&p->batch_prefix,
                        sizeof(uint16_t) * (batch * (size_t)p->shape.temporal.prefix + 1), "prefixes"));
    TRY(memory_allocate((void **)&p->batch_tokens, sizeof(uint16_t) * batch * frames * levels, "tokens"));
    TRY(memory_allocate((void **)&p->scratch, sizeof(uint16_t) * (size_t)format->frames * format->levels,
                        "clip"));
    return memory_allocate((void **)&p->sums, sizeof(double) * p->sums_rows * levels, "statistics");
}

static void destroy_parts(void *context) {
    pretrain *p = context;
    gradient_sum_destroy(p->gradients);
    optimizer_destroy(p->optimizer);
    policy_pass_destroy(p->pass);
    policy_destroy(p->policy);
    device_free(p->device, p->losses);
    memory_free(p->host_losses);
    memory_free(p->batch_prefix);
    memory_free(p->batch_tokens);
    memory_free(p->scratch);
    memory_free(p->sums);
    p->gradients = NULL;
    p->optimizer = NULL;
    p->pass = NULL;
    p->policy = NULL;
    p->losses = p->host_losses = NULL;
    p->batch_prefix = p->batch_tokens = p->scratch = NULL;
    p->sums = NULL;
}

static status write_step(pretrain *p, const double *loss, double gradient_norm, float rate, double seconds,
                         const double *held_out) {
    if (!p->run.writes)
        return STATUS_OK;
    metrics *m = p->run.metrics;
    double mean = 0.0;
    char name[64];
    metrics_begin(m, p->step);
    for (int level = 0; level < p->levels; level++) {
        snprintf(name, sizeof name, "loss/level%d", level);
        metrics_add(m, name, loss[level]);
        mean += loss[level] / p->levels;
    }
    metrics_add(m, "loss", mean);
    metrics_add(m, "grad_norm", gradient_norm);
    metrics_add(m, "learning_rate", (double)rate);
    metrics_add(m, "skipped_updates", (double)p->skipped_updates);
    metrics_add(m, "frames_per_s", (double)p->config->pretrain.batch * (double)p->frames / seconds);
    metrics_add(m, "seconds/learn", seconds);
    metrics_add(m, "seconds/save", p->save_seconds);
    p->save_seconds = 0.0; // told
    metrics_add(m, "seconds/write", saver_write_seconds(p->saver));
    for (int level = 0; held_out != NULL && level < p->levels; level++) {
        snprintf(name, sizeof name, "eval/loss/level%d", level);
        metrics_add(m, name, held_out[level]);
    }
    return metrics_end(m);
}

static status train(pretrain *p) {
    const run_config *config = p->config;
    progress progress;
    progress_start(&progress, p->run.writes ? stdout : NULL, "pretrain", "step", p->step,
                   config->pretrain.steps);
    char detail[96] = "";
    TRY(policy_pack(p->policy));
    while (p->step < config->pretrain.steps) {
        const double start = stage_seconds();
        const float rate = (float)config->pretrain.learning_rate *
                           schedule_factor(p->step, config->pretrain.warm_up, config->pretrain.steps,
                                           (float)config->pretrain.final_learning_rate_ratio);
        double loss[LEVELS_MAX], held_out[LEVELS_MAX], gradient_norm;
        bool skipped, stop;
        watch_enter(p->watch, WATCH_LEARN, p->step);
        TRY(train_step(p, loss, &gradient_norm, &skipped, rate));
        const double seconds = stage_seconds() - start;
        p->step++;
        const bool last = p->step == config->pretrain.steps;
        const bool evaluates =
            last || (config->pretrain.evaluate_every > 0 && p->step % config->pretrain.evaluate_every == 0);
        if (evaluates)
            TRY(evaluate(p, held_out));
        p->skipped_updates += skipped;
        TRY(write_step(p, loss, gradient_norm, rate, seconds, evaluates ? held_out : NULL));
        TRY(world_any(p->world, run_stop_requested(), &stop));
        if (last || stop || (config->pretrain.save_every > 0 && p->step % config->pretrain.save_every == 0)) {
            const double save_start = stage_seconds();
            watch_enter(p->watch, WATCH_SAVE, p->step);
            TRY(world_agree(p->world, p->run.writes ? start_save(p) : STATUS_OK));
            p->save_seconds = stage_seconds() - save_start;
        }
        TRY(world_agree(p->world, !p->run.writes ? STATUS_OK
                                  : last || stop ? saver_wait(p->saver)
                                                 : saver_check(p->saver)));
        double mean = 0.0;
        for (int level = 0; level < p->levels; level++)
            mean += loss[level] / p->levels;
        snprintf(detail, sizeof detail, "loss %.3f", mean);
        progress_show(&progress, p->step, detail);
        if (stop && !last) {
            progress_finish(&progress, p->step, detail);
            watch_enter(p->watch, WATCH_END, p->step);
            return status_set(STATUS_STOPPED, "stopped on request at step %lld; run again to continue",
                              (long long)p->step);
        }
    }
    progress_finish(&progress, p->step, detail);
    watch_enter(p->watch, WATCH_LEARN, p->step);
    return STATUS_OK;
}

// Adherence of samples drawn from the prefix of the caption and from that of the clip's own music.
static status compare_prefixes(pretrain *p, double *text_adherence, double *music_adherence) {
    const run_config *config = p->config;
    const size_t available = clip_order_captions(p->held_out),
                 wanted = (size_t)config->train.evaluate_captions;
    const size_t count = available < wanted ? available : wanted, prefix = (size_t)p->shape.temporal.prefix;
    const int frames = config->train.frames, batch = CONDITIONER_BATCH;
    const size_t clip_tokens = (size_t)frames * (size_t)p->levels;
    conditioner *c = NULL;
    policy_sampler *sampler = NULL;
    uint16_t *tokens = NULL, *prefixes = NULL;
    uint32_t *samples = NULL;
    float *log_probabilities = NULL, *text = NULL, *music = NULL;
    double totals[2] = {0.0, 0.0};
    status result;
    TRY_GOTO(result, conditioner_load(&c, p->device, config->data.embedding, batch), done);
    const size_t output = (size_t)embedding_get_config(c->embedding)->output;
    TRY_GOTO(result, policy_sampler_create(&sampler, p->policy, batch, frames), done);
    TRY_GOTO(result,
             memory_allocate((void **)&tokens, sizeof(uint16_t) * (size_t)batch * clip_tokens, "tokens"),
             done);
    TRY_GOTO(
        result,
        memory_allocate((void **)&log_probabilities, sizeof(float) * (size_t)batch * clip_tokens, "scores"),
        done);
    TRY_GOTO(result,
             memory_allocate((void **)&prefixes, sizeof(uint16_t) * ((size_t)batch * prefix + 1), "prefixes"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&samples, sizeof(uint32_t) * (size_t)batch, "sample indices"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&text, sizeof(float) * (size_t)batch * output, "embeddings"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&music, sizeof(float) * (size_t)batch * output, "embeddings"),
             done);
    for (size_t first = 0; first < count; first += (size_t)batch) {
        const int size = count - first < (size_t)batch ? (int)(count - first) : batch;
        for (int i = 0; i < size; i++) {
            shard_clip clip;
            TRY_GOTO(result,
                     corpus_read_strings(p->corpus, clip_order_plain(p->held_out, first + (size_t)i), &clip),
                     done);
            TRY_GOTO(result, conditioner_text(c, &clip.caption, 1, text + (size_t)i * output), done);
            samples[i] = (uint32_t)(first + (size_t)i);
        }
        for (int kind = 0; kind < 2; kind++) {
            for (int i = 0; i < size; i++) {
                const size_t clip = clip_order_plain(p->held_out, first + (size_t)i);
                if (kind == 0)
                    conditioner_prefix(c, text + (size_t)i * output, prefixes + (size_t)i * prefix);
                else
                    memcpy(prefixes + (size_t)i * prefix, p->prefixes + clip * prefix,
                           sizeof(uint16_t) * prefix);
            }
            const rollout_request request = {.batch = size,
                                             .frames = frames,
                                             .prefix = prefixes,
                                             .samples = samples,
                                             .seed = (uint64_t)config->seed,
                                             .step = 0,
                                             .terms = {.temperature = (float)config->train.temperature}};
            TRY_GOTO(result, policy_sample(p->policy, sampler, &request, tokens, log_probabilities), done);
            TRY_GOTO(result, conditioner_music(c, tokens, (size_t)size, frames, p->levels, music), done);
            for (size_t i = 0; i < (size_t)size * output; i++)
                totals[kind] += (double)text[i] * (double)music[i] / (double)count;
        }
    }
    *text_adherence = totals[0];
    *music_adherence = totals[1];
done:
    conditioner_destroy(c);
    policy_sampler_destroy(sampler);
    memory_free(tokens);
    memory_free(log_probabilities);
    memory_free(prefixes);
    memory_free(samples);
    memory_free(text);
    memory_free(music);
    return result;
}

static json_t *number_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

static status summarise(pretrain *p) {
    double held_out[LEVELS_MAX], text_adherence = NAN, music_adherence = NAN;
    TRY(evaluate(p, held_out));
    if (!p->run.writes)
        return STATUS_OK;
    if (p->shape.temporal.prefix > 0)
        TRY(compare_prefixes(p, &text_adherence, &music_adherence));
    json_t *unigram = json_array(), *losses = json_array();
    printf("pretrain: held-out nats a token against unigram entropy, by level:");
    for (int level = 0; level < p->levels; level++) {
        json_array_append_new(unigram, json_real(p->unigram[level]));
        json_array_append_new(losses, json_real(held_out[level]));
        printf(" %.2f/%.2f", held_out[level], p->unigram[level]);
    }
    printf("\npretrain: adherence of samples from the caption's prefix %.3f, from the music's %.3f\n",
           text_adherence, music_adherence);
    json_t *summary = json_pack("{s:o,s:o,s:o,s:o}", "unigram_entropy", unigram, "held_out_loss", losses,
                                "adherence_text_prefix", number_or_null(text_adherence),
                                "adherence_music_prefix", number_or_null(music_adherence));
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/summary.json", p->run.path);
    return json_file_publish(path, summary);
}

// The tables that read tokens start from the codes, at the size that they would have had by chance.
static status start_values(const pretrain *p, float *values) {
    const parameter_list *list = policy_parameters(p->policy);
    const shard_format *format = corpus_get_format(p->corpus);
    parameter_list_initialise(list, (uint64_t)p->config->seed, values);
    TRY(model_start_from_codes(p->config, format, list, "temporal.embedding", p->levels,
                               1.0f / sqrtf((float)p->shape.temporal.transformer.width), values));
    if (p->shape.temporal.prefix > 0)
        TRY(model_start_from_prefix_codes(p->config, list, 1.0f, values));
    return model_start_from_codes(p->config, format, list, "depth.embedding", p->levels - 1,
                                  1.0f / sqrtf((float)p->shape.depth.width), values);
}

static status initialise(pretrain *p) {
    mirror values;
    TRY(mirror_create(&values, p->device, policy_values(p->policy),
                      sizeof(float) * policy_parameters(p->policy)->size, "parameters on the host"));
    status result = start_values(p, values.host);
    if (result == STATUS_OK)
        result = mirror_store(&values);
    mirror_release(&values);
    return result;
}

static status run(pretrain *p) {
    checkpoint *resume = NULL;
    char note[DEVICE_NOTE], among[DEVICE_GROUP_NOTE];
    const plan_parts parts = {create_parts, destroy_parts, p};
    status result;
    TRY_GOTO(result, world_agree(p->world, prepare(p)), done);
    TRY_GOTO(result, device_choose(&p->device, p->config, p->world, world_threads(p->world), note), done);
    plan_begin(&p->plan);
    TRY_GOTO(result, plan_device(&p->plan, p->world, p->device, 0, "pretrain", &parts), done);
    TRY_GOTO(result, world_agree(p->world, create_parts(p)), done);
    TRY_GOTO(result, world_agree(p->world, group_create_whole(&p->group, p->world)), done);
    TRY_GOTO(result, world_agree(p->world, device_group_create(&p->devices, p->device, p->group, among)),
             done);
    TRY_GOTO(result,
             world_agree(p->world, gradient_sum_among(
                                       p->gradients, p->devices, 0,
                                       (size_t)(p->config->gradient_bucket * (1 << 20) / sizeof(float)))),
             done);
    TRY_GOTO(result, world_agree(p->world, create_saver(p)), done);
    TRY_GOTO(result, plan_check(&p->plan, p->world, 0, "pretrain"), done);
    TRY_GOTO(result, world_agree(p->world, initialise(p)), done);
    TRY_GOTO(result, world_agree(p->world, measure_unigram(p)), done);
    TRY_GOTO(result, world_agree(p->world, make_prefixes(p)), done);
    TRY_GOTO(result, run_folder_open(&p->run, p->world, p->config->data.base, 0, &resume), done);
    if (resume != NULL)
        TRY_GOTO(result, world_agree(p->world, resume_from(p, resume)), done);
    TRY_GOTO(result,
             world_agree(p->world, run_folder_start(&p->run, p->config, resume != NULL ? p->step + 1 : 0)),
             done);
    if (p->run.writes)
        printf("pretrain: %s\npretrain: %zu parameters, %zu training and %zu held-out clips, %d ranks x %d "
               "threads%s\n",
               note, policy_parameters(p->policy)->size, clip_order_count(p->training),
               clip_order_count(p->held_out), world_size(p->world), world_threads(p->world),
               resume != NULL ? ", taken up from a checkpoint" : "");
    if (p->run.writes && among[0] != '\0')
        printf("pretrain: gradients: %s\n", among);
    const watch_plan watched = watch_plan_make(p->config, p->config->data.base, "learner");
    TRY_GOTO(result, watch_start(&p->watch, p->world, 0, &watched), done);
    result = train(p);
    if (result == STATUS_FAILED && world_size(p->world) > 1)
        world_abort(p->world, status_message()); // the other ranks may be waiting in a collective
    TRY_GOTO(result, result, done);
    TRY_GOTO(result, world_agree(p->world, summarise(p)), done);
done:
    checkpoint_close(resume);
    return result;
}

status pretrain_run(const run_config *config) {
    pretrain p = {.config = config};
    run_catch_signals();
    const world_options options = {.threads = config->threads, .deadline_seconds = config->deadlines.start};
    TRY(world_create(&p.world, &options));
    status result = run(&p);
    run_speak_once(p.world, result);
    watch_stop(p.watch);
    saver_destroy(p.saver); // before what it reads
    run_folder_close(&p.run);
    device_group_destroy(p.devices); // before the buffers that it may still use
    destroy_parts(&p);
    group_destroy(p.group);
    memory_free(p.prefixes);
    clip_order_destroy(p.training);
    clip_order_destroy(p.held_out);
    corpus_close(p.corpus);
    device_destroy(p.device);
    world_destroy(p.world);
    return result;
}
