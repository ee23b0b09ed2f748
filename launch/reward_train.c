#include "launch/reward_train.h"

#include "data/json_file.h"
#include "kernels/memory.h"
#include "kernels/philox.h"
#include "launch/device_choice.h"
#include "launch/progress.h"
#include "launch/reward_file.h"
#include "launch/reward_train_parts.h"
#include "launch/settings_record.h"
#include "launch/stage.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PURPOSE_WINDOW = 0x57494e44, MEMBER_SEEDS = 1000003 };

status reward_add_run(reward_trainer *t, reward_set *set, uint64_t position) {
    const size_t runs = (t->data.rows + t->slot_rows - 1) / t->slot_rows;
    const size_t run = ratings_order((size_t)(position % runs), runs, t->seed, position / runs);
    const size_t first = run * t->slot_rows, left = t->data.rows - first;
    return reward_set_add_rows(set, &t->data, first, left < t->slot_rows ? left : t->slot_rows,
                               REWARD_SIDE_TRAINING, t->data.plan.members > 1 ? t->member : -1);
}

// Losses of the slot's examples from the scores of its clips; their gradients go to d_scores and
// d_threshold [2].
static void measure_slot(reward_trainer *t, double *sums, float *d_threshold) {
    const bool quality = t->data.plan.quality;
    const float *threshold = reward_model_threshold(t->model);
    memset(t->d_scores, 0, sizeof(float) * t->slot.clip_count);
    for (size_t i = 0; i < t->slot.count; i++) {
        const reward_example *e = &t->slot.examples[i];
        const double a = (double)t->scores[e->a], b = (double)t->scores[e->b];
        sums[REWARD_SUM_COUNT] += 1.0;
        if (quality) {
            const double error = a - (double)e->target;
            sums[REWARD_SUM_LOSS] += error * error;
            t->d_scores[e->a] += (float)(2.0 * error);
            continue;
        }
        double gradient[4];
        sums[REWARD_SUM_LOSS] += preference_loss(e->vote, a, b, threshold, gradient);
        t->d_scores[e->a] += (float)gradient[0];
        t->d_scores[e->b] += (float)gradient[1];
        d_threshold[0] += (float)gradient[2];
        d_threshold[1] += (float)gradient[3];
        if (e->vote == PREFERENCE_A || e->vote == PREFERENCE_B) {
            sums[REWARD_SUM_DECISIVE] += 1.0;
            sums[REWARD_SUM_RIGHT] += a == b ? 0.5 : (a > b) == (e->vote == PREFERENCE_A);
        }
    }
}

static status forward_part(reward_trainer *t, size_t first, size_t count, const float **scores) {
    const reward_data *d = &t->data;
    const size_t features = (size_t)reward_model_feature_count(&d->shape);
    return reward_forward(t->model, t->pass, (int)count,
                          t->inputs.prefix + first * (size_t)d->shape.temporal.prefix,
                          t->inputs.tokens + first * (size_t)d->frames * (size_t)d->levels, d->frames,
                          t->starts + first, t->inputs.features + first * features, scores);
}

// One slot: neighbouring rows speak of the same clips, and every clip is read once. Where all of them fit
// into a pass, its activations serve the backward pass; otherwise they are computed again, part by part.
static status run_slot(reward_trainer *t, uint64_t position, double *sums) {
    const size_t part = (size_t)t->settings->slot_clips;
    float *gradients = gradient_sum_values(t->gradients), d_threshold[2] = {0};
    const uint32_t slack = (uint32_t)(t->data.frames - t->data.shape.temporal.frames + 1);
    reward_set_clear(&t->slot);
    TRY(reward_add_run(t, &t->slot, position));
    TRY(reward_data_load(&t->data, t->slot.clips, t->slot.clip_count, &t->inputs));
    op_zero(t->device, sizeof(float) * reward_model_parameters(t->model)->size, gradients);
    const size_t clips = t->slot.clip_count;
    for (size_t i = 0; i < clips; i++) {
        philox_stream window = {
            .key = t->seed, .purpose = PURPOSE_WINDOW, .position = position * 2 * t->slot_rows + i};
        t->starts[i] = (int)philox_next_below(&window, slack);
    }
    const float *scores;
    for (size_t first = 0; first < clips; first += part) {
        const size_t count = clips - first < part ? clips - first : part;
        TRY(forward_part(t, first, count, &scores));
        memcpy(t->scores + first, scores, sizeof(float) * count);
    }
    measure_slot(t, sums, d_threshold);
    TRY(reward_threshold_gradient(t->model, d_threshold, gradients));
    for (size_t first = 0; first < clips; first += part) {
        const size_t count = clips - first < part ? clips - first : part;
        if (clips > part)
            TRY(forward_part(t, first, count, &scores));
        TRY(reward_backward(t->model, t->pass, (int)count, t->d_scores + first, gradients));
    }
    return STATUS_OK;
}

