#include "launch/reward_variants.h"

#include "kernels/memory.h"
#include "launch/device_choice.h"
#include "launch/reward_file.h"
#include "launch/reward_train.h"
#include "launch/reward_train_parts.h"
#include "launch/stage.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PASS_BATCH = 32, INPUTS = 256 };

static const struct {
    const char *name, *folder;
    double paper; // 0: none
} variants[REWARD_VARIANTS] = {
    [REWARD_VARIANT_FULL] = {"full", NULL, 0.60},
    [REWARD_VARIANT_NO_TEXT] = {"no text", "no-text", 0.60},
    [REWARD_VARIANT_TOKENS] = {"tokens only", "tokens", 0.0},
    [REWARD_VARIANT_HALF] = {"tokens only, 1/2 of the clip", "half", 0.56},
    [REWARD_VARIANT_QUARTER] = {"tokens only, 1/4 of the clip", "quarter", 0.56},
    [REWARD_VARIANT_THREE_TWENTIETH] = {"tokens only, 3/20 of the clip", "three-twentieth", 0.56},
    [REWARD_VARIANT_SCRATCH] = {"tokens only, from scratch", "scratch", 0.50},
    [REWARD_VARIANT_LINEAR] = {"linear on the joint embedding", NULL, 0.0},
    [REWARD_VARIANT_ADHERENCE] = {"higher text adherence wins", NULL, 0.516},
    [REWARD_VARIANT_QUALITY] = {"higher quality wins", NULL, 0.533},
};

const char *reward_variant_name(reward_variant variant) {
    return variants[variant].name;
}

double reward_variant_paper(reward_variant variant) {
    return variants[variant].paper > 0.0 ? variants[variant].paper : NAN;
}

static status open_test(reward_test *t, const char *kind) {
    char note[DEVICE_NOTE];
    TRY(device_choose(&t->device, t->config, t->world, world_threads(t->world), note));
    TRY(reward_plan_make(&t->plan, t->config, kind));
    TRY(reward_data_open(&t->data, t->device, t->config, &t->plan));
    TRY(reward_set_create(&t->set, (size_t)t->config->reward.test_limit));
    TRY(reward_set_fill(&t->set, &t->data, REWARD_SIDE_TEST));
    if (t->set.count == 0)
        return FAIL("%s holds no %s of the captions that measure a model (one caption in twenty is); collect "
                    "ratings of more captions",
                    t->config->data.ratings, t->plan.quality ? "scores" : "votes");
    return reward_units_create(&t->units, &t->data, &t->set);
}

status reward_test_open(reward_test *out, world *world, const run_config *config, const char *kind) {
    *out = (reward_test){.world = world, .config = config};
    const status result = open_test(out, kind);
    if (result != STATUS_OK)
        reward_test_close(out);
    return result;
}

void reward_test_close(reward_test *t) {
    reward_units_destroy(&t->units);
    reward_set_destroy(&t->set);
    reward_data_close(&t->data);
    device_destroy(t->device);
    *t = (reward_test){0};
}

static status add_member(reward_test *t, reward_data *data, const reward_plan *plan, int member,
                         const reward_description *description, reward_inputs *inputs, float *own,
                         float *scores) {
    reward_model *model = NULL;
    reward_pass *pass = NULL;
    status result;
    TRY_GOTO(result, reward_file_load(&model, t->device, plan->folder, member, description, WEIGHT_F32),
             done);
    TRY_GOTO(result, reward_pass_create(&pass, model, PASS_BATCH, false), done);
    TRY_GOTO(result, reward_score_set(data, model, pass, inputs, NULL, &t->set, own, NULL), done);
    for (size_t i = 0; i < t->set.clip_count; i++)
        scores[i] += own[i] / (float)description->members;
done:
    reward_pass_destroy(pass);
    reward_model_destroy(model);
    return result;
}

