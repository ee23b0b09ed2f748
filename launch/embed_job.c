#include "launch/embed_job.h"

#include "core/optimizer.h"
#include "data/json_file.h"
#include "data/metrics.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "kernels/mirror.h"
#include "kernels/philox.h"
#include "launch/conditioner.h"
#include "launch/model_setup.h"
#include "launch/progress.h"
#include "launch/run_folder.h"
#include "launch/stage.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RETRIEVAL_MAX = 600,
    PURPOSE_CROP = 0x43524f50,
    PURPOSE_DROP = 0x44524f50,
    RVQ_ITERATIONS = 20,
    SKIPPED_MOST = 10
};

static const float code_rms = 0.3f; // of the music tower's tables at the start

typedef struct embed_job {
    const run_config *config;
    device *device;
    corpus *corpus;
    clip_order *training, *held_out;
    embedding_config shape;
    embedding *embedding;
    embedding_pass *pass;
    optimizer *optimizer;
    tokenizer *tokenizer;
    void *tokenizer_model;
    size_t tokenizer_bytes;
    float *gradients, *codebooks;
    int32_t *text, *lengths, *pieces; // [batch, text positions], [batch], [text positions]
    uint16_t *music, *scratch;        // [batch, music positions, levels], one clip
    int lock;                         // descriptor of the locked folder, 0: none
    metrics *metrics;
} embed_job;

static status train_tokenizer(embed_job *job) {
    const size_t count = clip_order_count(job->training);
    char **captions;
    TRY(memory_allocate((void **)&captions, sizeof *captions * count, "captions"));
    status result = STATUS_OK;
    for (size_t i = 0; i < count && result == STATUS_OK; i++) {
        shard_clip clip;
        result = corpus_read_strings(job->corpus, clip_order_plain(job->training, i), &clip);
        if (result == STATUS_OK && (captions[i] = strdup(clip.caption)) == NULL)
            result = FAIL("out of host memory: captions");
    }
    if (result == STATUS_OK)
        result =
            tokenizer_train((const char *const *)captions, count, (uint32_t)job->config->embedding.vocabulary,
                            &job->tokenizer_model, &job->tokenizer_bytes);
    for (size_t i = 0; i < count; i++)
        free(captions[i]);
    memory_free(captions);
    TRY(result);
    return tokenizer_create(&job->tokenizer, job->tokenizer_model, job->tokenizer_bytes);
}

// A caption's pieces with each dropped at the rate `dropout`; at least one stays.
static status encode_caption(embed_job *job, size_t clip, philox_stream *random, float dropout, int32_t *out,
                             int32_t *length) {
    shard_clip strings;
    const size_t positions = (size_t)job->shape.text.positions;
    size_t count;
    TRY(corpus_read_strings(job->corpus, clip, &strings));
    TRY(tokenizer_encode(job->tokenizer, strings.caption, job->pieces, positions, &count));
    count = count < positions ? count : positions;
    *length = 0;
    for (size_t i = 0; i < count; i++)
        if (philox_next_uniform(random) >= dropout)
            out[(*length)++] = job->pieces[i];
    if (*length == 0)
        out[(*length)++] = count > 0 ? job->pieces[0] : TOKENIZER_UNKNOWN;
    return STATUS_OK;
}

static status load_batch(embed_job *job, int64_t step) {
    const embedding_config *shape = &job->shape;
    const int batch = job->config->embedding.batch, frames = shape->music.positions;
    const uint32_t slack = corpus_get_format(job->corpus)->frames - (uint32_t)frames + 1;
    philox_stream crop = {.key = (uint64_t)job->config->seed,
                          .purpose = PURPOSE_CROP,
                          .position = (uint64_t)step * (uint64_t)batch};
    for (int b = 0; b < batch; b++) {
        const uint64_t position = (uint64_t)step * (uint64_t)batch + (uint64_t)b;
        const size_t clip = clip_order_at(job->training, position);
        philox_stream drop = {
            .key = (uint64_t)job->config->seed, .purpose = PURPOSE_DROP, .position = position << 12};
        TRY(encode_caption(job, clip, &drop, (float)job->config->embedding.word_dropout,
                           job->text + (size_t)b * shape->text.positions, &job->lengths[b]));
        TRY(stage_read_tokens(job->corpus, clip, (int)philox_next_below(&crop, slack), frames, shape->levels,
                              job->scratch, job->music + (size_t)b * frames * shape->levels));
    }
    return STATUS_OK;
}