typedef struct step_outcome {
    reward_outcome training;
    double gradient_norm, seconds;
    float rate;
    bool skipped;
} step_outcome;

static status train_step(reward_trainer *t, step_outcome *out) {
    const double start = stage_seconds();
    const parameter_list *list = reward_model_parameters(t->model);
    const int slots = t->config->reward.gradient_slots;
    memset(t->sums, 0, sizeof(double) * (size_t)slots * REWARD_SUMS);
    for (int slot = t->first_slot; slot < t->first_slot + t->slots; slot++) {
        TRY(run_slot(t, (uint64_t)t->step * (uint64_t)slots + (uint64_t)slot, t->sums + slot * REWARD_SUMS));
        gradient_sum_add(t->gradients);
    }
    TRY(gradient_sum_share(t->gradients));
    TRY(group_all_reduce_tree_double(t->group, t->sums, (size_t)slots * REWARD_SUMS));
    double total[REWARD_SUMS] = {0.0};
    for (int slot = 0; slot < slots; slot++)
        for (int i = 0; i < REWARD_SUMS; i++)
            total[i] += t->sums[slot * REWARD_SUMS + i];
    const double count = total[REWARD_SUM_COUNT];
    *out = (step_outcome){.training = {.loss = count > 0.0 ? total[REWARD_SUM_LOSS] / count : NAN,
                                       .accuracy = total[REWARD_SUM_RIGHT] / total[REWARD_SUM_DECISIVE],
                                       .count = (size_t)count,
                                       .decisive = (size_t)total[REWARD_SUM_DECISIVE]},
                          .skipped = true};
    out->rate = (float)t->settings->learning_rate *
                schedule_factor(t->step, t->settings->warm_up, t->settings->steps, 0.1f);
    if (count > 0.0) { // a step whose rows are all held out changes nothing
        float *gradients = gradient_sum_values(t->gradients);
        op_scale(t->device, list->size, 1.0f / (float)count, gradients);
        const optimizer_result update =
            optimizer_update(t->optimizer, out->rate, gradients, reward_model_values(t->model));
        out->gradient_norm = update.gradient_norm;
        out->skipped = update.skipped;
        TRY(reward_model_pack(t->model));
    }
    t->skipped_updates += out->skipped;
    t->step++;
    out->seconds = stage_seconds() - start;
    t->seconds += out->seconds;
    t->seen += (size_t)count;
    return STATUS_OK;
}

static status evaluate(reward_trainer *t, reward_outcome *out) {
    TRY(reward_score_set(&t->data, t->model, t->pass, &t->inputs, t->group, &t->selection, t->selection_score,
                         NULL));
    *out = reward_measure(&t->selection, t->data.plan.quality, t->selection_score,
                          reward_model_threshold(t->model));
    if (out->loss < t->best_loss) {
        t->best_loss = out->loss;
        t->best_step = t->step;
        t->waits = 0;
        parameter_list_copy(t->device, reward_model_parameters(t->model), reward_model_values(t->model),
                            t->best);
    } else {
        t->waits++;
    }
    return STATUS_OK;
}

static status create_saver(reward_trainer *t) {
    const parameter_list *list = reward_model_parameters(t->model);
    if (world_rank(t->world) != 0)
        return STATUS_OK;
    TRY(saver_create(&t->saver, "reward"));
    TRY(model_add_to_saver(t->saver, "reward.safetensors", list, t->device, reward_model_values(t->model)));
    TRY(model_add_to_saver(t->saver, "best.safetensors", list, t->device, t->best));
    return run_add_optimizer(t->saver, "optimizer", t->optimizer, 0, 1);
}

static status start_save(reward_trainer *t) {
    return run_folder_save(&t->run, t->saver, t->step,
                           json_pack("{s:I,s:I,s:I,s:I,s:f,s:o}", "step", (json_int_t)t->step,
                                     "skipped_updates", (json_int_t)t->skipped_updates, "best_step",
                                     (json_int_t)t->best_step, "waits", (json_int_t)t->waits, "best_loss",
                                     t->best_loss, "settings", json_deep_copy(t->record)));
}

