#include "launch/bench_scaling.h"

#include "comm/cores.h"
#include "data/regular_file.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 512, VALUES_MAX = 64, LINE_BYTES = 4096 };

// What a run of `bench --stages step --json` says, by name.
typedef struct value {
    char name[64];
    double value;
} value;
typedef struct values {
    value items[VALUES_MAX];
    int count;
} values;

static status find(const values *v, const char *name, double *out) {
    for (int i = 0; i < v->count; i++)
        if (strcmp(v->items[i].name, name) == 0) {
            *out = v->items[i].value;
            return STATUS_OK;
        }
    return FAIL("the benchmark of a step did not say '%s'; its lines stand above", name);
}

static status read_lines(FILE *stream, const char *from, values *out) {
    char line[LINE_BYTES];
    out->count = 0;
    while (fgets(line, sizeof line, stream) != NULL) {
        json_error_t error;
        json_t *said = json_loads(line, 0, &error);
        const char *name = json_string_value(json_object_get(said, "name"));
        const json_t *number = json_object_get(said, "value");
        const bool sound = name != NULL && json_is_number(number) && strlen(name) < sizeof out->items[0].name;
        if (sound && out->count < VALUES_MAX) {
            value *v = &out->items[out->count++];
            snprintf(v->name, sizeof v->name, "%s", name);
            v->value = json_number_value(number);
        }
        json_decref(said);
        if (!sound)
            return FAIL("%s: a line is no result of a benchmark: %.60s", from, line);
    }
    return STATUS_OK;
}

// mpirun with this program, on `ranks`, with a batch and slots of its own.
static int compose(const bench_scaling_options *o, char *program, char numbers[4][32], char settings[2][64],
                   char *arguments[ARGUMENTS_MAX]) {
    int count = 0;
    static char *const start[] = {"mpirun", "--bind-to", "none", "--oversubscribe", "-n"};
    for (size_t i = 0; i < sizeof start / sizeof start[0]; i++)
        arguments[count++] = start[i];
    arguments[count++] = numbers[0];
    if (geteuid() == 0)
        arguments[count++] = "--allow-run-as-root";
    char *const own[] = {program,     "bench",    "--stages",   "step",    "--json",
                         "--repeats", numbers[1], "--codebook", numbers[2]};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        arguments[count++] = own[i];
    for (int i = 0; i < o->word_count; i++)
        arguments[count++] = o->words[i];
    arguments[count++] = settings[0];
    arguments[count++] = settings[1];
    arguments[count] = NULL;
    return count;
}