static status train(embed_job *job) {
    const run_config *config = job->config;
    const int batch = config->embedding.batch;
    const parameter_list *list = embedding_parameters(job->embedding);
    progress progress;
    progress_start(&progress, stdout, "embedding", "step", 0, config->embedding.steps);
    char detail[64] = "";
    double skipped = 0.0; // updates so far
    int skipped_in_a_row = 0;
    TRY(embedding_pack(job->embedding));
    for (int64_t step = 0; step < config->embedding.steps; step++) {
        double loss;
        TRY(load_batch(job, step));
        TRY(embedding_text(job->embedding, job->pass, batch, job->text, job->lengths, NULL));
        TRY(embedding_music(job->embedding, job->pass, batch, job->music, NULL));
        op_zero(job->device, sizeof(float) * list->size, job->gradients);
        TRY(embedding_backward(job->embedding, job->pass, batch, job->gradients, &loss));
        const float rate = (float)config->embedding.learning_rate *
                           schedule_factor(step, config->embedding.warm_up, config->embedding.steps, 0.1f);
        const optimizer_result update =
            optimizer_update(job->optimizer, rate, job->gradients, embedding_values(job->embedding));
        TRY(embedding_pack(job->embedding));
        skipped += update.skipped;
        skipped_in_a_row = update.skipped ? skipped_in_a_row + 1 : 0;
        if (skipped_in_a_row == SKIPPED_MOST)
            return FAIL(
                "embedding: the gradients of %d steps in a row, up to step %lld, were not finite; lower "
                "embedding.learning_rate",
                SKIPPED_MOST, (long long)step + 1);
        metrics_begin(job->metrics, step + 1);
        metrics_add(job->metrics, "loss", loss);
        metrics_add(job->metrics, "scale", (double)embedding_scale(job->embedding));
        metrics_add(job->metrics, "grad_norm", update.gradient_norm);
        metrics_add(job->metrics, "learning_rate", (double)rate);
        metrics_add(job->metrics, "skipped_updates", skipped);
        TRY(metrics_end(job->metrics));
        snprintf(detail, sizeof detail, "loss %.3f", loss);
        progress_show(&progress, step + 1, detail);
    }
    progress_finish(&progress, config->embedding.steps, detail);
    return STATUS_OK;
}

// Mean segment embeddings of the first `count` clips of an order, out [count, output].
static status embed_clips(embed_job *job, conditioner *conditioner, const clip_order *order, size_t count,
                          float *out) {
    const int frames = (int)corpus_get_format(job->corpus)->frames, levels = job->shape.levels;
    uint16_t *tokens;
    TRY(memory_allocate((void **)&tokens, sizeof(uint16_t) * (size_t)frames * (size_t)levels * 64,
                        "token clips"));
    status result = STATUS_OK;
    for (size_t first = 0; first < count && result == STATUS_OK; first += 64) {
        const size_t size = count - first < 64 ? count - first : 64;
        for (size_t i = 0; i < size && result == STATUS_OK; i++)
            result = stage_read_tokens(job->corpus, clip_order_plain(order, first + i), 0, frames, levels,
                                       job->scratch, tokens + i * (size_t)frames * (size_t)levels);
        if (result == STATUS_OK)
            result =
                conditioner_music(conditioner, tokens, size, frames, levels, out + first * job->shape.output);
    }
    memory_free(tokens);
    return result;
}

