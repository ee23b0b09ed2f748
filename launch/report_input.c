#include "kernels/memory.h"
#include "launch/report_parts.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The order in which runs are shown; others follow by name.
static const char *const known_runs[] = {"mulan", "quality", "r",      "u",      "ru",
                                         "dpo",   "r-long",  "u-long", "ru-long"};
enum { KNOWN_RUNS = sizeof known_runs / sizeof known_runs[0] };

static int rank_of(const char *name) {
    int i = 0;
    while (i < KNOWN_RUNS && strcmp(known_runs[i], name) != 0)
        i++;
    return i;
}

static int compare_names(const void *a, const void *b) {
    const char *left = a, *right = b;
    const int difference = rank_of(left) - rank_of(right);
    return difference != 0 ? difference : strcmp(left, right);
}

static int is_run(const report_metrics *metrics) {
    return report_metrics_find(metrics, "kl_ref")->count > 0 ||
           report_metrics_find(metrics, "eval/reward")->count > 0;
}

static void free_run(report_run *run) {
    if (run == NULL)
        return;
    report_metrics_free(&run->metrics);
    json_decref(run->selected);
    memory_free(run->config);
    memory_free(run);
}

// Reads FOLDER/NAME, or FOLDER itself for the name ""; *out is NULL if that holds no run.
static status read_run(report_run **out, const char *folder, const char *name) {
    char path[PATH_MAX];
    *out = NULL;
    report_run *run;
    TRY(memory_allocate((void **)&run, sizeof *run, "run of a report"));
    memset(run, 0, sizeof *run);
    snprintf(run->name, sizeof run->name, "%s", name);
    status result;
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, name[0] == '\0' ? "." : name);
    TRY_GOTO(result, report_metrics_read(&run->metrics, path), done);
    if (!is_run(&run->metrics) && name[0] != '\0')
        goto done;
    snprintf(path, sizeof path, "%s/%s/selected.json", folder, name[0] == '\0' ? "." : name);
    TRY_GOTO(result, report_json_read(&run->selected, path, 0), done);
    snprintf(path, sizeof path, "%s/%s/config.yaml", folder, name[0] == '\0' ? "." : name);
    if (access(path, F_OK) == 0) {
        TRY_GOTO(result, memory_allocate((void **)&run->config, sizeof *run->config, "settings of a run"),
                 done);
        TRY_GOTO(result, run_config_load(run->config, path, NULL, 0), done);
    }
    *out = run;
    return STATUS_OK;
done:
    free_run(run);
    return result;
}

// Names of the folders below `folder`, sorted as they are shown; at most `most`.
static status list_folders(const char *folder, char (*names)[REPORT_NAME_MAX], int most, int *count) {
    *count = 0;
    DIR *stream = opendir(folder);
    if (stream == NULL)
        return FAIL("cannot list %s: %s", folder, strerror(errno));
    for (const struct dirent *entry = readdir(stream); entry != NULL && *count < most;
         entry = readdir(stream))
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < REPORT_NAME_MAX &&
            (entry->d_type == DT_DIR || entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN))
            snprintf(names[(*count)++], REPORT_NAME_MAX, "%s", entry->d_name);
    closedir(stream);
    qsort(names, (size_t)*count, sizeof *names, compare_names);
    return STATUS_OK;
}

