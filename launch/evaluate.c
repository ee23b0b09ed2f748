#include "launch/evaluate_parts.h"

#include "data/clip_order.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/codec_file.h"
#include "launch/model_setup.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// "NAME=FOLDER", or "FOLDER", whose last part is the name.
static status name_contestant(evaluation *e, const char *word) {
    contestant *m = &e->models[e->model_count];
    const char *equals = strchr(word, '='), *folder = equals != NULL ? equals + 1 : word;
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        length--;
    if (length == 0 || length >= sizeof m->folder)
        return FAIL_USAGE("'%.60s' names no folder of a run", word);
    memcpy(m->folder, folder, length);
    const char *slash = strrchr(m->folder, '/');
    const char *name = equals != NULL ? word : slash != NULL ? slash + 1 : m->folder;
    const size_t name_length = equals != NULL ? (size_t)(equals - word) : strlen(name);
    for (size_t i = 0; i < name_length; i++)
        if (!isalnum((unsigned char)name[i]) && (strchr("._-", name[i]) == NULL || i == 0))
            return FAIL_USAGE("'%.*s' cannot be the name of a model and its clips; give one of letters, "
                              "digits, '.', '_' and '-' as NAME=%s",
                              (int)name_length, name, m->folder);
    if (name_length == 0 || name_length >= sizeof m->name)
        return FAIL_USAGE("the name of the model in '%.60s' has %zu bytes, 1 to %zu are wanted", word,
                          name_length, sizeof m->name - 1);
    memcpy(m->name, name, name_length);
    for (int i = 0; i < e->model_count; i++)
        if (strcmp(e->models[i].name, m->name) == 0)
            return FAIL_USAGE("two models are named '%s'; give one of them another name with NAME=%s",
                              m->name, m->folder);
    m->candidates = 1;
    e->model_count++;
    return STATUS_OK;
}

static status check_folders(const evaluation *e) {
    for (int m = 0; m < e->model_count; m++)
        if (access(e->models[m].folder, F_OK) != 0)
            return FAIL("%s: there is no such run folder", e->models[m].folder);
    return STATUS_OK;
}

static status read_config(evaluation *e) {
    static const char *const needed[] = {"data.codec", "data.embedding", "data.tokens"};
    const evaluate_options *o = e->options;
    const char *last = e->models[e->model_count - 1].folder;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", last);
    if (o->config == NULL && access(path, F_OK) != 0)
        return FAIL(
            "%s is no run folder (it has no config.yaml); name that of a model last, or give --config "
            "RUN.yaml",
            last);
    TRY(run_config_load(&e->config, o->config != NULL ? o->config : path, o->settings, o->setting_count));
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
        TRY(run_config_require_path(&e->config, needed[i], o->config == NULL ? path : NULL));
    return STATUS_OK;
}

// A model of another codec's tokens would sound like noise: what its run file names must be the same codec.
static status check_codec(const evaluation *e, const contestant *m) {
    char path[PATH_MAX], identity[SHARD_CODEC_MAX];
    snprintf(path, sizeof path, "%s/config.yaml", m->folder);
    if (access(path, F_OK) != 0)
        return STATUS_OK; // weights without a run file: only their shapes can be checked
    run_config *config;
    codec *codec = NULL;
    TRY(memory_allocate((void **)&config, sizeof *config, "run configuration"));
    status result;
    TRY_GOTO(result, run_config_load(config, path, NULL, 0), done);
    if (config->data.codec[0] == '\0' || strcmp(config->data.codec, e->config.data.codec) == 0)
        goto done;
    if (access(config->data.codec, F_OK) != 0) {
        printf("evaluate: whether %s was trained with this codec is not known: its own, %s, is not there\n",
               m->folder, config->data.codec);
        goto done;
    }
    TRY_GOTO(result, codec_load(&codec, config->data.codec), done);
    TRY_GOTO(result, codec_identify(codec, identity), done);
    if (strcmp(identity, e->generator->codec_identity) != 0)
        result =
            FAIL("%s was trained on tokens of the codec %s (%.8s...), which is not %s (%.8s...); models "
                 "of one codec can be compared",
                 m->folder, config->data.codec, identity, e->config.data.codec, e->generator->codec_identity);
done:
    codec_destroy(codec);
    memory_free(config);
    return result;
}

