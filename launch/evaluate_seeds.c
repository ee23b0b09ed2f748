#include "launch/evaluate_seeds.h"

#include "data/json_file.h"
#include "data/publish.h"
#include "kernels/memory.h"
#include "launch/evaluate_parts.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static double number_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static const json_t *find_model(const json_t *root, const char *name) {
    const json_t *models = json_object_get(root, "models");
    for (size_t i = 0; i < json_array_size(models); i++)
        if (strcmp(text_of(json_array_get(models, i), "name"), name) == 0)
            return json_array_get(models, i);
    return NULL;
}

static const json_t *find_pair(const json_t *root, const char *a, const char *b) {
    const json_t *pairs = json_object_get(root, "pairs");
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        const json_t *pair = json_array_get(pairs, i), *left = json_object_get(pair, "a"),
                     *right = json_object_get(pair, "b");
        if (json_is_string(left) && json_is_string(right) && strcmp(json_string_value(left), a) == 0 &&
            strcmp(json_string_value(right), b) == 0)
            return pair;
    }
    return NULL;
}

static status add_scores(const seed_evaluation *evaluation, const json_t *pair, size_t prompts,
                         comparison *to) {
    const json_t *scores = json_object_get(pair, "scores");
    if (!json_is_array(scores))
        return FAIL("%s holds no \"scores\" of raters; evaluate those models again", evaluation->name);
    for (size_t i = 0; i < json_array_size(scores); i++) {
        json_int_t prompt, a, b;
        if (json_unpack(json_array_get(scores, i), "[I,I,I]", &prompt, &a, &b) != 0 || prompt < 0 ||
            (size_t)prompt >= prompts)
            return FAIL("%s: entry %zu of \"scores\" is not [prompt below %zu, score, score]; evaluate those "
                        "models again",
                        evaluation->name, i, prompts);
        TRY(evaluate_add_rating(to, (uint32_t)prompt, (int)a, (int)b));
    }
    return STATUS_OK;
}

// Adds an evaluation's choices of the whole panel to `sums` [prompts]; *simulated is false afterwards where
// it has none, because people rated.
static status add_choices(const seed_evaluation *evaluation, const json_t *pair, size_t prompts, double *sums,
                          bool *simulated) {
    const json_t *choices = json_object_get(pair, "choices");
    *simulated = *simulated && choices != NULL;
    if (!*simulated)
        return STATUS_OK;
    if (json_array_size(choices) != prompts)
        return FAIL("%s: \"choices\" holds %zu numbers for %zu prompts; evaluate those models again",
                    evaluation->name, json_array_size(choices), prompts);
    for (size_t p = 0; p < prompts; p++)
        sums[p] += json_number_value(json_array_get(choices, p));
    return STATUS_OK;
}

// *out: NULL where not all evaluations compared the two.
static status pool_pair(const seed_evaluation *evaluations, int count, size_t prompts, const char *a,
                        const char *b, json_t **out) {
    comparison all = {0};
    json_t *seeds = json_array();
    bool simulated = true;
    status result = STATUS_OK;
    *out = NULL;
    TRY_GOTO(result,
             memory_allocate((void **)&all.choices, sizeof *all.choices * prompts, "choices of the panel"),
             done);
    for (int i = 0; i < count; i++) {
        const json_t *pair = find_pair(evaluations[i].root, a, b);
        if (pair == NULL)
            goto done;
        TRY_GOTO(result, add_scores(&evaluations[i], pair, prompts, &all), done);
        TRY_GOTO(result, add_choices(&evaluations[i], pair, prompts, all.choices, &simulated), done);
        json_array_append_new(seeds, json_pack("{s:O,s:O}", "win_rate", json_object_get(pair, "win_rate"),
                                               "wilcoxon_p", json_object_get(pair, "wilcoxon_p")));
    }
    TRY_GOTO(result,
             side_by_side_compare(all.ratings, all.count, prompts, EVALUATE_RESAMPLES,
                                  EVALUATE_BOOTSTRAP_SEED, &all.result),
             done);
    for (size_t p = 0; p < prompts; p++)
        all.choices[p] /= count;
    TRY_GOTO(
        result,
        bootstrap_mean(all.choices, prompts, EVALUATE_RESAMPLES, 0.95, EVALUATE_BOOTSTRAP_SEED, &all.choice),
        done);
    *out = evaluate_pair_json(a, b, &all.result);
    json_object_set(*out, "seeds", seeds);
    if (simulated)
        json_object_set_new(*out, "choice", evaluate_interval_json(&all.choice));
done:
    json_decref(seeds);
    memory_free(all.choices);
    memory_free(all.ratings);
    return result;
}