static status read_runs(report_input *in) {
    enum { FOLDERS_MAX = 256 };
    char(*names)[REPORT_NAME_MAX];
    char path[PATH_MAX];
    int count = 0;
    TRY(memory_allocate((void **)&names, sizeof *names * FOLDERS_MAX, "names of folders"));
    status result;
    TRY_GOTO(result, list_folders(in->folder, names, FOLDERS_MAX, &count), done);
    for (int i = 0; i < count; i++) {
        report_run *run;
        if (strncmp(names[i], "seed-", 5) == 0 && in->seed_count < REPORT_SEEDS_MAX) {
            report_seed *seed = &in->seeds[in->seed_count];
            snprintf(path, sizeof path, "%s/%s/evaluation.json", in->folder, names[i]);
            TRY_GOTO(result, report_json_read(&seed->evaluation, path, 0), done);
            memcpy(seed->name, names[i], sizeof seed->name);
            in->seed_count += seed->evaluation != NULL;
            continue;
        }
        TRY_GOTO(result, read_run(&run, in->folder, names[i]), done);
        if (run != NULL && in->run_count == REPORT_RUNS_MAX)
            free_run(run);
        else if (run != NULL)
            in->runs[in->run_count++] = run;
    }
    in->is_single = in->run_count == 0;
    if (in->is_single) {
        TRY_GOTO(result, read_run(&in->runs[0], in->folder, ""), done);
        in->run_count = 1;
    }
done:
    memory_free(names);
    return result;
}

// This folder's own evaluation leads those of the other seeds.
static void lead_seeds(report_input *in) {
    if (in->seed_count == 0 || in->evaluation == NULL)
        return;
    if (in->seed_count == REPORT_SEEDS_MAX)
        json_decref(in->seeds[--in->seed_count].evaluation);
    memmove(in->seeds + 1, in->seeds, sizeof *in->seeds * (size_t)in->seed_count++);
    in->seeds[0].evaluation = json_incref(in->evaluation);
    const run_config *config = in->runs[0]->config;
    snprintf(in->seeds[0].name, sizeof in->seeds[0].name, "seed-%lld",
             config == NULL ? 1LL : (long long)config->seed);
}

status report_input_read(report_input *in, const char *folder) {
    *in = (report_input){.folder = folder};
    char path[PATH_MAX];
    const struct {
        const char *name;
        report_metrics *metrics;
    } metrics[] = {{"base", &in->base_metrics},
                   {"reward-quality", &in->quality_metrics},
                   {"reward-preference", &in->preference_metrics}};
    const struct {
        const char *name;
        json_t **json;
        int array;
    } files[] = {{"base/summary.json", &in->base_summary, 0},
                 {"evaluation.json", &in->evaluation, 0},
                 {"codec.json", &in->codec, 0},
                 {"samples/samples.json", &in->samples, 1},
                 {"notes.json", &in->notes, 1},
                 {"reward.json", &in->reward, 0},
                 {"ablation.json", &in->ablation, 0},
                 {"listeners.json", &in->listeners, 0},
                 {"seeds.json", &in->pooled, 0}};
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++) {
        snprintf(path, sizeof path, "%s/%s/metrics.jsonl", folder, metrics[i].name);
        TRY(report_metrics_read(metrics[i].metrics, path));
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        TRY(report_json_read(files[i].json, path, files[i].array));
    }
    TRY(read_runs(in));
    lead_seeds(in);
    return STATUS_OK;
}

bool report_input_is_empty(const report_input *in) {
    const json_t *const all[] = {in->base_summary, in->evaluation, in->codec,     in->samples, in->notes,
                                 in->reward,       in->ablation,   in->listeners, in->pooled};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] != NULL)
            return false;
    const report_run *run = in->runs[0];
    return in->is_single && !run->metrics.found && run->selected == NULL && run->config == NULL &&
           in->seed_count == 0 && !in->base_metrics.found && !in->quality_metrics.found &&
           !in->preference_metrics.found;
}

void report_input_free(report_input *in) {
    for (int i = 0; i < in->run_count; i++)
        free_run(in->runs[i]);
    for (int i = 0; i < in->seed_count; i++)
        json_decref(in->seeds[i].evaluation);
    report_metrics_free(&in->base_metrics);
    report_metrics_free(&in->quality_metrics);
    report_metrics_free(&in->preference_metrics);
    json_t *const all[] = {in->base_summary, in->evaluation, in->codec,     in->samples, in->notes,
                           in->reward,       in->ablation,   in->listeners, in->pooled};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        json_decref(all[i]);
    *in = (report_input){0};
}