static status read_captions(evaluation *e) {
    corpus *corpus = NULL;
    clip_order *held_out = NULL;
    status result;
    TRY(run_config_require(&e->config, "data.tokens"));
    TRY(corpus_open(&corpus, e->config.data.tokens, SHARD_TOKENS));
    TRY_GOTO(result,
             clip_order_create(&held_out, corpus, true, (uint64_t)e->config.seed, e->config.data.tokens),
             done);
    const size_t available = clip_order_captions(held_out),
                 wanted = (size_t)e->config.train.evaluate_captions;
    e->caption_count = available < wanted ? available : wanted;
    TRY_GOTO(result, memory_allocate((void **)&e->captions, sizeof(char *) * e->caption_count, "captions"),
             done);
    for (size_t i = 0; i < e->caption_count; i++) {
        shard_clip clip;
        const size_t at =
            (wanted + i) % available; // after those by which runs selected a step, if there are more
        TRY_GOTO(result, corpus_read_strings(corpus, clip_order_plain(held_out, at), &clip), done);
        e->captions[i] = strdup(clip.caption);
        if (e->captions[i] == NULL)
            TRY_GOTO(result, FAIL("out of host memory: captions"), done);
    }
done:
    clip_order_destroy(held_out);
    corpus_close(corpus);
    return result;
}

static status read_prompts(evaluation *e) {
    TRY(prompts_read(&e->prompts, e->options->prompts));
    TRY(memory_allocate((void **)&e->prompt_texts, sizeof(char *) * e->prompts.count, "prompts"));
    for (size_t i = 0; i < e->prompts.count; i++)
        e->prompt_texts[i] = e->prompts.items[i].text;
    return STATUS_OK;
}

// The learned rewards that the run file names and that were trained.
static status load_scorers(evaluation *e) {
    generator *g = e->generator;
    const char *const folders[AUTOMATIC_REWARDS] = {
        [AUTOMATIC_QUALITY] = e->config.data.quality, [AUTOMATIC_PREFERENCE] = e->config.data.preference};
    e->scored[AUTOMATIC_TEXT_ADHERENCE] = true;
    e->config.train.reward_precision = RUN_PRECISION_F32; // whatever the runs trained with
    for (int r = AUTOMATIC_TEXT_ADHERENCE + 1; r < AUTOMATIC_REWARDS; r++) {
        if (folders[r][0] == '\0' || access(folders[r], F_OK) != 0)
            continue;
        TRY(scorer_create(&e->scorers[r], g->device, &e->config, g->conditioner, automatic_reward_names[r],
                          EVALUATE_BATCH, g->frames));
        e->scored[r] = true;
    }
    return STATUS_OK;
}

static status add_best_of(evaluation *e) {
    const evaluate_options *o = e->options;
    if (o->best_of < 2)
        return STATUS_OK;
    e->best_of_reward = e->scored[AUTOMATIC_PREFERENCE] ? AUTOMATIC_PREFERENCE : AUTOMATIC_TEXT_ADHERENCE;
    for (int r = 0; o->best_of_reward != NULL && r < AUTOMATIC_REWARDS; r++)
        if (strcmp(o->best_of_reward, automatic_reward_names[r]) == 0)
            e->best_of_reward = (automatic_reward)r;
    if (!e->scored[e->best_of_reward])
        return FAIL("the best of %d cannot be chosen by %s: there is no such reward (data.%s); train it or "
                    "name another one",
                    o->best_of, automatic_reward_names[e->best_of_reward],
                    automatic_reward_names[e->best_of_reward]);
    char word[RUN_CONFIG_PATH_MAX + EVALUATE_NAME_MAX];
    snprintf(word, sizeof word, "best-of-%d=%s", o->best_of, e->models[0].folder);
    TRY(name_contestant(e, word));
    e->models[e->model_count - 1].candidates = o->best_of;
    return STATUS_OK;
}