status evaluate_pool(const seed_evaluation *evaluations, int count, json_t **out) {
    const json_t *pairs = json_object_get(evaluations[0].root, "pairs");
    const json_int_t prompts = json_integer_value(json_object_get(evaluations[0].root, "prompts"));
    *out = NULL;
    for (int i = 0; i < count; i++) {
        const json_int_t found = json_integer_value(json_object_get(evaluations[i].root, "prompts"));
        if (found < 1 || found != prompts)
            return FAIL("%s has %lld prompts, %s %lld; only evaluations on the same prompts can be pooled",
                        evaluations[i].name, (long long)found, evaluations[0].name, (long long)prompts);
        const char *digest = text_of(evaluations[i].root, "prompts_digest"),
                   *first = text_of(evaluations[0].root, "prompts_digest");
        if (strcmp(digest, first) != 0)
            return FAIL("%s was made with other prompts than %s; only evaluations on the same prompts can be "
                        "pooled",
                        evaluations[i].name, evaluations[0].name);
    }
    json_t *list = json_array();
    status result = STATUS_OK;
    for (size_t i = 0; i < json_array_size(pairs) && result == STATUS_OK; i++) {
        const json_t *pair = json_array_get(pairs, i), *a = json_object_get(pair, "a"),
                     *b = json_object_get(pair, "b");
        json_t *pooled = NULL;
        if (json_is_string(a) && json_is_string(b))
            result = pool_pair(evaluations, count, (size_t)prompts, json_string_value(a),
                               json_string_value(b), &pooled);
        if (pooled != NULL)
            json_array_append_new(list, pooled);
    }
    if (result == STATUS_OK && json_array_size(list) == 0)
        result =
            FAIL("no two models of %s were compared in all %d evaluations; evaluate the same models, under "
                 "the same names, for every seed",
                 evaluations[0].name, count);
    if (result == STATUS_OK)
        *out = list;
    else
        json_decref(list);
    return result;
}

// What stands beside the win rates, so that a collapse cannot look like a win: for each model of the first
// evaluation its diversity, a share of the baseline's, and KL in nats, in every evaluation; null where one
// lacks the model.
static json_t *list_models(const seed_evaluation *evaluations, int count) {
    static const char *const keys[] = {"diversity_ratio", "kl"};
    const json_t *models = json_object_get(evaluations[0].root, "models");
    json_t *list = json_array();
    for (size_t m = 0; m < json_array_size(models); m++) {
        const char *name = text_of(json_array_get(models, m), "name");
        json_t *entry = json_pack("{s:s}", "name", name);
        for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
            json_t *values = json_array();
            for (int i = 0; i < count; i++) {
                const double value = number_of(find_model(evaluations[i].root, name), keys[k]);
                json_array_append_new(values, isfinite(value) ? json_real(value) : json_null());
            }
            json_object_set_new(entry, keys[k], values);
        }
        json_array_append_new(list, entry);
    }
    return list;
}

static void print_values(const json_t *values, double factor, const char *format) {
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *value = json_array_get(values, i);
        if (json_is_number(value))
            printf(format, factor * json_number_value(value));
        else
            printf("       -");
    }
}

static void print_models(const json_t *models) {
    printf("\n%-14s diversity of the baseline's, KL to it in nats: under each seed\n", "model");
    for (size_t m = 0; m < json_array_size(models); m++) {
        const json_t *model = json_array_get(models, m);
        printf("%-14s", text_of(model, "name"));
        print_values(json_object_get(model, "diversity_ratio"), 100.0, " %5.0f %%");
        printf("   ");
        print_values(json_object_get(model, "kl"), 1.0, " %7.1f");
        printf("\n");
    }
}