static status read_values(const reward_trainer *t, const checkpoint *from, const char *name, float *values) {
    safetensors *file;
    TRY(checkpoint_open_tensors(from, name, &file));
    const status result = model_read_values(file, reward_model_parameters(t->model), t->device, values);
    safetensors_close(file);
    return result;
}

// The record of what is at `path` with what is wanted now; `folder` has to go for another training.
static status compare_settings(const json_t *recorded, const json_t *wanted, const char *path,
                               const char *folder) {
    char mend[PATH_MAX + 32];
    snprintf(mend, sizeof mend, "remove %s to train again", folder);
    return settings_record_compare(recorded, wanted, path, mend);
}

static status resume_from(reward_trainer *t, const checkpoint *from) {
    json_int_t step, best_step, waits;
    if (json_unpack((json_t *)checkpoint_state(from), "{s:I,s:I,s:I,s:F}", "step", &step, "best_step",
                    &best_step, "waits", &waits, "best_loss", &t->best_loss) != 0)
        return FAIL("%s is no checkpoint of a reward model; remove the folder to train again",
                    checkpoint_path(from));
    TRY(compare_settings(json_object_get(checkpoint_state(from), "settings"), t->record,
                         checkpoint_path(from), t->run.path));
    t->step = step;
    t->best_step = best_step;
    t->waits = waits;
    t->skipped_updates = json_integer_value(json_object_get(checkpoint_state(from), "skipped_updates"));
    TRY(read_values(t, from, "reward.safetensors", reward_model_values(t->model)));
    TRY(read_values(t, from, "best.safetensors", t->best));
    TRY(run_load_optimizer(from, "optimizer", t->optimizer));
    return reward_model_pack(t->model);
}

static status start_from_policy(reward_trainer *t) {
    policy *policy;
    TRY(reward_data_load_base(&t->data, &policy));
    parameter_list_copy_shared(t->device, policy_parameters(policy), policy_values(policy),
                               reward_model_parameters(t->model), reward_model_values(t->model));
    policy_destroy(policy);
    return STATUS_OK;
}

static status start_model(reward_trainer *t) {
    TRY(model_initialise(t->device, reward_model_parameters(t->model), t->seed,
                         reward_model_values(t->model)));
    if (t->data.plan.start == RUN_REWARD_START_POLICY)
        TRY(start_from_policy(t));
    return reward_model_pack(t->model);
}

static status prepare(reward_trainer *t, const reward_plan *plan) {
    const run_config *c = t->config;
    const int slots = c->reward.gradient_slots, ranks = world_size(t->world);
    if (ranks > slots || slots % ranks != 0 || (ranks & (ranks - 1)) != 0)
        return FAIL_USAGE(
            "%d ranks cannot share reward.gradient_slots = %d; use a power of two of ranks that divides it",
            ranks, slots);
    t->slots = slots / ranks;
    t->first_slot = t->slots * world_rank(t->world);
    t->slot_rows = (size_t)(t->settings->batch / slots);
    TRY(reward_data_open(&t->data, t->device, c, plan));
    TRY(reward_data_record(&t->data, &t->record));
    TRY(reward_set_create(&t->slot, t->slot_rows));
    TRY(reward_set_create(&t->selection, (size_t)c->reward.evaluate_limit));
    const size_t clips = 2 * t->slot_rows;
    TRY(reward_inputs_create(&t->inputs, &t->data, clips));
    TRY(memory_allocate((void **)&t->starts, sizeof(int) * clips, "windows"));
    TRY(memory_allocate((void **)&t->scores, sizeof(float) * clips, "scores"));
    TRY(memory_allocate((void **)&t->d_scores, sizeof(float) * clips, "score gradients"));
    TRY(memory_allocate((void **)&t->selection_score, sizeof(float) * 2 * (size_t)c->reward.evaluate_limit,
                        "selection scores"));
    TRY(memory_allocate((void **)&t->sums, sizeof(double) * (size_t)slots * REWARD_SUMS, "statistics"));
    TRY(reward_set_fill(&t->selection, &t->data, REWARD_SIDE_SELECTION));
    if (t->selection.count == 0)
        return FAIL("%s holds no %s of the captions that select a model (one caption in twenty is); collect "
                    "ratings of more captions",
                    c->data.ratings, plan->quality ? "scores" : "votes");
    return STATUS_OK;
}