status reward_test_score(reward_test *t, const reward_plan *plan, float *scores) {
    reward_description description;
    reward_data data = {0};
    reward_inputs inputs = {0};
    float *own = NULL;
    status result;
    TRY_GOTO(result, reward_file_describe(&description, plan->folder, 0, reward_plan_kind(plan)), done);
    TRY_GOTO(result, reward_data_open(&data, t->device, t->config, plan), done);
    TRY_GOTO(
        result,
        reward_file_check(&description, plan->folder, corpus_get_format(data.clips), data.embedding_identity),
        done);
    data.shape = description.model; // what was trained, whatever the run file says now
    if (description.model.embedding != (int)data.embedding ||
        description.model.temporal.frames > data.frames) {
        result =
            FAIL("the %s model in %s reads %d frames and an embedding of %d, the rated clips have %d and "
                 "%zu; train it again",
                 description.kind, plan->folder, description.model.temporal.frames,
                 description.model.embedding, data.frames, data.embedding);
        goto done;
    }
    TRY_GOTO(result, reward_inputs_create(&inputs, &data, INPUTS), done);
    TRY_GOTO(result, memory_allocate((void **)&own, sizeof(float) * t->set.clip_count, "reward scores"),
             done);
    memset(scores, 0, sizeof(float) * t->set.clip_count);
    for (int member = 0; member < description.members; member++)
        TRY_GOTO(result, add_member(t, &data, plan, member, &description, &inputs, own, scores), done);
    for (size_t i = 0; i < t->set.clip_count; i++)
        if (!isfinite(scores[i])) {
            result = FAIL("the %s model in %s gives clip %u the score %g; train it again", description.kind,
                          plan->folder, t->set.clips[i], (double)scores[i]);
            goto done;
        }
done:
    memory_free(own);
    reward_inputs_destroy(&inputs);
    reward_data_close(&data);
    return result;
}

// Joint-embedding features of a set's clips, [clips, 2 * embedding], or text adherence in one column.
static status embedding_rows(reward_test *t, const reward_set *set, bool adherence, float *rows) {
    const size_t width = t->data.embedding;
    const reward_model_config shape = {.features = REWARD_FEATURES_MUSIC_TEXT, .embedding = (int)width};
    reward_inputs inputs;
    TRY(reward_inputs_create(&inputs, &t->data, INPUTS));
    status result = STATUS_OK;
    for (size_t at = 0; at < set->clip_count && result == STATUS_OK; at += INPUTS) {
        const size_t left = set->clip_count - at, count = left < INPUTS ? left : INPUTS;
        result = reward_data_load(&t->data, set->clips + at, count, &inputs);
        if (!adherence) {
            reward_model_make_features(&shape, count, inputs.text, inputs.music, rows + at * 2 * width);
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            rows[at + i] = 0.0f;
            for (size_t d = 0; d < width; d++)
                rows[at + i] += inputs.text[i * width + d] * inputs.music[i * width + d];
        }
    }
    reward_inputs_destroy(&inputs);
    return result;
}

// The linear baseline: as many training pairs as the model's head is fitted on, the penalty by
// cross-validation.
static status linear_scores(reward_test *t, float *scores) {
    const int limit = t->config->reward.fit_examples;
    const size_t capacity = limit > 0 ? (size_t)limit : 8000, width = 2 * t->data.embedding;
    reward_set training = {0};
    float *rows = NULL, *test_rows = NULL;
    double *weights = NULL, ridges[REWARD_RIDGES];
    fit_pair *pairs = NULL;
    int *fold = NULL;
    size_t count = 0;
    status result;
    TRY_GOTO(result, reward_set_create(&training, capacity), done);
    TRY_GOTO(result, reward_set_fill(&training, &t->data, REWARD_SIDE_TRAINING), done);
    TRY_GOTO(result,
             memory_allocate((void **)&rows, sizeof(float) * (training.clip_count * width + 1),
                             "embedding features"),
             done);
    TRY_GOTO(result,
             memory_allocate((void **)&test_rows, sizeof(float) * (t->set.clip_count * width + 1),
                             "embedding features"),
             done);
    TRY_GOTO(result, embedding_rows(t, &training, false, rows), done);
    TRY_GOTO(result, embedding_rows(t, &t->set, false, test_rows), done);
    TRY_GOTO(result, memory_allocate((void **)&weights, sizeof(double) * width, "linear weights"), done);
    TRY_GOTO(result, memory_allocate((void **)&pairs, sizeof *pairs * (training.count + 1), "pairs"), done);
    TRY_GOTO(result, memory_allocate((void **)&fold, sizeof(int) * (training.count + 1), "folds"), done);
    for (size_t i = 0; i < training.count; i++) {
        const reward_example *e = &training.examples[i];
        if (e->vote == PREFERENCE_BOTH_BAD)
            continue;
        TRY_GOTO(result, reward_data_fold(&t->data, training.clips[e->a], &fold[count]), done);
        pairs[count++] = (fit_pair){e->a, e->b,
                                    e->vote == PREFERENCE_A   ? 1.0f
                                    : e->vote == PREFERENCE_B ? 0.0f
                                                              : 0.5f};
    }
    const fit_options options = reward_fit_options(t->config, fold, ridges);
    TRY_GOTO(result, fit_preference(rows, width, pairs, count, &options, weights, NULL), done);
    for (size_t i = 0; i < t->set.clip_count; i++) {
        double sum = 0.0;
        for (size_t j = 0; j < width; j++)
            sum += weights[j] * (double)test_rows[i * width + j];
        scores[i] = (float)sum;
    }
done:
    memory_free(rows);
    memory_free(test_rows);
    memory_free(weights);
    memory_free(pairs);
    memory_free(fold);
    reward_set_destroy(&training);
    return result;
}