static void normalize(float *vectors, size_t count, size_t width) {
    for (size_t i = 0; i < count; i++) {
        float norm = 0.0f;
        for (size_t d = 0; d < width; d++)
            norm += vectors[i * width + d] * vectors[i * width + d];
        for (size_t d = 0; d < width; d++)
            vectors[i * width + d] /= sqrtf(norm) > 1e-12f ? sqrtf(norm) : 1e-12f;
    }
}

static status train_quantiser(embed_job *job) {
    const run_config *config = job->config;
    const size_t count = clip_order_count(job->training), output = (size_t)job->shape.output;
    float *vectors = NULL;
    status result;
    conditioner music_only = {.device = job->device,
                              .embedding = job->embedding,
                              .pass = job->pass,
                              .batch = config->embedding.batch};
    TRY_GOTO(result, memory_allocate((void **)&vectors, sizeof(float) * count * output, "music embeddings"),
             done);
    TRY_GOTO(result,
             memory_allocate((void **)&music_only.segments,
                             sizeof(uint16_t) * (size_t)config->embedding.batch *
                                 (size_t)job->shape.music.positions * (size_t)job->shape.levels,
                             "segments"),
             done);
    TRY_GOTO(result, embed_clips(job, &music_only, job->training, count, vectors), done);
    normalize(vectors, count, output);
    const rvq_settings settings = {.dimension = (uint32_t)output,
                                   .levels = (uint32_t)config->model.prefix,
                                   .codebook_size = (uint32_t)config->model.prefix_codebook,
                                   .iterations = RVQ_ITERATIONS,
                                   .seed = (uint64_t)config->seed};
    TRY_GOTO(result, rvq_train(vectors, count, &settings, job->codebooks), done);
done:
    memory_free(music_only.segments);
    memory_free(vectors);
    return result;
}

// Retrieval among `count` pairs: the share of captions whose own music is among the best k.
static double recall(const float *text, const float *music, size_t count, size_t width, size_t k) {
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) {
        float own = 0.0f;
        size_t better = 0;
        for (size_t d = 0; d < width; d++)
            own += text[i * width + d] * music[i * width + d];
        for (size_t j = 0; j < count; j++) {
            float score = 0.0f;
            for (size_t d = 0; d < width; d++)
                score += text[i * width + d] * music[j * width + d];
            better += j != i && score >= own;
        }
        hits += better < k;
    }
    return (double)hits / (double)count;
}

// Held-out retrieval, agreement of text and music prefixes by level, adherence of true and of wrong captions.
static status evaluate(embed_job *job, const char *folder, json_t **out) {
    const size_t available = clip_order_captions(job->held_out), output = (size_t)job->shape.output;
    const size_t count = available < RETRIEVAL_MAX ? available : RETRIEVAL_MAX;
    conditioner *c = NULL;
    float *text = NULL, *music = NULL;
    status result;
    json_t *agreement = json_array();
    TRY_GOTO(result, conditioner_load(&c, job->device, folder, 64), done);
    TRY_GOTO(result, memory_allocate((void **)&text, sizeof(float) * count * output, "text embeddings"),
             done);
    TRY_GOTO(result, memory_allocate((void **)&music, sizeof(float) * count * output, "music embeddings"),
             done);
    for (size_t i = 0; i < count; i++) {
        shard_clip clip;
        TRY_GOTO(result, corpus_read_strings(job->corpus, clip_order_plain(job->held_out, i), &clip), done);
        TRY_GOTO(result, conditioner_text(c, &clip.caption, 1, text + i * output), done);
    }
    TRY_GOTO(result, embed_clips(job, c, job->held_out, count, music), done);
    double right = 0.0, wrong = 0.0;
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < output; d++) {
            right += (double)text[i * output + d] * (double)music[i * output + d] / (double)count;
            wrong += (double)text[i * output + d] * (double)music[(i + count / 2) % count * output + d] /
                     (double)count;
        }
    size_t same[RVQ_LEVELS_MAX] = {0};
    for (size_t i = 0; i < count; i++) {
        uint16_t of_text[RVQ_LEVELS_MAX], of_music[RVQ_LEVELS_MAX];
        conditioner_prefix(c, text + i * output, of_text);
        conditioner_prefix(c, music + i * output, of_music);
        for (int level = 0; level < c->prefix; level++)
            same[level] += of_text[level] == of_music[level];
    }
    for (int level = 0; level < c->prefix; level++)
        json_array_append_new(agreement, json_real((double)same[level] / (double)count));
    normalize(music, count, output);
    const double at_1 = recall(text, music, count, output, 1), at_10 = recall(text, music, count, output, 10);
    printf("embedding: recall@1 %.3f, recall@10 %.3f of %zu held-out clips (chance %.4f, %.4f)\n", at_1,
           at_10, count, 1.0 / (double)count, fmin(10.0 / (double)count, 1.0));
    printf("embedding: adherence of true captions %.3f, of wrong ones %.3f\n", right, wrong);
    printf("embedding: text and music prefix agree by level:");
    for (int level = 0; level < c->prefix; level++)
        printf(" %.2f", (double)same[level] / (double)count);
    printf(" (chance %.3f)\n", 1.0 / (double)(c->prefix_codebook > 0 ? c->prefix_codebook : 1));
    *out = json_pack("{s:I,s:f,s:f,s:f,s:f,s:O}", "clips", (json_int_t)count, "recall_at_1", at_1,
                     "recall_at_10", at_10, "adherence_true", right, "adherence_wrong", wrong,
                     "prefix_agreement", agreement);
