#include "cmd/bench_tables.h"
#include "cmd/commands.h"
#include "cmd/voice.h"

#include "launch/bench.h"

#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTION_JSON = 256,
    OPTION_STAGES,
    OPTION_PEER,
    OPTION_PEER_SCRIPT,
    OPTION_CODEBOOK,
    OPTION_REPEATS,
    OPTION_SCALING,
    OPTION_LARGEST,
    OPTION_PARTS,
    OPTION_NETWORK,
    OPTION_CORES
};

typedef struct options {
    bench_options bench;
    bench_scaling_options scaling;
    bool json, scales;
    char **words; // the run file, then overrides
    int count;
    const char *name; // of the run file's configuration
} options;

static const struct argp_option option_table[] = {
    {"json", OPTION_JSON, NULL, 0, "one JSON object a line instead of a table", 0},
    {"stages", OPTION_STAGES, "LIST", 0,
     "of products, bandwidth, rollout, rollout_bf16, learner, reward, reward_bf16, preference, all (default: "
     "all), and step, which also runs under mpirun",
     0},
    {"peer", OPTION_PEER, "PYTHON", 0, "measure PyTorch beside it, with this Python interpreter", 0},
    {"peer-script", OPTION_PEER_SCRIPT, "FILE", 0, "the peer's program (default: tests/parity/peer.py)", 0},
    {"codebook", OPTION_CODEBOOK, "N", 0, "entries of every codebook (default: 1024)", 0},
    {"repeats", OPTION_REPEATS, "N", 0, "the best of N measurements counts (default: 3)", 0},
    {"scaling", OPTION_SCALING, "RANKS", OPTION_ARG_OPTIONAL,
     "how a step scales: measured on these numbers of ranks (default: 1,2,4), predicted for more of them", 1},
    {"largest", OPTION_LARGEST, "N", 0, "with --scaling: predict up to N ranks (default: 1024)", 1},
    {"parts", OPTION_PARTS, "FILE", 0,
     "with --scaling: predict from what 'bench --stages step --json' said on one rank elsewhere, a card say",
     1},
    {"cores", OPTION_CORES, "N", 0,
     "with --scaling: this machine has N cores, where it says otherwise (a virtual one with hardware "
     "threads)",
     1},
    {"network", OPTION_NETWORK, "GB/s,US", 0,
     "with --scaling: predict with exchanges of US microseconds at GB/s, instead of what two ranks have here",
     1},
    {0},
};

static int positive(const char *text, const char *option, struct argp_state *state) {
    char *end;
    const long value = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || value < 1 || value > 65536)
        argp_error(state, "--%s wants a whole number from 1 to 65536, not '%s'", option, text);
    return (int)value;
}

// "1,2,4": rising, from 1 on.
static void parse_ranks(const char *text, bench_scaling_options *out, struct argp_state *state) {
    out->count = 0;
    for (const char *at = text;;) {
        char *end;
        const long ranks = strtol(at, &end, 10);
        const int before = out->count > 0 ? out->ranks[out->count - 1] : 0;
        if (end == at || (*end != ',' && *end != '\0') || ranks <= before || ranks > 4096 ||
            (ranks & (ranks - 1)) != 0 || (out->count == 0 && ranks != 1) || out->count == BENCH_RANKS_MAX)
            argp_error(state, "--scaling wants rising powers of two from 1 on, at most %d of them, not '%s'",
                       BENCH_RANKS_MAX, text);
        out->ranks[out->count++] = (int)ranks;
        if (*end == '\0')
            return;
        at = end + 1;
    }
}

static void parse_network(const char *text, bench_scaling_options *out, struct argp_state *state) {
    double gigabytes, microseconds;
    char rest;
    if (sscanf(text, "%lf,%lf%c", &gigabytes, &microseconds, &rest) != 2 || !(gigabytes > 0.0) ||
        !(microseconds > 0.0))
        argp_error(state, "--network wants GB/s and microseconds, '25,5' say, not '%s'", text);
    out->network = gigabytes * 1e9;
    out->latency = microseconds * 1e-6;
}