static int part_of(const reward_test *t, int numerator, int denominator) {
    const int frames = t->data.frames * numerator / denominator;
    return frames > 0 ? frames : 1;
}

static void change_plan(const reward_test *t, reward_variant variant, reward_plan *plan) {
    plan->members = 1;
    if (variant == REWARD_VARIANT_NO_TEXT) {
        plan->text = false;
        if (plan->features == RUN_REWARD_FEATURES_MUSIC_TEXT)
            plan->features = RUN_REWARD_FEATURES_MUSIC;
    } else {
        plan->features = RUN_REWARD_FEATURES_NONE;
    }
    if (variant == REWARD_VARIANT_SCRATCH) {
        plan->start = RUN_REWARD_START_SCRATCH;
        plan->fit = false;
    }
    plan->listen = variant == REWARD_VARIANT_HALF              ? part_of(t, 1, 2)
                   : variant == REWARD_VARIANT_QUARTER         ? part_of(t, 1, 4)
                   : variant == REWARD_VARIANT_THREE_TWENTIETH ? part_of(t, 3, 20)
                                                               : 0;
    if (plan->listen > 0)
        plan->crop = plan->listen;
    const size_t length = strlen(plan->folder);
    snprintf(plan->folder + length, sizeof plan->folder - length, "/variants/%s", variants[variant].folder);
}

status reward_variant_score(reward_test *t, reward_variant variant, float *scores) {
    reward_plan plan = t->plan;
    switch (variant) {
    case REWARD_VARIANT_FULL:
        return reward_test_score(t, &plan, scores);
    case REWARD_VARIANT_ADHERENCE:
        return embedding_rows(t, &t->set, true, scores);
    case REWARD_VARIANT_LINEAR:
        return linear_scores(t, scores);
    case REWARD_VARIANT_QUALITY:
        TRY(reward_plan_make(&plan, t->config, "quality"));
        return reward_test_score(t, &plan, scores);
    default:
        change_plan(t, variant, &plan);
        TRY(reward_train(t->world, t->config, &plan));
        return reward_test_score(t, &plan, scores);
    }
}

bool reward_variant_can_be_had(const reward_test *t, reward_variant variant) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/reward-0.safetensors", t->config->data.quality);
    return variant != REWARD_VARIANT_QUALITY ||
           (t->config->data.quality[0] != '\0' && access(path, F_OK) == 0);
}

void reward_panel_numbers(const run_config *config, const ratings *ratings, double *agreement,
                          double *ceiling) {
    static const char suffix[] = ".safetensors";
    *agreement = *ceiling = NAN;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", config->data.listeners);
    const size_t length = strlen(path), ending = sizeof suffix - 1;
    if (ratings_get_origin(ratings) != RATINGS_SIMULATED || length <= ending ||
        strcmp(path + length - ending, suffix) != 0)
        return;
    snprintf(path + length - ending, sizeof path - (length - ending), ".json");
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);
    const json_t *value = json_object_get(json, "agreement");
    if (json_is_number(value))
        *agreement = json_number_value(value);
    value = json_object_get(json, "ceiling");
    if (json_is_number(value))
        *ceiling = json_number_value(value);
    json_decref(json);
}
