// Scoring clips with a learned reward and training one on pairs, on random weights and tokens.
#include "comm/gradient_sum.h"
#include "core/optimizer.h"
#include "core/reward_model.h"
#include "kernels/memory.h"
#include "launch/bench_parts.h"
#include "launch/model_setup.h"
#include "launch/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PAIRS = BENCH_CAPTION_CLIPS * (BENCH_CAPTION_CLIPS - 1) / 2 }; // of a caption

void bench_destroy_reward(bench_reward *r) {
    reward_pass_destroy(r->pass);
    reward_model_destroy(r->model);
    memory_free(r->prefix);
    memory_free(r->tokens);
    memory_free(r->scores);
}

status bench_create_reward(bench_reward *r, bench *b, size_t clips, int batch, bool learn,
                           weight_precision precision) {
    const temporal_config *t = &b->policy.temporal;
    const size_t frames = (size_t)b->config->train.frames;
    reward_model_config config = {.temporal = *t, .embedding = 16};
    config.temporal.frames = (int)frames;
    r->clips = clips;
    TRY(reward_model_create(&r->model, b->device, &config, learn, precision));
    TRY(model_initialise(b->device, reward_model_parameters(r->model), 1, reward_model_values(r->model)));
    TRY(reward_model_pack(r->model));
    TRY(reward_pass_create(&r->pass, r->model, batch, learn));
    TRY(memory_allocate((void **)&r->prefix, sizeof(uint16_t) * (clips * (size_t)t->prefix + 1),
                        "bench clips"));
    TRY(memory_allocate((void **)&r->tokens, sizeof(uint16_t) * clips * frames * (size_t)t->levels,
                        "bench clips"));
    TRY(memory_allocate((void **)&r->scores, sizeof(float) * clips, "bench scores"));
    bench_fill_tokens(b, r->prefix, clips * (size_t)t->prefix, 1, &t->prefix_codebook);
    bench_fill_tokens(b, r->tokens, clips * frames, t->levels, t->codebook);
    return STATUS_OK;
}

status bench_run_reward(bench *b, weight_precision precision) {
    const bool bf16 = precision == WEIGHT_BF16;
    const char *name = bf16 ? "reward_bf16" : "reward";
    const double peak = bf16 ? b->peak_bf16 : b->peak;
    const int batch = b->config->train.batch, frames = b->config->train.frames;
    bench_reward r = {0};
    double best = INFINITY;
    status result;
    b->listener(b->context, name, NULL);
    TRY_GOTO(result, bench_create_reward(&r, b, (size_t)batch, batch, false, precision), done);
    for (int repeat = -1; repeat < b->options->repeats; repeat++) {
        const double start = stage_seconds();
        TRY_GOTO(result,
                 reward_score(r.model, r.pass, r.clips, r.prefix, r.tokens, frames, NULL, r.scores, NULL),
                 done);
        if (repeat >= 0)
            best = fmin(best, stage_seconds() - start);
    }
    const double flop = bench_reward_flop(&b->policy, frames);
    bench_result line = bench_new_result(b, name, "clips/s", batch / best);
    line.ceiling = peak / flop;
    snprintf(
        line.formula, sizeof line.formula,
        "batch / seconds of a scoring pass; ceiling: %.0f GFLOP/s / %.2f GFLOP of matrix products a clip of "
        "%d frames; %.0f GFLOP/s reached",
        peak / 1e9, flop / 1e9, frames, line.value * flop / 1e9);
    if (b->options->peer_python != NULL)
        result = bench_run_peer(b->config, b->options, line.threads, name, &line);
    b->listener(b->context, line.name, &line); // our own figure is worth having if the peer failed
done:
    bench_destroy_reward(&r);
    return result;
}

typedef struct preference_bench {
    bench_reward reward;
    optimizer *optimizer;
    gradient_sum *gradients;
    uint32_t votes[BENCH_CAPTIONS * PAIRS]; // preference_vote
} preference_bench;