// Every later model against every earlier one, the baseline first.
static status pair_models(evaluation *e) {
    e->comparison_count = e->model_count * (e->model_count - 1) / 2;
    TRY(memory_allocate((void **)&e->comparisons, sizeof(comparison) * (size_t)e->comparison_count,
                        "comparisons"));
    comparison *next = e->comparisons;
    for (int b = 0; b < e->model_count; b++)
        for (int a = b + 1; a < e->model_count; a++)
            *next++ = (comparison){.a = a, .b = b};
    return STATUS_OK;
}

static status prepare(evaluation *e) {
    const evaluate_options *o = e->options;
    if (o->model_count < 2 && o->best_of < 2)
        return FAIL_USAGE("one model has nothing to be compared with; name two folders or more");
    for (int i = 0; i < o->model_count; i++)
        TRY(name_contestant(e, o->models[i]));
    TRY(check_folders(e));
    TRY(read_config(e));
    TRY(read_prompts(e));
    TRY(generator_create(&e->generator, &e->config, "evaluate", EVALUATE_BATCH, e->config.train.frames));
    for (int m = 0; m < e->model_count; m++)
        TRY(check_codec(e, &e->models[m]));
    TRY(read_captions(e));
    TRY(load_scorers(e));
    TRY(add_best_of(e));
    TRY(evaluate_load_panel(e));
    TRY(pair_models(e));
    if (o->ratings != NULL) // what is wrong with the file is said before the work
        TRY(evaluate_read_ratings(e));
    // As many clips at once as a gradient slot holds: what training had memory for.
    const int slot = e->config.train.batch / e->config.train.gradient_slots;
    TRY(divergence_create(&e->divergence, e->generator->device, e->generator->policy, slot > 0 ? slot : 1,
                          e->generator->frames));
    return model_load_policy(divergence_reference(e->divergence), e->generator->device, e->models[0].folder,
                             NULL, NULL);
}

static status draw_and_judge(evaluation *e) {
    printf("evaluate: %d models, %zu held-out captions, %zu prompts, the same random numbers for all\n",
           e->model_count, e->caption_count, e->prompts.count);
    for (int m = 0; m < e->model_count; m++) {
        const status result = evaluate_model(e, &e->models[m]);
        if (result != STATUS_OK)
            return status_prefix(result, "model %s: ", e->models[m].name);
    }
    if (e->listeners != NULL)
        TRY(evaluate_ask_panel(e));
    TRY(evaluate_judge(e));
    TRY(evaluate_write_samples(e));
    TRY(evaluate_write_results(e));
    evaluate_print(e);
    return STATUS_OK;
}

static status evaluate(evaluation *e) {
    int lock;
    TRY(prepare(e));
    TRY(publish_lock_folder(e->options->output, &lock));
    const status result = draw_and_judge(e);
    publish_unlock_folder(lock);
    return result;
}

static void release(evaluation *e) {
    for (int m = 0; m < e->model_count; m++)
        evaluate_model_release(&e->models[m]);
    for (int c = 0; e->comparisons != NULL && c < e->comparison_count; c++) {
        memory_free(e->comparisons[c].ratings);
        memory_free(e->comparisons[c].choices);
    }
    memory_free(e->comparisons);
    for (int r = 0; r < AUTOMATIC_REWARDS; r++)
        scorer_destroy(e->scorers[r]);
    for (size_t i = 0; e->captions != NULL && i < e->caption_count; i++)
        free(e->captions[i]);
    memory_free(e->captions);
    memory_free(e->prompt_texts);
    prompts_free(&e->prompts);
    listeners_destroy(e->listeners);
    memory_free(e->wanted);
    divergence_destroy(e->divergence);
    generator_destroy(e->generator);
}

status evaluate_run(const evaluate_options *options) {
    evaluate_options resolved = *options;
    evaluation *e;
    if (options->model_count < 1 || options->model_count > EVALUATE_MODELS_MAX)
        return FAIL_USAGE("%d models; 2 to %d can be evaluated", options->model_count, EVALUATE_MODELS_MAX);
    TRY(memory_allocate((void **)&e, sizeof *e, "evaluation"));
    e->options = &resolved;
    if (resolved.output == NULL) {
        const char *last = options->models[options->model_count - 1], *equals = strchr(last, '=');
        resolved.output = equals != NULL ? equals + 1 : last;
    }
    const status result = evaluate(e);
    release(e);
    memory_free(e);
    return result;
}
