#include "launch/report_text.h"

#include "kernels/memory.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { FIRST_CAPACITY = 1 << 16 };

static int reserve(report_text *t, size_t more) {
    if (t->outcome != STATUS_OK)
        return 0;
    if (t->used + more <= t->capacity)
        return 1;
    size_t capacity = t->capacity == 0 ? FIRST_CAPACITY : t->capacity;
    while (capacity < t->used + more)
        capacity *= 2;
    void *bytes;
    t->outcome = memory_allocate(&bytes, capacity, "report");
    if (t->outcome != STATUS_OK)
        return 0;
    if (t->used > 0)
        memcpy(bytes, t->bytes, t->used);
    memory_free(t->bytes);
    t->bytes = bytes;
    t->capacity = capacity;
    return 1;
}

static void put_bytes(report_text *t, const char *bytes, size_t count) {
    if (!reserve(t, count))
        return;
    memcpy(t->bytes + t->used, bytes, count);
    t->used += count;
}

void report_text_put(report_text *t, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length >= 0 && reserve(t, (size_t)length + 1)) {
        vsnprintf(t->bytes + t->used, (size_t)length + 1, format, again);
        t->used += (size_t)length;
    }
    va_end(again);
}

// Bytes of the well-formed UTF-8 character at `c` (RFC 3629); 0 if there is none.
static size_t character_length(const unsigned char *c) {
    size_t length;
    uint32_t value, smallest;
    if (c[0] < 0x80)
        return 1;
    if (c[0] >= 0xc0 && c[0] < 0xe0)
        length = 2, value = c[0] & 0x1f, smallest = 0x80;
    else if (c[0] >= 0xe0 && c[0] < 0xf0)
        length = 3, value = c[0] & 0x0f, smallest = 0x800;
    else if (c[0] >= 0xf0 && c[0] < 0xf8)
        length = 4, value = c[0] & 0x07, smallest = 0x10000;
    else
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (c[i] & 0x3f);
    }
    return value >= smallest && value <= 0x10ffff && (value < 0xd800 || value > 0xdfff) ? length : 0;
}

void report_text_put_escaped(report_text *t, const char *foreign) {
    for (const char *c = foreign; *c != '\0';) {
        const size_t length = character_length((const unsigned char *)c);
        if (*c == '&')
            report_text_put(t, "&amp;");
        else if (*c == '<')
            report_text_put(t, "&lt;");
        else if (*c == '>')
            report_text_put(t, "&gt;");
        else if (*c == '"')
            report_text_put(t, "&quot;");
        else if (*c == '\'')
            report_text_put(t, "&#39;");
        else if (length == 0 || ((unsigned char)*c < 0x20 && *c != '\n' && *c != '\t'))
            report_text_put(t, "&#xfffd;");
        else
            put_bytes(t, c, length);
        c += length == 0 ? 1 : length;
    }
}

void report_text_put_base64(report_text *t, const void *bytes, size_t count) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = bytes;
    if (!reserve(t, (count + 2) / 3 * 4))
        return;
    char *out = t->bytes + t->used;
    for (size_t i = 0; i < count; i += 3) {
        const size_t left = count - i;
        const uint32_t group = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)in[i + 2] : 0);
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    t->used = (size_t)(out - t->bytes);
}

void report_text_put_number(report_text *t, double value) {
    if (isnan(value)) {
        report_text_put(t, "&ndash;");
        return;
    }
    const char *sign = value < 0 ? "&minus;" : "";
    const double size = fabs(value);
    if (isinf(value))
        report_text_put(t, "%s&infin;", sign);
    else if (size == floor(size) && size < 1e7)
        report_text_put(t, "%s%.0f", sign, size);
    else if (size >= 1e-5 && size < 1e-3)
        report_text_put(t, "%s%.5f", sign, size);
    else if (size >= 1e7 || size < 1e-3)
        report_text_put(t, "%s%.2e", sign, size);
    else
        report_text_put(t, "%s%.*f", sign, size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3, size);
}

void report_text_free(report_text *t) {
    memory_free(t->bytes);
    *t = (report_text){0};
}
