// Progress of a loop of known length: one line that is rewritten on a terminal, otherwise a plain line every
// few seconds and at the end.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// Plain data of the caller; needs no clean-up.
typedef struct progress {
    FILE *stream;
    const char *title; // "pretrain"
    const char *unit;  // "step", or "clip"; what is counted
    int64_t first, total;
    int terminal;
    double started, shown; // seconds of the monotonic clock
} progress;

// `first` units of `total` were done before this process; they do not count for the rate. stream == NULL
// shows nothing. title and unit are borrowed.
void progress_start(progress *progress, FILE *stream, const char *title, const char *unit, int64_t first,
                    int64_t total);

// `done` of `total` units are done; `detail` ("reward 0.43 kl 2.1") is shown behind the rate, may be "".
void progress_show(progress *progress, int64_t done, const char *detail);

// Shows the end and starts a new line.
void progress_finish(progress *progress, int64_t done, const char *detail);

// "pretrain 120/600 (20 %) 4.2 steps/s, 1 min 54 s left: detail" into `buffer` [capacity]. `rate` in units a
// second; <= 0 where it is not known yet.
void progress_format(char *buffer, size_t capacity, const char *title, const char *unit, int64_t done,
                     int64_t total, double rate, const char *detail);

// "8 s", "1 min 54 s", "2 h 5 min", "3 d 4 h" into `buffer` [capacity].
void progress_format_duration(char *buffer, size_t capacity, double seconds);
