#include "cmd/commands.h"
#include "cmd/option.h"
#include "core/codec.h"
#include "launch/generate.h"
#include "launch/run_config_table.h"
#include "launch/scorer.h"

enum {
    KEY_RUN = 256,
    KEY_BASE,
    KEY_PROMPTS,
    KEY_BEST_OF,
    KEY_BEST_OF_REWARD,
    KEY_SECONDS,
    KEY_TEMPERATURE,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_ITERATIONS,
    KEY_SEED,
    KEY_REPLACE,
    PROMPTS_MAX = 1024,
};

static const struct argp_option option_table[] = {
    {"run", KEY_RUN, "FOLDER", 0, "Run folder of the model (runs/demo/ru)", 0},
    {"base", KEY_BASE, NULL, 0, "Use the base model, not the finetuned one", 0},
    {"prompt", 'p', "TEXT", 0, "What the music should be; may be given again", 0},
    {"prompts", KEY_PROMPTS, "FILE", 0, "More prompts, one a line", 0},
    {"count", 'n', "N", 0, "Clips a prompt (1)", 0},
    {"output", 'o', "FOLDER", 0, "Folder of the WAV files and tokens; created if missing (required)", 0},
    {"best-of", KEY_BEST_OF, "N", 0, "Draw N for each clip and keep the best one (1)", 0},
    {"best-of-reward", KEY_BEST_OF_REWARD, "NAME", 0,
     "By text_adherence (the default), or the run's model of quality or preference", 0},
    {"seconds", KEY_SECONDS, "S", 0, "Length of a clip (that of the clips the base was trained on)", 0},
    {"temperature", KEY_TEMPERATURE, "T", 0, "Of sampling (the run's)", 0},
    {"top-k", KEY_TOP_K, "K", 0, "Draw from the K most probable tokens alone (0: from all)", 0},
    {"top-p", KEY_TOP_P, "P", 0,
     "Draw from the most probable tokens that together have the share P (1: from all)", 0},
    {"iterations", KEY_ITERATIONS, "N", 0, "Iterations of phase reconstruction (the run's)", 0},
    {"replace", KEY_REPLACE, NULL, 0, "Replace what an earlier call made in that folder", 0},
    {"seed", KEY_SEED, "N", 0, "Another seed, other clips (1)", 0},
    {0},
};

typedef struct arguments {
    generate_options options;
    const char *prompts[PROMPTS_MAX]; // [options.prompt_count]
} arguments;

static error_t parse_option(int key, char *text, struct argp_state *state) {
    arguments *a = state->input;
    generate_options *o = &a->options;
    switch (key) {
    case KEY_RUN:
        o->run = text;
        return 0;
    case KEY_BASE:
        o->use_base = 1;
        return 0;
    case 'p':
        if (o->prompt_count == PROMPTS_MAX)
            argp_error(state, "--prompt was given more than %d times; use --prompts FILE", PROMPTS_MAX);
        a->prompts[o->prompt_count++] = text;
        return 0;
    case KEY_PROMPTS:
        o->prompt_file = text;
        return 0;
    case 'n':
        o->count = (int)option_integer(state, "count", text, 1, 10000);
        return 0;
    case 'o':
        o->output = text;
        return 0;
    case KEY_BEST_OF:
        o->best_of = (int)option_integer(state, "best-of", text, 1, 1000);
        return 0;
    case KEY_BEST_OF_REWARD:
        if (!scorer_knows(text))
            argp_error(state, "--best-of-reward is text_adherence, quality or preference, not '%s'", text);
        o->best_of_reward = text;
        return 0;
    case KEY_SECONDS:
        o->seconds = option_real(state, "seconds", text, 0.01, 3600.0);
        return 0;
    case KEY_TEMPERATURE:
        o->temperature =
            option_real(state, "temperature", text, run_setting_find("train.temperature")->minimum,
                        run_setting_find("train.temperature")->maximum);
        return 0;
    case KEY_TOP_K:
        o->top_k = (int)option_integer(state, "top-k", text, 0, 65536);
        return 0;
    case KEY_TOP_P:
        o->top_p = option_real(state, "top-p", text, 1e-6, 1.0);
        return 0;
    case KEY_ITERATIONS:
        o->iterations = (int)option_integer(state, "iterations", text, 1, CODEC_ITERATIONS_MAX);
        return 0;
    case KEY_SEED:
        o->seed = (uint64_t)option_integer(state, "seed", text, 0, 1000000000000);
        return 0;
    case KEY_REPLACE:
        o->replace = true;
        return 0;
    case ARGP_KEY_END:
        if (o->output == NULL || (o->prompt_count == 0 && o->prompt_file == NULL))
            argp_error(state, "-o FOLDER and --prompt TEXT or --prompts FILE are required");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int cmd_generate(int argc, char **argv) {
    static const struct argp argp = {
        .options = option_table,
        .parser = parse_option,
        .doc = "Writes music from captions: WAV files, their tokens and generated.json."};
    static arguments a;
    a.options = (generate_options){
        .run = "runs/demo/ru", .count = 1, .best_of = 1, .top_p = 1.0, .seed = 1, .prompts = a.prompts};
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    return command_finish(generate_run(&a.options));
}
