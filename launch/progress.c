#include "launch/progress.h"

#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

// Seconds between two showings.
static const double terminal_interval = 0.1, plain_interval = 5.0;

enum { LINE_BYTES_MAX = 512 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void progress_format_duration(char *buffer, size_t capacity, double seconds) {
    const long long s = seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (s < 60)
        snprintf(buffer, capacity, "%lld s", s);
    else if (s < 3600)
        snprintf(buffer, capacity, "%lld min %lld s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(buffer, capacity, "%lld h %lld min", s / 3600, s / 60 % 60);
    else
        snprintf(buffer, capacity, "%lld d %lld h", s / 86400, s / 3600 % 24);
}

void progress_format(char *buffer, size_t capacity, const char *title, const char *unit, int64_t done,
                     int64_t total, double rate, const char *detail) {
    char speed[64] = "", left[64] = "", rest[80] = "";
    if (rate >= 1)
        snprintf(speed, sizeof speed, " %.*f %ss/s", rate < 100 ? 1 : 0, rate, unit);
    else if (rate > 0)
        snprintf(speed, sizeof speed, " %.*f s/%s", rate > 0.01 ? 1 : 0, 1 / rate, unit);
    if (rate > 0 && done < total) {
        progress_format_duration(left, sizeof left, (double)(total - done) / rate);
        snprintf(rest, sizeof rest, ", %s left", left);
    }
    snprintf(buffer, capacity, "%s %lld/%lld (%.0f %%)%s%s%s%s", title, (long long)done, (long long)total,
             total > 0 ? 100.0 * (double)done / (double)total : 100.0, speed, rest,
             detail[0] == '\0' ? "" : ": ", detail);
}

static int terminal_columns(FILE *stream) {
    struct winsize size;
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col;
}

static void show(progress *p, int64_t done, const char *detail, int last) {
    const double time = now(), elapsed = time - p->started;
    p->shown = time;
    char line[LINE_BYTES_MAX];
    progress_format(line, sizeof line, p->title, p->unit, done, p->total,
                    done > p->first && elapsed > 0 ? (double)(done - p->first) / elapsed : 0, detail);
    if (last) {
        char took[64];
        progress_format_duration(took, sizeof took, elapsed);
        const size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, " (took %s)", took);
    }
    if (p->terminal) // a line that wraps could not be rewritten
        fprintf(p->stream, "\r%.*s\033[K%s", terminal_columns(p->stream) - 1, line, last ? "\n" : "");
    else
        fprintf(p->stream, "%s\n", line);
    fflush(p->stream);
}

void progress_start(progress *p, FILE *stream, const char *title, const char *unit, int64_t first,
                    int64_t total) {
    const double time = now();
    *p = (progress){.stream = stream,
                    .title = title,
                    .unit = unit,
                    .first = first,
                    .total = total,
                    .started = time,
                    .shown = time};
    if (stream == NULL)
        return;
    // mpirun puts a terminal without a size between a rank and wherever its output really goes.
    struct winsize size;
    p->terminal = isatty(fileno(stream)) && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    if (p->terminal)
        show(p, first, "", 0);
}

void progress_show(progress *p, int64_t done, const char *detail) {
    if (p->stream == NULL || (done == p->total && !p->terminal)) // progress_finish shows that line
        return;
    if (now() - p->shown >= (p->terminal ? terminal_interval : plain_interval))
        show(p, done, detail, 0);
}

void progress_finish(progress *p, int64_t done, const char *detail) {
    if (p->stream != NULL)
        show(p, done, detail, 1);
}
