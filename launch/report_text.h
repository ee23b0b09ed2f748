// Text under construction that grows as needed. The first failure sticks and is told by report_text_outcome,
// so that a page can be written without a check at every line.
#pragma once

#include "kernels/status.h"

#include <stddef.h>

typedef struct report_text {
    char *bytes; // [capacity], `used` of them written; not terminated
    size_t used, capacity;
    status outcome;
} report_text;

void report_text_put(report_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Foreign text, safe between tags and in quoted attributes; invalid UTF-8 is replaced.
void report_text_put_escaped(report_text *text, const char *foreign);

// bytes [count] in base64 (RFC 4648).
void report_text_put_base64(report_text *text, const void *bytes, size_t count);

// A number for a reader: about four significant digits, true minus sign; "-" for NaN.
void report_text_put_number(report_text *text, double value);

void report_text_free(report_text *text);
