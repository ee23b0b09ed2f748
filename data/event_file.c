#include "data/event_file.h"

#include "data/crc32c.h"
#include "data/event.pb-c.h"
#include "data/publish.h"
#include "kernels/memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_BYTES_MAX = 1 << 16, HEAD_BYTES = 12, TAIL_BYTES = 4 };

struct event_file {
    appender *appender;
    Musicrl__Event__Value values[EVENT_FILE_SCALARS_MAX];
    Musicrl__Event__Value *value_pointers[EVENT_FILE_SCALARS_MAX];
    uint8_t record[HEAD_BYTES + RECORD_BYTES_MAX + TAIL_BYTES];
    char path[PATH_MAX];
};

static void put_little_endian(uint8_t *out, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static double wall_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static status write_event(event_file *e, Musicrl__Event__Event *event) {
    event->wall_time = wall_time();
    const size_t length = musicrl__event__event__get_packed_size(event);
    if (length > RECORD_BYTES_MAX)
        return FAIL("%s: a record of %zu bytes, at most %d are allowed", e->path, length, RECORD_BYTES_MAX);
    uint8_t *payload = e->record + HEAD_BYTES;
    put_little_endian(e->record, length, 8);
    put_little_endian(e->record + 8, crc32c_masked(e->record, 8), 4);
    musicrl__event__event__pack(event, payload);
    put_little_endian(payload + length, crc32c_masked(payload, length), 4);
    return append_write(e->appender, e->record, HEAD_BYTES + length + TAIL_BYTES);
}

status event_file_open(event_file **out, const char *folder, int64_t resume_step) {
    *out = NULL;
    event_file *e;
    TRY(memory_allocate((void **)&e, sizeof *e, "event file"));
    char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    status result;
    if (snprintf(e->path, sizeof e->path, "%s/events.out.tfevents.%010lld.%s", folder, (long long)time(NULL),
                 host) >= (int)sizeof e->path) {
        result = FAIL("path is too long: %.60s...", folder);
        goto failed;
    }
    TRY_GOTO(result, append_open(&e->appender, e->path), failed);

    Musicrl__Event__Event version = MUSICRL__EVENT__EVENT__INIT;
    version.what_case = MUSICRL__EVENT__EVENT__WHAT_FILE_VERSION;
    version.file_version = (char *)"brain.Event:2"; // what TensorBoard's reader wants to see first
    TRY_GOTO(result, write_event(e, &version), failed);
    if (resume_step > 0) {
        Musicrl__Event__SessionLog log = MUSICRL__EVENT__SESSION_LOG__INIT;
        log.status = MUSICRL__EVENT__SESSION_LOG__STATUS__START;
        Musicrl__Event__Event start = MUSICRL__EVENT__EVENT__INIT;
        start.step = resume_step;
        start.what_case = MUSICRL__EVENT__EVENT__WHAT_SESSION_LOG;
        start.session_log = &log;
        TRY_GOTO(result, write_event(e, &start), failed);
    }
    *out = e;
    return STATUS_OK;
failed:
    append_close(e->appender);
    memory_free(e);
    return result;
}

const char *event_file_path(const event_file *e) {
    return e->path;
}

status event_file_add(event_file *e, int64_t step, const char *const *tags, const double *values, int count) {
    if (count > EVENT_FILE_SCALARS_MAX)
        return FAIL("%s: %d scalars in one step, at most %d are allowed", e->path, count,
                    EVENT_FILE_SCALARS_MAX);
    for (int i = 0; i < count; i++) {
        musicrl__event__value__init(&e->values[i]);
        e->values[i].tag = (char *)tags[i];
        e->values[i].value_case = MUSICRL__EVENT__VALUE__VALUE_SIMPLE_VALUE;
        e->values[i].simple_value = (float)values[i];
        e->value_pointers[i] = &e->values[i];
    }
    Musicrl__Event__Summary summary = MUSICRL__EVENT__SUMMARY__INIT;
    summary.n_value = (size_t)count;
    summary.value = e->value_pointers;
    Musicrl__Event__Event event = MUSICRL__EVENT__EVENT__INIT;
    event.step = step;
    event.what_case = MUSICRL__EVENT__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    return write_event(e, &event);
}

status event_file_sync(event_file *e) {
    return append_sync(e->appender);
}

status event_file_close(event_file *e) {
    if (e == NULL)
        return STATUS_OK;
    status result = append_close(e->appender);
    memory_free(e);
    return result;
}