static status run_ranks(const bench_scaling_options *o, int ranks, int batch, int slots, values *out) {
    char program[PATH_MAX], numbers[4][32], settings[2][64], *arguments[ARGUMENTS_MAX];
    int ends[2], state = 0;
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0 || o->word_count > ARGUMENTS_MAX - 32)
        return FAIL("cannot start this program under mpirun: its file is not in /proc/self/exe, or the line "
                    "is too long");
    program[length] = '\0';
    snprintf(numbers[0], sizeof numbers[0], "%d", ranks);
    snprintf(numbers[1], sizeof numbers[1], "%d", o->repeats);
    snprintf(numbers[2], sizeof numbers[2], "%d", o->codebook);
    snprintf(settings[0], sizeof settings[0], "train.batch=%d", batch);
    snprintf(settings[1], sizeof settings[1], "train.gradient_slots=%d", slots);
    compose(o, program, numbers, settings, arguments);
    if (pipe(ends) != 0)
        return FAIL("cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execvp("mpirun", arguments);
        dprintf(STDERR_FILENO, "musicrl: cannot start mpirun: %s; put Open MPI's mpirun in PATH\n",
                strerror(errno));
        _exit(127);
    }
    close(ends[1]);
    FILE *stream = child < 0 ? NULL : fdopen(ends[0], "r");
    if (stream == NULL) {
        close(ends[0]);
        return FAIL("cannot start mpirun: %s", strerror(errno));
    }
    const status result = read_lines(stream, "mpirun", out);
    fclose(stream);
    while (waitpid(child, &state, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return FAIL("the benchmark of a step on %d ranks failed; its line stands above", ranks);
    return result;
}

static status read_line(const values *v, const char *part, scaling_line *out) {
    char name[64];
    snprintf(name, sizeof name, "part/%s_fixed", part);
    TRY(find(v, name, &out->fixed));
    snprintf(name, sizeof name, "part/%s_sample", part);
    TRY(find(v, name, &out->sample));
    out->fixed *= 1e-3;
    out->sample *= 1e-3;
    return STATUS_OK;
}

// Of one rank; what is between ranks stays as it is.
static status read_parts(const values *v, scaling_parts *out) {
    TRY(read_line(v, "rollout", &out->rollout));
    TRY(read_line(v, "reward", &out->reward));
    TRY(read_line(v, "learn", &out->learn));
    TRY(find(v, "part/update", &out->update));
    out->update *= 1e-3;
    TRY(find(v, "part/gradient", &out->gradient_bytes));
    TRY(find(v, "part/weights", &out->weight_bytes));
    TRY(find(v, "part/rollout_message", &out->rollout_bytes));
    TRY(find(v, "part/score_message", &out->score_bytes));
    return find(v, "part/row", &out->row_bytes);
}

static status read_row(const values *v, bench_scaling_row *out) {
    const struct {
        const char *name;
        double *seconds;
    } fields[] = {{"step", &out->seconds},       {"step/rollout", &out->rollout},
                  {"step/reward", &out->reward}, {"step/learn", &out->learn},
                  {"step/share", &out->share},   {"step/update", &out->update}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        TRY(find(v, fields[i].name, fields[i].seconds));
        *fields[i].seconds *= 1e-3;
    }
    return STATUS_OK;
}

static status measure(const run_config *config, const bench_scaling_options *o, int index, bool weak,
                      bench_scaling *out, bench_listener listener, void *context) {
    const int ranks = o->ranks[index];
    bench_scaling_row *row = weak ? &out->weak[index] : &out->strong[index];
    char what[64];
    values said;
    *row = (bench_scaling_row){.ranks = ranks, .batch = config->train.batch * (weak ? ranks : 1)};
    snprintf(what, sizeof what, "%d rank%s, %d samples", ranks, ranks == 1 ? "" : "s", row->batch);
    listener(context, what, NULL);
    TRY(run_ranks(o, ranks, row->batch, config->train.gradient_slots * (weak ? ranks : 1), &said));
    TRY(read_row(&said, row));
    if (ranks == 1)
        TRY(read_parts(&said, &out->parts));
    if (ranks == 2 && !weak) {
        TRY(find(&said, "exchange/latency", &out->parts.latency));
        TRY(find(&said, "exchange/bandwidth", &out->parts.bandwidth));
        out->parts.latency *= 1e-6;
        out->parts.bandwidth *= 1e9;
    }
    return STATUS_OK;
}

static void forecast(const run_config *config, const bench_scaling_options *o, const scaling_parts *parts,
                     bench_scaling *out) {
    const int batch = config->train.batch, slots = config->train.gradient_slots;
    for (int ranks = 2 * o->ranks[o->count - 1];
         ranks <= o->largest && out->forecast_count < BENCH_PREDICTIONS_MAX; ranks *= 2) {
        bench_scaling_forecast *f = &out->forecasts[out->forecast_count++];
        *f = (bench_scaling_forecast){.ranks = ranks};
        // As many slots as it takes: they are a matter of the run file.
        f->strong = scaling_recommend(parts, ranks, batch, ranks > slots ? ranks : slots, false);
        if (f->strong.ranks > 0)
            f->strong_cost = scaling_predict(parts, &f->strong);
        f->weak = scaling_colocated(ranks, batch * ranks);
        f->weak.sharded = config->train.shard_optimizer;
        f->weak_cost = scaling_predict(parts, &f->weak);
        f->split = scaling_recommend(parts, ranks, batch * ranks, slots * ranks, true);
        if (f->split.ranks > 0)
            f->split_cost = scaling_predict(parts, &f->split);
    }
}

// Parts of a rank elsewhere, a card say.
static status read_parts_file(const char *path, scaling_parts *out) {
    values said;
    FILE *file;
    TRY(regular_file_text(&file, path, "file of parts"));
    status result = read_lines(file, path, &said);
    fclose(file);
    return result == STATUS_OK ? read_parts(&said, out) : result;
}

status bench_scaling_run(const run_config *config, const bench_scaling_options *o, bench_scaling *out,
                         bench_listener listener, void *context) {
    const core_set usable = cores_of_process(0);
    const int own = cores_count(&usable), quota = cores_quota(),
              seen = quota > 0 && quota < own ? quota : own;
    *out = (bench_scaling){.row_count = o->count,
                           .cores = o->cores > 0 ? o->cores : seen,
                           .threads = config->threads > 0 ? config->threads : 1};
    if (config->threads == 0)
        return FAIL_USAGE("--scaling compares ranks of the same threads: add threads=1, say");
    if (config->train.batch % 4 != 0 || config->train.batch < 8)
        return FAIL_USAGE(
            "train.batch=%d: what a sample costs is told from a batch and a quarter of it; use a multiple of "
            "4 from 8 on",
            config->train.batch);
    for (int i = 0; i < o->count; i++)
        TRY(measure(config, o, i, false, out, listener, context));
    for (int i = 0; i < o->count; i++) {
        out->weak[i] = out->strong[i];
        if (o->ranks[i] > 1)
            TRY(measure(config, o, i, true, out, listener, context));
    }
    for (int i = 0; i < o->count; i++)
        for (int weak = 0; weak < 2; weak++) {
            bench_scaling_row *row = weak ? &out->weak[i] : &out->strong[i];
            scaling_layout layout = scaling_colocated(row->ranks, row->batch);
            layout.crowding = (double)row->ranks * out->threads / out->cores;
            row->predicted = scaling_predict(&out->parts, &layout);
        }
    if (o->parts != NULL)
        TRY(read_parts_file(o->parts, &out->parts));
    if (o->latency > 0.0)
        out->parts.latency = o->latency;
    if (o->network > 0.0)
        out->parts.bandwidth = o->network;
    if (out->parts.bandwidth <= 0.0)
        return FAIL_USAGE("what ranks exchange is measured on 2 of them: --scaling=1,2, or give --network");
    forecast(config, o, &out->parts, out);
    return STATUS_OK;
}