// The model and what is as large.
static status create_parts(void *context) {
    reward_trainer *t = context;
    const run_config *c = t->config;
    TRY(reward_model_create(&t->model, t->device, &t->data.shape, true, WEIGHT_F32));
    TRY(reward_pass_create(&t->pass, t->model, t->settings->slot_clips, true));
    const parameter_list *list = reward_model_parameters(t->model);
    const optimizer_config adamw = {.beta1 = (float)c->reward.beta1,
                                    .beta2 = (float)c->reward.beta2,
                                    .epsilon = (float)c->reward.epsilon,
                                    .weight_decay = (float)c->reward.weight_decay,
                                    .gradient_clip = (float)c->reward.gradient_clip};
    TRY(optimizer_create(&t->optimizer, t->device, list, &adamw));
    TRY(gradient_sum_create(&t->gradients, t->device, list->size, (uint32_t)t->slots));
    return device_allocate(t->device, (void **)&t->best, sizeof(float) * list->size, "selected model");
}

static void destroy_parts(void *context) {
    reward_trainer *t = context;
    gradient_sum_destroy(t->gradients);
    optimizer_destroy(t->optimizer);
    reward_pass_destroy(t->pass);
    reward_model_destroy(t->model);
    device_free(t->device, t->best);
    t->gradients = NULL;
    t->optimizer = NULL;
    t->pass = NULL;
    t->model = NULL;
    t->best = NULL;
}

static status write_step(reward_trainer *t, const step_outcome *s, const reward_outcome *held_out) {
    if (!t->run.writes)
        return STATUS_OK;
    metrics *m = t->run.metrics;
    metrics_begin(m, t->step);
    if (s != NULL) {
        metrics_add(m, "loss", s->training.loss);
        if (s->training.decisive > 0)
            metrics_add(m, "accuracy", s->training.accuracy);
        metrics_add(m, "grad_norm", s->gradient_norm);
        metrics_add(m, "learning_rate", (double)s->rate);
        metrics_add(m, "skipped_updates", (double)t->skipped_updates);
        metrics_add(m, t->data.plan.quality ? "scores_per_s" : "pairs_per_s",
                    (double)s->training.count / s->seconds);
        metrics_add(m, "seconds/learn", s->seconds);
        metrics_add(m, "seconds/save", t->save_seconds);
        t->save_seconds = 0.0; // told
        metrics_add(m, "seconds/write", saver_write_seconds(t->saver));
    }
    if (held_out != NULL) {
        metrics_add(m, "eval/loss", held_out->loss);
        if (held_out->decisive > 0)
            metrics_add(m, "eval/accuracy", held_out->accuracy);
    }
    return metrics_end(m);
}

static void detail_of(char *out, size_t size, const reward_outcome *o) {
    if (o->decisive > 0)
        snprintf(out, size, "held-out loss %.4f, accuracy %.3f", o->loss, o->accuracy);
    else
        snprintf(out, size, "held-out loss %.4f", o->loss);
}

static bool is_finished(const reward_trainer *t) {
    return t->step >= t->settings->steps || t->waits >= t->settings->patience;
}

static status train_member(reward_trainer *t, bool resumed) {
    char title[48], detail[96] = "";
    snprintf(title, sizeof title, "reward %s", reward_plan_kind(&t->data.plan));
    if (t->data.plan.members > 1)
        snprintf(title, sizeof title, "reward %s %d", reward_plan_kind(&t->data.plan), t->member);
    progress progress;
    progress_start(&progress, t->run.writes ? stdout : NULL, title, "step", t->step, t->settings->steps);
    reward_outcome held_out;
    if (!resumed) {
        TRY(evaluate(t, &held_out));
        TRY(write_step(t, NULL, &held_out));
        detail_of(detail, sizeof detail, &held_out);
    }
    bool stop = false;
    while (!is_finished(t) && !stop) {
        step_outcome step;
        watch_enter(t->watch, WATCH_LEARN, t->step);
        TRY(train_step(t, &step));
        const bool evaluates = t->step % t->settings->evaluate_every == 0 || t->step == t->settings->steps;
        if (evaluates) {
            TRY(evaluate(t, &held_out));
            detail_of(detail, sizeof detail, &held_out);
        }
        TRY(write_step(t, &step, evaluates ? &held_out : NULL));
        TRY(world_any(t->world, run_stop_requested(), &stop));
        if (evaluates || stop) {
            const double start = stage_seconds();
            watch_enter(t->watch, WATCH_SAVE, t->step);
            TRY(world_agree(t->world, t->run.writes ? start_save(t) : STATUS_OK));
            t->save_seconds = stage_seconds() - start;
        }
        TRY(world_agree(t->world, !t->run.writes           ? STATUS_OK
                                  : stop || is_finished(t) ? saver_wait(t->saver)
                                                           : saver_check(t->saver)));
        progress_show(&progress, t->step, detail);
    }
    progress_finish(&progress, t->step, detail);
    watch_enter(t->watch, WATCH_END, t->step);
    if (stop && !is_finished(t))
        return status_set(STATUS_STOPPED, "stopped on request at step %lld; run again to continue",
                          (long long)t->step);
    return STATUS_OK;
}

