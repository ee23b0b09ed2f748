// Which step of a run is its result, and when a run ends early: both decided by the evaluations on held-out
// captions, so that neither a noisy batch nor a collapse that the reward does not see can win.
//
// The rule: among the evaluated steps, the base (step 0) included, whose diversity and text adherence on
// held-out captions are at least train.select.diversity and train.select.text_adherence times the base's, the
// one of the highest value, the weighted sum of the whitened rewards; the earliest of equals. For a run that
// starts from another run, as RU from R, the floors are shares of what the first of them started from.
#include "launch/train_parts.h"

#include "data/checkpoint.h"
#include "data/json_file.h"
#include "kernels/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

const char *const train_alarm_names[ALARMS] = {"silence", "loop", "codebook_collapse", "clipped"};

// A share of the base's number; of a negative one, as far below it.
static double floor_of(double base, double share) {
    return base - (1.0 - share) * fabs(base);
}

static train_floors floors_base(const train *t) {
    const evaluation *own = &t->evaluations[0];
    return isfinite(t->floors_of.diversity) ? t->floors_of
                                            : (train_floors){own->diversity, own->text_adherence};
}

static double diversity_floor(const train *t) {
    return floor_of(floors_base(t).diversity, t->config->train.select.diversity);
}

static double adherence_floor(const train *t) {
    return floor_of(floors_base(t).text_adherence, t->config->train.select.text_adherence);
}

static bool is_diverse(const train *t, const evaluation *e) {
    return e->diversity >= diversity_floor(t);
}

static bool passes(const train *t, const evaluation *e) {
    return isfinite(e->value) && is_diverse(t, e) && e->text_adherence >= adherence_floor(t);
}

int train_select(const train *t) {
    int best = 0;
    for (int i = 1; i < t->evaluation_count; i++)
        if (t->evaluations[i].kept && passes(t, &t->evaluations[i]) &&
            t->evaluations[i].value > t->evaluations[best].value)
            best = i;
    return best;
}

static json_t *numbers(const double *values, int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_real(values[i]));
    return list;
}

static json_t *named_rewards(const train *t, const double *values) {
    json_t *object = json_object();
    for (int j = 0; j < t->config->train.rewards.count; j++)
        json_object_set_new(object, t->config->train.rewards.entries[j].name, json_real(values[j]));
    return object;
}

static json_t *evaluation_to_json(const train *t, const evaluation *e) {
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:o,s:o,s:o,s:o}", "step", (json_int_t)e->step, "reward",
                     e->reward, "value", e->value, "deviation", e->deviation, "diversity", e->diversity,
                     "text_adherence", e->text_adherence, "kl", e->kl, "rewards", named_rewards(t, e->each),
                     "disagreement", named_rewards(t, e->disagreement), "alarms", numbers(e->alarms, ALARMS),
                     "perplexity", numbers(e->perplexity, t->shape.temporal.levels));
}

json_t *train_evaluations_to_json(const train *t) {
    json_t *list = json_array();
    for (int i = 0; i < t->evaluation_count; i++)
        json_array_append_new(list, evaluation_to_json(t, &t->evaluations[i]));
    return list;
}

static void read_numbers(const json_t *list, double *out, int count) {
    for (int i = 0; i < count; i++)
        out[i] = json_number_value(json_array_get(list, (size_t)i));
}

