#include "launch/report_data.h"

#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const size_t file_bytes_max = (size_t)1 << 30;

status report_file_read(unsigned char **out, size_t *count, const char *path, size_t most) {
    *out = NULL;
    *count = 0;
    FILE *file;
    struct stat info;
    status result = regular_file_stream(&file, &info, path, "file");
    if (result != STATUS_OK)
        return errno == ENOENT || errno == ENOTDIR ? STATUS_OK : result;
    if ((uint64_t)info.st_size > most) {
        result = FAIL("%s has %lld bytes, at most %zu are read", path, (long long)info.st_size, most);
        goto done;
    }
    const size_t size = (size_t)info.st_size;
    TRY_GOTO(result, memory_allocate((void **)out, size + 1, "file of a run"), done);
    if (fread(*out, 1, size, file) != size) {
        result = FAIL("cannot read %s", path);
        memory_free(*out);
        *out = NULL;
        goto done;
    }
    *count = size;
done:
    fclose(file);
    return result;
}

status report_json_read(json_t **out, const char *path, int array) {
    *out = NULL;
    unsigned char *text;
    size_t length;
    TRY(report_file_read(&text, &length, path, file_bytes_max));
    if (text == NULL)
        return STATUS_OK;
    json_error_t error;
    json_t *root = json_loadb((const char *)text, length, JSON_REJECT_DUPLICATES, &error);
    memory_free(text);
    if (root == NULL)
        return FAIL("%s:%d: not valid JSON: %s", path, error.line > 0 ? error.line : 1, error.text);
    if (array ? !json_is_array(root) : !json_is_object(root)) {
        json_decref(root);
        return FAIL("%s:1: %s is wanted at the top", path, array ? "an array" : "an object");
    }
    *out = root;
    return STATUS_OK;
}

static status grow(report_series *s) {
    const size_t capacity = s->capacity == 0 ? 64 : 2 * s->capacity;
    void *step, *value;
    TRY(memory_allocate(&step, capacity * sizeof(double), "metrics of a report"));
    status result = memory_allocate(&value, capacity * sizeof(double), "metrics of a report");
    if (result != STATUS_OK) {
        memory_free(step);
        return result;
    }
    if (s->count > 0) {
        memcpy(step, s->step, s->count * sizeof(double));
        memcpy(value, s->value, s->count * sizeof(double));
    }
    memory_free(s->step);
    memory_free(s->value);
    s->step = step;
    s->value = value;
    s->capacity = capacity;
    return STATUS_OK;
}

static status add(report_metrics *m, const char *name, double step, double value) {
    int index = 0;
    while (index < m->count && strcmp(m->series[index]->name, name) != 0)
        index++;
    if (index == m->count) {
        if (m->count == REPORT_SERIES_MAX || strlen(name) >= REPORT_METRIC_NAME_MAX)
            return STATUS_OK; // none that the report shows
        TRY(memory_allocate((void **)&m->series[index], sizeof(report_series), "metrics of a report"));
        memcpy(m->series[index]->name, name, strlen(name) + 1);
        m->count++;
    }
    report_series *s = m->series[index];
    if (s->count == s->capacity)
        TRY(grow(s));
    s->step[s->count] = step;
    s->value[s->count] = value;
    s->count++;
    return STATUS_OK;
}

static status read_line(report_metrics *m, const char *path, int number, const char *line, size_t length) {
    json_error_t error;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL)
        return FAIL("%s:%d: not a line of metrics: %s; repair or remove it", path, number, error.text);
    const json_t *step = json_object_get(object, "step");
    status result = STATUS_OK;
    if (!json_is_integer(step))
        result = FAIL("%s:%d: no whole number \"step\"; repair or remove the line", path, number);
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value) {
        if (result != STATUS_OK)
            break;
        if (json_is_number(value))
            result = add(m, name, (double)json_integer_value(step), json_number_value(value));
        else if (!json_is_null(value))
            result = FAIL("%s:%d: \"%.60s\" is not a number; repair or remove the line", path, number, name);
    }
    json_decref(object);
    return result;
}

status report_metrics_read(report_metrics *m, const char *path) {
    *m = (report_metrics){0};
    unsigned char *text;
    size_t length;
    TRY(report_file_read(&text, &length, path, file_bytes_max));
    if (text == NULL)
        return STATUS_OK;
    m->found = 1;
    status result = STATUS_OK;
    const char *line = (const char *)text, *end = line + length;
    for (int number = 1; result == STATUS_OK && line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (newline == NULL)
            break;
        result = read_line(m, path, number, line, (size_t)(newline - line));
        line = newline + 1;
    }
    memory_free(text);
    if (result != STATUS_OK)
        report_metrics_free(m);
    return result;
}

void report_metrics_free(report_metrics *m) {
    for (int i = 0; i < m->count; i++) {
        memory_free(m->series[i]->step);
        memory_free(m->series[i]->value);
        memory_free(m->series[i]);
    }
    *m = (report_metrics){0};
}

const report_series *report_metrics_find(const report_metrics *m, const char *name) {
    static const report_series empty = {.name = ""};
    for (int i = 0; i < m->count; i++)
        if (strcmp(m->series[i]->name, name) == 0)
            return m->series[i];
    return &empty;
}

double report_series_last(const report_series *s) {
    return s->count == 0 ? NAN : s->value[s->count - 1];
}

double report_series_at(const report_series *s, double step, double before) {
    double value = before;
    for (size_t i = 0; i < s->count && s->step[i] <= step; i++)
        value = s->value[i];
    return value;
}

double report_series_sum(const report_series *s) {
    double sum = s->count > 0 ? 0 : NAN;
    for (size_t i = 0; i < s->count; i++)
        sum += s->value[i];
    return sum;
}

double report_series_greatest(const report_series *s) {
    double greatest = NAN;
    for (size_t i = 0; i < s->count; i++)
        greatest = fmax(greatest, s->value[i]);
    return greatest;
}

double report_metrics_last_step(const report_metrics *m) {
    double last = NAN;
    for (int i = 0; i < m->count; i++)
        if (m->series[i]->count > 0)
            last = fmax(last, m->series[i]->step[m->series[i]->count - 1]);
    return last;
}

double report_metrics_seconds(const report_metrics *m) {
    double total = 0;
    for (int i = 0; i < m->count; i++)
        if (strncmp(m->series[i]->name, "seconds/", 8) == 0 &&
            strcmp(m->series[i]->name, "seconds/write") != 0)
            total += report_series_sum(m->series[i]);
    return total;
}

size_t report_series_window(const report_series *s) {
    return s->count / 12 * 2 + 1;
}

status report_series_smooth(const report_series *s, size_t window, double **out) {
    TRY(memory_allocate((void **)out, (s->count + 1) * sizeof(double), "moving average"));
    for (size_t i = 0; i < s->count; i++) {
        const size_t first = i > window / 2 ? i - window / 2 : 0;
        const size_t end = i + window / 2 + 1 < s->count ? i + window / 2 + 1 : s->count;
        double sum = 0;
        for (size_t j = first; j < end; j++)
            sum += s->value[j];
        (*out)[i] = sum / (double)(end - first);
    }
    return STATUS_OK;
}

double report_json_number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *report_json_text(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}