static status fit_and_train(reward_trainer *t, bool resumed) {
    watch_enter(t->watch, WATCH_LEARN, t->step);
    if (!resumed) {
        TRY(reward_fit_head(t));
        TRY(reward_model_pack(t->model));
    }
    return train_member(t, resumed);
}

static status publish(reward_trainer *t, const char *folder) {
    if (!t->run.writes)
        return STATUS_OK;
    parameter_list_copy(t->device, reward_model_parameters(t->model), t->best, reward_model_values(t->model));
    reward_description d = {.model = t->data.shape, .members = t->data.plan.members};
    snprintf(d.kind, sizeof d.kind, "%s", reward_plan_kind(&t->data.plan));
    snprintf(d.codec, sizeof d.codec, "%s", corpus_get_format(t->data.clips)->codec);
    snprintf(d.embedding, sizeof d.embedding, "%s", t->data.embedding_identity);
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/summary.json", t->run.path);
    TRY(json_file_publish(path, json_pack("{s:s,s:i,s:I,s:I,s:f,s:I,s:I,s:f,s:f}", "kind", d.kind, "member",
                                          t->member, "steps", (json_int_t)t->step, "selected_step",
                                          (json_int_t)t->best_step, "selection_loss", t->best_loss,
                                          "selection_examples", (json_int_t)t->selection.count, "rows",
                                          (json_int_t)t->data.rows, "seconds", t->seconds, "examples_per_s",
                                          t->seconds > 0.0 ? (double)t->seen / t->seconds : 0.0)));
    printf("reward %s: selected step %lld of %lld, %.0f %s/s\n", d.kind, (long long)t->best_step,
           (long long)t->step, t->seconds > 0.0 ? (double)t->seen / t->seconds : 0.0,
           t->data.plan.quality ? "scores" : "pairs");
    return reward_file_save(folder, t->member, &d, t->record, t->device, t->model);
}

static status run_member(reward_trainer *t, const reward_plan *plan) {
    checkpoint *resume = NULL;
    char path[PATH_MAX], title[48], note[DEVICE_NOTE], among[DEVICE_GROUP_NOTE];
    const plan_parts parts = {create_parts, destroy_parts, t};
    status result;
    snprintf(title, sizeof title, "reward %s", reward_plan_kind(plan));
    TRY_GOTO(result, device_choose(&t->device, t->config, t->world, world_threads(t->world), note), done);
    plan_begin(&t->plan);
    TRY_GOTO(result, world_agree(t->world, prepare(t, plan)), done);
    TRY_GOTO(result, plan_device(&t->plan, t->world, t->device, 0, title, &parts), done);
    TRY_GOTO(result, world_agree(t->world, create_parts(t)), done);
    TRY_GOTO(result, world_agree(t->world, group_create_whole(&t->group, t->world)), done);
    TRY_GOTO(result, world_agree(t->world, device_group_create(&t->devices, t->device, t->group, among)),
             done);
    TRY_GOTO(result, world_agree(t->world, gradient_sum_among(t->gradients, t->devices, 0, SIZE_MAX)), done);
    TRY_GOTO(result, world_agree(t->world, create_saver(t)), done);
    TRY_GOTO(result, plan_check(&t->plan, t->world, 0, title), done);
    if (t->member == 0)
        snprintf(path, sizeof path, "%s", plan->folder);
    else
        snprintf(path, sizeof path, "%s/member-%d", plan->folder, t->member);
    TRY_GOTO(result, run_folder_open(&t->run, t->world, path, 0, &resume), done);
    TRY_GOTO(result, world_agree(t->world, resume != NULL ? resume_from(t, resume) : start_model(t)), done);
    TRY_GOTO(result,
             world_agree(t->world, run_folder_start(&t->run, t->config, resume != NULL ? t->step + 1 : 0)),
             done);
    if (t->run.writes)
        printf("%s: %s\n", title, note);
    if (t->run.writes && among[0] != '\0')
        printf("%s: gradients: %s\n", title, among);
    if (t->run.writes && resume != NULL)
        printf("%s: taken up at step %lld\n", title, (long long)t->step);
    const watch_plan watched = watch_plan_make(t->config, t->run.path, "learner");
    TRY_GOTO(result, watch_start(&t->watch, t->world, 0, &watched), done);
    result = fit_and_train(t, resume != NULL);
    if (result == STATUS_FAILED && world_size(t->world) > 1)
        world_abort(t->world, status_message()); // the other ranks may be waiting in a collective
    TRY_GOTO(result, result, done);
    TRY_GOTO(result, world_agree(t->world, publish(t, plan->folder)), done);
done:
    checkpoint_close(resume);
    return result;
}