done:
    json_decref(agreement);
    conditioner_destroy(c);
    memory_free(text);
    memory_free(music);
    return result;
}

// The tables that read tokens start from the codes.
static status initialise(embed_job *job) {
    const run_config *config = job->config;
    const parameter_list *list = embedding_parameters(job->embedding);
    mirror values;
    TRY(mirror_create(&values, job->device, embedding_values(job->embedding), sizeof(float) * list->size,
                      "parameters on the host"));
    parameter_list_initialise(list, (uint64_t)config->seed, values.host);
    status result = model_start_from_codes(config, corpus_get_format(job->corpus), list, "music.embedding",
                                           job->shape.levels, code_rms, values.host);
    if (result == STATUS_OK)
        result = mirror_store(&values);
    mirror_release(&values);
    TRY(result);
    return embedding_set_scale(job->embedding, (float)(1.0 / config->embedding.initial_temperature));
}

static status prepare(embed_job *job, bool replace) {
    const run_config *config = job->config;
    char path[PATH_MAX];
    TRY(stage_create_device(&job->device, config, "embedding"));
    TRY(run_config_require(config, "data.tokens"));
    TRY(run_config_require(config, "data.codec"));
    TRY(run_config_require(config, "data.embedding"));
    snprintf(path, sizeof path, "%s/embedding.safetensors", config->data.embedding);
    TRY(publish_check_place(path, replace));
    TRY(corpus_open(&job->corpus, config->data.tokens, SHARD_TOKENS));
    const shard_format *format = corpus_get_format(job->corpus);
    if (format->frames < (uint32_t)config->embedding.frames)
        return FAIL("embedding.frames is %d, the clips of %s have %u; lower the setting",
                    config->embedding.frames, config->data.tokens, format->frames);
    TRY(clip_order_create(&job->training, job->corpus, false, (uint64_t)config->seed, config->data.tokens));
    TRY(clip_order_create(&job->held_out, job->corpus, true, (uint64_t)config->seed, config->data.tokens));
    if (clip_order_count(job->training) < (size_t)config->model.prefix_codebook)
        return FAIL(
            "%zu training clips cannot fill prefix codebooks of %d; add clips or lower model.prefix_codebook",
            clip_order_count(job->training), config->model.prefix_codebook);
    TRY(train_tokenizer(job));
    TRY(model_embedding_config(&job->shape, config, format, (int)tokenizer_vocabulary_size(job->tokenizer)));
    TRY(embedding_create(&job->embedding, job->device, &job->shape, true));
    const parameter_list *list = embedding_parameters(job->embedding);
    TRY(initialise(job));
    TRY(embedding_pass_create(&job->pass, job->embedding, config->embedding.batch, true));
    const optimizer_config adamw = {.beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .epsilon = 1e-8f,
                                    .weight_decay = (float)config->embedding.weight_decay,
                                    .gradient_clip = 1.0f};
    TRY(optimizer_create(&job->optimizer, job->device, list, &adamw));
    const size_t batch = (size_t)config->embedding.batch, text = (size_t)job->shape.text.positions;
    TRY(device_allocate(job->device, (void **)&job->gradients, sizeof(float) * list->size, "gradients"));
    TRY(memory_allocate((void **)&job->codebooks,
                        sizeof(float) * (size_t)(config->model.prefix * config->model.prefix_codebook) *
                                (size_t)job->shape.output +
                            64,
                        "prefix codebooks"));
    TRY(memory_allocate((void **)&job->text, sizeof(int32_t) * batch * text, "caption tokens"));
    TRY(memory_allocate((void **)&job->lengths, sizeof(int32_t) * batch, "caption lengths"));
    TRY(memory_allocate((void **)&job->pieces, sizeof(int32_t) * text, "caption pieces"));
    TRY(memory_allocate((void **)&job->music,
                        sizeof(uint16_t) * batch * (size_t)job->shape.music.positions *
                            (size_t)job->shape.levels,
                        "token crops"));
    TRY(memory_allocate((void **)&job->scratch, sizeof(uint16_t) * (size_t)format->frames * format->levels,
                        "clip"));
    const bool began = run_folder_began(config->data.embedding);
    TRY(publish_make_folder(config->data.embedding));
    TRY(run_lock_folder(config->data.embedding, &job->lock));
    if (began)
        TRY(publish_sweep(config->data.embedding));
    snprintf(path, sizeof path, "%s/metrics.jsonl", config->data.embedding);
    return metrics_open(&job->metrics, path, 0, NULL);
}