// The pairs of one caption's clips, each of which is read once.
static status train_caption(bench *b, preference_bench *p, int caption) {
    const temporal_config *t = &b->policy.temporal;
    const int frames = b->config->train.frames;
    bench_reward *r = &p->reward;
    const size_t first = (size_t)caption * BENCH_CAPTION_CLIPS;
    const float *threshold = reward_model_threshold(r->model), *scores;
    float d_scores[BENCH_CAPTION_CLIPS] = {0}, d_threshold[2] = {0},
          *gradients = gradient_sum_values(p->gradients);
    op_zero(b->device, sizeof(float) * reward_model_parameters(r->model)->size, gradients);
    TRY(reward_forward(r->model, r->pass, BENCH_CAPTION_CLIPS, r->prefix + first * (size_t)t->prefix,
                       r->tokens + first * (size_t)frames * (size_t)t->levels, frames, NULL, NULL, &scores));
    const uint32_t *vote = p->votes + caption * PAIRS;
    for (int a = 0; a < BENCH_CAPTION_CLIPS; a++)
        for (int other = a + 1; other < BENCH_CAPTION_CLIPS; other++) {
            double gradient[4];
            preference_loss((preference_vote)*vote++, (double)scores[a], (double)scores[other], threshold,
                            gradient);
            d_scores[a] += (float)gradient[0];
            d_scores[other] += (float)gradient[1];
            d_threshold[0] += (float)gradient[2];
            d_threshold[1] += (float)gradient[3];
        }
    TRY(reward_threshold_gradient(r->model, d_threshold, gradients));
    TRY(reward_backward(r->model, r->pass, BENCH_CAPTION_CLIPS, d_scores, gradients));
    gradient_sum_add(p->gradients);
    return STATUS_OK;
}

static status train_step(bench *b, preference_bench *p) {
    const parameter_list *list = reward_model_parameters(p->reward.model);
    for (int caption = 0; caption < BENCH_CAPTIONS; caption++)
        TRY(train_caption(b, p, caption));
    float *gradients = gradient_sum_values(p->gradients);
    op_scale(b->device, list->size, 1.0f / (BENCH_CAPTIONS * PAIRS), gradients);
    const optimizer_result update =
        optimizer_update(p->optimizer, 1e-4f, gradients, reward_model_values(p->reward.model));
    if (update.skipped)
        return FAIL("a step of preference training on random weights gave gradients that are not finite");
    TRY(reward_model_pack(p->reward.model));
    return device_finish(b->device);
}

static status create_preference(preference_bench *p, bench *b) {
    const optimizer_config config = {
        .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .weight_decay = 0.01f, .gradient_clip = 1.0f};
    TRY(bench_create_reward(&p->reward, b, BENCH_CAPTIONS * BENCH_CAPTION_CLIPS, BENCH_CAPTION_CLIPS, true,
                            WEIGHT_F32));
    const parameter_list *list = reward_model_parameters(p->reward.model);
    TRY(optimizer_create(&p->optimizer, b->device, list, &config));
    TRY(gradient_sum_create(&p->gradients, b->device, list->size, BENCH_CAPTIONS));
    for (int i = 0; i < BENCH_CAPTIONS * PAIRS; i++)
        p->votes[i] = philox_next_below(&b->stream, 4);
    return STATUS_OK;
}

status bench_run_preference(bench *b) {
    const int frames = b->config->train.frames;
    preference_bench p = {0};
    double best = INFINITY;
    status result;
    b->listener(b->context, "preference", NULL);
    TRY_GOTO(result, create_preference(&p, b), done);
    for (int repeat = -1; repeat < b->options->repeats; repeat++) {
        const double start = stage_seconds();
        TRY_GOTO(result, train_step(b, &p), done);
        if (repeat >= 0)
            best = fmin(best, stage_seconds() - start);
    }
    // A forward pass and a backward pass of twice its products.
    const double flop = 3.0 * bench_reward_flop(&b->policy, frames) * BENCH_CAPTION_CLIPS / PAIRS;
    bench_result line = bench_new_result(b, "preference", "pairs/s", BENCH_CAPTIONS * PAIRS / best);
    line.ceiling = b->peak / flop;
    snprintf(line.formula, sizeof line.formula,
             "%d captions x %d pairs of %d clips / seconds of a step; ceiling: %.0f GFLOP/s / %.2f GFLOP of "
             "matrix products a pair, every clip read once forward and backward; %.0f GFLOP/s reached",
             BENCH_CAPTIONS, PAIRS, BENCH_CAPTION_CLIPS, b->peak / 1e9, flop / 1e9, line.value * flop / 1e9);
    if (b->options->peer_python != NULL)
        result = bench_run_peer(b->config, b->options, line.threads, "preference", &line);
    b->listener(b->context, line.name, &line);
done:
    bench_destroy_reward(&p.reward);
    optimizer_destroy(p.optimizer);
    gradient_sum_destroy(p.gradients);
    return result;
}