static error_t parse(int key, char *argument, struct argp_state *state) {
    options *o = state->input;
    switch (key) {
    case OPTION_JSON:
        o->json = true;
        return 0;
    case OPTION_STAGES:
        if (bench_parse_stages(argument, &o->bench.stages) != STATUS_OK)
            argp_error(state, "%s", status_message());
        return 0;
    case OPTION_PEER:
        o->bench.peer_python = argument;
        return 0;
    case OPTION_PEER_SCRIPT:
        o->bench.peer_script = argument;
        return 0;
    case OPTION_CODEBOOK:
        o->bench.codebook = positive(argument, "codebook", state);
        return 0;
    case OPTION_REPEATS:
        o->bench.repeats = positive(argument, "repeats", state);
        return 0;
    case OPTION_SCALING:
        o->scales = true;
        parse_ranks(argument != NULL ? argument : "1,2,4", &o->scaling, state);
        return 0;
    case OPTION_LARGEST:
        o->scaling.largest = positive(argument, "largest", state);
        return 0;
    case OPTION_PARTS:
        o->scaling.parts = argument;
        return 0;
    case OPTION_NETWORK:
        parse_network(argument, &o->scaling, state);
        return 0;
    case OPTION_CORES:
        o->scaling.cores = positive(argument, "cores", state);
        return 0;
    case ARGP_KEY_ARG:
        o->words[o->count++] = argument;
        return 0;
    case ARGP_KEY_END:
        if (o->count == 0)
            argp_error(state, "a run file is wanted");
        if (o->scales && (o->json || o->bench.peer_python != NULL))
            argp_error(state, "--scaling has no peer, and no lines of JSON");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_json(const options *o, const bench_result *r) {
    json_t *line =
        json_pack("{s:s, s:s, s:i, s:i, s:f, s:s, s:s, s:o, s:o}", "name", r->name, "config", o->name,
                  "threads", r->threads, "ranks", r->ranks, "value", r->value, "unit", r->unit, "formula",
                  r->formula, "ceiling", r->ceiling > 0 ? json_real(r->ceiling) : json_null(),
                  "ratio_to_ceiling", r->ceiling > 0 ? json_real(r->value / r->ceiling) : json_null());
    if (r->peer[0] != '\0') {
        json_object_set_new(line, "peer", json_string(r->peer));
        json_object_set_new(line, "peer_value", json_real(r->peer_value));
        json_object_set_new(line, "ratio_to_peer", json_real(r->value / r->peer_value));
    }
    json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(line);
}

static void print_table(const bench_result *r) {
    printf("%-13s %9.*f %-9s", r->name, r->value < 1.0 ? 4 : 1, r->value, r->unit);
    if (r->ceiling > 0)
        printf(" %3.0f %% of %.1f", 100.0 * r->value / r->ceiling, r->ceiling);
    if (r->peer[0] != '\0')
        printf(", %.2f x %s (%.1f)", r->value / r->peer_value, r->peer, r->peer_value);
    printf("\n    %s\n", r->formula);
}

static void listen(void *context, const char *what, const bench_result *result) {
    const options *o = context;
    if (result == NULL)
        fprintf(stderr, "musicrl: measuring %s\n", what);
    else if (o->json)
        print_json(o, result);
    else
        print_table(result);
    fflush(stdout);
}

int cmd_bench(int argc, char **argv) {
    static const struct argp parser = {
        .options = option_table,
        .parser = parse,
        .args_doc = "RUN.yaml [OVERLAY.yaml...] [key.sub=value...]",
        .doc = "Measures rollout, learner and learned rewards with the model, batch, frames and threads of a "
               "run file, on random "
               "weights, each beside the ceiling that this machine's products and memory allow.\v"
               "A frame of one sample counts as one. Frames per second are those of the best repeat. With "
               "--peer "
               "the same sizes run in PyTorch too (pip install torch): several thread settings, eager and "
               "compiled, the best counts; that takes minutes.",
    };
    options o = {
        .bench = {.stages = BENCH_ALL, .codebook = 1024, .repeats = 3, .peer_script = "tests/parity/peer.py"},
        .scaling = {.largest = 1024},
        .words = argv + 1}; // collected in place: there are never more than were read
    argp_parse(&parser, argc, argv, ARGP_IN_ORDER, NULL, &o);
    static run_config config;
    status result = STATUS_OK;
    if (o.scales || (o.bench.stages & BENCH_ALL) != 0)
        result =
            voice_refuse_ranks(o.scales ? "musicrl bench --scaling" : "musicrl bench without --stages step");
    if (result == STATUS_OK)
        result = run_config_load(&config, o.words[0], o.words + 1, o.count - 1);
    if (result == STATUS_OK)
        voice_return();
    o.name = config.name;
    if (result == STATUS_OK && o.scales) {
        bench_scaling found;
        o.scaling.words = o.words;
        o.scaling.word_count = o.count;
        o.scaling.repeats = o.bench.repeats;
        o.scaling.codebook = o.bench.codebook;
        result = bench_scaling_run(&config, &o.scaling, &found, listen, &o);
        if (result == STATUS_OK)
            bench_print_scaling(&found);
    } else if (result == STATUS_OK)
        result = bench_run(&config, &o.bench, listen, &o);
    return command_finish(result);
}