static status train_one(world *world, const run_config *config, const reward_plan *plan, int member) {
    reward_trainer t = {.config = config,
                        .settings = plan->quality ? &config->reward.quality : &config->reward.preference,
                        .world = world,
                        .member = member,
                        .seed = (uint64_t)config->seed + (uint64_t)member * MEMBER_SEEDS,
                        .best_loss = INFINITY};
    const status result = run_member(&t, plan);
    watch_stop(t.watch);
    saver_destroy(t.saver); // before what it reads
    run_folder_close(&t.run);
    device_group_destroy(t.devices); // before the buffers that it may still use
    destroy_parts(&t);
    group_destroy(t.group);
    reward_set_destroy(&t.slot);
    reward_set_destroy(&t.selection);
    reward_inputs_destroy(&t.inputs);
    memory_free(t.starts);
    memory_free(t.scores);
    memory_free(t.d_scores);
    memory_free(t.selection_score);
    memory_free(t.sums);
    reward_data_close(&t.data);
    device_destroy(t.device);
    json_decref(t.record);
    return result;
}

// Whether the published member, if there is one, is what this training would make.
static status is_published(const run_config *config, const reward_plan *plan, int threads, int member,
                           bool *out) {
    char path[PATH_MAX];
    *out = false;
    snprintf(path, sizeof path, "%s/reward-%d.safetensors", plan->folder, member);
    if (access(path, F_OK) != 0)
        return STATUS_OK;
    device *device = NULL;
    reward_data data = {0};
    reward_description found;
    json_t *recorded = NULL, *wanted = NULL;
    status result;
    TRY_GOTO(result, reward_file_describe(&found, plan->folder, member, reward_plan_kind(plan)), done);
    TRY_GOTO(result, reward_file_training(&recorded, plan->folder, member), done);
    TRY_GOTO(result, device_create(&device, threads), done);
    TRY_GOTO(result, reward_data_open(&data, device, config, plan), done);
    TRY_GOTO(result, reward_data_record(&data, &wanted), done);
    result = compare_settings(recorded, wanted, path, plan->folder);
    *out = result == STATUS_OK;
done:
    json_decref(recorded);
    json_decref(wanted);
    reward_data_close(&data);
    device_destroy(device);
    return result;
}

status reward_train(world *world, const run_config *config, const reward_plan *plan) {
    for (int member = plan->members - 1; member >= 0; member--) {
        bool done, stop;
        TRY(world_any(world, run_stop_requested(), &stop));
        if (stop)
            return status_set(STATUS_STOPPED, "stopped on request before member %d; run again to continue",
                              member);
        TRY(world_agree(world, is_published(config, plan, world_threads(world), member, &done)));
        if (!done)
            TRY(train_one(world, config, plan, member));
        else if (world_rank(world) == 0)
            printf("reward %s: %s/reward-%d.safetensors is current\n", reward_plan_kind(plan), plan->folder,
                   member);
    }
    return STATUS_OK;
}

static status train_kind(const run_config *config, const char *kind) {
    world *world;
    reward_plan plan;
    run_catch_signals();
    TRY(reward_plan_make(&plan, config, kind));
    const world_options options = {.threads = config->threads, .deadline_seconds = config->deadlines.start};
    TRY(world_create(&world, &options));
    const status result = reward_train(world, config, &plan);
    run_speak_once(world, result);
    world_destroy(world);
    return result;
}

status reward_train_quality(const run_config *config) {
    return train_kind(config, "quality");
}

status reward_train_preference(const run_config *config) {
    return train_kind(config, "preference");
}
