// Outcome of a call. Libraries return a status and record one line that says what happened; only cmd/ prints
// and exits.
#pragma once

// The values are the exit statuses of the program.
typedef enum status {
    STATUS_OK = 0,
    STATUS_FAILED = 1,   // the work could not be done
    STATUS_USAGE = 2,    // the caller asked for something that makes no sense
    STATUS_STOPPED = 75, // stopped on request, a checkpoint was written; run again to continue
} status;

// Records the message of a failure for the calling thread and returns `code`. A good line names what, where,
// the value found, the value wanted and the mend. Control characters become '?', so that it is one line.
// Never called on a clean-up path: the first failure wins.
status status_set(status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Puts a prefix ("while reading shard 3: ") before the recorded message; returns `code`.
status status_prefix(status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

// The calling thread's last recorded message; "" if there is none. Valid until the next status_set.
const char *status_message(void);

#define FAIL(...) status_set(STATUS_FAILED, __VA_ARGS__)
#define FAIL_USAGE(...) status_set(STATUS_USAGE, __VA_ARGS__)

// Returns from the calling function if `expression` failed.
#define TRY(expression)                                                                                      \
    do {                                                                                                     \
        status try_status_ = (expression);                                                                   \
        if (try_status_ != STATUS_OK)                                                                        \
            return try_status_;                                                                              \
    } while (0)

// Stores the outcome in `result` and jumps to `label` if `expression` failed.
#define TRY_GOTO(result, expression, label)                                                                  \
    do {                                                                                                     \
        (result) = (expression);                                                                             \
        if ((result) != STATUS_OK)                                                                           \
            goto label;                                                                                      \
    } while (0)