static void read_evaluation(const train *t, const json_t *from, evaluation *out) {
    *out = (evaluation){.step = json_integer_value(json_object_get(from, "step"))};
    const struct {
        const char *name;
        double *value;
    } fields[] = {{"reward", &out->reward},
                  {"value", &out->value},
                  {"deviation", &out->deviation},
                  {"diversity", &out->diversity},
                  {"text_adherence", &out->text_adherence},
                  {"kl", &out->kl}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        *fields[i].value = json_number_value(json_object_get(from, fields[i].name));
    for (int j = 0; j < t->config->train.rewards.count; j++) {
        const char *name = t->config->train.rewards.entries[j].name;
        out->each[j] = json_number_value(json_object_get(json_object_get(from, "rewards"), name));
        out->disagreement[j] =
            json_number_value(json_object_get(json_object_get(from, "disagreement"), name));
    }
    read_numbers(json_object_get(from, "alarms"), out->alarms, ALARMS);
    read_numbers(json_object_get(from, "perplexity"), out->perplexity, t->shape.temporal.levels);
}

json_t *train_floors_to_json(const train *t) {
    const train_floors base = floors_base(t);
    return json_pack("{s:f,s:f}", "diversity", base.diversity, "text_adherence", base.text_adherence);
}

// NAN, NAN where they are not both there.
static void read_floors(const json_t *from, train_floors *out) {
    if (json_unpack((json_t *)from, "{s:F,s:F}", "diversity", &out->diversity, "text_adherence",
                    &out->text_adherence) != 0)
        *out = (train_floors){NAN, NAN};
}

// Of the run that this one starts from, if it starts from one.
static status read_floors_of_base(train *t) {
    char path[RUN_CONFIG_PATH_MAX + 32];
    json_error_t error;
    struct stat info;
    snprintf(path, sizeof path, "%s/selected.json", t->config->data.base);
    t->floors_of = (train_floors){NAN, NAN};
    if (stat(path, &info) != 0)
        return STATUS_OK;
    json_t *selected = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (selected == NULL)
        return FAIL("%s:%d: %s", path, error.line, error.text);
    read_floors(json_object_get(selected, "floors_of"), &t->floors_of);
    json_decref(selected);
    return STATUS_OK;
}

status train_selection_begin(train *t, const json_t *state) {
    if (state == NULL)
        TRY(read_floors_of_base(t));
    else
        read_floors(json_object_get(state, "floors_of"), &t->floors_of);
    const json_t *list = json_object_get(state, "evaluations");
    const int every = t->config->train.evaluate_every;
    const int64_t left = t->config->train.steps > t->step ? t->config->train.steps - t->step : 0;
    t->evaluation_count = (int)json_array_size(list);
    t->evaluation_capacity = t->evaluation_count + 2 + (int)(every > 0 ? left / every : 0);
    TRY(memory_allocate((void **)&t->evaluations, sizeof *t->evaluations * (size_t)t->evaluation_capacity,
                        "evaluations"));
    checkpoint_list kept;
    TRY(checkpoint_list_folder(&kept, t->run.checkpoints));
    for (int i = 0; i < t->evaluation_count; i++) {
        evaluation *e = &t->evaluations[i];
        read_evaluation(t, json_array_get(list, (size_t)i), e);
        for (size_t k = 0; k < kept.count; k++)
            e->kept = e->kept || kept.entries[k].step == (uint64_t)e->step;
    }
    checkpoint_list_free(&kept);
    return STATUS_OK;
}

void train_describe_selection(const train *t, json_t **out, char path[RUN_CONFIG_PATH_MAX + 32]) {
    const int selected = train_select(t);
    const double diversity = t->config->train.select.diversity,
                 adherence = t->config->train.select.text_adherence;
    json_t *list = train_evaluations_to_json(t);
    for (int i = 0; i < t->evaluation_count; i++) {
        json_t *entry = json_array_get(list, (size_t)i);
        json_object_set_new(entry, "passes", json_boolean(i == 0 || passes(t, &t->evaluations[i])));
        json_object_set_new(entry, "alarms", json_object());
        for (int a = 0; a < ALARMS; a++)
            json_object_set_new(json_object_get(entry, "alarms"), train_alarm_names[a],
                                json_real(t->evaluations[i].alarms[a]));
    }
    json_t *weights = json_object();
    for (int j = 0; j < t->config->train.rewards.count; j++)
        json_object_set_new(weights, t->config->train.rewards.entries[j].name,
                            json_real(t->config->train.rewards.entries[j].weight));
    snprintf(path, RUN_CONFIG_PATH_MAX + 32, "%s/selected.json", t->run.path);
    *out = json_pack("{s:I, s:b, s:s, s:o, s:{s:f, s:f}, s:{s:f, s:f}, s:o, s:o}", "step",
                     (json_int_t)t->evaluations[selected].step, "improved", selected > 0, "rule",
                     "of the evaluated steps, the base included, that keep the floors of diversity and text "
                     "adherence on held-out captions, the one of the highest weighted, whitened reward",
                     "weights", weights, "floors", "diversity", diversity_floor(t), "text_adherence",
                     adherence_floor(t), "shares_of_base", "diversity", diversity, "text_adherence",
                     adherence, "floors_of", train_floors_to_json(t), "evaluations", list);
}

status train_publish_selection(const train *t) {
    if (!t->run.writes)
        return STATUS_OK;
    char path[RUN_CONFIG_PATH_MAX + 32];
    json_t *selection;
    train_describe_selection(t, &selection, path);
    return json_file_publish(path, selection);
}

static int in_a_row_without_diversity(const train *t) {
    int count = 0;
    for (int i = t->evaluation_count - 1; i > 0 && !is_diverse(t, &t->evaluations[i]); i--)
        count++;
    return count;
}

bool train_ends_early(const train *t, char *reason, size_t size) {
    reason[0] = '\0';
    const evaluation *e = train_evaluation_of_step(t), *base = t->evaluations;
    if (e == NULL || e->step == 0)
        return false;
    const double kl = t->config->train.stop.kl, alarms = t->config->train.stop.alarms,
                 disagreement = t->config->train.stop.disagreement;
    const int row = t->config->train.stop.diversity;
    if (kl > 0.0 && !(e->kl <= kl))
        snprintf(reason, size, "KL to the base is %.4g nats a sequence, train.stop.kl allows %.4g", e->kl,
                 kl);
    else if (row > 0 && in_a_row_without_diversity(t) >= row)
        snprintf(reason, size,
                 "diversity is %.4g, below %.4g (%.4g of the base's) at %d evaluations in a row "
                 "(train.stop.diversity)",
                 e->diversity, diversity_floor(t), t->config->train.select.diversity, row);
    else if (disagreement > 0.0 && !(train_disagreement(t, e->disagreement) <= disagreement))
        snprintf(reason, size,
                 "the reward models disagree %.4g times as much as on the base, train.stop.disagreement "
                 "allows %.4g",
                 train_disagreement(t, e->disagreement), disagreement);
    for (int a = 0; a < ALARMS && alarms > 0.0 && reason[0] == '\0'; a++)
        if (!(e->alarms[a] - base->alarms[a] <= alarms))
            snprintf(reason, size,
                     "alarm/%s is %.4g, on the base %.4g: more than %.4g above (train.stop.alarms)",
                     train_alarm_names[a], e->alarms[a], base->alarms[a], alarms);
    return reason[0] != '\0';
}

status train_publish_summary(const train *t, const char *reason) {
    if (!t->run.writes)
        return STATUS_OK;
    const int selected = train_select(t);
    char path[RUN_CONFIG_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/summary.json", t->run.path);
    return json_file_publish(
        path, json_pack("{s:s, s:I, s:I, s:b, s:s, s:I, s:o, s:o, s:o, s:I, s:I}", "name", t->config->name,
                        "steps", (json_int_t)t->step, "planned_steps", (json_int_t)t->config->train.steps,
                        "ended_early", reason[0] != '\0', "reason", reason, "selected_step",
                        (json_int_t)t->evaluations[selected].step, "base",
                        evaluation_to_json(t, &t->evaluations[0]), "selected",
                        evaluation_to_json(t, &t->evaluations[selected]), "last",
                        evaluation_to_json(t, &t->evaluations[t->evaluation_count - 1]), "skipped_updates",
                        (json_int_t)t->skipped_updates, "bad_scores", (json_int_t)t->bad_scores));
}
