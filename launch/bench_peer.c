// Runs the PyTorch peer in a process of its own and reads the one JSON line that it prints.
#include "launch/bench_parts.h"

#include <errno.h>
#include <jansson.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static json_t *transformer_json(const run_config_transformer *c) {
    return json_pack("{s:i, s:i, s:i, s:i}", "layers", c->layers, "width", c->width, "heads", c->heads,
                     "feed_forward", c->ffn);
}

// The peer's arguments as text; free with free(). NULL if there is no memory.
static char *peer_arguments(const run_config *c, const bench_options *options, int threads,
                            const char *stage) {
    json_t *codebooks = json_array();
    for (int level = 0; level <= c->model.coarse_levels; level++)
        json_array_append_new(codebooks, json_integer(options->codebook));
    json_t *arguments = json_pack(
        "{s:i, s:[s], s:i, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f}", "threads", threads,
        "stages", stage, "repeats", options->repeats, "temporal", transformer_json(&c->model.temporal),
        "depth", transformer_json(&c->model.depth), "codebooks", codebooks, "prefix", c->model.prefix,
        "prefix_codebook", c->model.prefix_codebook, "frames", c->train.frames, "batch", c->train.batch,
        "pair_captions", BENCH_CAPTIONS, "pair_clips", BENCH_CAPTION_CLIPS, "temperature",
        c->train.temperature, "alpha", c->train.alpha);
    char *text = arguments != NULL ? json_dumps(arguments, JSON_COMPACT) : NULL;
    json_decref(arguments);
    return text;
}

// Starts the peer; its standard output comes through `output`.
static status start_peer(const bench_options *options, char *arguments, pid_t *child, FILE **output) {
    int ends[2];
    if (pipe(ends) != 0)
        return FAIL("no pipe for the peer: %s", strerror(errno));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    char *const words[] = {(char *)options->peer_python, (char *)options->peer_script, arguments, NULL};
    const int error = posix_spawnp(child, options->peer_python, &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (error != 0) {
        close(ends[0]);
        return FAIL("--peer: %s cannot be started: %s", options->peer_python, strerror(error));
    }
    *output = fdopen(ends[0], "r");
    return *output != NULL ? STATUS_OK : FAIL("no stream for the peer: %s", strerror(errno));
}

static status read_result(const char *line, const char *stage, bench_result *result) {
    json_t *root = json_loads(line, 0, NULL);
    const char *version, *variant, *setting;
    double rate;
    const bool read = json_unpack(root, "{s:s, s:{s:F, s:s, s:s}}", "torch", &version, stage, "per_s", &rate,
                                  "variant", &variant, "setting", &setting) == 0 &&
                      rate > 0.0;
    if (read) {
        snprintf(result->peer, sizeof result->peer, "PyTorch %s, %s, %s", version, variant, setting);
        result->peer_value = rate;
    }
    json_decref(root);
    return read ? STATUS_OK : FAIL("the peer printed no result for '%s': %.200s", stage, line);
}

status bench_run_peer(const run_config *config, const bench_options *options, int threads, const char *stage,
                      bench_result *result) {
    if (access(options->peer_script, R_OK) != 0)
        return FAIL("--peer: there is no %s; run from the source tree, or name it with --peer-script",
                    options->peer_script);
    char *arguments = peer_arguments(config, options, threads, stage);
    if (arguments == NULL)
        return FAIL("no memory for the peer's arguments");
    pid_t child = -1;
    FILE *output = NULL;
    status outcome = start_peer(options, arguments, &child, &output);
    free(arguments);
    char *line = NULL, *last = NULL;
    size_t capacity = 0;
    while (outcome == STATUS_OK && getline(&line, &capacity, output) > 0) {
        free(last);
        last = strdup(line);
    }
    if (output != NULL)
        fclose(output);
    int exit_status = 0;
    if (child > 0 && waitpid(child, &exit_status, 0) == child && exit_status != 0 && outcome == STATUS_OK)
        outcome = FAIL("the peer (%s %s) failed; its own message is above", options->peer_python,
                       options->peer_script);
    if (outcome == STATUS_OK)
        outcome = read_result(last != NULL ? last : "", stage, result);
    free(line);
    free(last);
    return outcome;
}
