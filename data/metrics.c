#include "data/metrics.h"

#include "data/number_text.h"
#include "data/publish.h"
#include "data/regular_file.h"
#include "kernels/memory.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES_MAX = 1 << 16, NAME_BYTES_MAX = 64, NOTE_BYTES_MAX = PATH_MAX + 192 };

struct metrics {
    appender *appender;
    event_file *events;
    int64_t step;
    int count;
    status outcome; // first failure of the step under construction
    char names[EVENT_FILE_SCALARS_MAX][NAME_BYTES_MAX];
    const char *name_pointers[EVENT_FILE_SCALARS_MAX];
    double values[EVENT_FILE_SCALARS_MAX];
    char line[LINE_BYTES_MAX];
    char path[PATH_MAX];
    char note[NOTE_BYTES_MAX];
};

// The step of one line [length] without its newline.
static status line_step(const char *path, int number, const char *line, size_t length, int64_t *step) {
    json_error_t error;
    json_t *object = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    const json_t *value = json_object_get(object, "step");
    const int found = json_is_integer(value);
    *step = found ? json_integer_value(value) : 0;
    const int parsed = object != NULL;
    json_decref(object);
    if (!parsed)
        return FAIL("%s:%d: not a line of metrics: %s; repair the line or move the file away", path, number,
                    error.text);
    if (!found)
        return FAIL("%s:%d: no whole number \"step\"; repair the line or move the file away", path, number);
    return STATUS_OK;
}

// What precedes `resume_step`, in place; text has room for a newline more. Only the last line may be torn, by
// a machine that stopped or a copy that did, and `note` tells of it.
static status keep_before(const char *path, char *text, size_t *length, int64_t resume_step,
                          char note[NOTE_BYTES_MAX]) {
    size_t kept = 0, start = 0;
    int64_t step = 0, newest = -1;
    for (int number = 1; start < *length; number++) {
        const char *newline = memchr(text + start, '\n', *length - start);
        const size_t bytes = newline != NULL ? (size_t)(newline - (text + start)) : *length - start;
        const status result = line_step(path, number, text + start, bytes, &step);
        if (result != STATUS_OK && newline != NULL)
            return result;
        if (result != STATUS_OK) {
            char last[64] = "it has no whole line";
            if (newest >= 0)
                snprintf(last, sizeof last, "its last whole line is that of step %lld", (long long)newest);
            snprintf(note, NOTE_BYTES_MAX,
                     "%s: half a line at its end is dropped; %s, the run goes on with step %lld", path, last,
                     (long long)resume_step);
            break;
        }
        newest = step;
        if (step < resume_step) {
            memmove(text + kept, text + start, bytes);
            text[kept + bytes] = '\n';
            kept += bytes + 1;
        }
        start += bytes + 1;
    }
    *length = kept;
    return STATUS_OK;
}

static status trim(const char *path, int64_t resume_step, char note[NOTE_BYTES_MAX]) {
    FILE *file;
    struct stat info;
    status result = regular_file_stream(&file, &info, path, "file of metrics");
    if (result != STATUS_OK)
        return errno == ENOENT ? STATUS_OK : result;
    char *text = NULL;
    size_t length = (size_t)info.st_size;
    TRY_GOTO(result, memory_allocate((void **)&text, length + 1, "metrics"), done);
    if (fread(text, 1, length, file) != length) {
        result = FAIL("cannot read %s", path);
        goto done;
    }
    size_t kept = length;
    if (resume_step <= 0)
        kept = 0; // a fresh start does not care what the lines say
    else
        TRY_GOTO(result, keep_before(path, text, &kept, resume_step, note), done);
    if (kept != length)
        result = publish_file(path, text, kept);
done:
    memory_free(text);
    fclose(file);
    return result;
}

status metrics_open(metrics **out, const char *path, int64_t resume_step, event_file *events) {
    *out = NULL;
    metrics *m;
    TRY(memory_allocate((void **)&m, sizeof *m, "metrics"));
    m->events = events;
    for (int i = 0; i < EVENT_FILE_SCALARS_MAX; i++)
        m->name_pointers[i] = m->names[i];
    snprintf(m->path, sizeof m->path, "%s", path);
    status result = trim(path, resume_step, m->note);
    if (result == STATUS_OK)
        result = append_open(&m->appender, path);
    if (result != STATUS_OK) {
        memory_free(m);
        return result;
    }
    *out = m;
    return STATUS_OK;
}

const char *metrics_note(const metrics *m) {
    return m->note;
}

void metrics_begin(metrics *m, int64_t step) {
    m->step = step;
    m->count = 0;
    m->outcome = STATUS_OK;
}

void metrics_add(metrics *m, const char *name, double value) {
    if (m->outcome != STATUS_OK)
        return;
    const size_t length = strlen(name);
    int needs_escape = 0;
    for (size_t i = 0; i < length; i++)
        needs_escape |= (unsigned char)name[i] < 0x20 || name[i] == '"' || name[i] == '\\';
    if (length == 0 || length >= NAME_BYTES_MAX || needs_escape || strcmp(name, "step") == 0) {
        m->outcome = FAIL("%s: '%.80s' cannot be the name of a metric", m->path, name);
        return;
    }
    if (m->count == EVENT_FILE_SCALARS_MAX) {
        m->outcome = FAIL("%s: more than %d metrics in a step", m->path, EVENT_FILE_SCALARS_MAX);
        return;
    }
    for (int i = 0; i < m->count; i++)
        if (strcmp(m->names[i], name) == 0) {
            m->outcome =
                FAIL("%s: the metric '%s' is added twice in step %lld", m->path, name, (long long)m->step);
            return;
        }
    memcpy(m->names[m->count], name, length + 1);
    m->values[m->count] = value;
    m->count++;
}

status metrics_end(metrics *m) {
    TRY(m->outcome);
    // The longest line fits: 256 names of 64 bytes, numbers of 32.
    _Static_assert(EVENT_FILE_SCALARS_MAX * (NAME_BYTES_MAX + NUMBER_TEXT_MAX + 6) + 64 <= LINE_BYTES_MAX,
                   "a line of metrics holds every metric");
    size_t used = (size_t)snprintf(m->line, sizeof m->line, "{\"step\": %lld", (long long)m->step);
    for (int i = 0; i < m->count; i++) {
        char number[NUMBER_TEXT_MAX] = "null";
        if (isfinite(m->values[i]))
            number_text_format(number, m->values[i]);
        used += (size_t)snprintf(m->line + used, sizeof m->line - used, ", \"%s\": %s", m->names[i], number);
    }
    m->line[used++] = '}';
    m->line[used++] = '\n';
    TRY(append_write(m->appender, m->line, used));
    if (m->events != NULL)
        TRY(event_file_add(m->events, m->step, m->name_pointers, m->values, m->count));
    return STATUS_OK;
}

status metrics_sync(metrics *m) {
    TRY(append_sync(m->appender));
    return m->events == NULL ? STATUS_OK : event_file_sync(m->events);
}

status metrics_close(metrics *m) {
    if (m == NULL)
        return STATUS_OK;
    status result = append_close(m->appender);
    memory_free(m);
    return result;
}