status embed_train(const run_config *config, bool replace) {
    embed_job job = {.config = config};
    json_t *summary = NULL;
    status result;
    TRY_GOTO(result, prepare(&job, replace), done);
    printf("embedding: %zu parameters, %u caption pieces, %zu training and %zu held-out clips, %d threads\n",
           embedding_parameters(job.embedding)->size, tokenizer_vocabulary_size(job.tokenizer),
           clip_order_count(job.training), clip_order_count(job.held_out), device_threads(job.device));
    TRY_GOTO(result, train(&job), done);
    if (config->model.prefix > 0)
        TRY_GOTO(result, train_quantiser(&job), done);
    TRY_GOTO(result,
             conditioner_save(config->data.embedding, job.device, job.embedding, job.tokenizer_model,
                              job.tokenizer_bytes, config->model.prefix, config->model.prefix_codebook,
                              job.codebooks, corpus_get_format(job.corpus)->codec),
             done);
    TRY_GOTO(result, evaluate(&job, config->data.embedding, &summary), done);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/summary.json", config->data.embedding);
    TRY_GOTO(result, json_file_publish(path, json_incref(summary)), done);
done:
    json_decref(summary);
    if (job.metrics != NULL) {
        status closed = metrics_close(job.metrics);
        result = result == STATUS_OK ? closed : result;
    }
    if (job.lock > 0)
        close(job.lock);
    optimizer_destroy(job.optimizer);
    embedding_pass_destroy(job.pass);
    embedding_destroy(job.embedding);
    tokenizer_destroy(job.tokenizer);
    memory_free(job.tokenizer_model);
    device_free(job.device, job.gradients);
    memory_free(job.codebooks);
    memory_free(job.text);
    memory_free(job.lengths);
    memory_free(job.pieces);
    memory_free(job.music);
    memory_free(job.scratch);
    clip_order_destroy(job.training);
    clip_order_destroy(job.held_out);
    corpus_close(job.corpus);
    device_destroy(job.device);
    return result;
}
