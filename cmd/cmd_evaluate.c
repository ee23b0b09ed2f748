#include "cmd/commands.h"
#include "cmd/option.h"
#include "launch/evaluate.h"
#include "launch/evaluate_seeds.h"
#include "launch/scorer.h"

#include <string.h>

enum {
    KEY_CONFIG = 256,
    KEY_PROMPTS,
    KEY_RATINGS,
    KEY_SKIP_BAD,
    KEY_RATERS,
    KEY_BEST_OF,
    KEY_BEST_OF_REWARD,
    KEY_POOL,
    SETTINGS_MAX = 256,
};

static const struct argp_option option_table[] = {
    {"output", 'o', "FOLDER", 0, "Where evaluation.json and samples/ go (the last model's folder)", 0},
    {"config", KEY_CONFIG, "RUN.yaml", 0, "Take settings from here, not from the last folder's config.yaml",
     0},
    {"set", 's', "KEY=VALUE", 0, "Override a setting (or lay OVERLAY.yaml over it); may be given again", 0},
    {"ratings", KEY_RATINGS, "FILE", 0,
     "Ratings by people instead of simulated listeners: JSON lines {\"prompt\": ID, \"model\": NAME, "
     "\"rater\": NAME, \"score\": 1 to 5}",
     0},
    {"skip-bad-ratings", KEY_SKIP_BAD, NULL, 0,
     "Count lines of that file that are malformed or contradict each other, and do without them", 0},
    {"prompts", KEY_PROMPTS, "FILE", 0,
     "Other prompts than the built-in 101: JSON lines {\"id\": ID, \"prompt\": TEXT, \"attributes\": "
     "{\"lead\": \"flute\", ...}}",
     0},
    {"raters", KEY_RATERS, "N", 0, "Simulated listeners a comparison (3)", 0},
    {"best-of", KEY_BEST_OF, "N", 0,
     "Also evaluate the best of N draws of the baseline, which needs no training", 0},
    {"best-of-reward", KEY_BEST_OF_REWARD, "NAME", 0,
     "Choose it by text_adherence, quality or preference (preference if there is a model of it, otherwise "
     "text_adherence)",
     0},
    {"pool", KEY_POOL, NULL, 0,
     "The folders hold evaluations of the same models under several seeds: compare the models by the "
     "ratings of all, and write seeds.json (into the first folder)",
     0},
    {0},
};

typedef struct arguments {
    evaluate_options options;
    const char *models[EVALUATE_MODELS_MAX]; // [options.model_count]
    char *settings[SETTINGS_MAX];            // [options.setting_count]
    bool pool;
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state) {
    arguments *a = state->input;
    evaluate_options *o = &a->options;
    switch (key) {
    case 'o':
        o->output = text;
        return 0;
    case KEY_CONFIG:
        o->config = text;
        return 0;
    case 's':
        if (o->setting_count == SETTINGS_MAX)
            argp_error(state, "--set was given more than %d times; use --config RUN.yaml", SETTINGS_MAX);
        a->settings[o->setting_count++] = text;
        return 0;
    case KEY_PROMPTS:
        o->prompts = text;
        return 0;
    case KEY_RATINGS:
        o->ratings = text;
        return 0;
    case KEY_SKIP_BAD:
        o->skip_bad_ratings = true;
        return 0;
    case KEY_RATERS:
        o->raters = (int)option_integer(state, "raters", text, 1, EVALUATE_RATERS_MAX);
        return 0;
    case KEY_BEST_OF:
        o->best_of = (int)option_integer(state, "best-of", text, 2, 1000);
        return 0;
    case KEY_BEST_OF_REWARD:
        if (!scorer_knows(text))
            argp_error(state, "--best-of-reward is text_adherence, quality or preference, not '%s'", text);
        o->best_of_reward = text;
        return 0;
    case KEY_POOL:
        a->pool = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->model_count == EVALUATE_MODELS_MAX)
            argp_error(state, "more than %d models", EVALUATE_MODELS_MAX);
        a->models[o->model_count++] = text;
        return 0;
    case ARGP_KEY_END:
        if (a->pool && (o->config || o->setting_count > 0 || o->prompts || o->ratings ||
                        o->skip_bad_ratings || o->raters > 0 || o->best_of > 0 || o->best_of_reward))
            argp_error(state, "--pool takes folders and --output, nothing else");
        if (a->pool && o->model_count < 2)
            argp_error(state, "the folders of two evaluations or more are wanted");
        if (o->model_count < 1 || (o->model_count == 1 && o->best_of == 0))
            argp_error(state, "the folders of two models or more are wanted, the baseline first");
        if (o->raters == 0)
            o->raters = 3;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_evaluate(int argc, char **argv) {
    static const struct argp argp = {
        .options = option_table,
        .parser = parse_option,
        .args_doc = "[NAME=]FOLDER [NAME=]FOLDER...\n--pool FOLDER FOLDER...",
        .doc = "Compares models, the first of which is the baseline: automatic scores on held-out captions, "
               "and clips of 101 fixed prompts rated side by side by simulated listeners or by people. All "
               "models draw with the same random numbers. Writes evaluation.json and samples/."};
    static arguments a;
    a.options = (evaluate_options){.models = a.models, .settings = a.settings};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.pool)
        return command_finish(evaluate_pool_folders(
            a.models, a.options.model_count, a.options.output != NULL ? a.options.output : a.models[0]));
    return command_finish(evaluate_run(&a.options));
}