static void print_pooled(const json_t *pairs, int count) {
    printf("%-14s %-14s %8s %-13s %9s  %s\n", "model", "against", "win rate", "[95 %]", "p",
           "of each seed (p)");
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        const json_t *pair = json_array_get(pairs, i), *seeds = json_object_get(pair, "seeds");
        printf("%-14s %-14s ", json_string_value(json_object_get(pair, "a")),
               json_string_value(json_object_get(pair, "b")));
        if (number_of(pair, "ratings") == 0.0) {
            printf("nobody rated both\n");
            continue;
        }
        if (isnan(number_of(pair, "win_rate")))
            printf("%8s %-13s", "-", "");
        else
            printf("%6.1f %% [%4.1f, %5.1f]", 100.0 * number_of(pair, "win_rate"),
                   100.0 * number_of(pair, "low"), 100.0 * number_of(pair, "high"));
        printf(" %9.2g ", number_of(pair, "wilcoxon_p"));
        for (int s = 0; s < count; s++) {
            const json_t *seed = json_array_get(seeds, (size_t)s);
            if (isnan(number_of(seed, "win_rate")))
                printf(" %9s", "-");
            else
                printf(" %5.1f (%.2g)", 100.0 * number_of(seed, "win_rate"), number_of(seed, "wilcoxon_p"));
        }
        const json_t *choice = json_object_get(pair, "choice");
        if (choice != NULL)
            printf("  whole panel %.1f %% [%.1f, %.1f]", 100.0 * number_of(choice, "mean"),
                   100.0 * number_of(choice, "low"), 100.0 * number_of(choice, "high"));
        const double paper = number_of(pair, "paper");
        if (!isnan(paper))
            printf("  paper %.0f %%", 100.0 * paper);
        printf("\n");
    }
    printf(
        "\n%d evaluations; the ratings of one prompt under all seeds are one unit of Wilcoxon's test and of "
        "the intervals.\n",
        count);
}

status evaluate_pool_folders(const char *const *folders, int count, const char *output) {
    char paths[EVALUATE_SEEDS_MAX][PATH_MAX], path[PATH_MAX];
    seed_evaluation evaluations[EVALUATE_SEEDS_MAX];
    json_t *roots[EVALUATE_SEEDS_MAX] = {NULL}, *pairs = NULL, *models = NULL, *names = json_array();
    json_error_t error;
    status result = STATUS_OK;
    if (count < 1 || count > EVALUATE_SEEDS_MAX) {
        result = FAIL("%d evaluations are to be pooled; 1 to %d are possible", count, EVALUATE_SEEDS_MAX);
        goto done;
    }
    for (int i = 0; i < count; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/evaluation.json", folders[i]);
        roots[i] = json_load_file(paths[i], 0, &error);
        if (roots[i] == NULL) {
            result = FAIL("cannot read %s: %s; make it with 'musicrl evaluate'", paths[i], error.text);
            goto done;
        }
        evaluations[i] = (seed_evaluation){paths[i], roots[i]};
        json_array_append_new(names, json_string(folders[i]));
    }
    TRY_GOTO(result, evaluate_pool(evaluations, count, &pairs), done);
    TRY_GOTO(result, publish_make_folder(output), done);
    if (snprintf(path, sizeof path, "%s/seeds.json", output) >= (int)sizeof path) {
        result = FAIL("path is too long: %.60s...", output);
        goto done;
    }
    models = list_models(evaluations, count);
    TRY_GOTO(result,
             json_file_publish(
                 path, json_pack("{s:O,s:O,s:O}", "evaluations", names, "models", models, "pairs", pairs)),
             done);
    print_pooled(pairs, count);
    print_models(models);
done:
    for (int i = 0; i < count; i++)
        json_decref(roots[i]);
    json_decref(pairs);
    json_decref(models);
    json_decref(names);
    return result;
}
